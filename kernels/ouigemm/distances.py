"""Hamming distances of packed binary rows."""

import sys
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ouigemm import _core
from ouigemm.ladder import rung_number, thread_count
from ouigemm.operands import array_of, describe, is_tensor

if TYPE_CHECKING:
    from torch import Tensor


@overload
def hamming(bits: "Tensor", isa: str = "auto", threads: int | None = None) -> "Tensor": ...


@overload
def hamming(bits: np.ndarray, isa: str = "auto", threads: int | None = None) -> np.ndarray: ...


def hamming(bits: Any, isa: str = "auto", threads: int | None = None) -> Any:
    """Number of bits in which two rows differ, for all pairs of rows: int64 `[rows, rows]`.

    bits: `[rows, n]`, either bool, or packed, as uint8 (`numpy.packbits(x, axis=1)`) or uint64 words;
    an array, or a CPU tensor, which gives a tensor. Bits that pad a row must be the same in every row.

    Raises TypeError for other types, ValueError for another number of dimensions.

    >>> hamming(np.array([[True, True], [True, False], [False, False]])).tolist()
    [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    """
    array = array_of(bits, "bits")[0]
    if array.dtype not in (np.bool_, np.uint8, np.uint64):
        raise TypeError(f"bits must be bool, or packed as uint8 or uint64, not {describe(bits)}")
    if array.ndim != 2:
        raise ValueError(f"bits must be [rows, n], not {array.dtype} of shape {array.shape}")
    words = _words(array)
    distances = np.zeros((len(words), len(words)), np.int64)
    if words.size:
        _core.hamming(words, distances, rung_number(isa), thread_count(threads))
    return sys.modules["torch"].from_numpy(distances) if is_tensor(bits) else distances


def _words(array: np.ndarray) -> np.ndarray:
    """Rows of 64-bit words, with zeros behind the last bit."""
    if array.dtype == np.uint64:
        return np.ascontiguousarray(array, np.uint64)
    packed = np.packbits(array, axis=1) if array.dtype == np.bool_ else array
    padded = np.zeros((packed.shape[0], -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)
