"""C = epilogue(A·B), and B packed once for many products."""

import sys
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from ouigemm import _core
from ouigemm.epilogues import FLOAT32, Requantised, Scaled, check_columns
from ouigemm.ladder import AUTO, RUNGS, TYPES, rung_number, thread_count
from ouigemm.operands import BFloat16, Operand, destination, is_tensor, operand

if TYPE_CHECKING:
    from torch import Tensor

_Out = TypeVar("_Out", np.ndarray, "Tensor")

INT32 = np.dtype(np.int32)
PRODUCTS = {(same, same): same for same in ("f32", "bf16", "s16", "s32")} | {
    ("u8", "s8"): "u8s8",
    ("s8", "s8"): "s8s8",
}
ACCUMULATOR, SCALED, S8, U8 = range(4)


class Weights:
    """A matrix B in the layout of a micro-kernel: made by `pack`, taken by `gemm` in place of B.

    It is a copy of the original matrix. Weights of int8 serve uint8 and int8 matrices A alike.
    """

    def __init__(self, b: Any, isa: str = "auto") -> None:
        matrix = operand(b, "b")
        types = [name for (_, element), name in PRODUCTS.items() if element == matrix.element]
        if not types:
            raise TypeError(f"b is {matrix}: no product takes {matrix.element} on the right")
        self._rung = rung_number(isa)
        try:
            self._packed = _core.Packed(TYPES.index(types[-1]), self._rung, matrix.array)
        except MemoryError:
            raise MemoryError(f"no room to pack b, {matrix}") from None
        self.element: str = matrix.element
        self.shape: tuple[int, int] = matrix.array.shape
        self.isa = "auto" if self._rung == AUTO else RUNGS[self._rung]

    @property
    def nbytes(self) -> int:
        """Bytes of the panels, padding included."""
        return self._packed.nbytes

    def kernel(self, m: int) -> str:
        """The micro-kernel that m rows run on: by the shape, and by what 8-bit weights hold (`adds_pairs`).

        For weights of int8 it is that of an int8 A.

        >>> pack(np.ones((4, 16), np.int8), isa="portable").kernel(3)
        'portable/s16_s32_4x8'
        """
        return self._packed.kernel(m)

    def __repr__(self) -> str:
        return f"Weights({self.element} {self.shape}, isa={self.isa!r}, nbytes={self.nbytes})"

    def __copy__(self) -> "Weights":
        """Itself, as it never changes."""
        return self

    def __deepcopy__(self, memo: Any) -> "Weights":
        return self

    def __reduce__(self) -> Any:
        raise TypeError(f"{self} are laid out for this CPU: send the matrix, and pack it where it is used")


def pack(b: "np.ndarray | BFloat16 | Tensor", isa: str = "auto") -> Weights:
    """Pack B once, for `gemm(a, weights)` many times.

    Raises as `gemm` for b.

    >>> weights = pack(np.eye(3, dtype=np.int8))
    >>> gemm(np.array([[1, 2, 3]], np.uint8), weights).tolist()
    [[1, 2, 3]]
    """
    return Weights(b, isa)


@overload
def gemm(
    a: "Tensor",
    b: "np.ndarray | BFloat16 | Tensor | Weights",
    out: None = None,
    alpha: float = 1,
    beta: float = 0,
    epilogue: Scaled | None = None,
    isa: str = "auto",
    threads: int | None = None,
) -> "Tensor": ...


@overload
def gemm(
    a: np.ndarray | BFloat16,
    b: "np.ndarray | BFloat16 | Tensor | Weights",
    out: None = None,
    alpha: float = 1,
    beta: float = 0,
    epilogue: Scaled | None = None,
    isa: str = "auto",
    threads: int | None = None,
) -> np.ndarray: ...


@overload
def gemm(
    a: "np.ndarray | BFloat16 | Tensor",
    b: "np.ndarray | BFloat16 | Tensor | Weights",
    out: _Out,
    alpha: float = 1,
    beta: float = 0,
    epilogue: Scaled | None = None,
    isa: str = "auto",
    threads: int | None = None,
) -> _Out: ...


def gemm(
    a: Any,
    b: Any,
    out: Any = None,
    alpha: float = 1,
    beta: float = 0,
    epilogue: Scaled | None = None,
    isa: str = "auto",
    threads: int | None = None,
) -> Any:
    """C = alpha·A·B + beta·C, or an epilogue of A·B: the matrix product of two matrices.

    a, b: numpy arrays or CPU tensors, with any strides, read without a copy; b may be `Weights`. The
    types are float32, bfloat16, int16 or int32 twice, or uint8 or int8 with int8. `out` is written and
    returned; without it a new matrix is, a tensor if `a` is one.

    A convolution needs no copy of its windows: `a` may also be windows of images, [images, height, width,
    rows, columns, channels], which are read where they lie. The first three axes are then the rows of the
    matrix, and the others its columns. Channels must lie side by side. `Tensor.unfold`, or NumPy's
    `sliding_window_view`, and a transposition make such windows (below).

    The result is float32 for floats and int32 for integers, or what `epilogue` makes of it (`Scaled`,
    `Requantised`). Integer sums are exact modulo 2³²; alpha and beta are then whole numbers. With
    beta = 0 `out` is not read, and with alpha = 0 neither are a and b. `out` must not overlap them.

    isa forces a rung of the ladder (`capabilities()`); types that it does nothing for run on the next
    lower one. threads=None takes all CPUs that the process may use; small products take fewer. Bits do
    not depend on the number of threads; those of floats do on the layout of b, on whether it is packed, and
    on whether a is windows or a matrix of copies, since sums are taken in other steps. The GIL is released.
    No gradient is computed: autograd learns that a tensor `out` was overwritten, and no more.

    Raises TypeError for types that have no product, and for what would lose more than its numbers: a tensor
    (a, b, out, or a number of the epilogue) that requires grad while gradients are recorded, that is wrapped
    or masked, an array with a mask, a unit or another byte order. Raises ValueError for shapes and places
    that do not fit, MemoryError where there is no room to pack the matrices.

    >>> gemm(np.array([[1, 2]], np.int16), np.array([[3], [4]], np.int16)).tolist()
    [[11]]
    >>> images = np.arange(32, dtype=np.int16).reshape(1, 4, 4, 2)
    >>> seen = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    >>> windows = seen.transpose(0, 1, 2, 4, 5, 3)  # 3 x 3 pixels at four places
    >>> gemm(windows, np.ones((18, 1), np.int16)).ravel().tolist()
    [189, 225, 333, 369]
    """
    left = operand(a, "a", windows=True)
    right = b if isinstance(b, Weights) else operand(b, "b")
    weights, plain = (right, None) if isinstance(right, Weights) else (None, right.array)
    kind = _kind(left, right)
    (m, k), (depth, n) = left.shape, right.shape
    if k != depth:
        raise ValueError(f"a is {left}, b is {right}: {k} columns do not meet {depth} rows")
    output, dtype = _output(kind, epilogue, alpha, beta, n)

    if out is None:
        if beta != 0:
            raise ValueError(f"beta = {beta} needs an out of {dtype} {(m, n)} to add to")
        c = np.empty((m, n), dtype)
    else:
        c = destination(out, (m, n), dtype)
    try:
        _core.gemm(
            TYPES.index(kind),
            _rung(isa, weights),
            thread_count(threads),
            left.array,
            plain,
            weights._packed if weights else None,
            c,
            output,
            float(alpha),
            float(beta),
            epilogue.scale if epilogue else None,
            epilogue.bias if epilogue else None,
            bool(epilogue and epilogue.relu),
            int(getattr(epilogue, "zero_point", 0)),
        )
    except MemoryError:
        raise MemoryError(f"no room to pack a, {left}, and b, {right}") from None
    except ValueError as overlap:
        other = left if str(overlap) == "a" else right
        raise ValueError(f"out, {c.dtype} {c.shape}, lies in the memory of {overlap}, {other}") from None
    if out is None:
        return sys.modules["torch"].from_numpy(c) if left.from_torch else c
    if is_tensor(out):
        sys.modules["torch"].autograd.graph.increment_version(out)
    return out


def _kind(left: Operand, right: Operand | Weights) -> str:
    kind = PRODUCTS.get((left.element, right.element))
    if kind is None:
        pairs = ", ".join(f"{x}·{y}" for x, y in PRODUCTS)
        shapes = f"a is {left}, b is {right.element} {right.shape}"
        raise TypeError(f"no product of {left.element} and {right.element} ({shapes}); there are {pairs}")
    return kind


def _rung(isa: str, weights: Weights | None) -> int:
    """The rung of the call; that of the weights where they are packed."""
    if weights is None:
        return rung_number(isa)
    if isa not in ("auto", weights.isa):
        raise ValueError(f"isa={isa!r}, but the weights {weights.shape} are packed for {weights.isa!r}")
    return weights._rung


def _output(kind: str, epilogue: Scaled | None, alpha: float, beta: float, n: int) -> tuple[int, np.dtype]:
    """(output of the C interface, type of C), with alpha, beta and the epilogue checked."""
    if epilogue is None and type(alpha) is type(beta) is int and alpha == 1 and beta == 0:
        return ACCUMULATOR, FLOAT32 if kind in ("f32", "bf16") else INT32
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"{name} must be a real number, not {value!r}")
    if epilogue is None:
        if kind in ("f32", "bf16"):
            return ACCUMULATOR, FLOAT32
        for name, value in (("alpha", alpha), ("beta", beta)):
            if value != int(value) if np.isfinite(value) else True:
                raise ValueError(f"{name} = {value} must be whole for an int32 result; Scaled gives float32")
            if not -(2**31) <= value < 2**31:
                raise ValueError(f"{name} = {value} does not fit int32")
        return ACCUMULATOR, INT32
    if not isinstance(epilogue, Scaled):
        raise TypeError(f"epilogue must be Scaled, Requantised or None, not {type(epilogue).__name__}")
    check_columns(epilogue, n)
    if not isinstance(epilogue, Requantised):
        return SCALED, FLOAT32
    return (S8 if epilogue.dtype == np.int8 else U8), epilogue.dtype
