"""Means that a few wrong models cannot pull away: the median of each number, and Krum's choice of clients.

Rivals of weights that name atypical clients: they read updates alone, and need no network and no probe.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ouikit.fl.strategies.arrays import Arrays
from ouikit.fl.strategies.mean import median
from ouikit.fl.strategies.paired import PairedFedAvg
from ouikit.fl.strategies.replies import Reply
from ouikit.fl.strategies.weights import Vector, size_weights


class CoordinateMedian(PairedFedAvg):
    """The median over clients of every weight (Yin et al., arXiv 1803.01498); sizes do not count.

    Its `contributions` have equal weights: no client has one of its own.
    """

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """1 / K for each of K replies."""
        return np.full(len(replies), 1 / len(replies))

    def mean(self, models: Sequence[Arrays], weights: Sequence[float]) -> Arrays:
        """As `ouikit.fl.strategies.mean.median`, whatever the weights."""
        return median(models)


class MultiKrum(PairedFedAvg):
    """FedAvg among the K − f clients whose updates lie nearest to others (Blanchard et al., 2017).

    Args:
        faulty: f ≥ 0, how many clients a round may have wrong. Nobody tells a server; here it is a setting.
        paired: keywords of `PairedFedAvg`.

    Raises ValueError for a negative f.
    """

    def __init__(self, *, faulty: int = 1, **paired: Any) -> None:
        krum_scores([[0.0]], faulty)  # raises now for a wrong value
        super().__init__(**paired)
        self.faulty = faulty

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """FedAvg's among the chosen ones, at least one, and 0 for the others."""
        scores = krum_scores([reply.update for reply in replies], self.faulty)
        chosen = np.argsort(scores, kind="stable")[: max(1, len(replies) - self.faulty)]
        kept = np.zeros(len(replies))
        kept[chosen] = size_weights([replies[i].metrics["num-examples"] for i in chosen])
        return kept


def krum_scores(updates: ArrayLike, faulty: int) -> Vector:
    """Sum of the squared distances of each update to its K − f − 2 nearest others, at least one of them.

    Args:
        updates: K × P.
        faulty: f ≥ 0.

    Returns:
        float64 [K]; 0 where there is no other.

    Raises:
        ValueError: f is negative.

    Source: Blanchard et al., "Machine Learning with Adversaries" (NeurIPS 2017), section 4.

    >>> krum_scores([[0.0], [1.0], [3.0], [9.0]], faulty=1).tolist()
    [1.0, 1.0, 4.0, 36.0]
    """
    if faulty < 0:
        raise ValueError(f"faulty counts clients, at least 0: got {faulty}")
    rows = np.asarray(updates, dtype=np.float64)
    apart = np.array([np.square(rows - row).sum(axis=1) for row in rows])
    nearest = np.sort(apart, axis=1)[:, 1 : 1 + max(1, len(rows) - faulty - 2)]  # the first is itself
    return np.asarray(nearest.sum(axis=1))
