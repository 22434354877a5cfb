"""Intervals over seeds, with the number of seeds always attached.

One rule for every interval. The plain bootstrap of a handful of seeds is far too narrow: with five normal
values a nominal 95 % BCa interval covers their mean in about 83 % of cases, with eight in 89 %. Hence

* n = 1: nothing is known about the spread; the interval is (−∞, ∞);
* 2 ≤ n < 8: Student's t (Tukey and McLaughlin's form of it for a trimmed mean);
* n ≥ 8: percentile bootstrap at the expanded level of Hesterberg, "What Teachers Should Know About the
  Bootstrap" (The American Statistician 69, 2015), Φ(−t·√(n/(n−1))) in each tail with t the quantile of
  Student's distribution: 93–95 % coverage of the mean of normal values, 90 % of exponential ones;
* no spread at all (identical values in all that is not trimmed): an interval of zero width;
* a value that is not finite (a diverged run) is never dropped: the estimate is nan, its interval
  (−∞, ∞), and n still counts it. A claim judged on it can therefore only be inconclusive.

Resampling is seeded: the same values in the same order give the same interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

SMALL_N = 8
RESAMPLES = 4999
Values = NDArray[np.float64]


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


def mean_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of n independent values (one per seed) with its interval at confidence `level`."""
    return _estimate(values, 0.0, level)


def interquartile_mean(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of the middle half of n independent values, the score of reinforcement-learning returns.

    ⌊n/4⌋ values are cut from each end (Agarwal et al., "Deep Reinforcement Learning at the Edge of the
    Statistical Precipice", NeurIPS 2021); with n < 4 it is the plain mean.
    """
    return _estimate(values, 0.25, level)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of a − b, where a[i] and b[i] share one seed; the interval is that of the differences.

    Pairing removes what a seed does to both arms (initial weights, order of the data).

    Raises:
        ValueError: the arms differ in length, so that they cannot be paired.
    """
    first, second = _vector(a, "a"), _vector(b, "b")
    if first.size != second.size:
        raise ValueError(
            f"paired_difference needs one value per seed in both arms: got {first.size} and {second.size}"
        )
    with np.errstate(invalid="ignore"):  # inf − inf is nan, and the rule for nan is this module's
        return _estimate(first - second, 0.0, level)


def rank_trend(x: ArrayLike, y_by_seed: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean over seeds of Spearman's rank correlation of y with x, its interval cut to [−1, 1].

    Args:
        x: the k ≥ 2 settings, for example weight decays.
        y_by_seed: n × k values, one row per seed.
        level: confidence of the interval.

    A seed whose y is constant or not finite has no rank correlation: the estimate is then nan.

    Raises:
        ValueError: x is constant or too short, or y_by_seed is not n × k.
    """
    settings, y = _vector(x, "x"), np.atleast_2d(np.asarray(y_by_seed, dtype=np.float64))
    if np.unique(settings).size < 2:
        raise ValueError(f"rank_trend needs at least two different settings in x: got {settings.tolist()}")
    if y.ndim != 2 or y.shape[1] != settings.size:
        raise ValueError(f"y_by_seed must be seeds × {settings.size} (the length of x): got shape {y.shape}")
    ranked = [np.isfinite(row).all() and np.ptp(row) > 0 for row in y]
    rho = [
        stats.spearmanr(settings, row).statistic if ok else math.nan
        for row, ok in zip(y, ranked, strict=True)
    ]
    trend = _estimate(rho, 0.0, level)
    return Estimate(trend.value, max(trend.low, -1.0), min(trend.high, 1.0), trend.n)


def settling_step(curve: Sequence[float] | Values, tolerance: float = 0.05, of: str = "final") -> int:
    """First index from which the curve stays within a tolerance of its final value.

    The test of "converges faster" of OUI and the losses. What comes out depends on what the tolerance is a
    share of, so name it: a quantity that moves little in all is always within 5 % of its final value.

    Args:
        curve: values in order.
        tolerance: a share ≥ 0.
        of: "final", the size of the final value, or "range", the curve's maximum less its minimum.

    Returns:
        An index; the length of the curve, one past its last index, if the final value is not finite.

    Raises:
        ValueError: for a negative tolerance or another `of`.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance is a share and must be ≥ 0: got {tolerance}")
    if of not in ("final", "range"):
        raise ValueError(f"of must be 'final' or 'range': got {of!r}")
    y = _vector(curve, "curve")
    if not math.isfinite(y[-1]):
        return y.size
    with np.errstate(invalid="ignore"):
        scale = abs(y[-1]) if of == "final" else np.ptp(y[np.isfinite(y)])
        outside = np.flatnonzero(~(np.abs(y - y[-1]) <= tolerance * scale))
    return int(outside[-1]) + 1 if outside.size else 0


def _vector(values: ArrayLike, name: str) -> Values:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name} must be a non-empty list of numbers: got shape {vector.shape}")
    return vector


def _estimate(values: ArrayLike, trim: float, level: float) -> Estimate:
    """The module's rule, for the mean of what is left when a fraction `trim` is cut from each end."""
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1, such as 0.95: got {level}")
    return _of_vector(_vector(values, "values").tobytes(), trim, level)


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
