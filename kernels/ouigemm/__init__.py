"""Matrix products of small types on CPUs, one micro-kernel per instruction set.

>>> import numpy as np, ouigemm
>>> a, b = np.ones((2, 3), np.uint8), np.full((3, 4), -1, np.int8)
>>> ouigemm.gemm(a, b).tolist()
[[-3, -3, -3, -3], [-3, -3, -3, -3]]
"""

from ouigemm.distances import hamming
from ouigemm.epilogues import Requantised, Scaled
from ouigemm.ladder import adds_pairs, block_sizes, capabilities, kernel_name, peak
from ouigemm.operands import BFloat16
from ouigemm.products import Weights, gemm, pack

__all__ = [
    "BFloat16",
    "Requantised",
    "Scaled",
    "Weights",
    "adds_pairs",
    "block_sizes",
    "capabilities",
    "gemm",
    "hamming",
    "kernel_name",
    "pack",
    "peak",
]
