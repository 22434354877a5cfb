"""Arrays in Flower's messages, written and read as Flower does, without parsing the same headers again.

A Flower `Array` holds a .npy file: 128 bytes that say type and shape, and the values. numpy takes ten times
as long over the text of the header as over the values of a small layer; a federation sends the same few
headers in every message, so they are made once and read once.
"""

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from ouikit.fl.flower import Array, ArrayRecord

Arrays = dict[str, NDArray[Any]]
_VERSION_1 = npy.magic(1, 0)
_LENGTH = slice(len(_VERSION_1), len(_VERSION_1) + 2)


def record_of(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """A record with the bytes of Flower's own `Array(array)` for each."""
    return ArrayRecord({name: _encoded(array) for name, array in arrays.items()})


def record_of_state(state: Mapping[str, Tensor]) -> ArrayRecord:
    """The same of a state dict on the CPU."""
    return record_of({name: tensor.detach().numpy() for name, tensor in state.items()})


def arrays_of(record: ArrayRecord) -> Arrays:
    """The record's arrays, in the memory of the message, which cannot be written to.

    Raises as `Array.numpy` for what is no such file.
    """
    return {name: _decoded(array) for name, array in record.items()}


def state_of(record: ArrayRecord) -> dict[str, Tensor]:
    """The record's arrays as a state dict of its own."""
    return {name: torch.from_numpy(array.copy()) for name, array in arrays_of(record).items()}


def _encoded(array: NDArray[Any]) -> Array:
    name, header = _header(array.dtype, array.shape)
    data = b"".join((header, np.ascontiguousarray(array).data))
    made = Array.__new__(Array)  # whose constructor takes longer than all this to tell its arguments apart
    vars(made).update(dtype=name, shape=array.shape, stype="numpy.ndarray", data=data)
    return made


def _decoded(array: Array) -> NDArray[Any]:
    data = array.data
    if array.stype == "numpy.ndarray" and data[: _LENGTH.start] == _VERSION_1:
        start = _LENGTH.stop + int.from_bytes(data[_LENGTH], "little")
        shape, dtype, count = _form(data[:start])
        if not dtype.hasobject and len(data) == start + count * dtype.itemsize:
            return np.frombuffer(data, dtype, count, start).reshape(shape)
    return array.numpy()


@lru_cache(maxsize=1024)
def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[str, bytes]:
    """The name of the type, and the header."""
    file = BytesIO()
    npy.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return str(dtype), file.getvalue()


@lru_cache(maxsize=1024)
def _form(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and number of values; of values in Fortran's order −1 of them, as Flower may read those."""
    file = BytesIO(header[_LENGTH.start :])
    shape, fortran, dtype = npy.read_array_header_1_0(file)
    return shape, dtype, -1 if fortran else int(np.prod(shape, dtype=np.int64))
