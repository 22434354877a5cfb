"""Generated products against each other and against libraries, in turns in one process, with one thread.

The first half of the rounds chooses a tile and the second half judges it, so that chance in the choice does
not flatter the chosen. A rate is that of the quickest round of a half: operations per CPU second.
"""

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import ouigemm
from numpy.typing import NDArray

from ouikit.bench.timing import Arm, seconds_each
from ouikit.products.generators import VARIANTS, Product
from ouikit.products.generators.tiles import tiles
from ouikit.products.layer_shapes import Shape, operations
from ouikit.products.libraries import f32_libraries

LIBRARIES = ("OpenBLAS", "MKL", "BLIS", "ouigemm")
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Trial:
    """One arm and its G operations a second in both halves: a variant with its tile, or a library, (0, 0)."""

    arm: str
    tile: tuple[int, int]
    choosing: float
    judging: float


def sweep(shape: Shape, variants: Iterable[str] = tuple(VARIANTS), count: int = 4, rounds: int = 4) -> Trial:
    """The best tile of the list for products of m × n × k in f32, by measurement on this CPU.

    >>> best = sweep((64, 48, 80), ["B3A2C0"], count=1, rounds=2)
    >>> best.arm, best.judging > 0
    ('B3A2C0', True)
    """
    return max(trials(shape, variants, count, rounds, peers=False), key=lambda trial: trial.choosing)


def trials(
    shape: Shape,
    variants: Iterable[str] = tuple(VARIANTS),
    count: int = 4,
    rounds: int = 4,
    seed: int = 0,
    peers: bool = True,
) -> list[Trial]:
    """Every variant with the first `count` tiles of the list, and the libraries that are installed.

    Raises ValueError unless rounds is even and positive.
    """
    if rounds < 2 or rounds % 2:
        raise ValueError(f"rounds is {rounds}: give an even number, half to choose and half to judge")
    m, n, k = shape
    rng = np.random.default_rng(seed)
    a, b, out = rng.random((m, k), np.float32), rng.random((k, n), np.float32), np.empty((m, n), np.float32)
    arms: dict[tuple[str, tuple[int, int]], Arm] = {}
    for variant in variants:
        for product in _listed(variant, count):
            arms[variant, product.tile] = _call(product, a, b, out)
    if peers:
        arms |= {(name, (0, 0)): arm for name, arm in libraries(a, b, out).items()}
    named = {f"{variant} {tile}": (variant, tile) for variant, tile in arms}
    times = seconds_each({name: arms[key] for name, key in named.items()}, rounds)
    half, work = rounds // 2, operations(shape) / 1e9
    return [
        Trial(*named[name], work / min(row[:half]), work / min(row[half:])) for name, row in times.items()
    ]


@cache
def _listed(variant: str, count: int) -> list[Product]:
    """Kept, so that a repetition compiles nothing again."""
    return tiles(variant, count)


def _call(product: Product, a: Matrix, b: Matrix, out: Matrix) -> Arm:
    routine = product.routine(a.shape[0], b.shape[1], a.shape[1])
    return lambda: routine(a, b, out)


def libraries(a: Matrix, b: Matrix, out: Matrix) -> dict[str, Arm]:
    """A·B into `out` by NumPy's OpenBLAS, torch's MKL, Debian's BLIS and `ouigemm`, where they are installed.

    The caller limits NumPy and torch to one thread. `ouigemm` takes the kernel that it picks itself.
    """
    found = f32_libraries(a, b, out)
    if blis := _blis():
        (m, k), n = a.shape, b.shape[1]
        x, y, z = (array.ctypes.data_as(ctypes.c_void_p) for array in (a, b, out))
        one, zero, plain = ctypes.c_float(1), ctypes.c_float(0), 111  # CblasNoTrans
        found["BLIS"] = lambda: blis(101, plain, plain, m, n, k, one, x, k, y, n, zero, z, n)  # row-major
    found["ouigemm"] = lambda: ouigemm.gemm(a, b, out, threads=1)
    return found


@cache
def _blis() -> Any:
    """`cblas_sgemm` of Debian's libblis4-serial; None where it is not installed."""
    try:
        return ctypes.CDLL("libblis.so.4").cblas_sgemm
    except OSError:
        return None


def library_files() -> dict[str, Path]:
    """The files of the libraries that this process has loaded; MKL is inside torch's."""
    parts = {"OpenBLAS": "openblas", "torch with MKL": "libtorch_cpu", "BLIS": "libblis"}
    _blis()
    np.ones((2, 2)) @ np.ones((2, 2))
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    found = {}
    for name, part in parts.items():
        for path in sorted(path for path in loaded if part in Path(path).name and "scipy.libs" not in path):
            found[name] = Path(path)
    return found
