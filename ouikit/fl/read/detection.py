"""How well a monitor's scores, and rivals of them, separate anomalous clients from the others in a round."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ouikit.fl.strategies.risk import THRESHOLD, robust_z
from ouikit.fl.strategies.weights import typicality
from ouikit.stats import auroc

Row = dict[str, Any]

MEASURES: Mapping[str, Callable[[pd.DataFrame], ArrayLike]] = {
    "pairwise": lambda replies: replies["pairwise"],
    "direct": lambda replies: replies["direct"],
    "cells": lambda replies: replies["cells"],
    "L2": lambda replies: replies["update_norm"],
    "cosine": lambda replies: 1 - replies["cosine"],
    "oui": lambda replies: 1 - typicality(replies["oui"]),
}
"""Scores of a round's replies, the larger the more atypical: the three divergences of
`ouikit.signals.divergence`, the L2 norm of the update, 1 − its cosine with the mean update, and 1 − FedOUI's
`ouikit.fl.typicality` of the client's own OUI."""


def detection(contributions: Sequence[Mapping[str, float]], anomalous: Sequence[int]) -> Iterator[Row]:
    """Rows of measure, step (the round), metric and value, one round after the other.

    * auroc: the probability that an anomalous client has a larger score than another one of its round, ties
      counting half;
    * auroc_two_sided: the same of `robust_z` of the scores, for which far below the others is as atypical as
      far above;
    * anomalous, benign: mean scores of the two groups;
    * alarm_anomalous, alarm_benign: the shares of the two groups with a `robust_z` above 3.

    Args:
        contributions: those of an `ouikit.fl.AtypicalClientMonitor`; other rows are left out.
        anomalous: the clients to be found.

    Raises:
        ValueError: a round has clients of one kind only.
    """
    table = pd.DataFrame(contributions).dropna(subset="pairwise")
    for _, replies in table.groupby("round"):
        step = int(replies["round"].iloc[0])
        bad = replies["client"].isin(anomalous).to_numpy()
        if bad.all() or not bad.any():
            raise ValueError(f"round {step} has clients of one kind only: there is nothing to separate")
        for measure, of in MEASURES.items():
            score = np.asarray(of(replies), dtype=np.float64)
            z = robust_z(score)
            found = {
                "auroc": auroc(bad, score),
                "auroc_two_sided": auroc(bad, z),
                "anomalous": score[bad].mean(),
                "benign": score[~bad].mean(),
                "alarm_anomalous": (z[bad] > THRESHOLD).mean(),
                "alarm_benign": (z[~bad] > THRESHOLD).mean(),
            }
            for metric, value in found.items():
                yield {"measure": measure, "step": step, "metric": metric, "value": float(value)}
