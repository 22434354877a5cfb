"""Robust z and the risk-aware weights, by hand and by their properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouikit.fl.strategies.risk import risk_factors, risk_weights, robust_z
from ouikit.fl.strategies.weights import size_weights


def test_robust_z_by_hand():
    # median 3, deviations 2, 1, 0, 1, 97, MAD 1
    assert robust_z([1, 2, 3, 4, 100]) * 1.4826 == pytest.approx([2, 1, 0, 1, 97])


def test_robust_z_where_most_values_are_equal():
    assert robust_z([0.2] * 5).tolist() == [0.0] * 5
    # MAD 0; mean absolute deviation 0.8 / 5
    assert robust_z([0.1, 0.1, 0.1, 0.1, 0.9]) == pytest.approx([0, 0, 0, 0, 5 / 1.2533])
    assert robust_z([0.4]).tolist() == [0.0]


@given(
    values=st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), min_size=1, max_size=12),
    shift=st.integers(-8, 8),
    power=st.integers(-3, 3),
)
def test_robust_z_is_finite_and_knows_no_units(values, shift, power):
    z = robust_z(values)
    assert np.isfinite(z).all()
    assert (z >= 0).all()
    assert robust_z(-np.array(values)) == pytest.approx(z)
    assert robust_z(np.array(values) * 2.0**power) == pytest.approx(z)
    if np.median(np.abs(values - np.median(values))) > 1e-3:
        assert robust_z(np.array(values) + shift) == pytest.approx(z, rel=1e-6, abs=1e-6)


def test_robust_z_of_a_normal_sample_is_in_standard_deviations():
    values = np.random.default_rng(0).normal(5, 2, 20_000)
    assert robust_z(values) == pytest.approx(np.abs(values - 5) / 2, rel=0.05, abs=0.05)


def test_risk_weights_by_hand():
    divergences, sizes = [1, 2, 3, 4, 100], [10, 20, 30, 40, 50]
    raw = np.array([10, 20, 30, 40, 50 * math.exp(-(97 / 1.4826 - 3) / 20)])
    assert risk_weights(divergences, sizes, temperature=20) == pytest.approx(raw / raw.sum())


@given(
    pairs=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 500)), min_size=1, max_size=12),
    threshold=st.floats(0.7, 5),
    temperature=st.floats(1e-3, 10),
)
def test_risk_weights_sum_to_one_and_leave_the_nearer_half_as_it_was(pairs, threshold, temperature):
    divergences, sizes = zip(*pairs, strict=True)
    weights = risk_weights(divergences, sizes, threshold=threshold, temperature=temperature)
    factors = risk_factors(divergences, threshold=threshold, temperature=temperature)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert 2 * (factors == 1).sum() >= len(pairs)
    beyond = robust_z(divergences) > threshold
    if not beyond.any():
        assert weights == pytest.approx(size_weights(sizes))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: robust_z([]), "list of finite values"),
        (lambda: robust_z([0.1, math.nan]), "finite"),
        (lambda: robust_z([[0.1, 0.2]]), "list"),
        (lambda: risk_weights([0.1, 0.2], [1]), "2 for 1"),
        (lambda: risk_weights([0.1, 0.2], [1, -1]), "num_examples"),
        (lambda: risk_factors([0.1], threshold=0.5), "0.5"),
        (lambda: risk_factors([0.1], temperature=0.0), "temperature"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
