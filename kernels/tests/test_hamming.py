"""Hamming distances on every rung against a count in numpy."""

import numpy as np
import pytest
from oracle import PRESENT

import ouigemm


def distances(bits):
    return (bits[:, None] != bits[None]).sum(-1)


def test_all_sizes(rung, rng):
    for rows in (1, 2, 3, 4, 5, 8, 13):
        for units in (1, 7, 8, 63, 64, 65, 511, 512, 513, 5000):
            bits = rng.integers(0, 2, (rows, units)).astype(bool)
            got = ouigemm.hamming(bits, isa=rung)
            assert got.dtype == np.int64
            np.testing.assert_array_equal(got, distances(bits))


def test_extremes(rung):
    """Every bit differs, over more lines than one block of level 1 holds."""
    bits = np.zeros((6, 70_000), bool)
    bits[::2] = True
    got = ouigemm.hamming(bits, isa=rung)
    np.testing.assert_array_equal(got, 70_000 * (np.indices((6, 6)).sum(0) % 2))


def test_packed_forms_agree(rung, rng):
    bits = rng.integers(0, 2, (20, 1000)).astype(bool)
    packed = np.packbits(bits, axis=1)
    words = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)
    for form in (bits, packed, words, packed[:, ::-1], np.asfortranarray(words), words[::-1][::-1]):
        np.testing.assert_array_equal(ouigemm.hamming(form, isa=rung), distances(bits))


def test_same_as_the_patterns_of_ouikit(rng):
    torch = pytest.importorskip("torch")
    patterns = pytest.importorskip("ouikit.patterns")
    for rows, units in ((1, 1), (33, 300), (64, 4099)):
        bits = torch.from_numpy(rng.integers(0, 2, (rows, units)).astype(bool))
        distances = ouigemm.hamming(bits)
        assert isinstance(distances, torch.Tensor)
        assert torch.equal(distances, patterns.hamming_distances(bits))


def test_threads_agree(rng):
    bits = rng.integers(0, 2, (301, 3000)).astype(bool)
    one = ouigemm.hamming(bits, threads=1)
    np.testing.assert_array_equal(one, distances(bits))
    np.testing.assert_array_equal(ouigemm.hamming(bits, threads=3), one)


def test_nothing_to_compare():
    assert ouigemm.hamming(np.zeros((0, 5), bool)).shape == (0, 0)
    assert ouigemm.hamming(np.zeros((3, 0), np.uint64)).tolist() == [[0] * 3] * 3


@pytest.mark.parametrize("bits", [np.zeros((2, 3)), np.zeros((2, 3), np.int8), [[True]], None])
def test_wrong_types(bits):
    with pytest.raises(TypeError, match=r"bits must be (bool, or packed as uint8 or uint64|a numpy array)"):
        ouigemm.hamming(bits)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"bits must be \[rows, n\], not bool of shape \(3,\)"):
        ouigemm.hamming(np.zeros(3, bool))


@pytest.mark.usefixtures("unforced")
def test_auto_counts_in_the_widest_registers():
    counting = [name for name in ("avx512vpopcntdq", "avx2", "portable") if name in PRESENT]
    assert ouigemm.capabilities()["auto"]["hamming"] == counting[0]
