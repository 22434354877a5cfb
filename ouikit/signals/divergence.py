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
from dataclasses import dataclass

from torch import Tensor

from ouikit.patterns import Pattern, flat_bits, flip_rate, hamming_distances, named_layers


@dataclass(frozen=True)
class Reading:
    """A pattern as all divergences read it, for patterns that are compared more than once (`reading`).

    layers: bool `[m, d]` by name. distances: shares of units in which two inputs differ, float64 `[m, m]`.
    """

    layers: dict[str, Tensor]
    distances: dict[str, Tensor]


def reading(pattern: Pattern) -> Reading:
    """The distances of a pattern, found once; every divergence takes it in the pattern's place.

    Raises TypeError for a pattern that is not boolean; ValueError where layers or units are missing.
    """
    layers = {name: flat_bits(bits, name) for name, bits in named_layers(pattern).items()}
    distances = {name: hamming_distances(bits).double() / bits.shape[1] for name, bits in layers.items()}
    return Reading(layers, distances)


def pairwise_divergence(one: Pattern | Reading, other: Pattern | Reading) -> float:
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
    return _mean_over_layers(one, other, lambda a, b: (a - b).abs())


def direct_divergence(one: Pattern | Reading, other: Pattern | Reading) -> float:
    """Share of the gates that are in another state, unit by unit (`ouikit.patterns.flip_rate`); in [0, 1].

    Units must be aligned, as in a client that has started from the global model; two networks that differ by
    the order of their units diverge. Layer by layer at least half of `pairwise_divergence`. Arguments and
    errors as there; here the widths must agree as well.

    Source: arXiv 2605.22266, another reconstruction: the abstract fits both.
    """
    bits = [given.layers if isinstance(given, Reading) else given for given in (one, other)]
    return flip_rate(*bits)


def cell_divergence(one: Pattern | Reading, other: Pattern | Reading) -> float:
    """1 − Rand index of the two partitions of the probe into cells of equal patterns; in [0, 1].

    The share of pairs that share a cell in one network and not in the other; mean over layers. In a wide
    layer every input has a cell of its own and nothing can change: for narrow layers. Arguments, invariance
    and errors as `pairwise_divergence`.

    Source: arXiv 2605.22266, a third reconstruction ("activation-induced partition", taken literally).
    """
    return _mean_over_layers(one, other, lambda a, b: ((a == 0) != (b == 0)).double())


DIVERGENCES: Mapping[str, Callable[[Pattern | Reading, Pattern | Reading], float]] = {
    "pairwise": pairwise_divergence,
    "direct": direct_divergence,
    "cells": cell_divergence,
}
"""The three readings of the abstract by name."""


def _mean_over_layers(
    one: Pattern | Reading, other: Pattern | Reading, change: Callable[[Tensor, Tensor], Tensor]
) -> float:
    """The mean over layers of the mean over pairs i < j of `change` of distances, symmetric, diagonal 0."""
    read = (given if isinstance(given, Reading) else reading(given) for given in (one, other))
    first, second = (given.distances for given in read)
    if first.keys() != second.keys():
        raise ValueError(
            f"the two patterns have different layers: only one has {sorted(first.keys() ^ second.keys())}"
        )
    means = []
    for name in first:
        a, b = first[name], second[name]
        m = len(a)
        if m < 2 or len(b) != m:
            raise ValueError(f"layer {name!r}: a pair needs m ≥ 2 equal inputs; got {m} and {len(b)}")
        means.append(float(change(a, b).sum()) / (m * (m - 1)))
    return sum(means) / len(means)
