"""How far the average of the clients' models is from the average of their outputs, after one round."""

import torch

from ouikit.fl.read.averaging import averaging_gap, mean_state
from ouikit.fl.run.client import local_update
from ouikit.fl.run.judge import Judge
from ouikit.fl.setting.federation import Federation
from ouikit.fl.strategies.fedsq import FedSQ
from ouikit.fl.strategies.methods import METHODS
from ouikit.fl.strategies.weights import size_weights


def first_round_gap(federation: Federation) -> float:
    """`averaging_gap` on the test images after the first round with all clients, under FedAvg's weights."""
    frozen = issubclass(METHODS[federation.method], FedSQ)
    judge = Judge(federation, frozen=frozen)
    structure = judge.initial if frozen else None
    replies = [
        local_update(federation, client, 1, judge.initial, structure=structure)
        for client in range(federation.clients)
    ]
    states = [state for state, _ in replies]
    shares = [float(w) for w in size_weights([metrics["num-examples"] for _, metrics in replies])]
    of_clients = torch.stack([judge.outputs(state) for state in states])
    return averaging_gap(judge.outputs(mean_state(states, shares)), of_clients, shares)
