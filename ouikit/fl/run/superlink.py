"""A federation on a SuperLink that is already running: submit it, wait for it, stop it when interrupted.

What Flower's commands need to know of the SuperLink, its root certificate above all, stands where they look
for it: in `config.toml` of the folder FLWR_HOME (default: `~/.flwr`), for example::

    [superlink.mine]
    address = "10.0.0.1:8443"
    root-certificates = "/path/to/ca.crt"

The SuperLink and its SuperNodes need `ouikit` installed in the same version; the submitted app is a
page of TOML that names the two apps of `ouikit.fl.run.apps`, and the run's configuration.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PATIENCE = 180  # seconds for one command, and for one look at the log
_HEARTBEATS = 90  # seconds in which a SuperLink misses a SuperNode that was killed: two heartbeats and a half

APP = """\
[project]
name = "ouikit-federation"
version = "1.0.0"
description = "The apps of ouikit.fl.run.apps, which every node has installed."
license = {{ text = "BSD-3-Clause" }}
dependencies = ["flwr>={flwr}"]

[tool.flwr.app]
publisher = "ouikit"

[tool.flwr.app.components]
serverapp = "ouikit.fl.run.apps:server_app"
clientapp = "ouikit.fl.run.apps:client_app"

[tool.flwr.app.config]
{config}
"""


class RunFailedError(RuntimeError):
    """The SuperLink could not be reached, refused the run, or ended it without an outcome."""


def run_superlink(address: str, clients: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Run the federation of a configuration, whose outcome the ServerApp leaves in the folder `out`.

    Args:
        address: HOST:PORT of the SuperLink.
        clients: how many SuperNodes must be there.
        config: what the ServerApp finds in `context.run_config`.

    Returns:
        What Flower says of the run, including `network-traffic` (bytes) and `compute-time`.

    Raises:
        RunFailedError: there is no connection of this address, there are other than `clients` SuperNodes, the
        run failed, or its outcome is not in `out`: the SuperLink's host sees another folder there.
    """
    link = connection(address)
    if (nodes := _settled(link, clients)) != clients:
        raise RunFailedError(f"{address} has {nodes} SuperNodes online; the federation has {clients} clients")
    outcome = Path(config["out"]) / "outcome.json"
    outcome.unlink(missing_ok=True)  # of another run
    with tempfile.TemporaryDirectory() as folder:
        write_app(Path(folder), config)
        run = run_app(Path(folder), link)
    if not outcome.exists():
        raise RunFailedError(
            f"run {run['run-id']} is complete, and its outcome lies in {config['out']} on the SuperLink's "
            "host: set OUIKIT_FLOWER_OUT to a folder that this machine sees under the same path"
        )
    return run


def run_app(folder: Path, link: str) -> dict[str, Any]:
    """Run the Flower app in a folder on the SuperLink that Flower's `config.toml` calls `link`.

    Interrupted, it stops the run. Returns and raises as `run_superlink`.
    """
    run_id, log = str(flwr("run", str(folder), link)["run-id"]), ""
    try:
        while not (run := flwr("list", link, "--run-id", run_id)["runs"][0])["status"].startswith("finished"):
            log = _log(run_id, link)  # which ends with the run, and costs less than asking again and again
    except BaseException:
        with suppress(RunFailedError):
            flwr("stop", run_id, link)
        raise
    if run["status"] != "finished:completed":
        raise RunFailedError(f"run {run_id} {run['status']}: {run.get('status-details')}\n{log[-2000:]}")
    return run


def online(link: str) -> list[dict[str, Any]]:
    """The SuperNodes that a SuperLink knows to be there. Raises RunFailedError."""
    return [node for node in flwr("supernode", "list", link)["nodes"] if node["status"] == "online"]


def _settled(link: str, clients: int) -> int:
    """How many are online; of too many, after those that were killed and started again are missed."""
    deadline = time.monotonic() + _HEARTBEATS
    while (nodes := len(online(link))) > clients and time.monotonic() < deadline:
        time.sleep(1.0)
    return nodes


def connection(address: str) -> str:
    """The name under which Flower's `config.toml` knows a SuperLink.

    Raises:
        RunFailedError: it does not; the message says what to write.
    """
    path = Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr") / "config.toml"
    known = tomllib.loads(path.read_text()).get("superlink", {}) if path.exists() else {}
    for name, link in known.items():
        if isinstance(link, dict) and link.get("address") == address:
            return name
    raise RunFailedError(
        f'{path} knows no SuperLink at {address}; add\n\n[superlink.mine]\naddress = "{address}"\n'
        'root-certificates = "/path/to/ca.crt"  # or, on this machine only: insecure = true\n'
    )


def write_app(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the app that `flwr run` takes. JSON's strings and numbers are TOML's."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in config.items())
    (folder / "pyproject.toml").write_text(APP.format(flwr=version("flwr"), config=lines))


def _log(run_id: str, link: str) -> str:
    """The log of a run, followed until it ends or the time is up."""
    try:
        return _command("log", run_id, link, "--stream").stdout
    except subprocess.TimeoutExpired:
        return ""


def flwr(*words: str) -> dict[str, Any]:
    """Run one of Flower's commands; its JSON says whether it succeeded, its exit code does not.

    Raises:
        RunFailedError: it failed, or did not end in time.
    """
    try:
        done = _command(*words, "--format", "json")
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise RunFailedError(f"flwr {' '.join(words)} gave no answer: {error}") from error
    if not answer.get("success"):
        raise RunFailedError(f"flwr {' '.join(words)}: {answer.get('error-message') or answer}")
    return answer


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return subprocess.run(
        [sys.executable, "-m", "flwr.cli.app", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, env=environment,
    )  # fmt: skip
