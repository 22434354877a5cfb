"""Every rung, every type, every tile and its edges, against wide arithmetic."""

import itertools

import numpy as np
import pytest
from oracle import (
    DTYPES,
    ELEMENTS,
    INTEGERS,
    assert_product,
    random_matrix,
    random_operands,
    sums,
    weights_in_pairs,
    wrapped,
)

import ouigemm
from ouigemm.ladder import TYPES

SIZES = (0, 1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65, 97)


@pytest.mark.parametrize("kind", TYPES)
def test_all_small_sizes(rung, kind, rng):
    for m, n, k in itertools.product((0, 1, 2, 7, 17, 33), (0, 1, 5, 16, 33, 65), SIZES):
        a, b = random_operands(rng, kind, m, n, k)
        assert_product(ouigemm.gemm(a, b, isa=rung), a, b)


@pytest.mark.parametrize("kind", TYPES)
def test_every_kernel_with_its_edges(rung, kind, rng):
    """Every member of the family is reached, at whole tiles, one less and one more."""
    reached = {}
    for n, m in itertools.product(range(1, 400), (1, 8, 14, 24, 32, 60, 64, 100, 192)):
        reached.setdefault(ouigemm.kernel_name(kind, m, n, rung), (m, n))
    for n, m in itertools.product(range(1, 49), (1, 8, 12, 24, 100)) if kind.endswith("s8") else ():
        reached.setdefault(ouigemm.pack(np.ones((2, n), np.int8), rung).kernel(m), (m, n))
    own = ouigemm.capabilities()["rungs"][rung]["kernels"].get(kind)
    assert own is None or set(own) <= set(reached), "a kernel that no shape reaches is dead"
    for name, (m, n) in reached.items():
        mr, nr = map(int, name.rsplit("_", 1)[1].split("x"))
        tall, wide = -(-m // mr) * mr, -(-n // nr) * nr
        for rows, columns in itertools.product((tall - 1, tall, tall + 1), (wide - 1, wide, wide + 1)):
            a, b = random_operands(rng, kind, rows, columns, 70)
            assert_product(ouigemm.gemm(a, b, isa=rung), a, b)
            if kind.endswith("s8"):
                b = weights_in_pairs(rng, b.shape)
                assert_product(ouigemm.gemm(a, ouigemm.pack(b, isa=rung)), a, b)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("m", "n", "k"), [(37, 50, 5000), (3, 1100, 257), (1030, 7, 129), (49, 512, 1153)])
def test_blocks_deep_wide_and_tall(rung, kind, m, n, k, rng):
    """Depths of several kc, and more rows and columns than one block has."""
    a, b = random_operands(rng, kind, m, n, k)
    assert_product(ouigemm.gemm(a, b, isa=rung), a, b)


@pytest.mark.parametrize("kind", INTEGERS)
def test_extreme_values(rung, kind, rng):
    """Where vpmaddubsw would saturate and where 8-bit negation would overflow."""
    first, second = (np.iinfo(DTYPES[e]) for e in ELEMENTS[kind])
    for x, y in itertools.product((first.min, first.max), (second.min, second.max)):
        a = np.full((9, 130), x, DTYPES[ELEMENTS[kind][0]])
        b = np.full((130, 70), y, DTYPES[ELEMENTS[kind][1]])
        assert_product(ouigemm.gemm(a, b, isa=rung), a, b)
    a, b = random_operands(rng, kind, 33, 65, 4097, extreme=True)
    assert_product(ouigemm.gemm(a, b, isa=rung), a, b)


@pytest.mark.parametrize(("kind", "k"), [("s8s8", 131072), ("u8s8", 65794), ("s16", 2), ("s32", 1)])
def test_sums_beyond_s32_wrap_on_every_rung(rung, kind, k):
    """The policy: integers are exact modulo 2³². These are the smallest depths that overflow."""
    first, second = (np.iinfo(DTYPES[e]) for e in ELEMENTS[kind])
    a = np.full((2, k), first.max if kind == "u8s8" else first.min, DTYPES[ELEMENTS[kind][0]])
    b = np.full((k, 3), second.min, DTYPES[ELEMENTS[kind][1]])
    exact = int(a[0, 0]) * int(b[0, 0]) * k
    assert not -(2**31) <= exact < 2**31
    assert -(2**31) <= int(a[0, 0]) * int(b[0, 0]) * (k - 1) < 2**31
    np.testing.assert_array_equal(ouigemm.gemm(a, b, isa=rung), np.full((2, 3), wrapped(exact)))


LAYOUTS = {
    "rows": lambda x: x,
    "columns": lambda x: np.asfortranarray(x),
    "part": lambda x: _inside(x, 5),
    "every second": lambda x: _spread(x),
    "backwards": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
}


def _inside(x, more):
    larger = np.full((x.shape[0] + more, x.shape[1] + more), 77, x.dtype)
    larger[2 : 2 + x.shape[0], 3 : 3 + x.shape[1]] = x
    return larger[2 : 2 + x.shape[0], 3 : 3 + x.shape[1]]


def _spread(x):
    larger = np.full((2 * x.shape[0], 2 * x.shape[1]), 77, x.dtype)
    larger[::2, ::2] = x
    return larger[::2, ::2]


def _laid_out(x, layout):
    return ouigemm.BFloat16(layout(x.bits)) if isinstance(x, ouigemm.BFloat16) else layout(x)


@pytest.mark.parametrize("kind", TYPES)
def test_all_layouts_of_all_matrices(rung, kind, rng):
    a, b = random_operands(rng, kind, 19, 37, 72)
    for la, lb, lc in itertools.product(LAYOUTS.values(), repeat=3):
        dtype = np.int32 if kind in INTEGERS else np.float32
        out = lc(np.full((19, 37), 5, dtype))
        surroundings = out.base if out.base is not None else out
        before = surroundings.copy()
        assert ouigemm.gemm(_laid_out(a, la), _laid_out(b, lb), out, isa=rung) is out
        assert_product(out, a, b)
        out[...] = 5
        np.testing.assert_array_equal(surroundings, before, "the memory around C changed")


def test_repeated_rows_are_read(rung, rng):
    a = np.broadcast_to(random_matrix(rng, "u8", (1, 40)), (30, 40))
    b = np.broadcast_to(random_matrix(rng, "s8", (40, 1)), (40, 20))
    assert_product(ouigemm.gemm(a, b, isa=rung), a, b)


# B of more than 2 MB, for which level 2 is taken at most; no tile divides the columns.
BEYOND_LEVEL_2 = (700, 1037)
BEYOND_LEVEL_2_IN_BYTES = (700, 3109)


@pytest.mark.parametrize("kind", ["f32", "bf16", "s32", "u8s8"])
@pytest.mark.parametrize("m", [1, 3, 16, 17, 32, 33])
def test_few_rows_and_a_large_matrix(rung, kind, m, rng):
    """B goes by in strips of its rows, wherever they lie: read there, or packed."""
    k, n = BEYOND_LEVEL_2 if kind in ("f32", "s32") else BEYOND_LEVEL_2_IN_BYTES
    a, b = random_operands(rng, kind, m, n, k)
    for layout in (lambda x: x, lambda x: _inside(x, 5), lambda x: np.ascontiguousarray(x[::-1])[::-1]):
        assert_product(ouigemm.gemm(a, _laid_out(b, layout), isa=rung), a, b)
    k, n = BEYOND_LEVEL_2
    one_row = np.broadcast_to(random_matrix(rng, "f32", (1, n)), (k, n))
    ones = np.ones((m, k), np.float32)
    np.testing.assert_allclose(ouigemm.gemm(ones, one_row, isa=rung), k * one_row[:m], rtol=1e-4)


@pytest.mark.parametrize("m", [1, 5, 32, 64])
def test_few_rows_with_epilogues_and_threads(rung, m, rng):
    k, n = BEYOND_LEVEL_2
    a, b = random_operands(rng, "f32", m, n, k)
    c, bias = random_matrix(rng, "f32", (m, n)), random_matrix(rng, "f32", (1, n))[0]
    plain = ouigemm.gemm(a, b, isa=rung, threads=1)
    for threads in (2, 5):
        np.testing.assert_array_equal(ouigemm.gemm(a, b, isa=rung, threads=threads), plain)
    for beta in (1, -0.5):
        out = ouigemm.gemm(a, b, c.copy(), beta=beta, isa=rung)
        np.testing.assert_allclose(out, plain + beta * c, atol=2e-4)
    scaled = ouigemm.gemm(a, b, epilogue=ouigemm.Scaled(0.5, bias, relu=True), isa=rung)
    np.testing.assert_array_equal(scaled, np.maximum(plain * np.float32(0.5) + bias, 0))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("m", [1, 2, 9, 16, 17])
def test_few_rows_and_the_weights_of_a_layer(rung, kind, m, rng):
    """Such a B is a transposed matrix; the product may be turned round, whatever lies between its rows."""
    for n, k in ((33, 70), (310, 1100)):
        a, b = random_operands(rng, kind, m, n, k)
        for la, lb in itertools.product(LAYOUTS.values(), (np.asfortranarray, lambda x: _inside(x.T, 5).T)):
            assert_product(ouigemm.gemm(_laid_out(a, la), _laid_out(b, lb), isa=rung), a, b)


@pytest.mark.parametrize("kind", ["f32", "s8s8"])
def test_few_rows_and_the_weights_of_a_layer_with_epilogues(rung, kind, rng):
    m, n, k = 5, 130, 300
    a, b = random_operands(rng, kind, m, n, k)
    weights = np.asfortranarray(b)
    scale, c = np.float32(2.0**-10), random_matrix(rng, "f32", (m, n))
    for epilogue in (
        ouigemm.Scaled(scale),
        ouigemm.Scaled(np.full(n, scale), np.arange(n)),
        ouigemm.Requantised(scale, relu=True, dtype="uint8", zero_point=3),
        ouigemm.Requantised(scale, np.arange(n) - 60),
    ):
        plain = ouigemm.gemm(a, b, epilogue=epilogue, isa=rung, threads=1).astype(np.float64)
        for threads in (1, 3):
            got = ouigemm.gemm(a, weights, epilogue=epilogue, isa=rung, threads=threads)
            np.testing.assert_allclose(got, plain, atol=0 if kind == "s8s8" else 2e-5)
    scaled = ouigemm.gemm(a, weights, c.copy(), alpha=0.5, beta=-2, epilogue=ouigemm.Scaled(scale), isa=rung)
    np.testing.assert_allclose(scaled, sums(a, b) * 0.5 * scale - 2 * c, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [8, 1500])
@pytest.mark.parametrize("columns", [True, False])
def test_alpha_and_beta_of_floats(rung, k, columns, rng):
    a, b = random_operands(rng, "f32", 21, 70, k)
    c = random_matrix(rng, "f32", (21, 70))
    for alpha, beta in itertools.product((1, 0.5, -2), (0, 1, -0.25)):
        out = np.asfortranarray(c) if columns else c.copy()
        ouigemm.gemm(a, b, out, alpha=alpha, beta=beta, isa=rung)
        want = alpha * sums(a, b) + beta * c.astype(np.float64)
        np.testing.assert_allclose(out, want, atol=1e-6 * k**0.5 * 20)


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("k", [8, 1500])
def test_alpha_and_beta_of_integers_wrap(rung, kind, k, rng):
    a, b = random_operands(rng, kind, 21, 70, k)
    c = rng.integers(-(2**31), 2**31, (21, 70)).astype(np.int32)
    for alpha, beta in itertools.product((1, -3, 70_000), (0, 1, -1, 12_345)):
        out = c.copy()
        ouigemm.gemm(a, b, out, alpha=alpha, beta=beta, isa=rung)
        want = alpha * sums(a, b).astype(np.int64) + beta * c.astype(np.int64)
        np.testing.assert_array_equal(out, wrapped(want))


@pytest.mark.parametrize("alpha", [1, 0.5, 0])
@pytest.mark.parametrize(("m", "n", "k"), [(9, 40, 30), (30, 70, 3000), (5, 3, 0)])
def test_beta_zero_does_not_read_c(rung, alpha, m, n, k, rng):
    a, b = random_operands(rng, "f32", m, n, k)
    out = np.full((m, n), np.nan, np.float32)
    ouigemm.gemm(a, b, out, alpha=alpha, isa=rung)
    np.testing.assert_allclose(out, alpha * sums(a, b), atol=1e-2)
    out[...] = np.nan
    ouigemm.gemm(a, b, out, alpha=alpha, epilogue=ouigemm.Scaled(2.0), isa=rung)
    np.testing.assert_allclose(out, 2 * alpha * sums(a, b), atol=1e-2)


def test_alpha_zero_does_not_read_a_and_b(rung):
    a, b = np.full((9, 40), np.nan, np.float32), np.full((40, 30), np.inf, np.float32)
    out = np.full((9, 30), 3, np.float32)
    ouigemm.gemm(a, b, out, alpha=0, beta=2, isa=rung)
    np.testing.assert_array_equal(out, 6)
    ouigemm.gemm(a, ouigemm.pack(b, isa=rung), out, alpha=0)
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("kind", TYPES)
def test_no_depth_gives_zeros_or_beta_c(rung, kind):
    a, b = random_operands(np.random.default_rng(0), kind, 20, 40, 0)
    assert not ouigemm.gemm(a, b, isa=rung).any()
    out = np.full((20, 40), 7, np.int32 if kind in INTEGERS else np.float32)
    np.testing.assert_array_equal(ouigemm.gemm(a, b, out, beta=1, isa=rung), 7)


def test_infinities_and_nans_go_where_they_belong(rung):
    a, b = np.zeros((20, 33), np.float32), np.zeros((33, 40), np.float32)
    a[3, 7], a[5, 8], b[7, 11] = np.inf, np.nan, 1
    got = ouigemm.gemm(a, b, isa=rung)
    assert got[3, 11] == np.inf
    assert np.isnan(np.delete(got[3], 11)).all()  # inf · 0
    assert np.isnan(got[5]).all()
    assert not np.delete(got, (3, 5), axis=0).any()


def test_bf16_rungs_round_no_worse_than_f32_sums(rung, rng):
    """Numbers of seven bits whose sums f32 holds: any correct order of summation is exact."""
    bits = (rng.integers(-127, 128, (30, 64)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    a, b = ouigemm.BFloat16(bits), ouigemm.BFloat16(np.ascontiguousarray(bits.T))
    np.testing.assert_array_equal(ouigemm.gemm(a, b, isa=rung), sums(a, b))
