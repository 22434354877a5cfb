"""Intervals: hand-computed values, agreement with scipy, honest coverage, and no silent loss of a seed."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ouikit import stats
from ouikit.stats import Estimate, exactly

finite = st.floats(-1e6, 1e6)


def normals(n: int, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).normal(size=n).tolist()


def test_three_seeds_by_hand() -> None:
    """Mean 2, standard error 1/√3, t(0.975; 2) = 4.302653."""
    estimate = stats.mean_interval([1, 2, 3])
    assert (estimate.value, estimate.n) == (2, 3)
    assert estimate.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert estimate.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_small_samples_agree_with_scipys_t_test(level: float) -> None:
    values = normals(5)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(level)
    estimate = stats.mean_interval(values, level)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_large_samples_are_a_bootstrap_at_the_expanded_level() -> None:
    """Level from Hesterberg 2015: t(0.025; 11) · √(12/11) = −2.2988, and Φ of that is 0.01076."""
    values = normals(12)
    expected = scipy_stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=stats.RESAMPLES,
        confidence_level=1 - 2 * 0.0107585,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    estimate = stats.mean_interval(values)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-3)
    plain = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert estimate.low < plain.low < plain.high < estimate.high


@pytest.mark.parametrize("n", [3, 5, 8, 12])
def test_coverage(n: int) -> None:
    """Of 400 samples 95 % ± 3.3 % (three standard errors) should cover 0; the bootstrap may fall a bit short.

    A plain bootstrap covers in 88 % of cases at n = 8 and in 83 % at n = 5: both would fail here.
    """
    trials = np.random.default_rng(n).normal(size=(400, n))
    intervals = [stats.mean_interval(trial) for trial in trials]
    coverage = np.mean([e.low <= 0 <= e.high for e in intervals])
    assert 0.915 <= coverage <= 0.985


@pytest.mark.parametrize("function", [stats.mean_interval, stats.interquartile_mean])
def test_one_seed_says_nothing_about_the_spread(function) -> None:  # type: ignore[no-untyped-def]
    assert function([0.5]) == Estimate(0.5, -math.inf, math.inf, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("n", [1, 3, 10])
def test_a_diverged_seed_is_never_dropped(bad: float, n: int) -> None:
    values = [*normals(n - 1), bad]
    for estimate in (
        stats.mean_interval(values),
        stats.interquartile_mean(values),
        stats.paired_difference(values, normals(n, seed=1)),
        stats.paired_difference(values, values),
    ):
        assert math.isnan(estimate.value)
        assert (estimate.low, estimate.high, estimate.n) == (-math.inf, math.inf, n)


@settings(deadline=None)
@given(st.lists(finite, min_size=2, max_size=12), st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_hold_the_estimate_and_repeat(values: list[float], level: float) -> None:
    for function in (stats.mean_interval, stats.interquartile_mean):
        estimate = function(values, level)
        slack = 1e-9 * max(map(abs, values))
        assert estimate.low <= estimate.value + slack
        assert estimate.value <= estimate.high + slack
        assert estimate == function(values, level)


@given(finite, st.integers(2, 12))
def test_no_spread_no_width(value: float, n: int) -> None:
    estimate = stats.mean_interval([value] * n)
    assert estimate.low == estimate.value == estimate.high == pytest.approx(value)


def test_pairing_removes_what_seeds_do_to_both_arms() -> None:
    seeds = np.array([-20.0, -10, 0, 10, 30])
    treated = seeds + np.array([1.0, 1.1, 0.9, 1.0, 1.0])
    estimate = stats.paired_difference(treated, seeds)
    assert estimate.value == pytest.approx(1)
    assert estimate.low > 0.9
    assert stats.mean_interval(treated).low < 0
    swapped = stats.paired_difference(seeds, treated)
    assert (swapped.low, swapped.high) == pytest.approx((-estimate.high, -estimate.low))


LABELLED = {
    "Series": pd.Series,
    "mapping": lambda values, index: dict(zip(index, values, strict=True)),
    "two levels": lambda values, index: pd.Series(
        values, pd.MultiIndex.from_product([["task"], index], names=["task", "seed"])
    ),
}


@pytest.mark.parametrize("kind", LABELLED)
def test_labels_pair_the_arms_whatever_their_order(kind: str) -> None:
    label = LABELLED[kind]
    a, b = label([0.0, 10.0, 25.0], [0, 1, 2]), label([26.0, 11.0, 1.0], [2, 1, 0])
    assert stats.paired_difference(a, b) == Estimate(-1, -1, -1, 3)
    assert stats.paired_difference(b, a) == Estimate(1, 1, 1, 3)


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=7), st.randoms())
def test_order_is_nothing_where_there_are_labels(pairs: list[tuple[float, float]], random) -> None:  # type: ignore[no-untyped-def]
    a, b = (dict(enumerate(arm)) for arm in zip(*pairs, strict=True))
    shuffled = random.sample(list(b.items()), len(b))
    assert stats.paired_difference(a, dict(shuffled)) == stats.paired_difference([*a.values()], [*b.values()])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (pd.Series([1.0, 2]), pd.Series([1.0, 2], index=[7, 8]), r"\[0, 1\] and \[7, 8\]"),
        ({"x": 1.0, "y": 2.0}, {"x": 1.0, "z": 2.0}, r"\['x', 'y'\] and \['x', 'z'\]"),
        (pd.Series([1.0, 2], [3, 3]), pd.Series([1.0, 2], [3, 4]), r"\[3, 3\] and \[3, 4\]"),
        (pd.Series([1.0, 2], [5, 3]), [1.0, 2.0], r"only one arm has labels, \[5, 3\]: label b too"),
        ([1.0, 2.0], {1: 1.0, 0: 2.0}, r"only one arm has labels, \[1, 0\]: label a too"),
        (
            pd.Series([1.0, 2], pd.Index([0, 1], name="seed")),
            pd.Series([1.0, 2], pd.Index([0, 1], name="fold")),
            r"\['seed'\] and by \['fold'\]",
        ),
    ],
)
def test_arms_whose_labels_differ_are_refused(a: object, b: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stats.paired_difference(a, b)  # type: ignore[arg-type]


def test_positions_pair_what_has_no_labels_of_its_own() -> None:
    a = pd.Series([1.0, 3.0])  # numbered 0, 1, as rows are by default
    assert stats.paired_difference(a, [0.0, 2.0]) == Estimate(1, 1, 1, 2)
    repeated = pd.Index([3, 3])  # equal labels in equal order
    pair = pd.Series([1.0, 3.0], repeated), pd.Series([0.0, 2.0], repeated)
    assert stats.paired_difference(*pair) == Estimate(1, 1, 1, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ma.masked_greater([1.0, 2.0, 99.0], 50), r"masked values: .*\.compressed\(\)"),
        ([1.0, np.ma.masked], "masked values"),
        (np.array([1 + 2j, 3]), "complex128"),
        (["1", "2"], "real numbers, not <U1"),
        (np.array(["2026-01-01"], "M8[D]"), "datetime64"),
        ({1.0, 2.0}, "must be real numbers: .*set"),
    ],
)
def test_what_is_no_list_of_real_numbers_is_refused(values: object, message: str) -> None:
    for function in (stats.mean_interval, stats.interquartile_mean, stats.settling_step):
        with pytest.raises(ValueError, match=message):
            function(values)  # type: ignore[operator]
    for pair in ((values, [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], values)):
        with pytest.raises(ValueError, match=message):
            stats.paired_difference(*pair)
        with pytest.raises(ValueError, match=message):
            stats.rank_trend(*pair)


def test_a_mask_that_hides_nothing_and_a_missing_number() -> None:
    assert stats.mean_interval(np.ma.array([1.0, 2.0, 3.0])) == stats.mean_interval([1, 2, 3])
    assert stats.mean_interval({4: 1, 7: 2, 1: 3}) == stats.mean_interval([1, 2, 3])
    for missing in (pd.Series([1, pd.NA], dtype="Int64"), [1.0, None]):
        assert math.isnan(stats.mean_interval(missing).value)
        assert stats.mean_interval(missing).n == 2


def test_rank_trend_matches_columns_with_settings() -> None:
    """Of the settings 3, 1, 2 and y = setting², whatever the order of the table's columns."""
    table = pd.DataFrame([[1.0, 4.0, 9.0], [1.0, 4.0, 9.5]], columns=[1, 2, 3])
    assert stats.rank_trend([3, 1, 2], table).value == 1
    named = pd.Series([3.0, 1.0, 2.0], ["much", "none", "little"])
    assert stats.rank_trend(named, table.set_axis(["none", "little", "much"], axis=1)).value == 1
    assert stats.rank_trend(named, pd.Series({"none": 1.0, "little": 4.0, "much": 9.0})).value == 1
    assert stats.rank_trend([3, 1, 2], table.to_numpy()[:, [2, 0, 1]]).value == 1
    with pytest.raises(ValueError, match=r"do not match x: .*\[1.0, 2.0, 4.0\] and \[1, 2, 3\]"):
        stats.rank_trend([1, 2, 4], table)
    with pytest.raises(ValueError, match="list of labelled values"):
        stats.rank_trend([1, 2], [pd.Series([1.0, 2.0], [1, 2]), pd.Series([1.0, 2.0], [2, 1])])  # type: ignore[list-item]


class Labelled:
    """As much of xarray's DataArray as is looked at."""

    coords = "seed"

    def __init__(self, series: pd.Series) -> None:
        self.series = series

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self.series.to_numpy()

    def to_pandas(self) -> pd.Series:
        return self.series


def test_labels_of_xarray_count() -> None:
    a, b = Labelled(pd.Series([1.0, 5.0], [3, 4])), Labelled(pd.Series([4.0, 0.0], [4, 3]))
    assert stats.paired_difference(a, b) == Estimate(1, 1, 1, 2)  # type: ignore[arg-type]


def test_a_curve_is_read_in_the_order_of_its_index() -> None:
    assert stats.settling_step(pd.Series([5.0, 1.0, 1.0], [10, 20, 30])) == 1
    for curve in (pd.Series([1.0, 5.0, 1.0], [30, 10, 20]), {30: 1.0, 10: 5.0, 20: 1.0}):
        with pytest.raises(ValueError, match=r"index is not in order, \[30, 10, 20\]"):
            stats.settling_step(curve)


def test_the_smallest_mean_by_hand() -> None:
    """Means 2 and 3, standard errors 1/√3 and 2/√3; t(0.975; 2) = 4.302653, t(0.9875; 2) = 6.205347."""
    estimate = stats.smallest_mean([[1, 1], [2, 3], [3, 5]])
    assert (estimate.value, estimate.n) == (2, 3)
    assert estimate.low == pytest.approx(3 - 4.302653 * 2 / math.sqrt(3), abs=1e-6)  # that of the wider one
    assert estimate.high == pytest.approx(2 + 6.205347 / math.sqrt(3), abs=1e-6)
    mirrored = stats.largest_mean([[-1, -1], [-2, -3], [-3, -5]])
    assert (mirrored.value, mirrored.low, mirrored.high) == (-2, -estimate.high, -estimate.low)
    assert stats.smallest_mean([[1], [2], [3]]) == stats.mean_interval([1, 2, 3])


def test_conditions_at_the_threshold_are_rarely_contradicted_and_rarely_reproduced() -> None:
    """Eight conditions whose means are all 0: the mean of each seed's minimum lies below it every time."""
    trials = np.random.default_rng(0).normal(size=(100, 5, 8))
    found = [stats.smallest_mean(trial) for trial in trials]
    assert np.mean([e.high < 0 for e in found]) < 0.08  # 2.5 % by the level, and three standard errors
    assert np.mean([e.low > 0 for e in found]) < 0.08
    assert np.mean([stats.mean_interval(trial.min(axis=1)).high < 0 for trial in trials]) > 0.8


def test_one_condition_at_the_threshold_is_enough_to_leave_it_open() -> None:
    """The others far above: what is left is the interval of the one."""
    trials = np.random.default_rng(1).normal([0, 50, 50, 50], size=(200, 5, 4))
    assert np.mean([stats.smallest_mean(trial).low > 0 for trial in trials]) < 0.06


def test_several_conditions_hide_no_diverged_run() -> None:
    assert math.isnan(stats.smallest_mean([[1, 2], [1, math.nan], [1, 2]]).value)
    assert stats.largest_mean([[1, 2]]) == Estimate(2, -math.inf, math.inf, 1)
    assert stats.smallest_mean([[], []]).n == 0
    with pytest.raises(ValueError, match="seeds × conditions"):
        stats.smallest_mean([1, 2, 3])


def test_interquartile_mean_by_hand() -> None:
    """Of 0 … 7 and an outlier the middle four count; the interval of six values is Tukey and McLaughlin's."""
    assert stats.interquartile_mean([1000, 1, 2, 3, 4, 5, 6, -1000]).value == 3.5
    # n = 6, one cut from each end: winsorised 1, 1, 2, 3, 4, 4; mean 2.5 of the middle four; variance 9.5 / 5
    estimate = stats.interquartile_mean([-50, 1, 2, 3, 4, 50])
    error = math.sqrt(1.9) * math.sqrt(6) / 4
    assert estimate.value == 2.5
    assert estimate.high - 2.5 == pytest.approx(3.182446 * error, rel=1e-6)  # t(0.975; 3)


def test_interquartile_mean_shrugs_off_a_quarter_of_outliers() -> None:
    values = [*normals(15), 1e9]
    estimate = stats.interquartile_mean(values)
    assert -2 < estimate.low < estimate.high < 2
    assert stats.mean_interval(values).value > 1e7


def test_rank_trend() -> None:
    """By hand: ranks 1 3 2 against 1 2 3 give ρ = 1 − 6·2 / (3·8) = 0.5."""
    trend = stats.rank_trend([1e-5, 1e-3, 1e-1], [[1.0, 9.0, 4.0], [1.0, 2.0, 900.0], [0.0, 5.0, 4.0]])
    assert trend.value == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert (trend.high, trend.n) == (1, 3)
    assert trend.low == pytest.approx(trend.value - 4.302653 / 6, abs=1e-6)
    assert stats.rank_trend([1, 2, 3], [[3, 2, 1]]) == Estimate(-1, -1, 1, 1)


@pytest.mark.parametrize("row", [[2, 2, 2], [1, math.nan, 3], [1, 2, math.inf]])
def test_a_seed_without_a_trend_makes_it_unknown(row: list[float]) -> None:
    trend = stats.rank_trend([1, 2, 3], [[1.0, 2.0, 3.0], row])
    assert math.isnan(trend.value)
    assert (trend.low, trend.high, trend.n) == (-1, 1, 2)


@pytest.mark.parametrize(
    ("curve", "step"),
    [
        ([5, 4, 1.04, 0.96, 1.0], 2),
        ([1.0, 1.0, 5.0, 1.0], 3),
        ([1.0, 1.0], 0),
        ([3.0], 0),
        ([-5, -1.06, -1.05, -1], 2),
        ([1, 0.001, 0, 0], 2),
        ([1, math.nan, 1, 1], 2),
        ([math.inf, 1, 1], 1),
        ([1, 1, math.nan], 3),
    ],
)
def test_settling_step_by_hand(curve: list[float], step: int) -> None:
    assert stats.settling_step(curve, tolerance=0.05 + 1e-12) == step


@given(st.lists(finite, min_size=1, max_size=30), st.floats(0, 1))
def test_settling_step_is_the_first_such_index(curve: list[float], tolerance: float) -> None:
    step = stats.settling_step(curve, tolerance)

    def within(value: float) -> bool:
        return abs(value - curve[-1]) <= tolerance * abs(curve[-1])

    assert all(map(within, curve[step:]))
    assert step == 0 or not within(curve[step - 1])


def test_text() -> None:
    estimate = Estimate(0.7123, 0.66, 0.75, 10)
    assert str(estimate) == f"{estimate}" == "0.712 [0.66, 0.75], n = 10"
    assert f"{estimate:.2f}" == "0.71 [0.66, 0.75], n = 10"
    assert str(stats.mean_interval([2])) == "2 [-inf, inf], n = 1"


def test_what_was_not_run_has_no_estimate_and_n_is_0() -> None:
    nothing = Estimate(math.nan, -math.inf, math.inf, 0)
    for found in (
        stats.mean_interval([]),
        stats.interquartile_mean([]),
        stats.paired_difference([], [1, 2]),
        stats.paired_difference([1, 2], []),
        stats.rank_trend([0.1], [[1], [2]]),
    ):
        assert str(found) == str(nothing)
    with pytest.raises(ValueError, match="empty"):
        stats.settling_step([])


def test_an_arm_is_found_by_its_levels_and_is_empty_where_it_was_not_run() -> None:
    levels = [["a", "b"], ["plain", "decayed"], [0, 1]]
    index = pd.MultiIndex.from_product(levels, names=["task", "arm", "seed"])
    runs = pd.DataFrame({"loss": range(8)}, index)
    assert stats.arm(runs, "b", "plain").loss.to_dict() == {0: 4, 1: 5}
    assert stats.arm(runs, "b").index.names == ["arm", "seed"]
    assert stats.arm(runs, "b", "reversed").empty
    assert stats.arm(runs, "c", "plain").columns.tolist() == ["loss"]


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="got 2 and 3"):
        stats.paired_difference([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        stats.mean_interval([[1], [2]])
    with pytest.raises(ValueError, match="95"):
        stats.mean_interval([1, 2], level=95)
    with pytest.raises(ValueError, match="two different"):
        stats.rank_trend([1, 1], [[1, 2]])
    with pytest.raises(ValueError, match="seeds × 3"):
        stats.rank_trend([1, 2, 3], [[1, 2]])
    with pytest.raises(ValueError, match="-1"):
        stats.settling_step([1, 2], tolerance=-1)


def test_settling_by_range_judges_a_curve_by_how_far_it_moved() -> None:
    flat = [0.70, 0.74, 0.72, 0.715, 0.71]  # always within 5 % of 0.71, but moving through its whole range
    assert stats.settling_step(flat) == 0
    assert stats.settling_step(flat, of="range") == 4
    assert stats.settling_step(flat, 0.25, of="range") == 2
    assert stats.settling_step([3.0, 3.0, 3.0], of="range") == 0
    with pytest.raises(ValueError, match="'final' or 'range'"):
        stats.settling_step(flat, of="all")


def test_a_computed_number_has_no_width_and_one_that_is_not_finite_no_interval() -> None:
    assert exactly(np.float64(0.25)) == Estimate(0.25, 0.25, 0.25, 1)
    assert exactly(3, n=11) == Estimate(3.0, 3.0, 3.0, 11)
    nothing = exactly(math.nan, n=2)
    assert (math.isnan(nothing.value), nothing.low, nothing.high, nothing.n) == (True, -math.inf, math.inf, 2)
    with pytest.raises(ValueError, match="at least 1: got 0"):
        exactly(1.0, n=0)


def test_auroc_by_hand_and_by_scikit_learn() -> None:
    """Positives 3 and 2 against 2 and 1: three pairs won, one tied."""
    from sklearn.metrics import roc_auc_score

    assert stats.auroc([1, 1, 0, 0], [3, 2, 2, 1]) == 3.5 / 4
    rng = np.random.default_rng(0)
    truth, score = rng.random(60) < 0.3, rng.integers(0, 10, 60).astype(float)
    assert stats.auroc(truth, score) == pytest.approx(roc_auc_score(truth, score))
    assert stats.auroc(truth, -score) == pytest.approx(1 - stats.auroc(truth, score))


def test_auroc_of_a_diverged_run_is_the_callers_to_rank() -> None:
    assert stats.auroc([True, False, False], [1.0, -math.inf, 0.0]) == 1.0
    assert math.isnan(stats.auroc([True, False], [1.0, math.nan]))
    assert math.isnan(stats.auroc([True, True], [1.0, 2.0]))
    with pytest.raises(ValueError, match=r"true or false of each case: got \[2.0, 0.0\]"):
        stats.auroc([2, 0], [1.0, 2.0])
    with pytest.raises(ValueError, match="positive has 2 values, score 3"):
        stats.auroc([1, 0], [1.0, 2.0, 3.0])


def test_scores_are_paired_by_their_labels() -> None:
    truth = pd.Series([True, False], index=["a", "b"])
    assert stats.auroc(truth, pd.Series([0.0, 1.0], index=["b", "a"])) == 1.0
    with pytest.raises(ValueError, match="cannot be paired"):
        stats.auroc(truth, pd.Series([0.0, 1.0], index=["b", "c"]))


def test_partial_rank_correlation_is_the_textbooks() -> None:
    """With one other quantity: (r_xy − r_xz r_yz) / √((1 − r_xz²)(1 − r_yz²)) of Spearman's correlations."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=80)
    x, y = np.exp(z + rng.normal(size=80)), z + rng.normal(size=80)
    xy, xz, yz = (scipy_stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert stats.partial_rank_correlation(x, y, z) == pytest.approx(expected)
    assert stats.partial_rank_correlation(x, y) == pytest.approx(xy)
    assert abs(stats.partial_rank_correlation(x, y, z)) < 0.3 < xy


def test_partial_rank_correlation_where_nothing_is_left() -> None:
    x = np.arange(50.0)
    assert math.isnan(stats.partial_rank_correlation(x, x**2, np.exp(x / 10)))
    assert math.isnan(stats.partial_rank_correlation(x, np.ones(50)))
    assert math.isnan(stats.partial_rank_correlation([1, math.nan, 2], [1, 2, 3]))
    assert stats.partial_rank_correlation([1, math.inf, 2], [1, 3, 2]) == pytest.approx(1)


def test_an_interval_over_groups_knows_that_their_runs_are_alike(monkeypatch) -> None:
    """Settings vary and their seeds hardly do: drawn as single runs they pass for five times as many."""
    monkeypatch.setattr(stats, "GROUPED_RESAMPLES", 299)
    rng, covered, too_few, runs = np.random.default_rng(0), 0, 0, 120
    for _ in range(runs):
        groups = np.repeat(np.arange(12), 5)
        values = rng.normal(size=12)[groups] + 0.1 * rng.normal(size=60)
        found = stats.grouped_interval(np.mean, groups, values)
        naive = stats.grouped_interval(np.mean, np.arange(60), values)
        assert (found.n, naive.n) == (12, 60)
        covered += found.low <= 0 <= found.high
        too_few += naive.low <= 0 <= naive.high
    assert covered / runs > 0.88
    assert too_few / runs < 0.75


def test_an_interval_over_groups_of_one_run_each_is_the_bootstraps() -> None:
    values = normals(30)
    found, expected = stats.grouped_interval(np.mean, range(30), values), stats.mean_interval(values)
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.05)


def test_an_interval_over_groups_admits_what_it_does_not_know() -> None:
    few = stats.grouped_interval(np.mean, [0, 0, 1, 1], [1.0, 2.0, 3.0, 4.0])
    assert (few.value, few.low, few.high, few.n) == (2.5, -math.inf, math.inf, 2)
    assert stats.grouped_interval(np.mean, [], []).n == 0
    truth = [True] + [False] * 9  # one draw in three has no positive case
    rare = stats.grouped_interval(stats.auroc, range(10), truth, range(10, 0, -1))
    assert (rare.value, rare.low, rare.n) == (1.0, -math.inf, 10)
    none = stats.grouped_interval(stats.auroc, range(10), [True] * 10, range(10))
    assert math.isnan(none.value)
    assert none.n == 10


def test_an_interval_over_groups_pairs_columns_by_labels() -> None:
    groups = pd.Series(list("aabb"), index=[0, 1, 2, 3])
    values = pd.Series([4.0, 3.0, 2.0, 1.0], index=[3, 2, 1, 0])
    seen = []
    stats.grouped_interval(lambda x: float(seen.append(x) or x.mean()), groups, values)
    assert seen[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(ValueError, match="groups has 4 values, column 1 3"):
        stats.grouped_interval(np.mean, groups, [1.0, 2.0, 3.0])
