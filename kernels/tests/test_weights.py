"""B packed once."""

import copy
import gc
import pickle

import numpy as np
import pytest
from oracle import (
    ELEMENTS,
    INTEGERS,
    PRESENT,
    assert_product,
    random_matrix,
    random_operands,
    weights_in_pairs,
)

import ouigemm
from ouigemm.ladder import TYPES


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_weights_serve_products_of_any_height(rung, kind, transposed, rng):
    for n, k in ((1, 1), (65, 300), (100, 1025)):
        element = ELEMENTS[kind][1]
        b = random_matrix(rng, element, (n, k) if transposed else (k, n))
        if transposed:
            b = ouigemm.BFloat16(b.bits.T) if kind == "bf16" else b.T
        weights = ouigemm.pack(b, isa=rung)
        assert weights.shape == (k, n)
        for m in (1, 3, 16, 50):
            a = random_matrix(rng, ELEMENTS[kind][0], (m, k))
            got = ouigemm.gemm(a, weights)
            assert_product(got, a, b)
            plain = ouigemm.gemm(a, b, isa=rung)
            assert_product(plain, a, b)
            assert kind not in INTEGERS or (got == plain).all()


def test_int8_weights_serve_both_signs(rung, rng):
    b = random_matrix(rng, "s8", (130, 70))
    weights = ouigemm.pack(b, isa=rung)
    for element in ("u8", "s8", "u8"):
        a = random_matrix(rng, element, (40, 130))
        assert_product(ouigemm.gemm(a, weights), a, b)


@pytest.mark.parametrize("m", [1, 24, 25, 70])
def test_int8_weights_that_are_widened(rung, m, rng):
    """By each tile for few rows, block by block for many; B is larger than level 2; no tile divides it."""
    for kind in ("u8s8", "s8s8"):
        a, b = random_operands(rng, kind, m, 3109, 700)
        for threads in (1, 3):
            assert_product(ouigemm.gemm(a, ouigemm.pack(b, isa=rung), threads=threads), a, b)


ADDS_PAIRS = [name for name in PRESENT if ouigemm.adds_pairs(name)]


def in_pairs(weights):
    return "/u8s8_" in weights.kernel(7)


def test_avx2_adds_pairs_and_rungs_with_an_instruction_for_four_do_not():
    assert [name for name in ("avx2",) if name in PRESENT] == ADDS_PAIRS


@pytest.mark.parametrize("rung", ADDS_PAIRS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("even", "odd", "fits"),
    [
        (127, 1, True), (127, 2, False), (64, 64, True), (65, 64, False), (127, -128, True),
        (-128, 0, True), (-128, -1, False), (-64, -64, True), (-64, -65, False), (-128, 127, True),
    ],
)  # fmt: skip
def test_pairs_are_added_in_16_bits_where_they_fit(rung, order, even, odd, fits):
    """255 · 128 is 32,640, and 16 bits hold 32,767: up to a sum of 128, both ways. One pair decides."""
    for k, where in ((2, 0), (70, 68), (71, 34)):
        b = np.zeros((k, 37), np.int8, order)
        b[where : where + 2, 36] = even, odd
        weights = ouigemm.pack(b, isa=rung)
        assert in_pairs(weights) == fits
        for element, value in (("u8", 255), ("s8", -128), ("s8", 127)):
            a = np.full((9, k), value, {"u8": np.uint8, "s8": np.int8}[element])
            assert_product(ouigemm.gemm(a, weights), a, b)


@pytest.mark.parametrize("rung", ADDS_PAIRS)
def test_rows_that_are_no_pair_may_be_of_any_size(rung):
    """The rows 1 and 2, and the last of an odd number, which meets a zero."""
    b = np.zeros((5, 20), np.int8)
    b[1:3] = b[4] = 127
    assert in_pairs(ouigemm.pack(b, isa=rung))
    b[3] = 2
    assert not in_pairs(ouigemm.pack(b, isa=rung))


@pytest.mark.parametrize("m", [1, 24, 70])
def test_weights_in_pairs(rung, m, rng):
    """As large as they may be, and A at its ends; B is larger than level 2."""
    b = weights_in_pairs(rng, (701, 3109))
    weights = ouigemm.pack(b, isa=rung)
    assert in_pairs(weights) or rung not in ADDS_PAIRS
    for element in ("u8", "s8"):
        a = random_matrix(rng, element, (m, 701), extreme=True)
        for threads in (1, 3):
            assert_product(ouigemm.gemm(a, weights, threads=threads), a, b)


def test_int8_weights_take_a_byte_each():
    """Wherever a rung has kernels for 8 bits; 48 divides into tiles of every width."""
    b = np.ones((640, 48 * 8), np.int8)
    for rung in {"avx2", "avxvnni", "avx512vnni", "neondot"} & {*PRESENT}:
        most = b.nbytes + 4 * b.shape[1]  # sums of columns, where A is shifted
        assert b.nbytes <= ouigemm.pack(b, isa=rung).nbytes <= most


def test_weights_outlive_and_ignore_their_matrix(rng):
    b = random_matrix(rng, "s8", (300, 200))
    a, copy = random_matrix(rng, "u8", (20, 300)), b.copy()
    weights = ouigemm.pack(b)
    b[...] = 0
    del b
    gc.collect()
    assert_product(ouigemm.gemm(a, weights), a, copy)


def test_weights_belong_to_their_rung(rng):
    a, b = random_operands(rng, "u8s8", 4, 5, 6)
    weights = ouigemm.pack(b, isa="portable")
    assert weights.isa == "portable"
    ouigemm.gemm(a, weights, isa="portable")
    for other in set(PRESENT) - {"portable"}:
        with pytest.raises(ValueError, match="packed for 'portable'"):
            ouigemm.gemm(a, weights, isa=other)


def test_weights_describe_themselves(rng):
    weights = ouigemm.pack(random_matrix(rng, "s8", (10, 20)), isa="portable")
    assert repr(weights) == f"Weights(s8 (10, 20), isa='portable', nbytes={weights.nbytes})"
    assert weights.nbytes >= 200


def test_no_weights_of_unsigned_bytes():
    with pytest.raises(TypeError, match=r"b is u8 \(3, 4\): no product takes u8 on the right"):
        ouigemm.pack(np.zeros((3, 4), np.uint8))


def test_weights_are_copied_by_reference_and_not_pickled():
    weights = ouigemm.pack(np.eye(3, dtype=np.float32))
    assert copy.copy(weights) is copy.deepcopy([weights])[0] is weights
    with pytest.raises(TypeError, match=r"Weights\(f32 \(3, 3\).* pack it where it is used"):
        pickle.dumps(weights)
