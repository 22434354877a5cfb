"""A whole federation in one call, wherever it is to run.

>>> outcome = simulate(Federation(method="fedoui", seed=0, clients=3, per_round=2, rounds=2))
>>> 0 <= outcome.rounds[-1]["accuracy"] <= 1
True

The environment's OUIKIT_ENGINE, which `ouikit run --engine` sets, says where:

* absent, or anything that does not begin with "flower": in this process (`ouikit.fl.run.grid`);
* `flower-sim`: in Flower's simulation on Ray (`ouikit.fl.run.ray`);
* `flower://HOST:PORT`: on the SuperLink at that address and its SuperNodes (`ouikit.fl.run.superlink`).

The final weights are the same to the last bit in all three, on machines of one kind.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ouikit.fl.read.outcome import Outcome, load_checkpoint, save_checkpoint
from ouikit.fl.run.apps import client_app, server_app
from ouikit.fl.run.grid import run_local
from ouikit.fl.run.ray import run_ray
from ouikit.fl.run.superlink import run_superlink
from ouikit.fl.setting.federation import Federation


def simulate(federation: Federation, *, out: Path | None = None, after: Outcome | None = None) -> Outcome:
    """Run a federation where OUIKIT_ENGINE says (see above); by default in this process.

    Args:
        federation: what to run. On a SuperLink it has as many clients as there are SuperNodes.
        out: a folder for checkpoint and outcome; a run that was killed continues from there. A SuperLink's
            host must see it under the same path; the default is then a folder in OUIKIT_FLOWER_OUT, or else
            a temporary one, which is enough where that host is this machine.
        after: the outcome of the first rounds of this run, or of one that is the same so far; the run
            continues with the round that follows, and the bits are those of the whole run.

    Raises:
        ValueError: the engine is unknown, or `after` leaves no round to run. ImportError: Ray is not
        installed. RunFailedError: as `ouikit.fl.run.superlink.run_superlink`. Others as `federate`.
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
