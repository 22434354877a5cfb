"""One ServerApp and one ClientApp, which run unchanged in a notebook, on Ray and on a Flower deployment.

In a Flower project `server_app` and `client_app` are the components; its `[tool.flwr.app.config]` holds the
attributes of `Federation` that differ from their defaults (`Federation.of`), and `out`, the absolute path of
a folder on the SuperLink's host: it holds the checkpoint during the run, and the outcome at its end.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, cast

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
from ouikit.fl.strategies.arrays import record_of_state, records_of, state_of
from ouikit.fl.strategies.fedsq import FROZEN, structure_of

_OF_ROUND = ("server-round", "proximal-mu", FROZEN)  # what strategies add to the settings
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
    config = dict(records_of(message.content, ConfigRecord)["config"].items())
    arrays, metrics = local_update(
        _federation(tuple(item for item in config.items() if item[0] not in _OF_ROUND)),
        int(context.node_config["partition-id"]),
        cast(int, config["server-round"]),
        state_of(records_of(message.content, ArrayRecord)["arrays"]),
        cast(float, config.get("proximal-mu", 0.0)),
        structure_of(message, context),
    )
    content = RecordDict({"arrays": record_of_state(arrays), "metrics": MetricRecord({**metrics})})
    return Message(content, reply_to=message)


@lru_cache(maxsize=8)
def _federation(settings: tuple[tuple[str, Any], ...]) -> Federation:
    """Kept, because every message brings the same settings."""
    return Federation.of(dict(settings))


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of `context.run_config`; leave its outcome in `context.state` and in `out`."""
    out = Path(str(context.run_config["out"])) if "out" in context.run_config else None
    outcome = federate(grid, Federation.of(context.run_config), out)
    context.state["arrays"] = record_of_state(outcome.arrays)
    context.state["outcome"] = ConfigRecord({"json": outcome.json()})
    if out:
        outcome.save(out)
        (out / CHECKPOINT).unlink(missing_ok=True)  # a finished run is not resumed
