"""Epilogues bit for bit: the same f32 steps in numpy."""

import itertools

import numpy as np
import pytest
from oracle import INTEGERS, epilogue_result, middle_of_8_bits, random_operands, sums

import ouigemm

SHAPES = [(1, 1, 1), (7, 33, 20), (50, 100, 65), (30, 70, 3000)]


def epilogues(rng, n, kind, k):
    """One of each sort; the scale brings the sums to the middle of 8 bits."""
    middle = middle_of_8_bits(kind, k)
    per_column = middle * rng.uniform(0.5, 2, n)
    bias = rng.uniform(-30, 30, n)
    for scale, b, relu in itertools.product((middle, per_column), (None, bias), (False, True)):
        yield ouigemm.Scaled(scale, b, relu)
        yield ouigemm.Requantised(scale, b, relu)
        yield ouigemm.Requantised(scale, b, relu, dtype="uint8", zero_point=113)


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_integers(rung, kind, m, n, k, rng):
    a, b = random_operands(rng, kind, m, n, k)
    weights = ouigemm.pack(b, isa=rung)
    for epilogue in epilogues(rng, n, kind, k):
        for alpha in (1, -1.5):
            got = ouigemm.gemm(a, weights, alpha=alpha, epilogue=epilogue)
            want = epilogue_result(sums(a, b), epilogue, alpha)
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_floats(rung, kind, rng):
    """The sums of the same rung, then the epilogue: no extra rounding."""
    a, b = random_operands(rng, kind, 40, 70, 300)
    plain = ouigemm.gemm(a, b, isa=rung)
    for epilogue in (
        ouigemm.Scaled(0.3, rng.standard_normal(70), relu=True),
        ouigemm.Requantised(2.0, None, dtype=np.uint8, zero_point=100),
    ):
        got = ouigemm.gemm(a, b, epilogue=epilogue, isa=rung)
        np.testing.assert_array_equal(got, epilogue_result(plain, epilogue))


@pytest.mark.parametrize("order", ["C", "F"])
def test_scaled_adds_to_c(rung, order, rng):
    a, b = random_operands(rng, "u8s8", 30, 50, 40)
    c = rng.standard_normal((30, 50)).astype(np.float32)
    epilogue = ouigemm.Scaled(1e-4, rng.standard_normal(50), relu=True)
    out = np.array(c, order=order)
    ouigemm.gemm(a, b, out, alpha=2, beta=0.5, epilogue=epilogue, isa=rung)
    np.testing.assert_array_equal(out, epilogue_result(sums(a, b), epilogue, 2, 0.5, c))


@pytest.mark.parametrize("order", ["C", "F"])
def test_requantised_into_any_layout(rung, order, rng):
    a, b = random_operands(rng, "s8s8", 30, 50, 40)
    epilogue = ouigemm.Requantised(1e-3)
    out = np.zeros((30, 50), np.int8, order=order)
    ouigemm.gemm(a, b, out, epilogue=epilogue, isa=rung)
    np.testing.assert_array_equal(out, epilogue_result(sums(a, b), epilogue))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", 0), ("int8", -128), ("uint8", 0), ("uint8", 200)])
@pytest.mark.parametrize("kind", ["u8s8", "f32"])
def test_requantised_adds_to_c(rung, kind, dtype, zero_point, order, rng):
    a, b = random_operands(rng, kind, 30, 70, 40)
    limits = np.iinfo(dtype)
    c = rng.integers(limits.min, limits.max + 1, (30, 70)).astype(dtype)
    step = middle_of_8_bits(kind, 40) if kind in INTEGERS else 3.0
    epilogue = ouigemm.Requantised(step, rng.standard_normal(70), True, dtype, zero_point)
    out = np.array(c, order=order)
    plain = sums(a, b) if kind in INTEGERS else ouigemm.gemm(a, b, isa=rung)
    ouigemm.gemm(a, b, out, beta=0.5, epilogue=epilogue, isa=rung)
    np.testing.assert_array_equal(out, epilogue_result(plain, epilogue, 1, 0.5, c))
    assert len(np.unique(out)) > 20  # neither the sums nor C alone decide


def test_requantised_adds_to_c_by_hand(rung):
    """A residual block in steps of its result: 3·2·0.5 = 3 is added to half of 10 − 4, and shifted by 4."""
    a, b, c = np.array([[3]], np.uint8), np.array([[2]], np.int8), np.array([[10]], np.uint8)
    epilogue = ouigemm.Requantised(0.5, dtype="uint8", zero_point=4)
    assert ouigemm.gemm(a, b, c, beta=0.5, epilogue=epilogue, isa=rung).tolist() == [[10]]
    c[...] = 255
    assert ouigemm.gemm(a, b, c, beta=-1, epilogue=epilogue, isa=rung).tolist() == [[0]]


def test_ties_go_to_the_even_one(rung):
    a = np.arange(0, 12, dtype=np.uint8)[:, None]
    b = np.array([[1, -1]], np.int8)
    got = ouigemm.gemm(a, b, epilogue=ouigemm.Requantised(0.5), isa=rung)
    assert got[:, 0].tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6]
    assert got[:, 1].tolist() == [0, 0, -1, -2, -2, -2, -3, -4, -4, -4, -5, -6]


@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255)])
def test_results_saturate(rung, dtype, low, high):
    a, b = np.full((3, 60), 255, np.uint8), np.full((60, 40), 127, np.int8)
    b[:, ::2] = -128
    for scale in (1.0, 1e30, np.inf):
        got = ouigemm.gemm(a, b, epilogue=ouigemm.Requantised(scale, dtype=dtype), isa=rung)
        assert (got[:, ::2] == low).all()
        assert (got[:, 1::2] == high).all()


def test_nan_becomes_the_lowest_number(rung):
    a, b = np.zeros((3, 4), np.uint8), np.zeros((4, 40), np.int8)
    bias = np.full(40, np.nan)
    assert (ouigemm.gemm(a, b, epilogue=ouigemm.Requantised(1.0, bias), isa=rung) == -128).all()
    assert (ouigemm.gemm(a, b, epilogue=ouigemm.Requantised(1.0, bias, dtype="uint8"), isa=rung) == 0).all()
    behind_relu = ouigemm.Requantised(1.0, bias, relu=True, dtype="uint8", zero_point=7)
    assert (ouigemm.gemm(a, b, epilogue=behind_relu, isa=rung) == 0).all()


def test_no_depth_leaves_the_bias(rung):
    a, b = np.zeros((3, 0), np.uint8), np.zeros((0, 40), np.int8)
    bias = np.arange(40) - 20.0
    got = ouigemm.gemm(a, b, epilogue=ouigemm.Requantised(1.0, bias, relu=True), isa=rung)
    np.testing.assert_array_equal(got, np.broadcast_to(np.maximum(bias, 0), (3, 40)))


def test_an_epilogue_keeps_its_own_numbers():
    scale = np.ones(3)
    epilogue = ouigemm.Scaled(scale)
    scale[...] = 7
    assert epilogue.scale.tolist() == [1, 1, 1]
