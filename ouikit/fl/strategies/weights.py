"""The aggregation weights of FedAvg, FedOUI and gradient alignment, as pure functions: no Flower, no torch.

A round's global model is Σ w_k θ_k with w_k ≥ 0 and Σ w_k = 1. FedAvg has w_k ∝ n_k, the client's number of
samples; what is here multiplies that by factors: how typical the client's OUI is among those of the round,
and how well its update agrees with the mean update.

Source: arXiv 2605.11571, "FedOUI" (authors' code; the printed text was not available).
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

Vector = NDArray[np.float64]
EPSILON = 1e-3
_SCORE_EDGE = 1e-4


def fedoui_weights(
    oui: ArrayLike, num_examples: ArrayLike, *, gamma: float = 1.0, epsilon: float = EPSILON
) -> Vector:
    """FedOUI's weights: w_k ∝ n_k (s_k + ε)^γ with s the `typicality` of the round's OUI values.

    Args:
        oui: K values in [0, 1], of one kind and one probe size (`ouikit.balance_oui`).
        num_examples: K sizes; those below 1 count as 1.
        gamma: 0 gives FedAvg.
        epsilon: keeps every client in, and clips the values that the distribution is fitted to to
            [ε, 1 − ε]: one number for both, as in the authors' code; below ½.

    Returns:
        float64 [K] that sum to 1.

    Raises:
        ValueError: for values that are missing, not finite or out of range, and where the lengths differ.

    >>> fedoui_weights([0.2, 0.3, 0.9], [10, 10, 10]).round(3).tolist()
    [0.36, 0.422, 0.219]
    """
    return _weights(num_examples, _power(typicality(oui, epsilon), gamma, epsilon))


def alignment_weights(
    updates: ArrayLike, num_examples: ArrayLike, *, eta: float = 1.0, epsilon: float = EPSILON
) -> Vector:
    """The gradient-alignment baseline: w_k ∝ n_k (a_k + ε)^η with a the `alignment` of the updates.

    updates: K × P. The authors call it FedAlign; the published method of that name is another. Returns and
    raises as `fedoui_weights`.
    """
    return _weights(num_examples, _power(alignment(updates, num_examples), eta, epsilon))


def fedoui_alignment_weights(
    oui: ArrayLike,
    updates: ArrayLike,
    num_examples: ArrayLike,
    *,
    gamma: float = 1.0,
    eta: float = 1.0,
    epsilon: float = EPSILON,
) -> Vector:
    """The product of both: w_k ∝ n_k (s_k + ε)^γ (a_k + ε)^η. Returns and raises as `fedoui_weights`."""
    typical = _power(typicality(oui, epsilon), gamma, epsilon)
    aligned = _power(alignment(updates, num_examples), eta, epsilon)
    return _weights(num_examples, typical, aligned)


def size_weights(num_examples: ArrayLike) -> Vector:
    """FedAvg's weights, w_k ∝ n_k. Returns and raises as `fedoui_weights`."""
    return _weights(num_examples)


def typicality(oui: ArrayLike, epsilon: float = EPSILON) -> Vector:
    """How typical each value is among those of the round, in [0, 1], two-sided like a p-value.

    s_k = 2 min{F(o_k), 1 − F(o_k)}, with F the Beta distribution that `beta_of` fits to the round. Where no
    fit is possible F is the rank, rank(o_k) / (K + 1) with averages for ties. Where all values are equal
    nobody is atypical and every s_k is 1. Raises as `fedoui_weights`.
    """
    values, shapes = _ouis(oui), beta_of(oui, epsilon)
    if np.ptp(values) == 0:
        return np.ones(values.size)
    if shapes is not None:
        below = betainc(*shapes, np.clip(values, _SCORE_EDGE, 1 - _SCORE_EDGE))
        scores = 2 * np.minimum(below, 1 - below)
        if np.isfinite(scores).all():
            return scores
    from scipy.stats import rankdata  # takes a second, and is seldom needed

    below = rankdata(values) / (values.size + 1)
    return 2 * np.minimum(below, 1 - below)


def beta_of(oui: ArrayLike, epsilon: float = EPSILON) -> tuple[float, float] | None:
    """Shapes (α, β) of the Beta distribution of the round's values, clipped to [ε, 1 − ε].

    By moments with the unbiased variance; where that is too large for a Beta distribution, by maximum
    likelihood. None where that fails too, and where all values are equal. Raises as `fedoui_weights`.
    """
    values = _clipped(oui, epsilon)
    if np.ptp(values) == 0:  # rounding can leave equal values a variance of 1e-34
        return None
    mean = float(values.mean())
    concentration = mean * (1 - mean) / float(values.var(ddof=1)) - 1
    if concentration > 0:
        return max(mean * concentration, 1e-6), max((1 - mean) * concentration, 1e-6)
    return likeliest_beta(values, epsilon)


def likeliest_beta(oui: ArrayLike, epsilon: float = EPSILON) -> tuple[float, float] | None:
    """The same by maximum likelihood; None where the solver finds none.

    The authors' histogram shows this fit; their scores come from `beta_of`. Raises as `fedoui_weights`.
    """
    from scipy import stats  # takes a second, and is seldom needed

    values = _clipped(oui, epsilon)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            alpha, beta, _, _ = stats.beta.fit(values, floc=0, fscale=1)
    except (ValueError, RuntimeError):  # scipy's FitError is a RuntimeError
        return None
    found = bool(np.isfinite([alpha, beta]).all()) and alpha > 0 and beta > 0
    return (float(alpha), float(beta)) if found else None


def alignment(updates: ArrayLike, num_examples: ArrayLike) -> Vector:
    """max(0, c) with c the `cosine_to_mean` of each update, in [0, 1]. Arguments and errors as there."""
    return np.maximum(cosine_to_mean(updates, num_examples), 0.0)


def cosine_to_mean(updates: ArrayLike, num_examples: ArrayLike) -> Vector:
    """Cosine of each update Δ_k with the mean update Σ n_k Δ_k / Σ n_k; 0 where one of them is 0.

    A client without samples has no part in the mean, and without any sample the mean is 0. updates: K × P.
    Returns float64 [K] in [−1, 1]. Raises as `fedoui_weights`.
    """
    rows = np.asarray(updates, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"updates must be clients × parameters, all finite: got shape {rows.shape}")
    sizes = _sizes(num_examples)
    if len(rows) != sizes.size:
        raise ValueError(f"one update per client: got {len(rows)} updates and {sizes.size} sizes")
    mean = sizes / max(sizes.sum(), np.finfo(np.float64).tiny) @ rows
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(mean)
    cosine = np.divide(rows @ mean, lengths, out=np.zeros(len(rows)), where=lengths > 0)
    return np.clip(cosine, -1.0, 1.0)


def effective_clients(weights: ArrayLike) -> float:
    """1 / Σ w²: how many equally weighted clients the weights are worth."""
    return float(1 / np.square(np.asarray(weights, dtype=np.float64)).sum())


def moved_mass(weights: ArrayLike, reference: ArrayLike) -> float:
    """Total variation between two weightings: the share of the weight that lies elsewhere, in [0, 1]."""
    return float(np.abs(np.asarray(weights, float) - np.asarray(reference, float)).sum() / 2)


def _power(scores: Vector, exponent: float, epsilon: float) -> Vector:
    if not (0 < epsilon < np.inf and 0 <= exponent < np.inf):
        raise ValueError(f"epsilon must be > 0 and an exponent ≥ 0: got {epsilon} and {exponent}")
    return (scores + epsilon) ** exponent


def _weights(num_examples: ArrayLike, *factors: Vector) -> Vector:
    """max(n_k, 1) times every factor, normalised; uniform where the sum vanishes."""
    sizes = _sizes(num_examples)
    product = np.maximum(sizes, 1.0)
    for factor in factors:
        if factor.size != sizes.size:
            raise ValueError(f"one OUI value per client: got {factor.size} for {sizes.size} clients")
        product = product * factor
    total = product.sum()
    return product / total if total > 1e-12 else np.full(sizes.size, 1 / sizes.size)


def _sizes(num_examples: ArrayLike) -> Vector:
    sizes = np.asarray(num_examples, dtype=np.float64)
    if sizes.ndim != 1 or sizes.size == 0 or not np.isfinite(sizes).all() or (sizes < 0).any():
        raise ValueError(f"num_examples must be a list of sizes ≥ 0, one per client: got {num_examples!r}")
    return sizes


def _clipped(oui: ArrayLike, epsilon: float) -> Vector:
    if not 0 < epsilon < 0.5:
        raise ValueError(f"epsilon must be > 0 and < 0.5, where FedOUI clips: got {epsilon}")
    return np.clip(_ouis(oui), epsilon, 1 - epsilon)


def _ouis(oui: ArrayLike) -> Vector:
    values = np.asarray(oui, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"oui must be a list of values in [0, 1], one per client: got {oui!r}")
    return values
