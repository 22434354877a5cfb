"""Matrices from outside, seen as strided numpy arrays without a copy."""

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

ELEMENTS = {"float32": "f32", "bfloat16": "bf16", "int16": "s16", "int32": "s32", "uint8": "u8", "int8": "s8"}
# By the type itself, because to make its name takes as long as a small product.
_NATIVE = {np.dtype(name): element for name, element in ELEMENTS.items() if name != "bfloat16"}


@dataclass(frozen=True)
class BFloat16:
    """A matrix of bf16 numbers, given as the uint16 array of their bits.

    Numpy has no bf16 of its own. Torch tensors and arrays of `ml_dtypes.bfloat16` need no wrapping.
    """

    bits: np.ndarray

    def __post_init__(self) -> None:
        if not isinstance(self.bits, np.ndarray) or self.bits.dtype != np.uint16:
            raise TypeError(f"BFloat16 takes a uint16 array, not {describe(self.bits)}")


class Operand(NamedTuple):
    """One matrix: its numbers (bf16 as uint16 bits), what they are, and whether torch owns them."""

    array: np.ndarray
    element: str
    from_torch: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.array.shape

    def __str__(self) -> str:
        return f"{self.element} {self.shape}"


def operand(x: Any, name: str) -> Operand:
    """`x` as an operand. TypeError for anything but a matrix of these types, ValueError for a wrong shape or
    place, or a tensor that requires grad."""
    plain = _plain(x)
    if plain is not None:
        return Operand(plain, _NATIVE[plain.dtype], plain is not x)
    array, dtype, from_torch = _array(x, name)
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix, not of shape {array.shape}")
    if dtype not in ELEMENTS or not array.dtype.isnative:
        raise TypeError(f"{name} is {dtype} {array.shape}; the types are {', '.join(ELEMENTS)}")
    if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        raise ValueError(f"{name}, {dtype} {array.shape}, does not lie on whole elements: copy it first")
    return Operand(array, ELEMENTS[dtype], from_torch)


def destination(out: Any, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """`out` as an array to be written: of this shape and type, and apart from itself."""
    plain = _plain(out)
    if plain is not None and plain.dtype == dtype and plain.shape == shape and plain.flags.writeable:
        return plain
    array, found, _ = _array(out, "out")
    if found != dtype.name or not array.dtype.isnative:
        raise TypeError(f"out must be {dtype.name} {shape}, not {found} {array.shape}")
    if array.shape != shape:
        raise ValueError(f"out must be {dtype.name} {shape}, not {found} {array.shape}")
    if not array.flags.writeable:
        raise ValueError(f"out, {found} {shape}, is read-only")
    if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        raise ValueError(f"out, {found} {shape}, does not lie on whole elements")
    if _repeats_itself(array):
        raise ValueError(f"out, {found} {shape} with strides {array.strides}, overlaps itself")
    return array


def _plain(x: Any) -> np.ndarray | None:
    """The array of the most frequent arguments, found in a microsecond; None for all others.

    Those are contiguous matrices of a native type: NumPy's, or a CPU tensor's without a gradient.
    """
    if type(x) is not np.ndarray:
        if not is_tensor(x) or x.dtype not in _torch_natives():
            return None
        try:
            x = x.numpy()
        except (TypeError, RuntimeError):  # of a GPU, sparse, quantised, with a gradient, …
            return None
    flags = x.flags
    return x if x.ndim == 2 and x.dtype in _NATIVE and flags.c_contiguous and flags.aligned else None


@cache
def _torch_natives() -> frozenset[Any]:
    torch = sys.modules["torch"]
    return frozenset(getattr(torch, dtype.name) for dtype in _NATIVE)


def describe(x: Any) -> str:
    """Type and shape of anything, for messages."""
    kind = f"{x.dtype} " if hasattr(x, "dtype") else ""
    shape = f" of shape {tuple(x.shape)}" if hasattr(x, "shape") else ""
    return f"{kind}{type(x).__name__}{shape}"


def refuse_gradient(x: Any, name: str) -> None:
    """ValueError for a tensor that requires grad: no gradient passes through this package."""
    if x.requires_grad:
        raise ValueError(
            f"{name} requires grad, and ouigemm computes no gradient: pass {name}.detach() if none is needed"
        )


def is_tensor(x: Any) -> bool:
    """Whether `x` is a torch tensor, without an import of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _array(x: Any, name: str) -> tuple[np.ndarray, str, bool]:
    """The array, the name of its type, and whether torch owns it."""
    if isinstance(x, BFloat16):
        return x.bits, "bfloat16", False
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, {describe(x)}: fill it first")
    if isinstance(x, np.ndarray):
        return (
            (x.view(np.uint16), "bfloat16", False) if x.dtype.name == "bfloat16" else (x, x.dtype.name, False)
        )
    if is_tensor(x):
        return _array_of_tensor(x, name)
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        array = np.from_dlpack(x)
        return array, array.dtype.name, False
    raise TypeError(f"{name} must be a numpy array or a CPU tensor, not {describe(x)}")


def _array_of_tensor(x: Any, name: str) -> tuple[np.ndarray, str, bool]:
    torch = sys.modules["torch"]
    refuse_gradient(x, name)
    if x.device.type != "cpu":
        raise ValueError(f"{name} is on {x.device}; ouigemm works on the CPU only")
    if x.layout != torch.strided or x.is_quantized:
        raise TypeError(f"{name} must be a dense tensor of plain numbers, not {x.layout} {x.dtype}")
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(np.uint16), "bfloat16", True
    try:
        array = x.numpy()
    except TypeError as error:
        raise TypeError(
            f"{name} is {x.dtype} {tuple(x.shape)}; the types are {', '.join(ELEMENTS)}"
        ) from error
    return array, array.dtype.name, True


def _repeats_itself(array: np.ndarray) -> bool:
    """Whether two elements of a matrix may share memory: rows must lie apart, or columns must."""
    (rows, columns), (row, column) = array.shape, (abs(stride) for stride in array.strides)
    size = array.itemsize
    if array.size == 0:
        return False
    apart = (columns == 1 or column >= size) and (rows == 1 or row >= (columns - 1) * column + size)
    transposed_apart = (rows == 1 or row >= size) and (columns == 1 or column >= (rows - 1) * row + size)
    return not (apart or transposed_apart)
