"""A sweep on a real Dask scheduler with workers in processes of their own, over loopback."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from ouikit.lab.sweep import SweepError, sweep

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class Cluster:
    """A scheduler on an ephemeral port, and workers that can be killed."""

    def __init__(self, folder):
        self.file = folder / "scheduler.json"
        self.processes = []
        self.start("dask_scheduler", "--port", "0")
        end = time.monotonic() + 30
        while not self.file.exists() or not self.file.read_text().endswith("}"):
            assert time.monotonic() < end, "the scheduler did not start"
            time.sleep(0.05)
        self.engine = json.loads(self.file.read_text())["address"].replace("tcp://", "dask://")

    def start(self, program, *options):
        common = ["--scheduler-file", self.file, "--host", "127.0.0.1", "--no-dashboard"]
        command = [sys.executable, "-m", f"distributed.cli.{program}", *common, *options]
        quiet = subprocess.DEVNULL
        self.processes.append(subprocess.Popen(list(map(str, command)), stdout=quiet, stderr=quiet))
        return self.processes[-1]

    def worker(self, threads=1):
        return self.start(
            "dask_worker", "--nthreads", threads, "--no-nanny", "--local-directory", self.file.parent
        )

    def stop(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    made.stop()


def test_a_killed_worker_loses_nothing(cluster, tmp_path):
    log, store = tmp_path / "log", tmp_path / "cells"
    log.mkdir()
    workers = {process.pid: process for process in (cluster.worker(), cluster.worker())}

    def cell(i, seed):
        (log / f"{i}-{os.getpid()}-{time.time_ns()}").touch()
        time.sleep(0.3)
        return [{"metric": "threads", "value": int(os.environ["OMP_NUM_THREADS"]), "pid": os.getpid()}]

    def both_at_work():
        return len({path.name.split("-")[1] for path in log.iterdir()}) == 2

    def kill_one():
        while not (both_at_work() and list(store.glob("*.json"))):
            time.sleep(0.02)
        newest = max(log.iterdir(), key=lambda path: int(path.name.split("-")[2]))
        os.kill(int(newest.name.split("-")[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    rows = sweep(cell, {"i": range(10)}, store=store, engine=cluster.engine)
    killer.join()
    assert rows.i.tolist() == list(range(10))
    assert set(rows.value) == {1}
    assert rows.attrs["cells"]["computed"] == len(list(store.glob("*.json"))) == 10
    assert set(rows.pid) <= workers.keys()
    assert sum(process.poll() is not None for process in workers.values()) == 1
    calls = Counter(int(path.name.split("-")[0]) for path in log.iterdir())
    assert calls.keys() == set(range(10))
    assert 10 < calls.total() <= 12, (
        "only what the dead worker was running, and had not handed in, runs twice"
    )


def test_failures_come_back_and_the_same_table_as_at_home(cluster, tmp_path):
    cluster.worker()

    def cell(i, seed):
        if i == 1:
            raise ArithmeticError("no inverse")
        return [{"metric": "m", "value": 0.1 * i + seed}]

    with pytest.raises(SweepError, match=r"1 of 3 cells failed(.|\n)*ArithmeticError: no inverse"):
        sweep(cell, {"i": [0, 1, 2]}, store=tmp_path / "a", engine=cluster.engine)
    there = sweep(cell, {"i": [0, 2]}, store=tmp_path / "a", engine=cluster.engine, seeds=[0, 1])
    here = sweep(cell, {"i": [0, 2]}, store=tmp_path / "b", jobs=0, seeds=[0, 1])
    assert there.equals(here)
    assert there.attrs["cells"]["cached"] == 2


def test_workers_with_several_threads_are_refused(cluster, tmp_path):
    """Threads of one process would share the random generators that cells seed."""
    cluster.worker(threads=2)

    def cell(seed):
        time.sleep(0.5)
        return [{"metric": "m", "value": 1}]

    with pytest.raises(ValueError, match="start workers with --nthreads 1"):
        sweep(cell, {}, store=tmp_path / "cells", engine=cluster.engine, seeds=range(50))
