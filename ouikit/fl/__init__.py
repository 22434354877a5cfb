"""Federated learning on Flower: strategies that drop into any Flower project, and federations that repeat.

Four rooms, each of which imports only those before it: `setting` (who holds which samples, how they train),
`strategies` (how replies become the next global model), `read` (what a run left, and what it says) and `run`
(the apps, and where they run); `ouikit.fl.flower` is the one module that imports Flower.

>>> from ouikit.fl import Federation, simulate
>>> outcome = simulate(Federation(method="fedoui", clients=3, per_round=2, rounds=2))
>>> [row["round"] for row in outcome.rounds]
[0, 1, 2]

The names below are imported on first use, so the weights, the settings and the reading of a saved run need
no Flower; what needs it says how to install it where it is missing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ouikit.fl.read.outcome import Outcome
    from ouikit.fl.run.apps import client_app, identify, server_app
    from ouikit.fl.run.simulate import simulate
    from ouikit.fl.setting.anomalies import Anomaly
    from ouikit.fl.setting.federation import Federation
    from ouikit.fl.setting.gates import FrozenGates
    from ouikit.fl.setting.population import Population
    from ouikit.fl.setting.source import Source
    from ouikit.fl.strategies.fedsq import FedSQ, structure_of
    from ouikit.fl.strategies.monitor import AtypicalClientMonitor
    from ouikit.fl.strategies.paired import PairedFedAvg
    from ouikit.fl.strategies.replies import Reply, RoundFailedError
    from ouikit.fl.strategies.risk import risk_factors, risk_weights, robust_z
    from ouikit.fl.strategies.robust import CoordinateMedian, MultiKrum
    from ouikit.fl.strategies.weighted import (
        FedOUI,
        FedOUIAlignment,
        GradientAlignment,
        PairedFedProx,
        ShuffledFedOUI,
    )
    from ouikit.fl.strategies.weights import (
        alignment_weights,
        fedoui_alignment_weights,
        fedoui_weights,
        size_weights,
        typicality,
    )

_HOMES = {
    "read.outcome": ("Outcome",),
    "run.apps": ("client_app", "identify", "server_app"),
    "run.simulate": ("simulate",),
    "setting.anomalies": ("Anomaly",),
    "setting.federation": ("Federation",),
    "setting.gates": ("FrozenGates",),
    "setting.population": ("Population",),
    "setting.source": ("Source",),
    "strategies.fedsq": ("FedSQ", "structure_of"),
    "strategies.monitor": ("AtypicalClientMonitor",),
    "strategies.paired": ("PairedFedAvg",),
    "strategies.replies": ("Reply", "RoundFailedError"),
    "strategies.risk": ("risk_factors", "risk_weights", "robust_z"),
    "strategies.robust": ("CoordinateMedian", "MultiKrum"),
    "strategies.weighted": (
        *("FedOUI", "FedOUIAlignment", "GradientAlignment"),
        *("PairedFedProx", "ShuffledFedOUI"),
    ),
    "strategies.weights": (
        *("alignment_weights", "fedoui_alignment_weights", "fedoui_weights"),
        *("size_weights", "typicality"),
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "Anomaly",
    "AtypicalClientMonitor",
    "CoordinateMedian",
    "FedOUI",
    "FedOUIAlignment",
    "FedSQ",
    "Federation",
    "FrozenGates",
    "GradientAlignment",
    "MultiKrum",
    "Outcome",
    "PairedFedAvg",
    "PairedFedProx",
    "Population",
    "Reply",
    "RoundFailedError",
    "ShuffledFedOUI",
    "Source",
    "alignment_weights",
    "client_app",
    "fedoui_alignment_weights",
    "fedoui_weights",
    "identify",
    "risk_factors",
    "risk_weights",
    "robust_z",
    "server_app",
    "simulate",
    "size_weights",
    "structure_of",
    "typicality",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ouikit.fl' has no attribute {name!r}")
    return getattr(import_module(f"ouikit.fl.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
