"""The model of an AI-engine tile: exact products, cycles counted in two ways, and refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouikit.machines import aie


def whole(rng, shape, bound):
    return rng.integers(-bound, bound, shape, dtype=np.int16, endpoint=True)


@pytest.mark.parametrize(
    ("m", "n", "k", "mc", "nc", "kc"),
    [(16, 4, 8, 16, 4, 8), (32, 8, 10, 16, 4, 5), (64, 24, 58, 32, 12, 29), (48, 16, 290, 48, 16, 290)],
)
def test_a_product_that_fits_16_bits_is_exact(m, n, k, mc, nc, kc):
    rng = np.random.default_rng(m + n + k)
    a, b, c = whole(rng, (m, k), 7), whole(rng, (k, n), 7), whole(rng, (m, n), 900)
    before = c.copy()
    for saturate in (True, False):
        found = aie.gemm(aie.pack_rows(a, kc), b, c, mc, nc, saturate)
        assert np.array_equal(found.c, a.astype(np.int64) @ b + c)
        assert np.array_equal(c, before)


def test_saturation_shows_only_where_a_sum_does_not_fit():
    a, b = np.full((2, 16), 200, np.int16), np.zeros((2, 4), np.int16)
    b[:, 0], b[:, 1], b[:, 2] = 100, -100, 50  # sums of 40,000, -40,000, 20,000 and 0
    c = np.zeros((16, 4), np.int16)
    assert aie.micro_kernel(a, b, c)[0].tolist() == [32767, -32768, 20000, 0]
    assert aie.micro_kernel(a, b, c, saturate=False)[0].tolist() == [40000 - 65536, 65536 - 40000, 20000, 0]


def test_sums_need_more_than_32_bits_and_have_them():
    a, b = np.full((4, 16), 30000, np.int16), np.full((4, 4), 30000, np.int16)  # 3.6e9 > 2³¹
    assert (aie.micro_kernel(a, b, np.zeros((16, 4), np.int16)) == 32767).all()


def test_a_sum_beyond_48_bits_wraps_around():
    assert aie._wrapped(np.array([2**47, 2**47 - 1, -(2**47) - 1]), 48).tolist() == [
        -(2**47),
        2**47 - 1,
        2**47 - 1,
    ]


def test_packing_places_elements_as_the_formulas_say():
    a = np.arange(32 * 6, dtype=np.int16).reshape(32, 6)
    flat = aie.pack_rows(a, 6).ravel()
    b = np.arange(6 * 8, dtype=np.int16).reshape(6, 8)
    panels = aie.pack_columns(b).ravel()
    for p in range(6):
        for i in range(32):
            assert flat[i // 16 * 16 * 6 + p * 16 + i % 16] == a[i, p]
        for j in range(8):
            assert panels[j // 4 * 4 * 6 + p * 4 + j % 4] == b[p, j]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from([3, 8]), st.integers(1, 2))
def test_cycles_are_those_of_the_copies_and_calls_that_happen(rows, columns, depths, kc, blocks):
    mc, m, n, k = 16 * blocks, 16 * blocks * rows, 4 * columns, kc * depths
    packed = aie.pack_rows(np.zeros((m, k), np.int16), kc)
    run = aie.gemm(packed, np.zeros((k, n), np.int16), np.zeros((m, n), np.int16), mc, 4)
    assert run.copies == rows * columns * depths
    assert run.calls == run.copies * blocks
    assert run.cycles(kc) == pytest.approx(aie.cycles(m, n, k, mc, kc))


def test_cycles_of_the_paper():
    assert aie.micro_kernel_cycles(256) == 596
    assert aie.micro_kernel_cycles(64) == 212
    assert aie.micro_kernel_cycles(256, mr=32) == pytest.approx(1429)
    assert aie.micro_kernel_cycles(256, mr=16, nr=8) == pytest.approx(1429)  # as many accumulators
    assert aie.cycles(32, 8, 64, 16, 32, aie.Costs(copy=10, fixed=0)) == 2 * 2 * 2 * (10 + 64)


def test_memories_have_the_sizes_of_the_table():
    assert aie.footprint(4096, 4096, 290, 4096, 4096, 290) == {
        "tile": 2320,
        "FPGA RAM": 2 * 4096 * 290,
        "DDR": 2 * (2 * 290 * 4096 + 4096**2),
    }
    aie.footprint(16, 4, 4096, 16, 4, 4096)  # a panel of 32 KB just fits
    with pytest.raises(ValueError, match=r"tile holds 32,768 bytes, and 32,776 .* smaller kc"):
        aie.footprint(16, 4, 4097, 16, 4, 4097)
    with pytest.raises(ValueError, match=r"FPGA RAM .* smaller m or k"):
        aie.cycles(16384, 4, 1024, 16, 1024)
    with pytest.raises(ValueError, match=r"DDR .* smaller m, n or k"):
        aie.footprint(32768, 65536, 8, 16, 4, 8)


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ((50, 8, 8, 16, 8), "m = 50 is no multiple of mc"),
        ((32, 6, 8, 16, 8), "n = 6 is no multiple|nc = 6 is no multiple"),
        ((32, 8, 9, 16, 8), "k = 9 is no multiple of kc"),
        ((24, 8, 8, 24, 8), "mc = 24 is no multiple of rows of a tile"),
        ((32, 8, 8, 0, 8), "mc must be > 0: got 0"),
        ((32, 8, -8, 16, 8), "k must be > 0: got -8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(sizes, complaint):
    with pytest.raises(ValueError, match=complaint):
        aie.cycles(*sizes)


def test_operands_that_are_not_int16_matrices_are_refused():
    a, b, c = np.zeros((16, 8), np.int16), np.zeros((8, 4), np.int16), np.zeros((16, 4), np.int16)
    packed = aie.pack_rows(a, 8)
    with pytest.raises(TypeError, match="B must be an int16 matrix: got int64"):
        aie.gemm(packed, b.astype(int), c, 16, 4)
    with pytest.raises(TypeError, match="C must be an int16 matrix: got list"):
        aie.gemm(packed, b, [[0]], 16, 4)
    with pytest.raises(TypeError, match="packed by pack_rows"):
        aie.gemm(a, b, c, 16, 4)
    with pytest.raises(ValueError, match="A is 16 × 8, B 8 × 8 and C 16 × 4"):
        aie.gemm(packed, np.zeros((8, 8), np.int16), c, 16, 4)
    with pytest.raises(ValueError, match="mr = 20 is no multiple of lanes"):
        aie.micro_kernel_cycles(8, mr=20)
