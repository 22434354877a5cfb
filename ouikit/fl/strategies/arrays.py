"""What Flower's messages hold, written and read as Flower does, without asking the same things again.

A Flower `Array` holds a .npy file: 128 bytes that say type and shape, and the values. numpy takes ten times
as long over the text of the header as over the values of a small layer; a federation sends the same few
headers in every message, so they are made once and read once. A record asks whether each value has the right
type, which takes ten times as long as to store it; what is made here needs no such question.
"""

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from ouikit.fl.flower import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

Held = TypeVar("Held", ArrayRecord, ConfigRecord, MetricRecord)
Filled = TypeVar("Filled", bound=ArrayRecord | ConfigRecord | MetricRecord | RecordDict)
Arrays = dict[str, NDArray[Any]]
_VERSION_1 = npy.magic(1, 0)
_LENGTH = slice(len(_VERSION_1), len(_VERSION_1) + 2)


def record_of(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """A record with the bytes of Flower's own `Array(array)` for each."""
    return filled(ArrayRecord(), {name: _encoded(array) for name, array in arrays.items()})


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


def records_of(content: RecordDict, kind: type[Held]) -> dict[str, Held]:
    """A message's records of one kind, by name."""
    return {name: record for name, record in content.items() if isinstance(record, kind)}


def filled(record: Filled, values: Mapping[str, Any]) -> Filled:
    """The record with more values, which are known to be of the type that it holds."""
    vars(record)["_data"].update(values)
    return record


def copied(array: Array) -> Array:
    """The same bytes, which nobody can change, in an array whose attributes can be."""
    own = Array.__new__(Array)
    vars(own).update(vars(array))
    return own


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
