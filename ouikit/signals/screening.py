"""Which runs to keep early on: threshold rules at matched recall, with thresholds chosen on other runs.

A rule keeps a run when all its conditions hold, each one a threshold or an interval on one early quantity.
Thresholds are fitted on some runs, for the best precision at a recall of at least r, and judged on runs
that were left out: a rule with more thresholds always looks better on the runs that it was fitted on.

>>> rule = Rule("return and OUI", (Above("return"), Between("critic")))
>>> early = {"return": [9.0, 60.0, 70.0] * 2, "critic": [0.1, 0.5, 0.9] * 2}
>>> runs = pd.DataFrame({"seed": [0, 0, 0, 1, 1, 1], "success": [False, True, False] * 2, **early})
>>> held_out(runs, rule, label="success", fold="seed", recall=0.9).tolist()
[False, True, False, False, True, False]

The protocol is inferred from the abstract of arXiv 2603.09950, which names matched recall and the rules.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[np.bool_]
CUTS = 24  # candidate thresholds per quantity; more cost time and fit noise


@dataclass(frozen=True)
class Above:
    """The quantity is at least a threshold."""

    column: str

    def candidates(self, values: pd.Series) -> list["Fitted"]:
        """Thresholds between neighbouring values, −∞ (everything) among them."""
        return [Fitted(self.column, low, math.inf) for low in _cuts(values)[:-1]]


@dataclass(frozen=True)
class Between:
    """The quantity lies in an interval."""

    column: str

    def candidates(self, values: pd.Series) -> list["Fitted"]:
        """Every interval of two such thresholds, the widest first, open ends among them."""
        cuts = _cuts(values)
        return [Fitted(self.column, low, high) for i, low in enumerate(cuts) for high in cuts[:i:-1]]


@dataclass(frozen=True)
class Fitted:
    """low ≤ quantity < high. A run whose quantity is not finite is never kept."""

    column: str
    low: float
    high: float

    def keeps(self, runs: pd.DataFrame) -> Mask:
        """One bool per run."""
        return _masks([self], runs)[0]


@dataclass(frozen=True)
class Rule:
    """A named conjunction of conditions."""

    name: str
    conditions: tuple[Above | Between, ...]

    def fit(self, runs: pd.DataFrame, success: ArrayLike, recall: float) -> tuple[Fitted, ...]:
        """The thresholds of best precision with at least this recall over the successful runs.

        Among equals the one that finds more of them, then the loosest.

        Raises:
            ValueError: recall is not in (0, 1], or no run succeeded.
            KeyError: a column is missing.
        """
        good = np.asarray(success, dtype=bool)
        if not 0 < recall <= 1:
            raise ValueError(f"recall is a share in (0, 1]: got {recall}")
        if not good.any():
            raise ValueError("no run is successful: there is nothing that a rule could find")
        for condition in self.conditions:
            if condition.column not in runs:
                raise KeyError(
                    f"no column {condition.column!r} in the runs: there are {', '.join(map(str, runs))}"
                )
        options = [condition.candidates(runs[condition.column]) for condition in self.conditions]
        masks = [_masks(each, runs) for each in options]
        best = _best(masks, good, math.ceil(recall * good.sum() - 1e-9))
        return tuple(each[index] for each, index in zip(options, best, strict=True))


def keeps(thresholds: Sequence[Fitted], runs: pd.DataFrame) -> Mask:
    """Which runs pass every threshold."""
    return reduce(np.logical_and, (threshold.keeps(runs) for threshold in thresholds))


def held_out(
    runs: pd.DataFrame, rule: Rule, *, label: str, fold: str, recall: float, within: str | None = None
) -> pd.Series:
    """Which runs the rule keeps, each judged by thresholds fitted on the runs of all other folds.

    Args:
        runs: one row per run, with the rule's columns, a bool column `label` and a column `fold`.
        label, fold: names of columns: what counts as success, what is left out at a time (a seed, an
            environment).
        recall: what the thresholds must reach on the runs that they are fitted on.
        within: a column; thresholds are then fitted and applied in each of its groups apart.

    Returns:
        bool, with the index of `runs`; a fold whose training runs hold no success keeps every run.

    Raises:
        ValueError: fewer than two folds; a label that is not bool; see `Rule.fit`.
    """
    kept = pd.Series(False, index=runs.index)
    for _, group in runs.groupby(within) if within else [("", runs)]:
        if group[fold].nunique() < 2:
            raise ValueError(
                f"leaving one {fold!r} out needs at least two of them: got {group[fold].unique()}"
            )
        for value in group[fold].unique():
            train, test = group[group[fold] != value], group[group[fold] == value]
            known = _labels(train, label)
            kept[test.index] = keeps(rule.fit(train, known, recall), test) if known.any() else True
    return kept


def in_sample(
    runs: pd.DataFrame, rule: Rule, *, label: str, recall: float, within: str | None = None
) -> pd.Series:
    """Which runs the rule keeps with thresholds fitted on these very runs: optimistic, to compare with."""
    kept = pd.Series(False, index=runs.index)
    for _, group in runs.groupby(within) if within else [("", runs)]:
        known = _labels(group, label)
        kept[group.index] = keeps(rule.fit(group, known, recall), group) if known.any() else True
    return kept


def compare(
    runs: pd.DataFrame,
    rules: Sequence[Rule],
    *,
    label: str,
    fold: str,
    recalls: Sequence[float],
    by: Sequence[str],
    within: str | None = None,
    early: float = 0.1,
) -> pd.DataFrame:
    """Every rule at every asked recall, with thresholds held out and, beside them, in sample.

    by: columns; one row for each of their groups (a seed of an environment, say), so that an interval over
    them can be formed. early: the share of training after which a run that is not kept stops.

    Returns the columns of `by`, rule, asked (the recall), thresholds ("held out" or "in sample"), precision,
    recall and saved, as the functions of those names define them.
    """
    table = []
    for rule, recall in product(rules, recalls):
        choices = {
            "held out": held_out(runs, rule, label=label, fold=fold, recall=recall, within=within),
            "in sample": in_sample(runs, rule, label=label, recall=recall, within=within),
        }
        for (choice, kept), (group, part) in product(choices.items(), runs.groupby(list(by))):
            chosen, good = kept[part.index], part[label]
            table.append(
                dict(zip(by, group, strict=True))
                | {"rule": rule.name, "asked": recall, "thresholds": choice}
                | {"precision": precision(chosen, good), "recall": found(chosen, good)}
                | {"saved": saved(chosen, early)}
            )
    return pd.DataFrame(table)


def precision(kept: ArrayLike, success: ArrayLike) -> float:
    """Share of the kept runs that succeed; 0 where nothing is kept, since nothing good was found."""
    chosen, good = np.asarray(kept, dtype=bool), np.asarray(success, dtype=bool)
    return float(good[chosen].mean()) if chosen.any() else 0.0


def found(kept: ArrayLike, success: ArrayLike) -> float:
    """Recall: share of the successful runs that are kept; nan where none succeeds."""
    chosen, good = np.asarray(kept, dtype=bool), np.asarray(success, dtype=bool)
    return float(chosen[good].mean()) if good.any() else math.nan


def saved(kept: ArrayLike, early: float) -> float:
    """Share of all training that is saved when the runs not kept stop after the share `early` of theirs."""
    return float((1 - early) * (1 - np.asarray(kept, dtype=bool).mean()))


def readings(
    rows: pd.DataFrame, run: Sequence[str], *, at: float, state: Sequence[str] = (), means: Sequence[str] = ()
) -> pd.DataFrame:
    """What is known of each run at the step `at` of a long table (columns of `run`, step, metric, value).

    Returns one row per run: the metrics in `state` as they are at that step, those in `means` averaged over
    all steps after 0 up to it (nan if one of them is). Raises KeyError for a metric that is not there.
    """
    key = [*run, "metric"]
    now = rows[(rows["step"] == at) & rows["metric"].isin(state)]
    past = rows[(rows["step"] > 0) & (rows["step"] <= at) & rows["metric"].isin(means)]
    values = pd.concat([now.set_index(key)["value"], past.groupby(key)["value"].mean(skipna=False)])
    return values.unstack()[[*state, *means]]


def successful(final: pd.Series, arm: pd.Series, floor: pd.Series, share: float = 0.8) -> pd.Series:
    """Runs whose final return covers at least `share` of the way from the floor to the best arm's mean.

    Args:
        final: final return of each run of one environment; nan (a diverged run) is no success.
        arm: the learning rate of each run.
        floor: final returns of runs that learnt nothing, for example those of the smallest learning rate.
        share: 0 … 1; the paper's fraction is unknown.

    Returns:
        bool per run; none where the best arm's mean is not above the floor's mean plus its range. Nothing
        was learnt there, and a share of nothing is not a success.
    """
    best, nothing = (
        final.groupby(arm).mean(skipna=False).max(),
        floor.mean(),
    )  # an arm that diverges is never picked
    if not best > nothing + np.ptp(floor.to_numpy()):
        return pd.Series(False, index=final.index)
    return final >= nothing + share * (best - nothing)


def top_quartile(final: pd.Series, success: pd.Series) -> pd.Series:
    """The stricter label: successful runs whose final return is in the best quarter of all runs."""
    return success & (final >= final.quantile(0.75))


def _cuts(values: pd.Series) -> list[float]:
    """−∞, at most `CUTS` midpoints between neighbouring distinct values, evenly by rank, and ∞."""
    known = np.unique(values[np.isfinite(values)])
    middles = (known[:-1] + known[1:]) / 2
    if len(middles) > CUTS:
        middles = middles[np.linspace(0, len(middles) - 1, CUTS).round().astype(int)]
    return [-math.inf, *map(float, middles), math.inf]


def _masks(options: Sequence[Fitted], runs: pd.DataFrame) -> Mask:
    """What `Fitted.keeps` says of every run, for options of one quantity: (options, runs)."""
    values = runs[options[0].column].to_numpy(dtype=float)
    low, high = (np.array([getattr(one, end) for one in options])[:, None] for end in ("low", "high"))
    return np.isfinite(values) & (values >= low) & (values < high)


def _best(masks: list[Mask], good: Mask, needed: int) -> tuple[int, ...]:
    """Indices, one per condition, of the combination with the best precision and enough successes.

    The counts of all combinations come from one product of matrices: (all conditions but the last) by (last).
    """
    first = reduce(
        lambda a, b: (a[:, None] & b[None, :]).reshape(-1, len(good)), masks[:-1], _everything(good)
    )
    last = masks[-1]
    hits = (first[:, good].astype(np.float32) @ last[:, good].T.astype(np.float32)).ravel()
    total = hits + (first[:, ~good].astype(np.float32) @ last[:, ~good].T.astype(np.float32)).ravel()
    precise = np.where(hits >= needed, hits / np.maximum(total, 1), -1.0)
    top = np.flatnonzero(precise >= precise.max() - 1e-6)
    chosen = int(top[np.argmax(hits[top])])
    return tuple(int(i) for i in np.unravel_index(chosen, [1, *map(len, masks)]))[1:]


def _everything(good: Mask) -> Mask:
    return np.ones((1, len(good)), dtype=bool)


def _labels(runs: pd.DataFrame, label: str) -> Mask:
    if runs[label].dtype != bool:
        raise ValueError(f"{label!r} must be a bool column, not {runs[label].dtype}")
    return runs[label].to_numpy()
