"""B packed once."""

import copy
import gc
import pickle

import numpy as np
import pytest
from oracle import ELEMENTS, INTEGERS, PRESENT, assert_product, random_matrix, random_operands

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
