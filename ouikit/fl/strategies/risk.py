"""How atypical each client of a round is, and weights by which atypical clients count for less.

Source: arXiv 2605.22266 ("risk-aware aggregation", from its abstract); every formula is a reconstruction.
"""

import numpy as np
from numpy.typing import ArrayLike

from ouikit.fl.strategies.weights import Vector, size_weights

THRESHOLD, TEMPERATURE = 3.0, 1.0
_NORMAL_MAD, _NORMAL_MEAN_DEVIATION = 1.4826, 1.2533  # they make both estimate a normal standard deviation


def robust_z(values: ArrayLike) -> Vector:
    """How far each of K values lies from their median, in robust standard deviations; two-sided, ≥ 0.

    `|v − median| / (1.4826 MAD)` with MAD the median of `|v − median|`. Where more than half of the values
    are equal MAD is 0; the mean absolute deviation times 1.2533 then takes its place (Iglewicz and Hoaglin,
    "How to Detect and Handle Outliers", 1993). Where all are equal nobody is atypical and every z is 0. So
    every z is finite.

    Returns float64 [K]. Raises ValueError for values that are missing or not finite.

    Source: arXiv 2605.22266, reconstruction.

    >>> robust_z([0.1, 0.2, 0.3, 0.4, 2.0]).round(2).tolist()
    [1.35, 0.67, 0.0, 0.67, 11.47]
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or given.size == 0 or not np.isfinite(given).all():
        raise ValueError(f"robust_z needs a list of finite values, one per client: got {values!r}")
    away = np.abs(given - np.median(given))
    spread = _NORMAL_MAD * np.median(away) or _NORMAL_MEAN_DEVIATION * np.mean(away)
    return away / spread if spread > 0 else away


def risk_weights(
    divergences: ArrayLike,
    num_examples: ArrayLike,
    *,
    threshold: float = THRESHOLD,
    temperature: float = TEMPERATURE,
) -> Vector:
    """Risk-aware aggregation weights: w_k ∝ n_k exp(−max(0, z_k − z₀) / τ) with z their `robust_z`.

    Args:
        divergences: K values, the round's.
        num_examples: K sizes; those below 1 count as 1.
        threshold: z₀ ≥ 0.7, up to which a client keeps its weight (3: ours); half of the clients always do.
        temperature: τ > 0; the larger, the gentler (1: ours).

    Returns:
        float64 [K] that sum to 1. Nobody is struck out, but a client far beyond z₀ counts for nearly nothing.

    Raises:
        ValueError: for values that are missing, not finite or out of range, and where the lengths differ.

    Source: arXiv 2605.22266 ("risk-aware aggregation", from the abstract), reconstruction.

    >>> risk_weights([0.1, 0.1, 0.1, 0.1, 0.9], [10, 10, 10, 10, 40]).round(3).tolist()
    [0.182, 0.182, 0.182, 0.182, 0.271]
    """
    sizes = size_weights(num_examples)
    factors = risk_factors(divergences, threshold=threshold, temperature=temperature)
    if factors.size != sizes.size:
        raise ValueError(f"one divergence per client: got {factors.size} for {sizes.size} clients")
    return sizes * factors / (sizes @ factors)


def risk_factors(
    divergences: ArrayLike, *, threshold: float = THRESHOLD, temperature: float = TEMPERATURE
) -> Vector:
    """The factors exp(−max(0, z_k − z₀) / τ) of `risk_weights`, in [0, 1]; at least half of them are 1.

    They go with any other weights. Arguments and errors as `risk_weights`.
    """
    if not (threshold >= 0.7 and temperature > 0):  # half of the clients have z ≤ 1 / 1.4826
        raise ValueError(f"threshold ≥ 0.7 and temperature > 0: got {threshold} and {temperature}")
    return np.exp(-np.maximum(0.0, robust_z(divergences) - threshold) / temperature)
