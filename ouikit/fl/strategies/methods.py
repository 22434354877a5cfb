"""The strategies by the names that a `Federation` knows them by."""

from typing import Any

from ouikit.fl.setting.federation import Federation
from ouikit.fl.strategies.arrays import record_of_state
from ouikit.fl.strategies.fedsq import FedSQ
from ouikit.fl.strategies.monitor import LENGTH, AtypicalClientMonitor
from ouikit.fl.strategies.paired import PairedFedAvg
from ouikit.fl.strategies.robust import CoordinateMedian, MultiKrum
from ouikit.fl.strategies.weighted import (
    FedOUI,
    FedOUIAlignment,
    GradientAlignment,
    PairedFedProx,
    ShuffledFedOUI,
)

METHODS: dict[str, type[PairedFedAvg]] = {
    "fedavg": PairedFedAvg,
    "fedprox": PairedFedProx,
    "alignment": GradientAlignment,
    "fedoui": FedOUI,
    "product": FedOUIAlignment,
    "shuffled": ShuffledFedOUI,
    "fedsq": FedSQ,
    "monitor": AtypicalClientMonitor,
    "risk_aware": AtypicalClientMonitor,
    "risk_length": AtypicalClientMonitor,
    "median": CoordinateMedian,
    "krum": MultiKrum,
}


def strategy_of(federation: Federation) -> PairedFedAvg:
    """The strategy of a federation, ready to start.

    Raises:
        KeyError: the method is unknown.
    """
    if federation.method not in METHODS:
        raise KeyError(f"no method {federation.method!r}; there are {', '.join(METHODS)}")
    kind, special = METHODS[federation.method], dict[str, Any]()
    if issubclass(kind, AtypicalClientMonitor):
        probe = federation.data().probe(federation.shared_probe)
        special = {"network": federation.network, "probe": probe}
        special["risk_aware"] = federation.method != "monitor"
        special |= {"score": LENGTH} if federation.method == "risk_length" else {}
    if issubclass(kind, MultiKrum):  # it is told how many clients are wrong
        special = {"faulty": federation.anomaly.clients}
    if issubclass(kind, FedSQ):  # given here, for a server that continues after an interruption
        special = {"structure": record_of_state(federation.network().state_dict())}
    return kind(
        seed=federation.seed,
        fraction_train=federation.per_round / federation.clients,
        fraction_evaluate=0.0,
        min_train_nodes=federation.per_round,
        min_available_nodes=federation.clients,
        **special,
    )
