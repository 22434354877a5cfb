"""One ServerApp and one ClientApp, for a notebook (`simulate`) and, not tried yet, for a Flower deployment.

>>> outcome = simulate(Federation(method="fedoui", seed=0, rounds=10))     # doctest: +SKIP
>>> outcome.rounds[-1]["accuracy"]                                         # doctest: +SKIP

In a Flower project `server_app` and `client_app` are the components; its `[tool.flwr.app.config]` holds the
attributes of `Federation` that differ from their defaults, and `out`, a folder for the outcome.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from ouikit.data.dataset import fingerprint
from ouikit.fl.client import local_update
from ouikit.fl.federation import Federation
from ouikit.fl.grid import run_local
from ouikit.fl.strategies import METHODS
from ouikit.train import evaluate

TIMEOUT = 600.0  # seconds in which a round's replies must be there

client_app = ClientApp()
server_app = ServerApp()


@dataclass(frozen=True)
class Outcome:
    """What a federated run leaves.

    arrays: the final global model, a state dict. rounds: one {round, accuracy, loss} per round, 0 being the
    initial model, on the test split. contributions, faults: as in `PairedFedAvg`.
    """

    arrays: dict[str, Tensor]
    rounds: list[dict[str, float]]
    contributions: list[dict[str, float]]
    faults: list[dict[str, Any]]

    def checksum(self) -> str:
        """sha256 (hex) of the final weights, to the last bit."""
        return fingerprint(self.arrays.values())

    def save(self, folder: Path) -> None:
        """Write `outcome.json` and `weights.pt` (`torch.load(…, weights_only=True)`) into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.arrays, folder / "weights.pt")
        (folder / "outcome.json").write_text(self.json())

    def json(self) -> str:
        """Everything but the weights, and their checksum."""
        told = {name: value for name, value in asdict(self).items() if name != "arrays"}
        return json.dumps({"checksum": self.checksum(), **told})


@client_app.query()
def identify(message: Message, context: Context) -> Message:
    """Say which partition this node holds."""
    metrics = MetricRecord({"partition-id": int(context.node_config["partition-id"])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train on this node's partition; the configuration says how (`Federation`)."""
    config = dict(message.content.config_records["config"])
    arrays, metrics = local_update(
        Federation.of(config),
        int(context.node_config["partition-id"]),
        cast(int, config["server-round"]),
        message.content.array_records["arrays"].to_torch_state_dict(),
        cast(float, config.get("proximal-mu", 0.0)),
    )
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({**metrics})})
    return Message(content, reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of `context.run_config`; leave its outcome in `context.state` and in `out`."""
    outcome = federate(grid, Federation.of(context.run_config))
    context.state["arrays"] = ArrayRecord(outcome.arrays)
    context.state["outcome"] = ConfigRecord({"json": outcome.json()})
    if "out" in context.run_config:
        outcome.save(Path(str(context.run_config["out"])))


def federate(grid: Grid, federation: Federation) -> Outcome:
    """Run every round of a federation on a grid.

    Raises:
        KeyError: the method is unknown. RoundFailedError: a round brought no usable reply.
    """
    if federation.method not in METHODS:
        raise KeyError(f"no method {federation.method!r}; there are {', '.join(METHODS)}")
    strategy = METHODS[federation.method](
        seed=federation.seed,
        fraction_train=federation.per_round / federation.clients,
        fraction_evaluate=0.0,
        min_train_nodes=federation.per_round,
        min_available_nodes=federation.clients,
    )
    model, data = federation.network(), federation.data()

    def judge(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        loss, accuracy = evaluate(model, data)
        return MetricRecord({"accuracy": accuracy, "loss": loss})

    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=federation.rounds,
        timeout=TIMEOUT,
        train_config=ConfigRecord(federation.config()),  # type: ignore[arg-type]
        evaluate_fn=judge,
    )
    judged = result.evaluate_metrics_serverapp
    rounds = [{"round": r, **judged[r]} for r in sorted(judged)]
    return Outcome(dict(result.arrays.to_torch_state_dict()), rounds, strategy.contributions, strategy.faults)  # type: ignore[arg-type]


def simulate(federation: Federation) -> Outcome:
    """Run a federation in this process. Raises as `federate`."""
    context = run_local(server_app, client_app, federation.clients, federation.config())
    told = json.loads(str(context.state.config_records["outcome"]["json"]))
    arrays = dict(context.state.array_records["arrays"].to_torch_state_dict())
    return Outcome(arrays, told["rounds"], told["contributions"], told["faults"])
