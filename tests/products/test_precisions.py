"""The arms of the precision ladder: what they compute, on which rung, and what their numbers mean."""

import numpy as np
import pytest
import torch

from ouikit.products import precisions
from ouikit.products.layer_shapes import NETWORKS, RESNET50, operations

ouigemm = pytest.importorskip("ouigemm")
SHAPE = (5, 33, 70)


def results(monkeypatch):
    """What every arm hands to the product, and what it gets back."""
    seen = {}
    real = ouigemm.gemm

    def spy(a, b, c, **how):
        seen["call"] = (a, b, real(a, b, c, **how), how["isa"])
        return c

    monkeypatch.setattr(ouigemm, "gemm", spy)
    for name, arm in precisions.arms(SHAPE, seed=3).items():
        arm()
        yield name, *seen["call"]


def test_every_arm_multiplies_the_same_numbers(monkeypatch):
    a, b = (x.astype(np.int64) for x in precisions._bytes(SHAPE, 3))
    for name, x, y, c, isa in results(monkeypatch):
        wide = {"f32": "float32", "fake": "float32", "int32": "int32", "fake int32": "int32"}
        kind = wide.get(name, "int8")
        assert (x.dtype, y.dtype, isa) == (kind, kind, precisions.rungs()[name])
        np.testing.assert_array_equal(c, a @ b)  # whole numbers below 2^24: exact in f32, too


def test_the_libraries_multiply_the_same_numbers():
    a, b = (x.astype(np.int64) for x in precisions._bytes(SHAPE, 3))
    for name, arm in precisions.libraries(SHAPE, seed=3).items():
        found = arm()
        assert found.dtype in (np.float32, torch.float32), name
        np.testing.assert_array_equal(np.asarray(found), a @ b)


@pytest.mark.parametrize(
    ("present", "auto", "plain", "own"),
    [
        (
            "amxint8 avx512vnni avx512 avxvnni avx2",
            "avx512",
            "avx512",
            {"dot": "avx512vnni", "tiles": "amxint8"},
        ),
        ("avx512vnni avx512 avxvnni avx2", "avx512", "avx512", {"dot": "avx512vnni"}),
        ("avx512 avx2", "avx512", "avx512", {}),
        ("avxvnni avx2", "avx2", "avx2", {"dot": "avxvnni"}),
        ("avx2", "avx2", "avx2", {}),
        ("neondot neon", "neon", "neon", {"dot": "neondot"}),
        ("", "portable", "portable", {}),
    ],
)
def test_arms_compare_vectors_of_one_length(monkeypatch, present, auto, plain, own):
    """On every kind of CPU; without dot products the best rung of floats is left."""
    ladder = ["amxint8", "avx512vnni", "avx512", "avxvnni", "avx2", "neondot", "neon", "portable"]
    rungs = {name: {"absent": None if name in [*present.split(), "portable"] else "…"} for name in ladder}
    monkeypatch.setattr(ouigemm, "capabilities", lambda: {"rungs": rungs, "auto": {"f32": auto}})
    assert precisions.rungs() == dict.fromkeys(("f32", "int32", "fake", "fake int32", "widened"), plain) | own


@pytest.mark.parametrize("kind", ["f32", "bf16", "s16", "s32", "u8s8", "s8s8"])
def test_products_of_every_type_run_on_the_rung_that_was_named(kind):
    a, b = (x.astype(np.int64) for x in precisions._bytes(SHAPE, 0))
    if kind == "u8s8":
        a = a % 256
    np.testing.assert_array_equal(precisions.product(kind, "portable", SHAPE)(), a @ b)


def test_a_wrong_product_is_counted(monkeypatch):
    for kind in ("s8s8", "u8s8", "s16", "s32"):
        assert precisions.mismatches("portable", kind, SHAPE, seed=0) == 0
    real = ouigemm.gemm
    monkeypatch.setattr(
        ouigemm, "gemm", lambda a, b, **how: real(a, b, **how) + np.eye(5, 33, dtype=np.int32)
    )
    assert precisions.mismatches("portable", "s8s8", SHAPE, seed=0) == 5


def test_extremes_are_tried():
    rng = np.random.default_rng(0)
    found = precisions._with_extremes(rng, (40, 40), "int8")
    assert found.dtype == np.int8
    assert 0.1 < np.isin(found, [-128, 127]).mean() < 0.4


def test_shapes_and_their_operations():
    """The first layer's count is that of the paper page; there are twenty different layers."""
    assert operations(RESNET50[0]) == 236_027_904
    assert len(set(RESNET50)) == 20
    assert {len(shapes) for shapes in NETWORKS.values()} == {20, 9, 3, 4}
    assert precisions.transposed((1, 2, 3)) == (2, 1, 3)
    assert precisions.bytes_moved((10, 20, 30), 1) == 300 + 600 + 800
    assert precisions.bytes_moved((10, 20, 30), 4) == 1200 + 2400 + 800


@pytest.mark.parametrize(("arm", "ratio"), [("f32", 1.0), ("int32", 0.5), ("fake", 1.0), ("widened", 4.0)])
def test_the_peak_of_an_arm_is_relative_to_floats(monkeypatch, arm, ratio):
    rates = {"f32": 2e10, "s32": 1e10, "s16": 8e10}
    plain = precisions.rungs()["f32"]
    monkeypatch.setattr(ouigemm, "peak", lambda kind, isa: (isa, rates[kind]) if isa == plain else None)
    assert precisions.peak_ratio(arm) == ratio


def test_without_a_peak_there_is_no_ratio(monkeypatch):
    monkeypatch.setattr(ouigemm, "peak", lambda kind, isa: None)
    assert np.isnan(precisions.peak_ratio("widened"))
