"""The six variants without TVM: the cache model against published sizes, and blocks without a remainder."""

import pytest

from ouikit.products.generators.variants import (
    CARMEL,
    DIMENSIONS,
    OPERANDS,
    VARIANTS,
    ZEN2,
    Cache,
    Plan,
    blocks,
)
from ouikit.products.layer_shapes import RESNET50

SQUARE, FIRST, LATE = (5000, 5000, 5000), RESNET50[0], RESNET50[16]
SAPPHIRE = Cache(64, 12), Cache(2048, 16), Cache(30720, 15)
CASES = [  # core, mr, nr, shape, (mc, nc, kc) of the authors' Python model
    (CARMEL, 8, 12, SQUARE, (896, 636, 512)),
    (CARMEL, 8, 12, FIRST, (2728, 64, 147)),
    (CARMEL, 8, 12, LATE, (49, 512, 512)),
    (CARMEL, 4, 4, SQUARE, (448, 640, 1024)),
    (CARMEL, 12, 8, SQUARE, (1344, 576, 341)),
    (CARMEL, 12, 8, FIRST, (3120, 64, 147)),
    (ZEN2, 16, 6, SQUARE, (304, 5000, 320)),
    (ZEN2, 16, 6, FIRST, (656, 64, 147)),
    (ZEN2, 6, 16, SQUARE, (576, 4624, 170)),
    (ZEN2, 6, 16, LATE, (49, 512, 170)),
    (SAPPHIRE, 32, 12, SQUARE, (1792, 1920, 256)),
    (SAPPHIRE, 48, 8, SQUARE, (2352, 2560, 192)),
]


@pytest.mark.parametrize(("core", "mr", "nr", "shape", "want"), CASES)
def test_blocks_are_those_of_the_published_model(core, mr, nr, shape, want):
    variant = VARIANTS["B3A2C0"]
    found = blocks(variant, shape, variant.units(mr, nr), core, 4)
    assert tuple(found[d] for d in DIMENSIONS) == want


def test_a_mirrored_variant_has_the_mirrored_blocks():
    """A3B2C0 on C transposed is B3A2C0."""
    m, n, k = FIRST
    one, other = VARIANTS["B3A2C0"], VARIANTS["A3B2C0"]
    straight = blocks(one, (m, n, k), one.units(8, 12), CARMEL, 4)
    mirrored = blocks(other, (n, m, k), other.units(12, 8), CARMEL, 4)
    assert straight == {"m": mirrored["n"], "n": mirrored["m"], "k": mirrored["k"]}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=str)
def test_loops_and_names_agree(variant):
    """The five loops cut both dimensions of the resident operand twice, and the streamed one once."""
    assert {variant.third, variant.second, variant.resident} == set(OPERANDS)
    counts = {d: variant.loops.count(d) for d in DIMENSIONS}
    assert counts == {d: 1 if d == variant.streamed else 2 for d in DIMENSIONS}
    assert set(variant.loops[3:]) == set(
        OPERANDS[variant.resident]
    )  # the last two are the panels of the tile
    packed = set(variant.loops[:2]), set(variant.loops[:3])
    # X is packed as soon as both of its dimensions are cut (C: its sums begin there), Y within all three.
    assert set(OPERANDS[variant.third]) <= packed[0]
    assert set(OPERANDS[variant.second]) <= packed[1]


@pytest.mark.parametrize("shape", [(1, 1, 1), (50, 37, 29), (196, 256, 2304)])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=str)
def test_equal_blocks_cover_the_product(variant, shape):
    units = variant.units(6, 16)
    plan = Plan(variant, shape, units, {"m": 24, "n": 40, "k": 17})
    for d, size, padded in zip(DIMENSIONS, shape, plan.padded, strict=True):
        block = plan.panels[d] * units[d]
        assert padded == plan.count[d] * block >= size
        assert size > padded - plan.count[d] * units[d]  # no block has a panel that every block could spare
