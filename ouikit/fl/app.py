"""One ServerApp and one ClientApp, which run unchanged in a notebook, on Ray and on a Flower deployment.

>>> outcome = simulate(Federation(method="fedoui", seed=0, rounds=10))     # doctest: +SKIP
>>> outcome.rounds[-1]["accuracy"]                                         # doctest: +SKIP

`simulate` runs them where the environment's OUIKIT_ENGINE says, which `ouikit run --engine` sets:

* absent, or anything that does not begin with "flower": in this process (`ouikit.fl.grid`);
* `flower-sim`: in Flower's simulation on Ray (`ouikit.fl.ray`);
* `flower://HOST:PORT`: on the SuperLink at that address and its SuperNodes (`ouikit.fl.superlink`).

The final weights are the same to the last bit in all three, on machines of one kind.

In a Flower project `server_app` and `client_app` are the components; its `[tool.flwr.app.config]` holds the
attributes of `Federation` that differ from their defaults, and `out`, the absolute path of a folder on the
SuperLink's host: there lie the checkpoint while the run goes on, and the outcome at its end.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from threadpoolctl import threadpool_limits

from ouikit.fl.client import local_update
from ouikit.fl.federation import Federation
from ouikit.fl.fedsq import FedSQ, structure_of
from ouikit.fl.grid import run_local
from ouikit.fl.judge import Judge
from ouikit.fl.methods import strategy_of
from ouikit.fl.outcome import CHECKPOINT, Outcome, load_checkpoint, save_checkpoint
from ouikit.fl.ray import run_ray
from ouikit.fl.strategies import PairedFedAvg
from ouikit.fl.superlink import run_superlink

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
    with _one_thread():
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
        (out / CHECKPOINT).unlink(missing_ok=True)  # a finished run is not taken up again


def federate(grid: Grid, federation: Federation, out: Path | None = None) -> Outcome:
    """Run every round of a federation on a grid.

    With a folder `out` every round leaves a checkpoint there, and a run whose server was killed goes on after
    the last one, with the same bits as if nothing had happened. A damaged checkpoint, or one of another
    federation, is reported and not used.

    Raises:
        KeyError: the method is unknown. RoundFailedError: too few nodes, or no usable reply; the checkpoint
        of the round before stays.
    """
    strategy, config = strategy_of(federation), federation.config()
    judge = Judge(federation, frozen=isinstance(strategy, FedSQ))

    def judged(server_round: int, arrays: ArrayRecord) -> dict[str, float]:
        return {"round": server_round, **judge(arrays.to_torch_state_dict())}

    arrays, rounds, resumed = ArrayRecord(judge.initial), list[dict[str, float]](), list[int]()
    with _one_thread(), threadpool_limits(1):
        if before := out and load_checkpoint(out, config):
            arrays, rounds = ArrayRecord(before.arrays), before.rounds
            resumed = [*before.resumed, len(rounds) - 1]
            strategy.contributions, strategy.faults = before.contributions, before.faults
            strategy.restore(before.state)
        else:
            rounds.append(judged(0, arrays))
        sent = ConfigRecord(config)  # type: ignore[arg-type]
        for server_round in range(len(rounds), federation.rounds + 1):
            messages = strategy.configure_train(server_round, arrays, sent, grid)
            replies = grid.send_and_receive(messages, timeout=federation.timeout)
            aggregated, _ = strategy.aggregate_train(server_round, replies)
            assert aggregated is not None  # for a round without a usable reply has raised
            arrays = aggregated
            rounds.append(judged(server_round, arrays))
            if out:
                save_checkpoint(out, config, _outcome(arrays, rounds, strategy, resumed))
    return _outcome(arrays, rounds, strategy, resumed)


def simulate(federation: Federation, *, out: Path | None = None, after: Outcome | None = None) -> Outcome:
    """Run a federation where OUIKIT_ENGINE says (see above); by default in this process.

    Args:
        federation: what to run. On a SuperLink it has as many clients as there are SuperNodes.
        out: a folder for checkpoint and outcome; a run that was killed goes on from there. On a SuperLink it
            must be one that its host sees under the same path; the default is then a folder in
            OUIKIT_FLOWER_OUT, or else a temporary one, which will do where the host is this machine.
        after: the outcome of the first rounds of this run, or of one that is the same so far; the run goes on
            with the round that follows, and the bits are those of the whole run.

    Raises:
        ValueError: the engine is unknown, or `after` leaves no round to run. ImportError: Ray is not
        installed. RuntimeError: as `federate` and `ouikit.fl.superlink.run_superlink`. Others as `federate`.
    """
    engine = os.environ.get("OUIKIT_ENGINE", "")
    if engine.startswith("flower") and engine != "flower-sim" and not engine.startswith("flower://"):
        raise ValueError(f"no engine {engine!r}; use flower-sim or flower://HOST:PORT")
    if after is not None and len(after.rounds) > federation.rounds:
        raise ValueError(f"no round is left of {federation.rounds}: {len(after.rounds) - 1} are done")
    config = federation.config()
    with _folder(out, config) as folder:
        if after is not None and not load_checkpoint(folder, config):
            save_checkpoint(folder, config, after)
        if out or after or engine.startswith("flower://"):
            config["out"] = str(folder)
        if engine.startswith("flower://"):
            run_superlink(engine.removeprefix("flower://"), federation.clients, config)
            return Outcome.load(folder)
        run = run_ray if engine == "flower-sim" else run_local
        state = run(server_app, client_app, federation.clients, config).state
    arrays = dict(state.array_records["arrays"].to_torch_state_dict())
    return Outcome.of(arrays, str(state.config_records["outcome"]["json"]))


@contextmanager
def _folder(out: Path | None, config: Mapping[str, Any]) -> Iterator[Path]:
    """`out`, or one for this configuration in OUIKIT_FLOWER_OUT, or a temporary folder."""
    if out is not None:
        yield out.absolute()
    elif shared := os.environ.get("OUIKIT_FLOWER_OUT"):
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
        yield Path(shared).absolute() / digest[:16]
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def _outcome(
    arrays: ArrayRecord, rounds: list[dict[str, float]], strategy: PairedFedAvg, resumed: list[int]
) -> Outcome:
    weights = dict(arrays.to_torch_state_dict())
    return Outcome(weights, rounds, strategy.contributions, strategy.faults, strategy.state(), resumed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch adds in one order, whatever machine it runs on."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
