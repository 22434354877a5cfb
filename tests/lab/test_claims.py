"""Predicates: hand-made intervals on both sides of every boundary, and the mutants that must be noticed."""

import math

import pytest

from ouikit.lab.claims import PREDICATES, Measured, fragile, holds_at, judge, parse_test

PAPER = {"value": 0.7}


def verdict(raw, found, paper=PAPER):
    metrics = found if isinstance(found, dict) else {"m": Measured(*found)}
    return judge(parse_test({**raw, "why": "because"}, paper), "m", metrics, paper)


@pytest.mark.parametrize(
    ("raw", "found", "expected"),
    [
        ({"exact": 99}, (99, 99, 99), "reproduced"),
        ({"exact": 99}, (98, 98, 98), "contradicted"),
        ({"exact": 99}, (99, 98, 100), "contradicted"),
        ({"within": 0.1}, (0.7, 0.61, 0.79), "reproduced"),
        ({"within": 0.1}, (0.7, 0.59, 0.79), "inconclusive"),
        ({"within": 0.1}, (0.9, 0.81, 0.95), "contradicted"),
        ({"within": [0.6, 0.8]}, (0.66, 0.6, 0.7), "reproduced"),
        ({"within": [0.6, 0.8]}, (0.55, 0.5, 0.61), "inconclusive"),
        ({"within": [0.6, 0.8]}, (0.4, 0.3, 0.59), "contradicted"),
        ({"greater": 0.1}, (0.2, 0.11, 0.3), "reproduced"),
        ({"greater": 0.1}, (0.2, 0.05, 0.3), "inconclusive"),
        ({"greater": 0.1}, (0.2, -0.05, 0.3), "inconclusive"),
        ({"greater": 0.1}, (-0.2, -0.3, -0.1), "contradicted"),
        ({"greater": 0.1}, (0.0, -0.05, 0.05), "contradicted"),
        ({"greater": 0.1}, (0.05, 0.02, 0.08), "weaker"),
        ({"greater": 0}, (0.0, -0.05, 0.05), "inconclusive"),
        ({"trend": {"falling": 0.5}}, (-0.8, -0.9, -0.6), "reproduced"),
        ({"trend": {"falling": 0.5}}, (-0.6, -0.9, -0.2), "inconclusive"),
        ({"trend": {"falling": 0.5}}, (-0.3, -0.4, -0.2), "weaker"),
        ({"trend": {"falling": 0.5}}, (0.6, 0.2, 0.9), "contradicted"),
        ({"trend": {"rising": 0.5}}, (0.8, 0.6, 0.9), "reproduced"),
        ({"ratio": 0.2}, (0.7, 0.6, 0.8), "reproduced"),
        ({"ratio": 0.2}, (0.7, 0.5, 0.8), "inconclusive"),
        ({"ratio": 0.2}, (1.4, 1.3, 1.5), "contradicted"),
        ({"order": "m > 0.5"}, (0.6, 0.51, 0.7), "reproduced"),
        ({"order": "m > 0.5"}, (0.6, 0.4, 0.7), "inconclusive"),
        ({"order": "m > 0.5"}, (0.4, 0.3, 0.45), "contradicted"),
        ({"order": "-1e-3 < m < 1"}, (0.5, 0.4, 0.6), "reproduced"),
    ],
)
def test_verdict(raw, found, expected):
    assert verdict(raw, found) == expected


def test_order_compares_neighbours_by_their_intervals():
    apart = {"a": Measured(3, 2.5, 3.5), "b": Measured(2, 1.5, 2.4), "c": Measured(1, 0, 1.4)}
    assert verdict({"order": "a > b > c"}, apart) == "reproduced"
    assert verdict({"order": "a > c > b"}, apart) == "contradicted"
    assert verdict({"order": "a > b > c"}, {**apart, "b": Measured(2, 1.5, 2.6)}) == "inconclusive"


def test_missing_metric_is_not_run_and_nan_is_inconclusive():
    assert verdict({"greater": 0.0}, {}) == "not run"
    assert verdict({"order": "m > other"}, {"m": 1.0}) == "not run"
    assert verdict({"greater": 0.0}, (math.nan, -math.inf, math.inf)) == "inconclusive"
    assert verdict({"greater": 0.0}, (1.0, -math.inf, math.inf)) == "inconclusive"  # a single seed


@pytest.mark.parametrize(
    ("raw", "paper", "words"),
    [
        ({"great": 1, "why": "x"}, PAPER, "exactly one predicate"),
        ({"greater": 1}, PAPER, "why"),
        ({"greater": 1, "exact": 2, "why": "x"}, PAPER, "exactly one predicate"),
        ({"within": 0.1, "why": "x"}, None, "paper: {value"),
        ({"within": [0.8, 0.6], "why": "x"}, PAPER, "low < high"),
        ({"within": -1, "why": "x"}, PAPER, "positive, finite tolerance"),
        ({"greater": -1, "why": "x"}, PAPER, "margin"),
        ({"greater": True, "why": "x"}, PAPER, "margin"),
        ({"within": math.inf, "why": "x"}, PAPER, "finite tolerance"),
        ({"within": [-math.inf, math.inf], "why": "x"}, PAPER, "finite numbers"),
        ({"exact": math.nan, "why": "x"}, PAPER, "finite number"),
        ({"greater": math.inf, "why": "x"}, PAPER, "finite margin"),
        ({"order": "a > 1e999", "why": "x"}, PAPER, "finite numbers"),
        ({"trend": "falling", "why": "x"}, PAPER, "falling: margin"),
        ({"ratio": 2, "why": "x"}, PAPER, "between 0 and 1"),
        ({"order": "a >", "why": "x"}, PAPER, "a > b"),
        ({"exact": "many", "why": "x"}, PAPER, "number"),
        ({"greater": "5e-1", "why": "x"}, PAPER, "YAML reads"),
        ("greater", PAPER, "predicate"),
    ],
)
def test_a_wrong_test_is_refused_with_the_fix(raw, paper, words):
    with pytest.raises(ValueError, match=words):
        parse_test(raw, paper)


@pytest.mark.parametrize(
    ("raw", "null", "holds"),
    [
        ({"greater": 0}, 0, False),
        ({"greater": 0.1}, 0.2, True),
        ({"exact": 99}, 98, False),
        ({"exact": 99}, 99, True),
        ({"within": 0.1}, 0.5, False),
        ({"within": 0.3}, 0.5, True),
        ({"within": [-1, 2]}, 0.5, True),  # wider than the range of a share
        ({"ratio": 0.2}, 0.5, False),
        ({"ratio": 0.5}, 0.5, True),
        ({"trend": {"rising": 0.1}}, 0, False),
        ({"order": "m > 0.5"}, 0.5, False),
        ({"order": "m > 0.01"}, 0.5, True),
        ({"order": "0.2 < m < 0.4"}, 0.5, False),  # of one metric: the order as a whole
        ({"order": "0.2 < m < 0.6"}, 0.5, True),
        ({"order": "m > other"}, 0.5, False),
        ({"order": "m > 0.75 > 0.25 > other"}, 0.5, False),
        ({"order": "m > 0.75 > 0.6 > other"}, 0.5, True),  # of several: each comparison
    ],
)
def test_a_test_that_holds_at_the_null_is_found(raw, null, holds):
    assert holds_at(parse_test({**raw, "why": "because"}, PAPER), "m", null, PAPER) == holds


@pytest.mark.parametrize(
    ("raw", "found", "mark"),
    [
        ({"greater": 0}, (5, 0.9, 10), True),  # 0.9 from zero, the tenth of the width is 0.91
        ({"greater": 0}, (5, 1.1, 10), False),
        ({"greater": 0}, (-5, -10, -0.9), True),  # contradicted by as little
        ({"greater": 1}, (0.5, 0.02, 0.9), True),  # weaker, all but not above zero
        ({"greater": 0}, (5, -0.1, 10), False),  # inconclusive says as much
        ({"order": "m < 1"}, (0.5, 0.1, 0.95), True),
        ({"within": 0.1}, (0.7, 0.61, 0.75), True),
        ({"within": 0.1}, (0.7, 0.65, 0.75), False),
        ({"exact": 3}, (3, 3, 3), False),
        ({"greater": 0}, (5, -math.inf, math.inf), False),
        ({"order": "m > other"}, {"m": Measured(2, 1, 3), "other": Measured(0.5, 0, 0.9)}, True),
        ({"order": "m > other"}, {"m": Measured(2, 1, 3), "other": Measured(0.5, 0, 0.7)}, False),
        ({"greater": 0}, {}, False),
    ],
)
def test_a_verdict_by_a_hair_is_fragile(raw, found, mark):
    metrics = found if isinstance(found, dict) else {"m": Measured(*found)}
    assert fragile(parse_test({**raw, "why": "because"}, PAPER), "m", metrics, PAPER) == mark


def test_there_are_six_predicates():
    assert list(PREDICATES) == ["exact", "within", "greater", "order", "trend", "ratio"]


def test_measured_reads_records_numbers_and_estimates():
    assert Measured.of(3) == Measured(3.0, 3.0, 3.0)
    assert Measured.of({"value": 1.0, "low": 0.5, "high": 2.0, "n": 4}) == Measured(1.0, 0.5, 2.0, 4)
    assert math.isnan(Measured.of({"value": None, "low": None, "high": None}).value)
    with pytest.raises(TypeError, match="a metric is a number"):
        Measured.of("high")
