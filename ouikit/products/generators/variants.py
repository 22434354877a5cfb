"""The six variants of a blocked matrix product, and the sizes of their blocks. Needs no TVM.

C of m × n sums k products each. A variant is called X3Y2Z0: X is packed for the third cache, Y for the
second, and a tile of Z stays in registers while the micro-kernel runs along the dimension that Z lacks.
Source: Algorithm 1039 (arXiv 2310.20347) for the family; the loop orders and the cache model are those of the
authors' public code.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ouikit.products.layer_shapes import Shape

DIMENSIONS = "mnk"
OPERANDS = {"A": "mk", "B": "kn", "C": "mn"}
"""Rows and columns of each matrix."""


@dataclass(frozen=True)
class Variant:
    """One member of the family.

    name: X3Y2Z0. loops: the dimension of each of the five loops around the micro-kernel, from the outside.
    """

    name: str
    loops: str

    @property
    def third(self) -> str:
        """The operand that is packed for the third cache, in the second loop (C: in the second, too)."""
        return self.name[0]

    @property
    def second(self) -> str:
        """The operand that is packed for the second cache, in the third loop."""
        return self.name[2]

    @property
    def resident(self) -> str:
        """The operand of which a tile stays in registers."""
        return self.name[4]

    @property
    def streamed(self) -> str:
        """The dimension along which the micro-kernel runs: the one that the resident operand lacks."""
        (lacks,) = set(DIMENSIONS) - set(OPERANDS[self.resident])
        return lacks

    def units(self, rows: int, columns: int, group: int = 1) -> dict[str, int]:
        """Length of a panel in each dimension; the streamed one is taken `group` steps at a time."""
        return dict(zip(OPERANDS[self.resident], (rows, columns), strict=True)) | {self.streamed: group}


VARIANTS = {
    name: Variant(name, loops)
    for name, loops in {
        "B3A2C0": "nkmnm",
        "A3B2C0": "mknmn",
        "B3C2A0": "nkmkm",
        "C3B2A0": "nmkmk",
        "A3C2B0": "mknkn",
        "C3A2B0": "mnknk",
    }.items()
}
"""All six by name. B3A2C0 is the order of GotoBLAS2, BLIS and OpenBLAS."""


@dataclass(frozen=True)
class Cache:
    """One level of a core's caches: sets, ways, and bytes of a line."""

    sets: int
    ways: int
    line: int = 64

    def fit(self, shared: int, other: int, element: int) -> float:
        """Length of a panel that this level keeps beside the operands that pass through it.

        The model of Low et al. (2016) in the authors' Python version. `shared` is the dimension that the
        panel shares with the other operand of this level, `other` is that operand's own, `element` is in
        bytes.

        >>> Cache(256, 4).fit(8, 12, 4)  # depth of the blocks for tiles of 8 × 12 on NVIDIA's Carmel
        512.0
        """
        way = self.sets * self.line
        if self.ways == 2:
            return way / (2 * shared * element)
        ways = math.floor((self.ways - 1) / (1 + other / shared))
        if ways:
            return ways * way / (shared * element)
        return (self.ways - 2) * way / (other * element)


Core = tuple[Cache, Cache, Cache]
CARMEL: Core = Cache(256, 4), Cache(2048, 16), Cache(4096, 16)
ZEN2: Core = Cache(64, 8), Cache(1024, 8), Cache(16384, 16)
C906: Core = Cache(128, 4), Cache(1024, 16), Cache(4096, 16)
"""Cores of the authors' tables. They stand for others like them, so that a schedule means the same anywhere;
the third cache that a virtual machine reports would be no guide either."""


def blocks(
    variant: Variant, shape: Shape, units: Mapping[str, int], core: Core, element: int
) -> dict[str, int]:
    """Steps of the outer loops in each dimension: (mc, nc, kc) of the model.

    The streamed dimension is sized for the first cache, the rest of Y for the second and of X for the third.
    For the variants that hold C in registers these are the authors' rules; the others follow by exchanging
    the names of the operands, which is inferred.

    >>> carmel = blocks(VARIANTS["B3A2C0"], (5000, 5000, 5000), {"m": 8, "n": 12, "k": 1}, CARMEL, 4)
    >>> carmel["m"], carmel["n"], carmel["k"]
    (896, 636, 512)
    """
    size = dict(zip(DIMENSIONS, shape, strict=True))
    along = variant.streamed
    (of_second,) = set(OPERANDS[variant.second]) - {along}
    (of_third,) = set(OPERANDS[variant.third]) - {along}
    first, second, third = core

    def whole(length: float, dimension: str) -> int:
        unit = units[dimension]
        return min(size[dimension], max(int(length) // unit, 1) * unit)

    found = {along: whole(first.fit(units[of_second], units[of_third], element), along)}
    found[of_second] = whole(second.fit(units[of_third], found[along], element), of_second)
    found[of_third] = whole(third.fit(found[along], found[of_second], element), of_third)
    return found


@dataclass(frozen=True)
class Plan:
    """How one product is cut: `count` equal blocks in each dimension, each of `panels` panels of `units`.

    Equal blocks leave no remainder, so that no loop inside the micro-kernel has a condition. What they reach
    beyond the matrix is filled with zeros while packing.
    """

    variant: Variant
    shape: Shape
    units: Mapping[str, int]
    steps: Mapping[str, int]

    @cached_property
    def count(self) -> dict[str, int]:
        """Blocks in each dimension."""
        return {d: -(-size // self.steps[d]) for d, size in zip(DIMENSIONS, self.shape, strict=True)}

    @cached_property
    def panels(self) -> dict[str, int]:
        """Panels of a block in each dimension."""
        return {
            d: -(-size // (self.count[d] * self.units[d]))
            for d, size in zip(DIMENSIONS, self.shape, strict=True)
        }

    @property
    def padded(self) -> Shape:
        """Size of the product with all its blocks full."""
        m, n, k = (self.count[d] * self.panels[d] * self.units[d] for d in DIMENSIONS)
        return m, n, k
