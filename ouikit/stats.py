"""Intervals over seeds, with the number of seeds always attached.

One rule for every interval. The plain bootstrap of a handful of seeds is far too narrow: with five normal
values a nominal 95 % BCa interval covers their mean in about 83 % of cases, with eight in 89 %. Hence

* n = 0 (an arm that was not run): the estimate is nan, its interval (−∞, ∞); a claim on it is *not run*;
* n = 1: nothing is known about the spread; the interval is (−∞, ∞);
* 2 ≤ n < 8: Student's t (Tukey and McLaughlin's form of it for a trimmed mean);
* n ≥ 8: percentile bootstrap at the expanded level of Hesterberg, "What Teachers Should Know About the
  Bootstrap" (The American Statistician 69, 2015), Φ(−t·√(n/(n−1))) in each tail with t the quantile of
  Student's distribution: 93–95 % coverage of the mean of normal values, 90 % of exponential ones;
* no spread at all (identical values in all that is not trimmed): an interval of zero width;
* where seeds share settings and the settings are what varies, `grouped_interval` draws whole settings;
* a value that is not finite (a diverged run) is never dropped: the estimate is nan, its interval
  (−∞, ∞), and n still counts it. A claim judged on it can therefore only be inconclusive.

Resampling is seeded: the same values in the same order give the same interval.

Values are lists, arrays, pandas Series or mappings such as {seed: value}. What carries labels is paired by
them, never by position; labels that differ, masked values and numbers that are not real are refused.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pandas.api.types import is_numeric_dtype
from scipy import special, stats

SMALL_N = 8
RESAMPLES = 4999
GROUPED_RESAMPLES = 1999  # of statistics that are not vectorised
Values = NDArray[np.float64]
Numbers = ArrayLike | Mapping[Any, Any]  # a pandas Series is the first, though its labels count


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval [low, high] and the number n of independent values behind it."""

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """As text, each number in `spec` (three significant digits where none is given)."""
        value, low, high = (format(x, spec or ".3g") for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}], n = {self.n}"

    def __str__(self) -> str:
        return format(self, "")


NOTHING = Estimate(math.nan, -math.inf, math.inf, 0)


def exactly(value: float, n: int = 1) -> Estimate:
    """A number that was computed, not measured: its interval has no width. n: the values that went into it.

    One that is not finite has the interval (−∞, ∞), as everywhere here.

    Raises ValueError for fewer than one value: use `NOTHING` for what was not run.

    >>> print(exactly(2 / 15, n=15))
    0.133 [0.133, 0.133], n = 15
    """
    if n < 1:
        raise ValueError(f"n counts the values behind a number, at least 1: got {n}")
    number = float(value)
    if not math.isfinite(number):
        return Estimate(math.nan, -math.inf, math.inf, n)
    return Estimate(number, number, number, n)


def arm(runs: pd.DataFrame, *levels: object) -> pd.DataFrame:
    """The runs of one arm: those with these levels in the first columns of the index, which are dropped.

    An arm that was not run has no rows, and what is estimated from it has n = 0.

    >>> index = pd.MultiIndex.from_product([["plain", "decayed"], [0, 1]], names=["arm", "seed"])
    >>> runs = pd.DataFrame({"accuracy": [0.5, 0.7, 0.8, 0.8]}, index)
    >>> print(mean_interval(arm(runs, "decayed").accuracy))
    0.8 [0.8, 0.8], n = 2
    >>> print(mean_interval(arm(runs, "reversed").accuracy))
    nan [-inf, inf], n = 0
    """
    for level in levels:
        runs = runs[runs.index.get_level_values(0) == level].droplevel(0)
    return runs


def mean_interval(values: Numbers, level: float = 0.95) -> Estimate:
    """Mean of n independent values (one per seed) with its interval at confidence `level`."""
    return _estimate(values, 0.0, level)


def interquartile_mean(values: Numbers, level: float = 0.95) -> Estimate:
    """Mean of the middle half of n independent values, the score of reinforcement-learning returns.

    ⌊n/4⌋ values are cut from each end (Agarwal et al., "Deep Reinforcement Learning at the Edge of the
    Statistical Precipice", NeurIPS 2021); with n < 4 it is the plain mean.
    """
    return _estimate(values, 0.25, level)


def paired_difference(a: Numbers, b: Numbers, level: float = 0.95) -> Estimate:
    """Mean of a − b, where each value of a and its partner in b share one seed.

    Pairing removes what a seed does to both arms (initial weights, order of the data); the interval is that
    of the differences. Series and mappings are paired by their labels, lists and arrays by position.
    Where an arm has no values there is no pair: n = 0.

    >>> paired_difference({"seed 1": 5.0, "seed 2": 9.0}, {"seed 2": 8.0, "seed 1": 4.0}).value
    1.0

    Raises:
        ValueError: the arms cannot be paired: they differ in length or in their labels, or only one has any.
    """
    first, second = _vector(a, "a"), _vector(b, "b")
    if not (first.size and second.size):
        return NOTHING
    if first.size != second.size:
        raise ValueError(
            f"paired_difference needs one value per seed in both arms: got {first.size} and {second.size}"
        )
    second = second[_partners(_labels(a), _labels(b))]
    with np.errstate(invalid="ignore"):  # inf − inf is nan, and the rule for nan is this module's
        return _estimate(first - second, 0.0, level)


def smallest_mean(y_by_seed: ArrayLike, level: float = 0.95) -> Estimate:
    """Smallest of the means of k conditions, for claims on all of them: "in every setting above 1".

    Every condition is judged by its own interval. The minimum over conditions in each seed is no substitute:
    it picks up the noise of k values, and its mean lies below the smallest mean.

    The lower end is the smallest of the k lower ends: if each interval lies above a threshold, all means do
    (the intersection–union test; Berger, Technometrics 24, 1982). The upper end says that *some* mean lies
    below it, the unluckiest of k; it is the smallest of k upper ends at Bonferroni's level 1 − (1 − level)/k.

    Args:
        y_by_seed: n × k values, one row per seed, one column per condition.
        level: confidence of the interval.

    With a value that is not finite in any condition the estimate is nan; without any value n is 0, too.

    Raises:
        ValueError: y_by_seed is not n × k.

    >>> print(smallest_mean([[1.0, 2.0], [1.1, 2.2], [1.2, 1.8]]))
    1.1 [0.852, 1.46], n = 3
    """
    y = np.asarray(y_by_seed, dtype=np.float64)
    if y.ndim != 2:
        raise ValueError(f"y_by_seed must be seeds × conditions: got shape {y.shape}")
    if not y.size:
        return Estimate(math.nan, -math.inf, math.inf, 0)
    each = [_estimate(column, 0.0, level) for column in y.T]
    if any(math.isnan(one.value) for one in each):
        return Estimate(math.nan, -math.inf, math.inf, y.shape[0])
    corrected = [_estimate(column, 0.0, 1 - (1 - level) / len(each)) for column in y.T]
    return Estimate(
        min(one.value for one in each),
        min(one.low for one in each),
        min(one.high for one in corrected),
        y.shape[0],
    )


def largest_mean(y_by_seed: ArrayLike, level: float = 0.95) -> Estimate:
    """Largest of the means of k conditions: `smallest_mean` in a mirror, for "in no setting above 1".

    As its lower end is the corrected one, it also serves "in at least one setting above 1".
    """
    mirrored = smallest_mean(-np.asarray(y_by_seed, dtype=np.float64), level)
    return Estimate(-mirrored.value, -mirrored.high, -mirrored.low, mirrored.n)


def rank_trend(x: Numbers, y_by_seed: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean over seeds of Spearman's rank correlation of y with x, its interval cut to [−1, 1].

    Args:
        x: the k settings, for example weight decays; one alone has no trend, and n is 0.
        y_by_seed: n × k values, one row per seed. The columns of a DataFrame are matched with x: its labels
            if it has any, or its values.
        level: confidence of the interval.

    A seed whose y is constant or not finite has no rank correlation: the estimate is then nan.

    Raises:
        ValueError: x has one setting several times and no other, or y_by_seed is not n × k or has columns of
            other names.
    """
    settings, y = _vector(x, "x"), np.atleast_2d(_real(y_by_seed, "y_by_seed"))
    if settings.size < 2:
        return NOTHING
    if np.unique(settings).size < 2:
        raise ValueError(f"rank_trend needs at least two different settings in x: got {settings.tolist()}")
    if y.ndim != 2 or y.shape[1] != settings.size:
        raise ValueError(f"y_by_seed must be seeds × {settings.size} (the length of x): got shape {y.shape}")
    y = y[:, _columns(x, settings, _labels(y_by_seed))]
    ranked = [np.isfinite(row).all() and np.ptp(row) > 0 for row in y]
    rho = [
        stats.spearmanr(settings, row).statistic if ok else math.nan
        for row, ok in zip(y, ranked, strict=True)
    ]
    trend = _estimate(rho, 0.0, level)
    return Estimate(trend.value, max(trend.low, -1.0), min(trend.high, 1.0), trend.n)


def auroc(positive: Numbers, score: Numbers) -> float:
    """Probability that a positive case has a larger score than another one, ties counting half.

    The area under the ROC curve, by the ranks (Mann and Whitney 1947). A score may be infinite.

    Args:
        positive: bools (or 0 and 1), one per case.
        score: a number per case, paired as in `paired_difference`.

    Returns:
        A share; nan where all cases are of one kind, or a score is nan.

    Raises:
        ValueError: for labels that are neither 0 nor 1, or that cannot be paired with the scores.

    >>> auroc([True, True, False, False], [0.9, 0.4, 0.4, 0.1])
    0.875
    """
    truth, scores = _aligned({"positive": positive, "score": score})
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"positive says true or false of each case: got {_few(pd.Index(truth))}")
    good = truth == 1
    count = int(good.sum())
    if np.isnan(scores).any() or count in (0, len(good)):
        return math.nan
    above = stats.rankdata(scores)[good].sum() - count * (count + 1) / 2
    return float(above / (count * (len(good) - count)))


def partial_rank_correlation(x: Numbers, y: Numbers, *given: Numbers) -> float:
    """Spearman's correlation of x and y with what the ranks of other quantities explain taken out of both.

    All are ranked; the ranks of x and of y are regressed on those of `given`, linearly, and the residuals
    correlated (Pearson). Without `given` it is Spearman's correlation itself. Values may be infinite.

    Returns:
        A number in [−1, 1]; nan where a value is nan, or where nothing is left to correlate, as x or y is
        constant or follows from the others.

    Raises:
        ValueError: for quantities that cannot be paired.

    >>> round(partial_rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]), 6)
    0.8
    >>> partial_rank_correlation([1, 2, 3, 4], [1, 3, 2, 4], [1, 2, 3, 4])  # x says what z says
    nan
    """
    named = {"x": x, "y": y} | {f"given {i}": z for i, z in enumerate(given, 1)}
    values = _aligned(named)
    if any(np.isnan(one).any() for one in values) or len(values[0]) < 2:
        return math.nan
    first, second, *others = (stats.rankdata(one) for one in values)
    explained = np.column_stack([np.ones_like(first), *others])
    left = [one - explained @ np.linalg.lstsq(explained, one)[0] for one in (first, second)]
    sizes = [float(np.linalg.norm(one)) for one in left]
    if min(sizes) < 1e-9 * len(first) ** 1.5:  # rounding of ranks up to n
        return math.nan
    return float(left[0] @ left[1]) / (sizes[0] * sizes[1])


def grouped_interval(
    statistic: Callable[..., float], groups: ArrayLike, *columns: Numbers, level: float = 0.95
) -> Estimate:
    """A statistic of many runs, with an interval for runs that come in groups: the cluster bootstrap.

    Runs of one group resemble each other, as seeds of one setting do. Whole groups are therefore drawn, with
    replacement, and n counts the groups. The interval is the percentiles of the statistic over these draws,
    at the expanded level above; draws on which it is nan (no case of one kind, say) are left out.

    Args:
        statistic: takes the columns as arrays and gives a number: `auroc`, `partial_rank_correlation`.
        groups: which group each run belongs to.
        columns: a number per run each, paired with the groups as in `paired_difference`.
        level: confidence of the interval.

    Fewer than 8 groups, or a statistic that is nan on more than one draw in twenty, say too little: the
    interval is (−∞, ∞). Without runs n = 0.

    Raises:
        ValueError: for columns that cannot be paired with the groups.

    Source: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.

    >>> lr = np.repeat(np.arange(10), 3)  # ten settings, three seeds each
    >>> print(grouped_interval(auroc, lr, lr < 5, np.where(lr < 4, 1.0, 0.0)))
    0.9 [0.625, 1], n = 10
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1, such as 0.95: got {level}")
    codes, names = pd.factorize(np.asarray(groups), use_na_sentinel=False)
    labelled = pd.Series(codes, _labels(groups))
    _, *values = _aligned({"groups": labelled} | {f"column {i}": one for i, one in enumerate(columns, 1)})
    n = len(names)
    value = float(statistic(*values)) if n else math.nan
    if not math.isfinite(value) or n < SMALL_N:
        return Estimate(value if math.isfinite(value) else math.nan, -math.inf, math.inf, n)
    members, rng = [np.flatnonzero(codes == code) for code in range(n)], np.random.default_rng(0)
    draws = (np.concatenate([members[i] for i in rng.integers(n, size=n)]) for _ in range(GROUPED_RESAMPLES))
    found = np.array([statistic(*(one[draw] for one in values)) for draw in draws])
    known = found[np.isfinite(found)]
    if len(known) < 0.95 * len(found):
        return Estimate(value, -math.inf, math.inf, n)
    tail = stats.norm.cdf(stats.t.ppf((1 - level) / 2, n - 1) * math.sqrt(n / (n - 1)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n)


def settling_step(curve: Numbers, tolerance: float = 0.05, of: str = "final") -> int:
    """First index from which the curve stays within a tolerance of its final value.

    The test of "converges faster" of OUI and the losses. What comes out depends on what the tolerance is a
    share of, so name it: a quantity that moves little in all is always within 5 % of its final value.

    Args:
        curve: values in order; a Series' numeric index must not fall.
        tolerance: a share ≥ 0.
        of: "final", the size of the final value, or "range", the curve's maximum less its minimum.

    Returns:
        An index; the length of the curve, one past its last index, if the final value is not finite.

    Raises:
        ValueError: for a negative tolerance, another `of`, or an index that is not in order.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance is a share and must be ≥ 0: got {tolerance}")
    if of not in ("final", "range"):
        raise ValueError(f"of must be 'final' or 'range': got {of!r}")
    y, steps = _vector(curve, "curve"), _labels(curve)
    if not y.size:
        raise ValueError("curve is empty, so it has no final value")
    if steps is not None and is_numeric_dtype(steps) and not steps.is_monotonic_increasing:
        raise ValueError(f"the curve's index is not in order, {_few(steps)}: sort it first")
    if not math.isfinite(y[-1]):
        return y.size
    with np.errstate(invalid="ignore"):
        scale = abs(y[-1]) if of == "final" else np.ptp(y[np.isfinite(y)])
        outside = np.flatnonzero(~(np.abs(y - y[-1]) <= tolerance * scale))
    return int(outside[-1]) + 1 if outside.size else 0


def _vector(values: Numbers, name: str) -> Values:
    vector = _real(list(values.values()) if isinstance(values, Mapping) else values, name)
    if vector.ndim != 1:
        raise ValueError(f"{name} must be a list of numbers: got shape {vector.shape}")
    return vector


def _real(values: ArrayLike, name: str) -> Values:
    """float64; a missing number (None, pandas' NA) is nan. What NumPy would silently make one is refused."""
    parts = values if isinstance(values, list | tuple) else [values]
    if any(np.ma.is_masked(part) for part in parts):
        raise ValueError(
            f"{name} has masked values: leave them out with .compressed(), or count them with .filled(nan)"
        )
    if any(isinstance(part, pd.Series | Mapping) for part in parts if part is not values):
        raise ValueError(f"{name} is a list of labelled values: give an array, or a DataFrame")
    found = np.asarray(values)
    if found.dtype.kind not in "biufO":
        raise ValueError(f"{name} must be real numbers, not {found.dtype}")
    if found.dtype.kind != "O":
        return found.astype(np.float64)
    try:
        return np.where(pd.isna(found), np.nan, found).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be real numbers: {error}") from error


def _aligned(named: Mapping[str, Numbers]) -> list[Values]:
    """All as vectors of one length, those with labels in the order of the first's."""
    (name, first), *rest = named.items()
    vectors = [_vector(first, name)]
    for other, values in rest:
        vector = _vector(values, other)
        if vector.size != vectors[0].size:
            raise ValueError(f"{name} has {vectors[0].size} values, {other} {vector.size}: give one per case")
        vectors.append(vector[_partners(_labels(first), _labels(values))])
    return vectors


def _labels(values: Any) -> pd.Index | None:
    """Names of the values of a Series or a mapping, or of a table's columns; None for lists and arrays."""
    values = values.to_pandas() if hasattr(values, "coords") else values  # xarray's own labels
    if isinstance(values, Mapping):
        return pd.Index(list(values))
    if isinstance(values, pd.DataFrame):
        return values.columns
    return values.index if isinstance(values, pd.Series) else None


def _partners(first: pd.Index | None, second: pd.Index | None) -> Any:
    """Where the partner of each value lies in the second arm, both of one length."""
    if first is None or second is None:
        for labels, bare in ((first, "b"), (second, "a")):
            if labels is not None and not labels.equals(pd.RangeIndex(len(labels))):
                raise ValueError(
                    f"only one arm has labels, {_few(labels)}: label {bare} too, or give both as arrays to "
                    "pair them by position"
                )
        return slice(None)
    if None not in (*first.names, *second.names) and first.names != second.names:
        raise ValueError(f"the arms are labelled by {list(first.names)} and by {list(second.names)}")
    return slice(None) if first.equals(second) else _permutation(first, second, "the arms cannot be paired")


def _columns(x: Numbers, settings: Values, columns: pd.Index | None) -> Any:
    """Where the column of each setting lies."""
    if columns is None or isinstance(columns, pd.RangeIndex):
        return slice(None)  # nobody named them
    labels = _labels(x)
    wanted = pd.Index(settings) if labels is None or set(labels) != set(columns) else labels
    return _permutation(wanted, columns, "y_by_seed's columns do not match x")


def _permutation(wanted: pd.Index, found: pd.Index, otherwise: str) -> Any:
    """Places of `wanted` in `found`. ValueError, opened by `otherwise`, unless each has exactly one."""
    if not (wanted.is_unique and found.is_unique and set(wanted) == set(found)):
        raise ValueError(f"{otherwise}: their labels are {_few(wanted)} and {_few(found)}")
    return found.get_indexer(wanted)


def _few(labels: pd.Index) -> str:
    shown = ", ".join(map(repr, labels[:6].tolist()))
    return f"[{shown}, …]" if len(labels) > 6 else f"[{shown}]"


def _estimate(values: Numbers, trim: float, level: float) -> Estimate:
    """The module's rule, for the mean of what is left when a fraction `trim` is cut from each end."""
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1, such as 0.95: got {level}")
    x = _vector(values, "values")
    return _of_vector(x.tobytes(), trim, level) if x.size else NOTHING


@lru_cache(maxsize=10_000)  # a figure asks again for each of its points when it is drawn in the other theme
def _of_vector(content: bytes, trim: float, level: float) -> Estimate:
    x = np.frombuffer(content)
    if not np.isfinite(x).all():
        return Estimate(math.nan, -math.inf, math.inf, x.size)
    kept = _middle(x, trim)
    value = float(kept.mean())
    if x.size == 1:
        return Estimate(value, -math.inf, math.inf, 1)
    if np.ptp(kept) == 0:
        return Estimate(value, value, value, x.size)
    low, high = _student(x, value, trim, level) if x.size < SMALL_N else _bootstrap(x, trim, level)
    return Estimate(value, low, high, x.size)


def _middle(x: Values, trim: float) -> Values:
    """What is left when a fraction `trim` is cut from each end, in `scipy.stats.trim_mean`'s order."""
    cut = int(trim * x.size)
    return np.partition(x, (cut, x.size - cut - 1))[cut : x.size - cut]


def _student(x: Values, value: float, trim: float, level: float) -> tuple[float, float]:
    """Student's t interval; for a trimmed mean the spread is the winsorised one (Tukey, McLaughlin 1963)."""
    kept = _middle(x, trim)
    spread = float(np.clip(x, kept.min(), kept.max()).std(ddof=1))
    error = spread * math.sqrt(x.size) / kept.size
    half = float(special.stdtrit(kept.size - 1, (1 + level) / 2)) * error  # the quantile of Student's t
    return value - half, value + half


def _bootstrap(x: Values, trim: float, level: float) -> tuple[float, float]:
    """Percentiles of resampled (trimmed) means, at the expanded level."""
    tail = stats.norm.cdf(stats.t.ppf((1 - level) / 2, x.size - 1) * math.sqrt(x.size / (x.size - 1)))
    interval = stats.bootstrap(
        (x,),
        partial(stats.trim_mean, proportiontocut=trim),
        n_resamples=RESAMPLES,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)
