"""Matrices from outside, seen as strided numpy arrays without a copy."""

import math
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
    """A matrix of bf16 numbers, or windows of them, given as the uint16 array of their bits.

    Numpy has no bf16 of its own. Torch tensors and arrays of `ml_dtypes.bfloat16` need no wrapping.
    """

    bits: np.ndarray

    def __post_init__(self) -> None:
        if not isinstance(self.bits, np.ndarray) or self.bits.dtype != np.uint16:
            raise TypeError(f"BFloat16 takes a uint16 array, not {describe(self.bits)}")


class Operand(NamedTuple):
    """One matrix: its numbers (bf16 as uint16 bits), what they are, and whether torch owns them.

    Of windows the first three axes are its rows, and the other three its columns.
    """

    array: np.ndarray
    element: str
    from_torch: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        sides = self.array.shape
        return sides if len(sides) == 2 else (math.prod(sides[:3]), math.prod(sides[3:]))

    def __str__(self) -> str:
        return f"{self.element} {self.array.shape}"


def operand(x: Any, name: str, windows: bool = False) -> Operand:
    """`x` as an operand: a matrix, or of six axes, where `windows` are allowed.

    TypeError for anything but these types, ValueError for a wrong shape or place.
    """
    plain = _plain(x)
    if plain is not None:
        return Operand(plain, _NATIVE[plain.dtype], plain is not x)
    array, dtype, from_torch = array_of(x, name)
    if array.ndim != 2 and not (windows and array.ndim == 6):
        also = " or windows of six axes" if windows else ""
        raise ValueError(f"{name} must be a matrix{also}, not of shape {array.shape}")
    if dtype not in ELEMENTS:
        raise TypeError(f"{name} is {dtype} {array.shape}; the types are {', '.join(ELEMENTS)}")
    if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        raise ValueError(f"{name}, {dtype} {array.shape}, does not lie on whole elements: copy it first")
    if array.ndim == 6 and array.size and array.shape[5] > 1 and array.strides[5] != array.itemsize:
        raise ValueError(
            f"{name}, windows {array.shape}, must have their channels side by side, not "
            f"{array.strides[5]} bytes apart"
        )
    return Operand(array, ELEMENTS[dtype], from_torch)


def destination(out: Any, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """`out` as an array to be written: of this shape and type, and apart from itself."""
    plain = _plain(out)
    if plain is not None and plain.dtype == dtype and plain.shape == shape and plain.flags.writeable:
        return plain
    array, found, _ = array_of(out, "out")
    if found != dtype.name:
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
    """The array of the most frequent arguments, found in two microseconds; None for all others.

    Those are contiguous matrices of a native type: NumPy's, or a CPU tensor's without a gradient.
    """
    if type(x) is not np.ndarray:
        if not is_tensor(x) or x.dtype not in _torch_natives() or _has_tangent(x):
            return None
        try:
            x = x.numpy()
        except (TypeError, RuntimeError, ValueError):  # of a GPU, sparse, quantised, with a gradient, …
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


def is_tensor(x: Any) -> bool:
    """Whether `x` is a torch tensor, without an import of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def array_of(x: Any, name: str) -> tuple[np.ndarray, str, bool]:
    """The numbers of `x` where they lie, the name of their type, and whether torch owns them.

    Raises TypeError for what means more than its numbers say (a mask, a unit, a gradient) or is of another
    byte order, ValueError for a tensor elsewhere.
    """
    if isinstance(x, BFloat16):
        return array_of(x.bits, name)[0], "bfloat16", False
    if is_tensor(x):
        return _array_of_tensor(x, name)
    if not isinstance(x, np.ndarray):
        if not hasattr(x, "__dlpack__") or not hasattr(x, "__dlpack_device__"):
            raise TypeError(f"{name} must be a numpy array or a CPU tensor, not {describe(x)}")
        x = np.from_dlpack(x)
    refuse_meaning(x, name)
    if not x.dtype.isnative:
        order = "big-endian" if sys.byteorder == "little" else "little-endian"
        raise TypeError(
            f"{name}, {x.dtype} {x.shape}, is {order}, and this CPU is not: "
            f"pass {name}.astype({name}.dtype.newbyteorder('='))"
        )
    return (x.view(np.uint16), "bfloat16", False) if x.dtype.name == "bfloat16" else (x, x.dtype.name, False)


def refuse_meaning(x: Any, name: str) -> None:
    """TypeError for an array or a tensor that means more than its numbers; ValueError for one elsewhere."""
    if is_tensor(x):
        _refuse_state(x, name)
    elif isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, {describe(x)}: fill it first")
    elif isinstance(x, np.ndarray) and type(x).__array_ufunc__ is not np.ndarray.__array_ufunc__:
        raise TypeError(f"{name}, {describe(x)}, has arithmetic of its own: pass {name}.view(numpy.ndarray)")


def _refuse_state(x: Any, name: str) -> None:
    torch = sys.modules["torch"]
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        raise TypeError(f"{name} is inside a transform of functorch (torch.func): call ouigemm outside of it")
    if type(x).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        raise TypeError(f"{name} must be a plain tensor, not a {type(x).__name__}")
    if x.requires_grad and torch.is_grad_enabled():
        raise TypeError(
            f"{name} requires grad, and ouigemm computes no gradient: pass {name}.detach() if none is needed"
        )
    if _has_tangent(x):
        raise TypeError(
            f"{name} has a tangent of forward-mode AD, and ouigemm computes none: take its primal"
        )
    if x.device.type != "cpu":
        raise ValueError(f"{name} is on {x.device}; ouigemm works on the CPU only")
    if x.layout != torch.strided or x.is_quantized or x.is_nested:
        kind = "nested" if x.is_nested else f"{x.layout} {x.dtype}"
        raise TypeError(f"{name} must be a dense tensor of plain numbers, not {kind}")
    if x.is_neg():
        raise TypeError(f"{name} has its negative bit set: pass {name}.resolve_neg()")


def _array_of_tensor(x: Any, name: str) -> tuple[np.ndarray, str, bool]:
    torch = sys.modules["torch"]
    _refuse_state(x, name)
    x = x.detach()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(np.uint16), "bfloat16", True
    try:
        array = x.numpy()
    except TypeError as error:
        raise TypeError(
            f"{name} is {x.dtype} {tuple(x.shape)}; the types are {', '.join(ELEMENTS)}"
        ) from error
    except RuntimeError as error:
        raise TypeError(f"{name} cannot be read where it lies: {error}") from error
    return array, array.dtype.name, True


def _has_tangent(x: Any) -> bool:
    """Whether a tensor carries a derivative of forward-mode AD, which `numpy()` drops in silence."""
    return sys.modules["torch"].autograd.forward_ad.unpack_dual(x).tangent is not None


def _repeats_itself(array: np.ndarray) -> bool:
    """Whether two elements of a matrix may share memory: rows must lie apart, or columns must."""
    (rows, columns), (row, column) = array.shape, (abs(stride) for stride in array.strides)
    size = array.itemsize
    if array.size == 0:
        return False
    apart = (columns == 1 or column >= size) and (rows == 1 or row >= (columns - 1) * column + size)
    transposed_apart = (rows == 1 or row >= size) and (columns == 1 or column >= (rows - 1) * row + size)
    return not (apart or transposed_apart)
