"""A real SuperLink with two SuperNodes, TLS, node authentication: same bits, faults, the page's commands."""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from ouikit.fl.read.outcome import Outcome, load_checkpoint
from ouikit.fl.run import superlink
from ouikit.fl.run.deployment import Deployment, _free_ports, deployment
from ouikit.fl.run.simulate import simulate
from ouikit.fl.run.superlink import RunFailedError, connection, run_app, write_app
from ouikit.fl.setting.federation import Federation

PAGE = ROOT / "book" / "deployment.md"
PAIR = Federation(method="fedoui", clients=2, per_round=2, rounds=2)
ONCE = replace(PAIR, rounds=1)
FAULTY = """
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from ouikit.fl.run import apps as app

client_app = ClientApp()
client_app.query()(app.identify)


@client_app.train()
def train(message, context):
    reply = app.train(message, context)
    if context.node_config["partition-id"] == 1:
        raise MemoryError("no room for the second client")
    if message.content["config"]["server-round"] == 2:
        arrays = reply.content["arrays"].to_torch_state_dict()
        reply.content["arrays"] = ArrayRecord({name: value * float("nan") for name, value in arrays.items()})
    return reply
"""


class EnoughError(Exception):
    """What ends the test's deployment."""


@pytest.mark.slow
def test_a_deployment_gives_the_bits_of_one_process_says_what_failed_and_ends(tmp_path, monkeypatch):
    monkeypatch.delenv("OUIKIT_ENGINE", raising=False)
    expected, started = simulate(ONCE).json(), []
    with pytest.raises(EnoughError):  # the block is left by an exception, and every process ends all the same
        in_a_deployment(tmp_path, expected, started)
    (there,) = started
    assert there.processes() == []
    assert all(daemon.poll() is not None for daemon in there.daemons)
    assert "OUIKIT_ENGINE" not in os.environ


def in_a_deployment(folder, expected, started):
    with deployment(folder / "flower") as there:
        started.append(there)
        assert simulate(ONCE).json() == expected  # weights, accuracies and contributions, to the last digit
        with pytest.raises(RunFailedError, match="2 SuperNodes online; the federation has 3 clients"):
            simulate(Federation(clients=3, per_round=2))
        sockets = [socket for process in there.processes() for socket in process.net_connections()]
        listening = [socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN]
        assert listening == ["127.0.0.1"] * 3
        faults(folder)
        raise EnoughError


def faults(folder):
    """Round 1: a client raises. Round 2: the other sends NaN. The run fails; the model of round 1 is kept."""
    config = {**PAIR.config(), "out": str(folder / "out")}
    write_app(folder / "app", config)
    text = (folder / "app" / "pyproject.toml").read_text()
    (folder / "app" / "pyproject.toml").write_text(
        text.replace("ouikit.fl.run.apps:client_app", "faulty:client_app")
    )
    (folder / "app" / "faulty.py").write_text(FAULTY)
    with pytest.raises(RunFailedError, match=r"finished:failed.*round 2: 0 usable replies of 2.*not finite"):
        run_app(folder / "app", "loopback")
    kept = load_checkpoint(folder / "out", PAIR.config())
    assert [entry["round"] for entry in kept.rounds] == [0, 1]
    assert [(fault["round"], fault["client"]) for fault in kept.faults] == [(1, 1)]
    assert "no room for the second client" in kept.faults[0]["reason"]
    assert all(array.isfinite().all() for array in kept.arrays.values())
    assert not (folder / "out" / "outcome.json").exists()


@pytest.mark.slow
def test_the_commands_of_the_page_give_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.delenv("OUIKIT_ENGINE", raising=False)
    port, *own = _free_ports(3)
    commands = "".join(re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.M | re.S))
    commands = commands.replace("8443", str(port)).replace("949$node", f"$((node ? {own[1]} : {own[0]}))")
    marked = Deployment(tmp_path, f"127.0.0.1:{port}")  # only to end what a failing command leaves
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **marked.mark, "PATH": path, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}
    try:
        done = subprocess.run(
            ["bash", "-e", "-c", commands], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=900, check=True,
        )  # fmt: skip
    finally:
        marked.stop()
    assert "finished:completed" in done.stdout
    assert done.stdout.split()[-1] == simulate(PAIR).checksum() == Outcome.load(tmp_path / "out").checksum()
    ours = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())
    write_app(tmp_path / "generated", PAIR.config())
    generated = tomllib.loads((tmp_path / "generated" / "pyproject.toml").read_text())
    assert ours["tool"]["flwr"]["app"]["components"] == generated["tool"]["flwr"]["app"]["components"]
    assert Federation.of(ours["tool"]["flwr"]["app"]["config"]) == PAIR


CONFIG = """\
[superlink]
default = "local"

[superlink.local]
address = ":local:"

[superlink.theirs]
address = "10.0.0.1:8443"
"""


def test_a_superlink_is_found_by_its_address_in_flowers_own_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    with pytest.raises(RunFailedError, match=r"knows no SuperLink at 10\.0\.0\.1:8443; add\n\n\[superlink"):
        connection("10.0.0.1:8443")
    (tmp_path / "config.toml").write_text(CONFIG)
    assert connection("10.0.0.1:8443") == "theirs"
    with pytest.raises(RunFailedError, match="root-certificates"):
        connection("10.0.0.2:8443")


def test_a_superlink_that_does_not_answer_is_an_error(tmp_path, monkeypatch):
    (port,) = _free_ports(1)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setenv("OUIKIT_ENGINE", f"flower://127.0.0.1:{port}")
    text = f'[superlink.gone]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(RunFailedError, match="flwr supernode list gone"):
        simulate(PAIR)


def test_an_interrupted_run_is_stopped(monkeypatch, tmp_path):
    asked = []

    def flwr(*words):
        asked.append(words)
        return {"run-id": 7, "runs": [{"status": "running"}]}

    def interrupt(run_id, link):
        raise KeyboardInterrupt

    monkeypatch.setattr(superlink, "flwr", flwr)
    monkeypatch.setattr(superlink, "_log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_app(tmp_path, "theirs")
    assert asked[-1] == ("stop", "7", "theirs")


def test_a_node_that_was_restarted_is_not_counted_twice(monkeypatch):
    """The SuperLink lists its former id as online until its heartbeat is missed; others stay too many."""
    seen = [3, 3, 2]
    monkeypatch.setattr(superlink.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(superlink, "online", lambda link: [{}] * (seen.pop(0) if len(seen) > 1 else seen[0]))
    assert superlink._settled("theirs", 2) == 2
    monkeypatch.setattr(superlink, "_HEARTBEATS", 0)
    seen[:] = [4]
    assert superlink._settled("theirs", 2) == 4


def test_an_outcome_on_another_machine_is_named_and_an_old_one_not_taken_for_it(monkeypatch, tmp_path):
    monkeypatch.setenv("OUIKIT_ENGINE", "flower://10.0.0.1:8443")
    monkeypatch.setenv("OUIKIT_FLOWER_OUT", str(tmp_path))
    monkeypatch.setattr(superlink, "connection", lambda address: "theirs")
    monkeypatch.setattr(superlink, "online", lambda link: [{}, {}])
    seen = []

    def run(folder, link):
        app = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
        seen.append(app["config"])
        return {"run-id": "7"}

    monkeypatch.setattr(superlink, "run_app", run)
    with pytest.raises(RunFailedError, match="set OUIKIT_FLOWER_OUT"):
        simulate(PAIR)
    assert Federation.of(seen[0]) == PAIR
    out = Path(seen[0]["out"])
    assert out.parent == tmp_path
    out.mkdir()
    (out / "outcome.json").write_text("{}")
    with pytest.raises(RunFailedError, match="set OUIKIT_FLOWER_OUT"):
        simulate(PAIR)
