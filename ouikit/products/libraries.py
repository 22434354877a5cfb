"""The f32 product by other people's libraries: the baseline of chapters and benchmarks."""

from collections.abc import Callable

import numpy as np
import torch


def f32_libraries(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> dict[str, Callable[[], object]]:
    """A·B into `out`, float32 all three, by what NumPy and torch bring: OpenBLAS, and MKL on x86.

    How many threads they take is the caller's; the laboratory gives a cell one.

    >>> a, b, out = np.ones((2, 3), np.float32), np.ones((3, 1), np.float32), np.empty((2, 1), np.float32)
    >>> for product in f32_libraries(a, b, out).values():
    ...     out[...] = 0
    ...     _ = product()
    ...     print(out.ravel().tolist())
    [3.0, 3.0]
    [3.0, 3.0]
    """
    left, right, result = map(torch.from_numpy, (a, b, out))
    return {
        "OpenBLAS": lambda: np.matmul(a, b, out=out),
        "MKL" if torch.backends.mkl.is_available() else "torch": lambda: torch.mm(left, right, out=result),
    }
