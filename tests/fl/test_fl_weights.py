"""The weighting mathematics, against the released run's numbers and by hand."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ouikit.fl import alignment_weights, fedoui_alignment_weights, fedoui_weights, typicality
from ouikit.fl.strategies.weights import (
    alignment,
    beta_of,
    cosine_to_mean,
    effective_clients,
    likeliest_beta,
    moved_mass,
    size_weights,
)

# Scenario A, seed 3, round 59 of the released tables (arXiv 2605.11571, authors' code).
OUI = [0.12646484375, 0.25732421875, 0.31005859375, 0.31787109375, 0.37158203125]
SIZES = [210, 226, 66, 40, 17]
unit = st.floats(0.0, 1.0)
rounds = st.lists(st.tuples(unit, st.integers(1, 500)), min_size=2, max_size=8)


def printed(values, digits):
    return [f"{value:.{digits}f}" for value in values]


def test_the_released_round_to_every_digit():
    assert f"{np.mean(OUI):.14f}" == "0.27666015625000"
    assert f"{np.var(OUI, ddof=1):.10f}" == "0.0086891174"
    assert printed(beta_of(OUI), 7) == ["6.0951079", "15.9359210"]
    assert printed(typicality(OUI), 7) == ["0.0742686", "0.8949962", "0.6820536", "0.6264102", "0.3164801"]
    weights = printed(fedoui_weights(OUI, SIZES), 7)
    assert weights == ["0.0537858", "0.6890481", "0.1534029", "0.0853978", "0.0183654"]


def test_the_second_golden_round():
    oui = [0.1, 0.2, 0.25, 0.3, 0.6]
    assert beta_of(oui) == pytest.approx((1.392, 3.408), abs=1e-12)
    assert printed(typicality(oui), 5) == ["0.33747", "0.76326", "0.96463", "0.84976", "0.14920"]


def test_reflection_swaps_the_shapes_and_keeps_the_scores():
    alpha, beta = beta_of(OUI)
    assert beta_of(1 - np.array(OUI)) == pytest.approx((beta, alpha), rel=1e-12)
    assert typicality(1 - np.array(OUI)) == pytest.approx(typicality(OUI), abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 1.0])
def test_equal_values_leave_fedavg(value):
    """Three values of 0.1 have a variance of 1e-34, not 0, in floating point."""
    assert typicality([value] * 3).tolist() == [1, 1, 1]
    assert fedoui_weights([value] * 3, [1, 2, 5]) == pytest.approx(size_weights([1, 2, 5]), abs=1e-15)
    assert fedoui_weights([value], [7]).tolist() == [1.0]


@given(rounds)
def test_weights_sum_to_one_and_remove_nobody(clients):
    oui, sizes = zip(*clients, strict=True)
    weights = fedoui_weights(oui, sizes)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert (weights > 0).all()
    assert ((typicality(oui) >= 0) & (typicality(oui) <= 1)).all()


@given(rounds)
def test_gamma_zero_is_fedavg(clients):
    oui, sizes = zip(*clients, strict=True)
    assert fedoui_weights(oui, sizes, gamma=0.0) == pytest.approx(np.array(sizes) / sum(sizes), abs=1e-12)


@given(rounds, st.randoms())
def test_the_order_of_the_clients_does_not_matter(clients, random):
    oui, sizes = zip(*clients, strict=True)
    order = list(range(len(clients)))
    random.shuffle(order)
    moved = fedoui_weights([oui[i] for i in order], [sizes[i] for i in order])
    assert moved == pytest.approx(fedoui_weights(oui, sizes)[order], rel=1e-6, abs=1e-9)


def test_typicality_rises_to_the_median_and_falls_after_it():
    """One client's value swept over the others' distribution, at equal sizes."""
    alpha, beta = beta_of(OUI)
    median = stats.beta.median(alpha, beta)
    order = np.argsort(np.abs(np.array(OUI) - median))
    scores = typicality(OUI)
    below = [s for o, s in zip(OUI, scores, strict=True) if o < median]
    above = [s for o, s in zip(OUI, scores, strict=True) if o > median]
    assert below == sorted(below)
    assert above == sorted(above, reverse=True)
    assert scores.argmax() == order[0]


def test_values_are_clipped_before_the_fit_and_again_before_the_score():
    """Fit at [0.001, 0.999], score at [0.0001, 0.9999] (authors' code)."""
    others = [0.3, 0.4, 0.5]
    assert beta_of([0.0, *others]) == beta_of([0.001, *others]) != beta_of([0.0011, *others])
    shapes = beta_of([0.0, *others])
    assert typicality([0.0, *others])[0] == pytest.approx(2 * stats.beta.cdf(1e-4, *shapes), rel=1e-12)


def test_values_that_no_beta_distribution_fits_by_moments():
    """{0.001, 0.999}: mean ½, variance ½ > ¼; the likelihood still has its maximum, at equal shapes."""
    alpha, beta = beta_of([0.001, 0.999])
    assert 0 < alpha < 1
    assert alpha == pytest.approx(beta, rel=1e-6)
    assert typicality([0.0, 1.0])[0] == pytest.approx(typicality([0.0, 1.0])[1], rel=1e-6)


def test_ranks_where_no_fit_is_possible(monkeypatch):
    def fails(*args, **kwargs):
        raise stats.FitError("no maximum")

    monkeypatch.setattr(stats.beta, "fit", fails)
    assert likeliest_beta([0.001, 0.999]) is None
    # ranks 1.5, 1.5, 3.5, 3.5 of 4 values, over 5: F = .3, .3, .7, .7
    assert typicality([0.0, 0.0, 1.0, 1.0]) == pytest.approx([0.6] * 4)


def test_likelihood_recovers_the_shapes_of_a_sample():
    sample = stats.beta.rvs(6.13, 20.13, size=20_000, random_state=0)
    assert likeliest_beta(sample) == pytest.approx((6.13, 20.13), rel=0.03)


def test_alignment_by_hand():
    """Sizes 1, 1: the mean of (2, 0) and (0, 2) is (1, 1), at 45° to both; (−1, 0) has a negative cosine."""
    assert alignment([[2, 0], [0, 2]], [1, 1]) == pytest.approx([np.sqrt(0.5)] * 2)
    assert alignment([[4, 0], [-1, 0]], [1, 1]).tolist() == [1.0, 0.0]
    assert alignment([[0, 0], [0, 0]], [1, 1]).tolist() == [0.0, 0.0]
    # sizes 3, 1: mean (1.5, 0.5); cosines 3/√10 and 1/√10
    skewed = alignment([[2, 0], [0, 2]], [3, 1])
    assert skewed == pytest.approx([3 / np.sqrt(10), 1 / np.sqrt(10)])
    raw = np.array([3, 1]) * (skewed + 1e-3)
    assert alignment_weights([[2, 0], [0, 2]], [3, 1]) == pytest.approx(raw / raw.sum())


def test_an_opposed_update_nearly_vanishes_and_eta_zero_is_fedavg():
    updates = [[4.0, 0.0], [-1.0, 0.0]]
    assert alignment_weights(updates, [1, 1])[1] == pytest.approx(0.001 / 1.002)
    assert alignment_weights(updates, [1, 3], eta=0.0) == pytest.approx([0.25, 0.75])


def test_the_product_has_both_factors():
    updates = np.random.default_rng(0).normal(size=(5, 7))
    raw = np.array(SIZES) * (typicality(OUI) + 1e-3) * (alignment(updates, SIZES) + 1e-3)
    assert fedoui_alignment_weights(OUI, updates, SIZES) == pytest.approx(raw / raw.sum(), rel=1e-12)
    assert fedoui_alignment_weights(OUI, updates, SIZES, eta=0.0) == pytest.approx(fedoui_weights(OUI, SIZES))
    aligned = fedoui_alignment_weights(OUI, updates, SIZES, gamma=0.0)
    assert aligned == pytest.approx(alignment_weights(updates, SIZES))


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.floats(1e-3, 1e3))
def test_alignment_ignores_the_scale_of_all_updates(sizes, scale):
    updates = np.random.default_rng(len(sizes)).normal(size=(len(sizes), 4))
    assume(np.linalg.norm(size_weights(sizes) @ updates) > 1e-6)
    assert alignment(scale * updates, sizes) == pytest.approx(alignment(updates, sizes), abs=1e-9)


def test_a_client_without_samples_counts_as_one():
    assert size_weights([0, 3]) == pytest.approx([0.25, 0.75])


def test_a_client_without_samples_has_no_part_in_the_mean_update():
    """Sizes 0, 1: the mean is (0, 2), at 90° to the first; without any sample it is 0."""
    assert cosine_to_mean([[2, 0], [0, 2]], [0, 1]).tolist() == [0.0, 1.0]
    assert cosine_to_mean([[2, 0], [0, 2]], [0, 0]).tolist() == [0.0, 0.0]
    assert alignment_weights([[2, 0], [0, 2]], [0, 0]).tolist() == [0.5, 0.5]


def test_epsilon_is_also_where_the_values_are_clipped_before_the_fit():
    """By hand for ε = 0.1: 0 counts as 0.1 in the fit, as 0.0001 in its distribution function."""
    oui, clipped = [0.0, 0.3, 0.4, 0.5], np.array([0.1, 0.3, 0.4, 0.5])
    mean, variance = clipped.mean(), clipped.var(ddof=1)
    concentration = mean * (1 - mean) / variance - 1
    shapes = mean * concentration, (1 - mean) * concentration
    below = stats.beta.cdf([1e-4, 0.3, 0.4, 0.5], *shapes)
    raw = 2 * np.minimum(below, 1 - below) + 0.1
    assert beta_of(oui, 0.1) == pytest.approx(shapes)
    assert fedoui_weights(oui, [1] * 4, epsilon=0.1) == pytest.approx(raw / raw.sum())
    assert beta_of(oui, 0.1) != beta_of(oui)


def test_effective_clients_and_moved_mass():
    assert effective_clients([0.2] * 5) == pytest.approx(5.0)
    assert effective_clients([1.0, 0.0]) == 1.0
    assert moved_mass([0.5, 0.5], [1.0, 0.0]) == 0.5
    assert moved_mass([0.3, 0.7], [0.3, 0.7]) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fedoui_weights([0.1, float("nan")], [1, 1]), "oui must be"),
        (lambda: fedoui_weights([0.1, 1.2], [1, 1]), "1.2"),
        (lambda: fedoui_weights([], []), "oui must be"),
        (lambda: fedoui_weights([0.1, 0.2], [1]), "got 2 for 1"),
        (lambda: fedoui_weights([0.1, 0.2], [1, -1]), "num_examples"),
        (lambda: fedoui_weights([0.1, 0.2], [1, float("inf")]), "num_examples"),
        (lambda: fedoui_weights([0.1, 0.2], [1, 1], epsilon=0.0), "epsilon must be"),
        (lambda: fedoui_weights([0.1, 0.2], [1, 1], gamma=-1.0), "exponent"),
        (lambda: fedoui_weights([0.1, 0.2], [1, 1], gamma=float("inf")), "exponent"),
        (lambda: fedoui_weights([0.1, 0.1], [1, 1], epsilon=0.5), "epsilon must be > 0 and < 0.5"),
        (lambda: alignment([1.0, 2.0], [1, 1]), "clients × parameters"),
        (lambda: alignment([[1.0], [float("nan")]], [1, 1]), "finite"),
        (lambda: alignment([[1.0], [2.0]], [1]), "2 updates and 1 sizes"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_mathematics_needs_neither_flower_nor_torch():
    code = (
        "import sys, ouikit.fl.strategies.weights, ouikit.fl.setting.partition\n"
        "sys.exit(not {'flwr', 'torch'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
