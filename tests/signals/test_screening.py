"""Screening rules: hand-made tables, and the mutant that judges a rule on the runs that it was fitted on."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouikit.signals import screening
from ouikit.signals.screening import (
    Above,
    Between,
    Fitted,
    Rule,
    compare,
    found,
    held_out,
    in_sample,
    keeps,
    precision,
    readings,
    saved,
    successful,
    top_quartile,
)

ONE = Rule("x", (Above("x"),))


def table(x, success, seed=0):
    return pd.DataFrame({"x": np.asarray(x, float), "success": np.asarray(success, bool), "seed": seed})


def test_a_threshold_lies_between_the_good_and_the_bad():
    (fitted,) = Rule("x", (Above("x"),)).fit(table([1, 2, 3, 4], [0, 0, 1, 1]), [0, 0, 1, 1], 1.0)
    assert fitted == Fitted("x", 2.5, math.inf)


def test_an_interval_cuts_off_both_ends():
    runs = table([1, 2, 3, 4, 5], [0, 1, 1, 1, 0])
    (fitted,) = Rule("x", (Between("x"),)).fit(runs, runs.success, 1.0)
    assert (fitted.low, fitted.high) == (1.5, 4.5)
    assert keeps([fitted], runs).tolist() == [False, True, True, True, False]


def test_recall_is_paid_for_with_precision():
    runs = table([1, 2, 3, 4, 5, 6], [1, 0, 0, 1, 1, 1])
    half, all_of_them = (Rule("x", (Above("x"),)).fit(runs, runs.success, r) for r in (0.75, 1.0))
    assert precision(keeps(half, runs), runs.success) == 1.0
    assert found(keeps(half, runs), runs.success) == 0.75
    assert precision(keeps(all_of_them, runs), runs.success) == pytest.approx(4 / 6)


def test_conditions_join_and_the_loosest_of_equals_is_taken():
    runs = table([1, 2, 3, 4], [0, 1, 1, 0]).assign(y=[9.0, 9.0, 9.0, 1.0])
    rule = Rule("both", (Above("x"), Above("y")))
    first, second = rule.fit(runs, runs.success, 1.0)
    assert (first.low, second.low) == (1.5, 5.0)
    redundant = Rule("both", (Between("x"), Above("y"))).fit(runs.assign(y=1.0), runs.success, 1.0)
    assert redundant[1].low == -math.inf


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), min_size=3, max_size=9).filter(
        lambda runs: any(good for *_, good in runs)
    ),
    st.sampled_from([0.5, 0.8, 1.0]),
)
def test_the_matrix_product_finds_what_trying_everything_finds(raw, recall):
    runs = pd.DataFrame(raw, columns=["x", "y", "success"]).astype({"x": float, "y": float})
    rule = Rule("xy", (Between("x"), Above("y")))
    best = 0.0
    for x in Between("x").candidates(runs.x):
        for y in Above("y").candidates(runs.y):
            kept = keeps([x, y], runs)
            if found(kept, runs.success) >= recall:
                best = max(best, precision(kept, runs.success))
    kept = keeps(rule.fit(runs, runs.success, recall), runs)
    assert found(kept, runs.success) >= recall
    assert precision(kept, runs.success) == pytest.approx(best)


def test_what_is_not_finite_is_never_kept():
    runs = table([np.nan, np.inf, 1.0], [1, 1, 1])
    assert Fitted("x", -math.inf, math.inf).keeps(runs).tolist() == [False, False, True]


def test_thresholds_do_not_see_the_runs_that_they_judge():
    """Seed 0 succeeds high, seed 1 low: each is judged by the other's threshold, and so wrongly."""
    runs = pd.concat([table([1, 2], [0, 1], 0), table([1, 2], [1, 0], 1)], ignore_index=True)
    kept = held_out(runs, Rule("x", (Between("x"),)), label="success", fold="seed", recall=1.0)
    assert precision(kept, runs.success) == 0.0
    assert (
        precision(in_sample(runs, Rule("x", (Between("x"),)), label="success", recall=0.5), runs.success)
        == 0.5
    )


def test_groups_have_thresholds_of_their_own():
    here = [table([1, 2], [0, 1], seed).assign(env="a") for seed in (0, 1)]
    there = [table([11, 12], [0, 1], seed).assign(env="b") for seed in (0, 1)]
    runs = pd.concat(here + there, ignore_index=True)
    rule, options = Rule("x", (Above("x"),)), {"label": "success", "fold": "seed", "recall": 1.0}
    assert held_out(runs, rule, within="env", **options).equals(runs.success)
    assert not held_out(runs, rule, **options).equals(runs.success)


def noise(seed, runs=24):
    """Quantities that know nothing of success."""
    rng = np.random.default_rng(seed)
    found = pd.DataFrame(rng.normal(size=(runs, 3)), columns=["x", "y", "z"])
    return found.assign(success=rng.random(runs) < 0.5, seed=np.arange(runs) % 4)


NOISY = Rule("three thresholds", (Between("x"), Between("y"), Above("z")))


def gap(judge, repetitions=10):
    """Mean precision of a rule on pure noise, less the base rate."""
    gaps = []
    for seed in range(repetitions):
        runs = noise(seed)
        kept = judge(runs, NOISY, label="success", fold="seed", recall=0.7)
        gaps.append(precision(kept, runs.success) - runs.success.mean())
    return float(np.mean(gaps))


def test_on_noise_a_held_out_rule_gains_nothing_and_the_mutant_much(monkeypatch):
    monkeypatch.setattr(screening, "CUTS", 12)  # faster
    assert abs(gap(held_out)) < 0.08

    def mutant(runs, rule, *, label, fold, recall):
        return in_sample(runs, rule, label=label, recall=recall)

    assert gap(mutant) > 0.15


def test_the_comparison_has_a_row_for_everything_and_says_which_thresholds():
    runs = noise(0)
    rows = compare(
        runs, [Rule("x", (Above("x"),)), NOISY], label="success", fold="seed", recalls=[0.7, 1.0], by=["seed"]
    )
    assert len(rows) == 2 * 2 * 2 * 4
    means = rows.groupby(["rule", "thresholds"]).precision.mean()
    assert means["three thresholds", "in sample"] > means["three thresholds", "held out"]
    assert rows[["precision", "recall", "saved"]].stack().between(0, 1).all()


def test_counts_by_hand():
    kept, good = [True, True, False, False], [True, False, True, False]
    assert precision(kept, good) == 0.5
    assert found(kept, good) == 0.5
    assert saved(kept, early=0.1) == pytest.approx(0.45)
    assert precision([False] * 4, good) == 0.0
    assert math.isnan(found(kept, [False] * 4))


def test_success_is_a_share_of_what_can_be_learnt_whatever_the_sign_of_returns():
    final = pd.Series([-500.0, -498.0, -100.0, -110.0, -200.0, np.nan])
    arm = pd.Series([1, 1, 2, 2, 3, 3])
    good = successful(final, arm, floor=final[arm == 1], share=0.8)  # −499 … −105: at least −183.8
    assert good.tolist() == [False, False, True, True, False, False]


def test_where_nothing_is_learnt_nothing_succeeds():
    final, arm = pd.Series([-200.0, -200.0, -200.0, -200.0]), pd.Series([1, 1, 2, 2])
    assert not successful(final, arm, floor=final[arm == 1]).any()
    noisy = pd.Series([20.0, 40.0, 35.0, 45.0])
    assert not successful(noisy, arm, floor=noisy[arm == 1]).any()


def test_an_arm_that_diverges_once_is_not_the_best():
    final, arm = pd.Series([0.0, 0.0, 10.0, 10.0, 100.0, np.nan]), pd.Series([1, 1, 2, 2, 3, 3])
    assert successful(final, arm, floor=final[:2]).tolist() == [False, False, True, True, True, False]


def test_the_strict_label_is_the_best_quarter_of_the_successful():
    final = pd.Series(np.arange(8.0))
    assert top_quartile(final, final > 0).tolist() == [False] * 6 + [True] * 2
    assert not top_quartile(final, final > 99).any()


def test_readings_are_the_state_at_a_step_and_means_up_to_it():
    rows = pd.DataFrame(
        [(0, s, m, v) for s, m, v in [(0.0, "a", 9), (0.05, "a", 1), (0.1, "a", 2), (0.15, "a", 8)]]
        + [(0, s, "b", v) for s, v in [(0.05, 1.0), (0.1, 3.0), (0.15, 50.0)]]
        + [(1, 0.1, "a", 5), (1, 0.05, "b", np.nan), (1, 0.1, "b", 1.0)],
        columns=["seed", "step", "metric", "value"],
    )
    known = readings(rows, ["seed"], at=0.1, state=["a"], means=["b"])
    assert known.loc[0].tolist() == [2.0, 2.0]
    assert known.a[1] == 5.0
    assert math.isnan(known.b[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: ONE.fit(r, r.success, 0.0), "recall is a share"),
        (lambda r: ONE.fit(r, [False] * 4, 0.5), "no run is successful"),
        (lambda r: held_out(r, ONE, label="success", fold="seed", recall=1.0), "at least two"),
        (lambda r: in_sample(r, ONE, label="x", recall=1.0), "bool column"),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(table([1, 2, 3, 4], [0, 0, 1, 1]))


def test_a_missing_quantity_is_named():
    with pytest.raises(KeyError, match="nope"):
        Rule("x", (Above("nope"),)).fit(table([1, 2], [0, 1]), [False, True], 1.0)


def test_many_values_are_cut_into_a_bounded_number_of_candidates():
    assert len(Above("x").candidates(pd.Series(np.arange(1000.0)))) == screening.CUTS + 1
