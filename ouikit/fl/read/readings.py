"""One federated run as rows: its curves, its weights, and what its clients' OUI correlates with."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ouikit.fl.read.outcome import Outcome
from ouikit.fl.setting.population import Holdings
from ouikit.fl.strategies.weights import effective_clients, moved_mass

Entry = Mapping[str, float]
Row = dict[str, Any]


def rows(outcome: Outcome, holdings: Holdings, *, window: int) -> Iterator[Row]:
    """One run as a long table: columns step, client, metric, value; only the last kind has client.

    * accuracy and loss of the global model after every round, 0 being the initial one;
    * at the last round: final, best and area (`curve`), faults, and the values of `mechanism`;
    * oui, weight and factor (weight over FedAvg's) of every reply of the last `window` rounds, to four
      decimals.
    """
    for entry in outcome.rounds:
        for metric in ("accuracy", "loss"):
            yield {"step": int(entry["round"]), "metric": metric, "value": entry[metric]}
    last = int(outcome.rounds[-1]["round"])
    at_end = {
        **curve([entry["accuracy"] for entry in outcome.rounds[1:]]),
        **mechanism(outcome.contributions, holdings),
        "faults": float(len(outcome.faults)),
    }
    yield from ({"step": last, "metric": metric, "value": value} for metric, value in at_end.items())
    for entry in outcome.contributions:
        if entry["round"] > last - window:
            where = {"step": int(entry["round"]), "client": int(entry["client"])}
            factor = entry["weight"] / entry["size_weight"]
            for metric, value in (("oui", entry["oui"]), ("weight", entry["weight"]), ("factor", factor)):
                yield {**where, "metric": metric, "value": round(value, 4)}


def curve(accuracy: Sequence[float]) -> dict[str, float]:
    """final, best (on the test split, as the authors pick it) and area of an accuracy curve, rounds 1 … R.

    The area is the trapezoid rule over rounds divided by R − 1, the curve's height where R = 1.

    >>> curve([0.0, 1.0, 0.5])
    {'final': 0.5, 'best': 1.0, 'area': 0.625}
    """
    area = float(np.trapezoid(accuracy)) / (len(accuracy) - 1) if len(accuracy) > 1 else accuracy[0]
    return {"final": accuracy[-1], "best": max(accuracy), "area": area}


def pace(accuracy: Sequence[float]) -> dict[str, float]:
    """How fast and how steadily an accuracy curve, rounds 1 … R, gets to its best.

    Returns:
        best (on the test split) and best_round, the first round that has it; mean over all rounds; final;
        jitter, the mean absolute change from one round to the next over the last ⌊R/2⌋ changes (0 where there
        is none).

    >>> pace([0.5, 1.0, 0.5, 1.0])
    {'best': 1.0, 'best_round': 2.0, 'mean': 0.75, 'final': 1.0, 'jitter': 0.5}
    """
    curve, best = np.asarray(accuracy, dtype=np.float64), max(accuracy)
    changes = np.abs(np.diff(curve))[-(len(curve) // 2) :]
    return {
        "best": float(best),
        "best_round": float(curve.argmax() + 1),
        "mean": float(curve.mean()),
        "final": float(curve[-1]),
        "jitter": float(changes.mean()) if changes.size else 0.0,
    }


def rounds_to(target: float, accuracy: Sequence[float]) -> float:
    """The first of the rounds 1 … R whose accuracy is at least the target; R + 1 where none is.

    One target for several methods makes their counts comparable; a share of each one's own best does not. So
    R + 1 says *later than the run*, and a mean over runs that holds it is too small. nan for a target of nan.

    >>> [rounds_to(target, [0.5, 0.9, 0.8]) for target in (0.8, 0.95)]
    [2.0, 4.0]
    """
    if np.isnan(target):
        return float("nan")
    return float(next((i for i, value in enumerate(accuracy, 1) if value >= target), len(accuracy) + 1))


def paced_rows(outcome: Outcome) -> Iterator[Row]:
    """One run as a long table: what was judged after every round; at the last one `pace`, drift, faults.

    drift is the mean norm of the clients' updates; faults counts answers that were left out.
    """
    for entry in outcome.rounds:
        yield from (
            {"step": int(entry["round"]), "metric": m, "value": entry[m]} for m in entry if m != "round"
        )
    at_end = {
        **pace([entry["accuracy"] for entry in outcome.rounds[1:]]),
        "drift": float(np.mean([entry["update_norm"] for entry in outcome.contributions])),
        "faults": float(len(outcome.faults)),
    }
    last = int(outcome.rounds[-1]["round"])
    yield from ({"step": last, "metric": metric, "value": value} for metric, value in at_end.items())


def mechanism(contributions: Sequence[Entry], holdings: Holdings) -> dict[str, float]:
    """What the weights did and what OUI correlates with, over all replies of a run.

    Returns:
        Numbers by name.
        rho_examples, rho_norm, rho_entropy, rho_loss: Spearman's rank correlation of OUI with the client's
        number of samples, the norm of its update, the entropy of its labels and its training loss; nan where
        one of them is constant. effective, effective_size: `effective_clients` with these weights and with
        FedAvg's, means over rounds; moved: `moved_mass` between them. shift_noisy, shift_rare: mean weight
        less FedAvg's weight of the noisy and of the rare clients, left out where there are none.

    Raises:
        ValueError: there is no contribution.
    """
    if not contributions:
        raise ValueError("a run without contributions has no mechanism")
    entropies = holdings.entropies()
    oui = [entry["oui"] for entry in contributions]
    beside = {
        "rho_examples": [entry["num-examples"] for entry in contributions],
        "rho_norm": [entry["update_norm"] for entry in contributions],
        "rho_entropy": [entropies[int(entry["client"])] for entry in contributions],
        "rho_loss": [entry["loss"] for entry in contributions],
    }
    rounds: dict[float, list[Entry]] = defaultdict(list)
    for entry in contributions:
        rounds[entry["round"]].append(entry)
    pairs = [
        ([e["weight"] for e in entries], [e["size_weight"] for e in entries]) for entries in rounds.values()
    ]
    special = {"noisy": holdings.noisy, "rare": holdings.rare}
    return {
        **{name: _rank_correlation(oui, values) for name, values in beside.items()},
        "effective": float(np.mean([effective_clients(weights) for weights, _ in pairs])),
        "effective_size": float(np.mean([effective_clients(sizes) for _, sizes in pairs])),
        "moved": float(np.mean([moved_mass(weights, sizes) for weights, sizes in pairs])),
        **{f"shift_{kind}": _shift(contributions, of) for kind, of in special.items() if of},
    }


def _rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    import pandas as pd  # here, so that a saved run is read without it; scipy's takes a second to import

    columns = np.column_stack([pd.Series(values, dtype=np.float64).rank() for values in (x, y)])
    return float(np.asarray(np.corrcoef(columns, rowvar=False))[1, 0])


def _shift(contributions: Sequence[Entry], clients: Sequence[int]) -> float:
    theirs = [e["weight"] - e["size_weight"] for e in contributions if int(e["client"]) in clients]
    return float(np.mean(theirs)) if theirs else float("nan")  # there are some, and none took part
