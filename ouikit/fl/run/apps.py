"""One ServerApp and one ClientApp, which run unchanged in a notebook, on Ray and on a Flower deployment.

In a Flower project `server_app` and `client_app` are the components; its `[tool.flwr.app.config]` holds the
attributes of `Federation` that differ from their defaults (`Federation.of`), and `out`, the absolute path of
a folder on the SuperLink's host: it holds the checkpoint during the run, and the outcome at its end.
"""

from pathlib import Path
from typing import cast

from ouikit.fl.flower import (
    ArrayRecord,
    ClientApp,
    ConfigRecord,
    Context,
    Grid,
    Message,
    MetricRecord,
    RecordDict,
    ServerApp,
)
from ouikit.fl.read.outcome import CHECKPOINT
from ouikit.fl.run.client import local_update
from ouikit.fl.run.rounds import federate
from ouikit.fl.setting.federation import Federation
from ouikit.fl.strategies.fedsq import structure_of
from ouikit.train import one_thread

client_app = ClientApp()
server_app = ServerApp()


@client_app.query()
def identify(message: Message, context: Context) -> Message:
    """Say which partition this node holds."""
    metrics = MetricRecord({"partition-id": int(context.node_config["partition-id"])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train on this node's partition; the configuration says how (`Federation`)."""
    config = dict(message.content.config_records["config"])
    with one_thread():
        arrays, metrics = local_update(
            Federation.of(config),
            int(context.node_config["partition-id"]),
            cast(int, config["server-round"]),
            message.content.array_records["arrays"].to_torch_state_dict(),
            cast(float, config.get("proximal-mu", 0.0)),
            structure_of(message, context),
        )
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({**metrics})})
    return Message(content, reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of `context.run_config`; leave its outcome in `context.state` and in `out`."""
    out = Path(str(context.run_config["out"])) if "out" in context.run_config else None
    outcome = federate(grid, Federation.of(context.run_config), out)
    context.state["arrays"] = ArrayRecord(outcome.arrays)
    context.state["outcome"] = ConfigRecord({"json": outcome.json()})
    if out:
        outcome.save(out)
        (out / CHECKPOINT).unlink(missing_ok=True)  # a finished run is not resumed
