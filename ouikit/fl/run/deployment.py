"""A Flower deployment on this machine: a SuperLink and its SuperNodes, with TLS and node authentication.

::

    with deployment(Path("flower"), nodes=2):
        outcome = simulate(Federation(clients=2, per_round=2, rounds=2))

For trying out, tests and benchmarks; the same by hand, and on several hosts, is on the page about
deployment. Nothing listens beyond 127.0.0.1.
"""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from ouikit.fl.run import certificates
from ouikit.fl.run.superlink import RunFailedError, flwr, online

_TAG = "OUIKIT_DEPLOYMENT"  # marks every process of a deployment, those that Flower starts included
_STARTING, _STOPPING = 180.0, 10.0  # seconds
SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # nodes have what they need; uv would fetch it anew
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Deployment:
    """A running deployment: its folder (keys, logs, Flower's home) and the SuperLink's address."""

    folder: Path
    address: str
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def engine(self) -> str:
        """What `ouikit run --engine` takes."""
        return f"flower://{self.address}"

    @property
    def mark(self) -> dict[str, str]:
        """The environment by which `processes` knows its own."""
        return {_TAG: self.tag}

    def processes(self) -> list[psutil.Process]:
        """Every process of this deployment, whoever started it."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_TAG) == self.tag:
                    found.append(process)
            except (psutil.Error, OSError):  # gone, or somebody else's
                continue
        return found

    def cpu_seconds(self) -> float:
        """User and system time of all of them so far, those that have ended included."""
        total = 0.0
        for process in self.processes():
            total += sum(process.cpu_times()[:4])  # its own, and that of children it has waited for
            ended = (c for c in process.children() if c.status() == psutil.STATUS_ZOMBIE)
            total += sum(sum(child.cpu_times()[:2]) for child in ended)
        return total

    def stop(self) -> None:
        """End every process: politely, nodes first, and kill what is left."""
        for daemon in reversed(self.daemons):
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGINT)
        for daemon in self.daemons:
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(_STOPPING)
        while left := self.processes():  # helpers outlive their daemon for some seconds, apps for longer
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=1)

    def start(self, name: str, *command: str) -> None:
        """Start one of Flower's daemons in the folder; its log is `name`.log."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = {**os.environ, **SETTINGS, **self.mark, "PATH": path}
        with (self.folder / f"{name}.log").open("ab") as log:
            daemon = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # an interruption is ours to hand on
            )
        self.daemons.append(daemon)


@contextmanager
def deployment(folder: Path, nodes: int = 2) -> Iterator[Deployment]:
    """Run a SuperLink and `nodes` SuperNodes, holding partitions 0 … nodes − 1, until the block is left.

    Inside, `ouikit.fl.simulate` uses it, and so do Flower's own commands: FLWR_HOME and OUIKIT_ENGINE
    are set. `folder` receives keys and logs. Every process ends with the block, however that is left.

    Raises:
        RunFailedError: a daemon died, or they were not there within a minute; their logs are in the folder.
    """
    home = folder.absolute() / "home"
    home.mkdir(parents=True, exist_ok=True)
    port, *ports = _free_ports(nodes + 1)
    there = Deployment(folder.absolute(), f"127.0.0.1:{port}")
    certificates.write_server(there.folder)
    authority = json.dumps(str(there.folder / "ca.crt"))
    link = f'[superlink.loopback]\naddress = "{there.address}"\nroot-certificates = {authority}\n'
    (home / "config.toml").write_text(link)
    tls = ("--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key")
    with _environment({"FLWR_HOME": str(home), "OUIKIT_ENGINE": there.engine}):
        try:
            listen = ("--host", "127.0.0.1", "--port", str(port))
            there.start("superlink", "flower-superlink", *tls, *listen, "--enable-supernode-auth")
            _until(there, lambda: _healthy(there))
            for node, own in enumerate(ports):
                certificates.write_node(there.folder, f"node{node}")
                flwr("supernode", "register", str(there.folder / f"node{node}.pub"), "loopback")
                there.start(
                    f"node{node}", "flower-supernode", "--superlink", there.address, *tls,
                    "--root-certificates", "ca.crt", "--auth-supernode-private-key", f"node{node}",
                    "--host", "127.0.0.1", "--port", str(own),
                    "--node-config", f"partition-id={node} num-partitions={nodes}",
                )  # fmt: skip
            _until(there, lambda: len(online("loopback")) == nodes)
            yield there
        finally:
            there.stop()


def _until(there: Deployment, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _STARTING
    while not ready():
        dead = any(daemon.poll() is not None for daemon in there.daemons)
        if dead or time.monotonic() > deadline:
            logs = "".join(f"\n{log.name}: {log.read_text()[-300:]}" for log in there.folder.glob("*.log"))
            raise RunFailedError(f"the deployment in {there.folder} does not start{logs}")
        time.sleep(0.5)


def _healthy(there: Deployment) -> bool:
    context = ssl.create_default_context(cafile=there.folder / "ca.crt")
    try:
        with urlopen(f"https://{there.address}/health", timeout=5, context=context) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False


def _free_ports(count: int) -> list[int]:
    """Distinct ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
