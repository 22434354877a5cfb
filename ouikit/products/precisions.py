"""One product in several precisions: the same five loops, other micro-kernels (arXiv 2506.11728).

An arm of the ladder is a way to compute C = A·B for 8-bit A and B (or for wider ones, as the start):

=============  ====================================================================================
arm            what it does
=============  ====================================================================================
f32            f32 matrices, fused multiply-adds: the product without quantisation
int32          32-bit integers, multiplied and added
fake           8-bit matrices, converted to f32 in every call, then the same product
fake int32     8-bit matrices, converted to 32-bit integers in every call
widened        8-bit matrices, widened to 16 bits; sums of products by pairs
dot            8-bit matrices, dot products of four pairs
tiles          8-bit matrices, a matrix engine
=============  ====================================================================================

All but `tiles` use vectors as wide as `dot` does, so that the width is not what is compared. An arm that
this CPU lacks is left out. Needs `pip install ./kernels`.
"""

from collections.abc import Callable, Iterable

import numpy as np
import ouigemm

from ouikit.products.layer_shapes import Shape
from ouikit.products.libraries import f32_libraries

Arm = Callable[[], object]

# Vector length: the rung of dot products comes second.
_LADDERS = {512: ("avx512", "avx512vnni"), 256: ("avx2", "avxvnni"), 128: ("neon", "neondot")}
_TYPES = {"f32": "f32", "int32": "s32", "fake": "f32", "fake int32": "s32"} | dict.fromkeys(
    ("widened", "dot", "tiles"), "s8s8"
)
_ELEMENTS = {
    "f32": ("float32", "float32"),
    "bf16": ("bf16", "bf16"),
    "s16": ("int16", "int16"),
    "s32": ("int32", "int32"),
    "u8s8": ("uint8", "int8"),
    "s8s8": ("int8", "int8"),
}


def rungs() -> dict[str, str]:
    """The arms that this CPU has, and the rung of `ouigemm` that each runs on."""
    known = ouigemm.capabilities()
    present = {name for name, rung in known["rungs"].items() if rung["absent"] is None}
    nothing = known["auto"]["f32"], ""
    plain, dot = next((pair for pair in _LADDERS.values() if present.issuperset(pair)), nothing)
    wanted = dict.fromkeys(_TYPES, plain) | {"dot": dot, "tiles": "amxint8"}
    return {arm: rung for arm, rung in wanted.items() if rung in present}


def arms(shape: Shape, seed: int = 0, only: Iterable[str] | None = None) -> dict[str, Arm]:
    """One call of each arm on random matrices of this shape, with one thread; packing is part of it.

    Nothing is allocated in a call but what an arm converts. Raises KeyError for an arm that is not here.
    """
    here = rungs()
    return {name: _arm(name, here[name], shape, seed) for name in (here if only is None else only)}


def _arm(name: str, rung: str, shape: Shape, seed: int) -> Arm:
    if name.startswith("fake"):
        element = np.dtype(_ELEMENTS[_TYPES[name]][0])
        a, b, c = *_bytes(shape, seed), np.empty(shape[:2], element)
        return lambda: ouigemm.gemm(a.astype(element), b.astype(element), c, isa=rung, threads=1)
    return product(_TYPES[name], rung, shape, seed)


def libraries(shape: Shape, seed: int = 0) -> dict[str, Arm]:
    """The f32 product of `arms` by `f32_libraries`, on the same matrices: the baseline to beat.

    >>> all(name.startswith("f32, ") for name in libraries((4, 4, 4)))
    True
    """
    a, b = (x.astype(np.float32) for x in _bytes(shape, seed))
    found = f32_libraries(a, b, np.empty(shape[:2], np.float32))
    return {f"f32, {name}": arm for name, arm in found.items()}


def product(kind: str, rung: str, shape: Shape, seed: int = 0) -> Arm:
    """One product of type `kind` (as in `ouigemm.ladder.TYPES`) of random whole numbers within ±127."""
    a, b = (_as(x, element) for x, element in zip(_bytes(shape, seed), _ELEMENTS[kind], strict=True))
    c = np.empty(shape[:2], np.float32 if kind in ("f32", "bf16") else np.int32)
    return lambda: ouigemm.gemm(a, b, c, isa=rung, threads=1)


def _bytes(shape: Shape, seed: int) -> tuple[np.ndarray, np.ndarray]:
    m, n, k = shape
    rng = np.random.default_rng(seed)
    return rng.integers(-127, 128, (m, k), np.int8), rng.integers(-127, 128, (k, n), np.int8)


def _as(matrix: np.ndarray, element: str) -> np.ndarray | ouigemm.BFloat16:
    if element == "bf16":  # whole numbers up to 127 have no bits beyond those of bf16
        return ouigemm.BFloat16((matrix.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16))
    return matrix.view(np.uint8) if element == "uint8" else matrix.astype(element)


def peak_ratio(arm: str) -> float:
    """Operations a second of the arm's instruction on registers alone, over those of an f32 multiply-add.

    That of widened numbers is that of 16 bits.
    """
    here = rungs()
    kind = "s16" if arm == "widened" else _TYPES[arm]
    own, base = ouigemm.peak(kind, here[arm]), ouigemm.peak("f32", here["f32"])
    return own[1] / base[1] if own and base else float("nan")


def transposed(shape: Shape) -> Shape:
    """The same layer with filters as rows and pixels as columns: C transposed."""
    m, n, k = shape
    return n, m, k


def bytes_moved(shape: Shape, element: int) -> int:
    """Bytes of A and B, each read once, and of C with 4 bytes an element, written once."""
    m, n, k = shape
    return element * (m * k + k * n) + 4 * m * n


def mismatches(rung: str, kind: str, shape: Shape, seed: int) -> int:
    """Elements of an integer product on this rung that differ from NumPy's in 64 bits, wrapped to 32.

    kind: "s8s8", "u8s8", "s16" or "s32". A quarter of the numbers are the extreme ones of their type.
    """
    m, n, k = shape
    rng = np.random.default_rng(seed)
    a, b = (
        _with_extremes(rng, size, dtype)
        for size, dtype in zip(((m, k), (k, n)), _ELEMENTS[kind], strict=True)
    )
    want = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)
    return int((ouigemm.gemm(a, b, isa=rung, threads=1) != want).sum())


def _with_extremes(rng: np.random.Generator, size: tuple[int, int], dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    plain = rng.integers(limits.min, limits.max + 1, size, np.dtype(dtype))
    extreme = rng.choice(np.array([limits.min, limits.max], dtype), size)
    return np.where(rng.random(size) < 0.25, extreme, plain)
