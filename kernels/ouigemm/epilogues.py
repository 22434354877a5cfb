"""Epilogues: what is done to the sums T = A·B of a product before they are written to memory.

Without an epilogue the result is C = alpha·T + beta·C, in s32 for integers and in f32 for floats. The
arithmetic of an epilogue is in f32 with a rounding after each step, the same on every rung.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ouigemm.operands import describe, is_tensor, refuse_meaning

FLOAT32, INT8, UINT8 = np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.uint8)


@dataclass(frozen=True, eq=False)
class Scaled:
    """C = act(alpha·scale·T + bias + beta·C) in f32; act is ReLU or nothing.

    scale: one number, or one per column. bias: one number per column.
    """

    scale: Any = 1.0
    bias: Any = None
    relu: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _floats(self.scale, "scale", scalar=True))
        object.__setattr__(self, "bias", None if self.bias is None else _floats(self.bias, "bias"))
        if not isinstance(self.relu, bool | np.bool_):
            raise TypeError(f"relu must be True or False, not {self.relu!r}")


@dataclass(frozen=True, eq=False)
class Requantised(Scaled):
    """C = clamp(round(act(alpha·scale·T + bias + beta·(C − zero_point))) + zero_point) in int8 or uint8.

    Rounds to the nearest, ties to the even one; a NaN gives the lowest number. With beta the result is added
    to what C holds, as a residual block adds to its input: beta is a step of the old C over one of the new.
    """

    dtype: Any = INT8
    zero_point: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            dtype = np.dtype(self.dtype)
        except TypeError as error:
            raise TypeError(f"dtype must be int8 or uint8, not {self.dtype!r}") from error
        if dtype not in (INT8, UINT8):
            raise TypeError(f"dtype must be int8 or uint8, not {dtype}")
        object.__setattr__(self, "dtype", dtype)
        if not isinstance(self.zero_point, int | np.integer) or isinstance(self.zero_point, bool):
            raise TypeError(f"zero_point must be an int, not {self.zero_point!r}")
        limits = np.iinfo(dtype)
        if not limits.min <= self.zero_point <= limits.max:
            raise ValueError(f"zero_point {self.zero_point} does not fit {dtype}")


def check_columns(epilogue: Scaled, columns: int) -> None:
    """ValueError unless scale and bias fit a result of so many columns."""
    if len(epilogue.scale) not in (1, columns):
        raise ValueError(f"scale has {len(epilogue.scale)} numbers for {columns} columns")
    if epilogue.bias is not None and len(epilogue.bias) != columns:
        raise ValueError(f"bias has {len(epilogue.bias)} numbers for {columns} columns")


def _floats(x: Any, name: str, scalar: bool = False) -> np.ndarray:
    """A one-dimensional copy in f32: later changes of `x` do not alter it."""
    refuse_meaning(x, name)
    try:
        values = np.asarray(x.detach() if is_tensor(x) else x)
    except TypeError as error:
        raise TypeError(f"{name} must be real numbers that NumPy has: {error}") from error
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers, not {describe(values)}")
    if values.ndim != 1 and not (scalar and values.ndim == 0):
        raise ValueError(
            f"{name} must be {'a number or ' if scalar else ''}a vector, not of shape {values.shape}"
        )
    return np.array(values, np.float32, ndmin=1)
