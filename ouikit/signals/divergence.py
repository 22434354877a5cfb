"""How differently two networks cut up the inputs: divergences of activation patterns on one shared probe.

    before, after = Probe(global_model, inputs).patterns(), Probe(client_model, inputs).patterns()
    pairwise_divergence(after, before)

All three are pseudo-metrics with values in [0, 1], need no labels, and weigh every layer alike. They see
patterns, not weights: 0 means that every probe input has the pattern, or the neighbours, that it had.

Source: Pérez-Corral et al., "Detecting Atypical Clients in Federated Learning via Representation-Level
Divergence", arXiv 2605.22266. Only its abstract was available: every formula here is a reconstruction
(inferred), and so there are several.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ouikit.fl.weights import size_weights
from ouikit.patterns import Pattern, flat_bits, flip_rate, hamming_distances, named_layers

Vector = NDArray[np.float64]
THRESHOLD, TEMPERATURE = 3.0, 1.0
_NORMAL_MAD, _NORMAL_MEAN_DEVIATION = 1.4826, 1.2533  # they make both estimate a normal standard deviation


def pairwise_divergence(one: Pattern, other: Pattern) -> float:
    """Average change in how far apart two probe inputs are, in fractions of a layer's units; in [0, 1].

    With H[i, j] the share of a layer's d units in which inputs i and j differ: the mean over all pairs i < j
    of `|H_one − H_other|`, then over layers. It stays as it is when the units of either network change
    places, each in its own way: the two need not be aligned, nor equally wide.

    one, other: bool `[m, units…]`, or dicts or sequences of them with the same layers, on the same m ≥ 2
    inputs in the same order.

    Raises TypeError for a pattern that is not boolean; ValueError where layers or inputs do not match.

    Source: arXiv 2605.22266, reconstruction ("permutation-invariant", from the abstract).

    >>> import torch
    >>> one = torch.tensor([[True, True], [True, False], [False, False]])
    >>> pairwise_divergence(one, ~one), pairwise_divergence(one, one[[1, 0, 2]])
    (0.0, 0.3333333333333333)
    """
    return _mean_over_layers(one, other, lambda a, b: (_distances(a) - _distances(b)).abs())


def direct_divergence(one: Pattern, other: Pattern) -> float:
    """Share of the gates that are in another state, unit by unit (`ouikit.patterns.flip_rate`); in [0, 1].

    Units must be aligned, as in a client that has started from the global model; two networks that differ by
    the order of their units diverge. Layer by layer at least half of `pairwise_divergence`. Arguments and
    errors as there; here the widths must agree as well.

    Source: arXiv 2605.22266, another reconstruction: the abstract fits both.
    """
    return flip_rate(one, other)


def cell_divergence(one: Pattern, other: Pattern) -> float:
    """1 − Rand index of the two partitions of the probe into cells of equal patterns; in [0, 1].

    The share of pairs that share a cell in one network and not in the other; mean over layers. In a wide
    layer every input has a cell of its own and nothing can change: for narrow layers. Arguments, invariance
    and errors as `pairwise_divergence`.

    Source: arXiv 2605.22266, a third reconstruction ("activation-induced partition", taken literally).
    """
    return _mean_over_layers(one, other, lambda a, b: ((_distances(a) == 0) != (_distances(b) == 0)).double())


DIVERGENCES: Mapping[str, Callable[[Pattern, Pattern], float]] = {
    "pairwise": pairwise_divergence,
    "direct": direct_divergence,
    "cells": cell_divergence,
}
"""The three readings of the abstract by name."""


def robust_z(values: ArrayLike) -> Vector:
    """How far each of K values lies from their median, in robust standard deviations; two-sided, ≥ 0.

    `|v − median| / (1.4826 MAD)` with MAD the median of `|v − median|`. Where more than half of the values
    are equal MAD is 0; the mean absolute deviation times 1.2533 then takes its place (Iglewicz and Hoaglin,
    "How to Detect and Handle Outliers", 1993). Where all are equal none is atypical and every z is 0. So
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


def _distances(bits: Tensor) -> Tensor:
    """Shares of the units in which two inputs differ, for all pairs: float64 [m, m]."""
    return hamming_distances(bits).double() / bits.shape[1]


def _mean_over_layers(one: Pattern, other: Pattern, change: Callable[[Tensor, Tensor], Tensor]) -> float:
    """The mean over layers of the mean over pairs i < j of `change`, which is symmetric with diagonal 0."""
    first, second = named_layers(one), named_layers(other)
    if first.keys() != second.keys():
        raise ValueError(
            f"the two patterns have different layers: only one has {sorted(first.keys() ^ second.keys())}"
        )
    means = []
    for name in first:
        a, b = flat_bits(first[name], name), flat_bits(second[name], name)
        m = len(a)
        if m < 2 or len(b) != m:
            raise ValueError(f"layer {name!r}: a pair needs m ≥ 2 equal inputs; got {m} and {len(b)}")
        means.append(float(change(a, b).sum()) / (m * (m - 1)))
    return sum(means) / len(means)
