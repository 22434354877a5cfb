"""The committed list of tiles: equally many for every variant, so that none is favoured by the search.

A tile is written in vectors: `short` elements by `vectors` vectors. It takes short · vectors registers, and
those of one step of the micro-kernel beside them. The order is that of a first search on two products on an
AMD EPYC with 32 registers of 64 bytes; the list for 16 registers follows the authors' tiles for AVX2.
"""

from ouikit.products.generators.routines import Product, generate
from ouikit.products.generators.variants import VARIANTS

_TILES = {  # registers -> (short, vectors)
    32: ((4, 2), (6, 2), (8, 3), (4, 4), (6, 4), (12, 2), (8, 2), (4, 3)),
    16: ((6, 2), (4, 3), (4, 2), (8, 1), (12, 1), (2, 4), (2, 3), (2, 2)),
}
MOST = len(_TILES[32])


def tiles(variant: str, count: int, dtype: str = "float32", target: str = "native") -> list[Product]:
    """The first `count` products of a variant on the committed list.

    Raises ValueError unless count is 1 to `MOST`, and as `generate`.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"count is {count}: give 1 to {MOST}, the tiles of the list")
    lanes, registers = _lanes_and_registers(dtype, target)
    found = []
    for short, vectors in _TILES[registers][:count]:
        rows, columns = short, vectors * lanes
        if VARIANTS[variant].resident == "A":
            rows, columns = columns, rows
        found.append(generate(variant, rows, columns, dtype, target))
    return found


def _lanes_and_registers(dtype: str, target: str) -> tuple[int, int]:
    any_tile = generate("B3A2C0", 1, 1, dtype, target)
    return any_tile.lanes, any_tile.target.registers
