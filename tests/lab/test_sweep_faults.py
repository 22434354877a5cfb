"""What goes wrong during a sweep: nothing finished is lost, and the message says what to do."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from ouikit.lab.sweep import SweepError, sweep
from ouikit.lab.sweep.cells import StoreError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and locks of POSIX")

# A sweep of twelve cells, as a script: each call leaves a file "<i>-<pid>-<time>" in the log.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from ouikit.lab.sweep import sweep

# A shell starts what it puts in the background with Ctrl-C ignored, and everything below inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

LOG, STORE, JOBS, LONG = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

def cell(i, seed):
    (LOG / f"{i}-{os.getpid()}-{time.time_ns()}").touch()
    time.sleep(0.25 if i < LONG else 60)
    return [{"metric": "square", "value": i * i}]

if __name__ == "__main__":
    rows = sweep(cell, {"i": range(12)}, store=STORE, jobs=JOBS)
    print(rows.value.astype(int).tolist(), rows.attrs["cells"]["computed"])
"""
SQUARES = str([i * i for i in range(12)])


class Script:
    """The script above with a folder for its log and its cells."""

    def __init__(self, folder):
        self.file, self.log, self.store = folder / "script.py", folder / "log", folder / "cells"
        self.file.write_text(SCRIPT)
        self.log.mkdir()
        self._started = []

    def start(self, jobs=2, long=12):
        """Run it; cells from number `long` on take a minute."""
        command = [sys.executable, self.file, self.log, self.store, jobs, long]
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def calls(self):
        return Counter(int(path.name.split("-")[0]) for path in self.log.iterdir())

    def workers(self):
        return {int(path.name.split("-")[1]) for path in self.log.iterdir()}

    def finished(self):
        return len(list(self.store.glob("*.json")))

    def stop(self):
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def script(tmp_path):
    made = Script(tmp_path)
    yield made
    made.stop()


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_kill_9_loses_at_most_the_running_cells(script):
    killed = script.start()
    wait_for(lambda: script.finished() >= 4)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    wait_for(lambda: not any(map(alive, script.workers())))  # without a parent, workers end
    before, kept = script.calls(), script.finished()
    assert 4 <= kept < 12
    assert sum(before.values()) - kept <= 2, "only the two running cells are lost"
    out, err = script.start().communicate()
    assert out.split("] ") == [SQUARES[:-1], f"{12 - kept}\n"], err
    assert sum(script.calls().values()) == sum(before.values()) + 12 - kept


@pytest.mark.parametrize("interrupt", [os.kill, os.killpg])
def test_ctrl_c_keeps_what_is_finished_and_says_so(script, interrupt):
    """As a notebook does, which interrupts one process, and as a terminal does: the workers get it too."""
    stopped = script.start(long=3)
    wait_for(lambda: script.finished() == 3 and len(script.calls()) == 5)
    interrupt(stopped.pid, signal.SIGINT)
    _, err = stopped.communicate(timeout=30)
    assert stopped.returncode == -signal.SIGINT
    assert f"interrupted; 3 of 12 cells are saved in {script.store}" in err
    assert err.count("Traceback") == 1, "the workers end without a word"
    assert not any(map(alive, script.workers()))


def test_two_runs_at_a_time_share_the_cells(script):
    first = script.start(jobs=1)
    wait_for(lambda: script.finished() >= 1)
    os.kill(first.pid, signal.SIGSTOP)  # until the second has begun, however long its start takes
    second = script.start(jobs=1)
    wait_for(lambda: len(script.workers()) == 2)
    os.kill(first.pid, signal.SIGCONT)
    ends = [process.communicate() for process in (first, second)]
    assert [out.split("] ")[0] for out, _ in ends] == [SQUARES[:-1]] * 2, ends
    assert script.calls() == Counter(range(12)), "every cell once, whoever computed it"
    assert len(script.workers()) == 2, "both took part"
    assert f"process {first.pid} is working on {script.store} too" in ends[1][1]
    assert "working on" not in ends[0][1]


def test_a_claim_dies_with_its_run(script):
    """A cell that a killed run had claimed is computed by the run that waited for it."""
    first = script.start(jobs=1)
    wait_for(lambda: script.calls())
    os.kill(first.pid, signal.SIGSTOP)  # it holds its claim and does nothing
    second = script.start(jobs=1)
    wait_for(lambda: script.finished() == 11)
    os.kill(first.pid, signal.SIGKILL)
    out, err = second.communicate(timeout=30)
    assert out == f"{SQUARES} 12\n", err
    assert sum(script.calls().values()) == 13


def truncated(content):
    return content[: len(content) // 2]


def one_bit_off(content):
    return content.replace(b'"value",[1', b'"value",[3')


@pytest.mark.parametrize("damage", [truncated, one_bit_off, lambda _: b"", lambda _: os.urandom(5000)])
def test_a_damaged_cell_is_computed_again(tmp_path, capfd, damage):
    def cell(i, seed):
        return [{"metric": "m", "value": i}]

    rows = sweep(cell, {"i": [0, 1, 2]}, store=tmp_path, jobs=0)
    (path,) = (path for path in tmp_path.glob("*.json") if b'"i":1' in path.read_bytes())
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert path.read_bytes() != good
    again = sweep(cell, {"i": [0, 1, 2]}, store=tmp_path, jobs=0)
    assert again.equals(rows)
    assert again.attrs["cells"]["computed"] == 1
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"{path} is damaged")
    assert warning.endswith("it is computed again")


def as_nobody(code):
    """Run code after giving up root's power to write everywhere; `d` is a folder that others can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        prelude = f"""
            import os, resource, signal
            from pathlib import Path
            from ouikit.lab.sweep.cells import StoreError
            from ouikit.lab.sweep import sweep
            d = Path({folder!r})
            def cell(i, seed):
                print("called", i)
                return [{{"metric": "m", "value": i}}] * (1 if i < 3 else 10_000)
            def drop():
                (d / "cells").chmod(0o555)
                if os.geteuid() == 0:
                    os.seteuid(65534)
            """
        lines = [line[12:] for text in (prelude, code) for line in text.splitlines()]
        run = [sys.executable, "-c", "\n".join(lines)]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout


def test_a_read_only_store_is_refused_before_anything_is_computed():
    out = as_nobody("""
            (d / "cells").mkdir()
            drop()
            try:
                sweep(cell, {"i": [1]}, store=d / "cells", jobs=0)
            except StoreError as error:
                print(error)
            """)
    assert "called" not in out
    assert "/cells: Permission denied" in out
    assert "OUIKIT_RUNS" in out


def test_a_read_only_store_can_be_read():
    out = as_nobody("""
            sweep(cell, {"i": [1, 2]}, store=d / "cells", jobs=0)
            drop()
            print(sweep(cell, {"i": [1, 2]}, store=d / "cells", jobs=0).attrs["cells"]["cached"])
            """)
    assert out == "called 1\ncalled 2\n2\n"


@pytest.mark.parametrize(("limit", "called"), [(2_000, []), (70_000, [1, 2, 3])])
def test_a_full_disk(limit, called):
    """No room at all is found out at once; room that runs out keeps what is finished."""
    out = as_nobody(f"""
            resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
            try:
                sweep(cell, {{"i": [1, 2, 3, 0]}}, store=d / "cells", jobs=0)
            except StoreError as error:
                print(error, *error.__notes__)
            print(len(list((d / "cells").glob("*.json"))), "on disk")
            print(len(list((d / "cells").glob("*.tmp"))), "in pieces")
            """)
    kept = max(len(called) - 1, 0)
    assert [line for line in out.splitlines() if line.startswith("called")] == [f"called {i}" for i in called]
    assert "File too large" in out
    assert "OUIKIT_RUNS" in out
    assert f"{kept} of 4 cells are saved" in out
    assert f"{kept} on disk\n0 in pieces" in out


def test_a_worker_that_dies_loses_only_its_cell(tmp_path):
    log = tmp_path / "log"
    log.mkdir()

    def cell(i, seed):
        (log / f"{i}-{time.time_ns()}").touch()
        if i == 2 and len(list(log.glob("2-*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
        return [{"metric": "m", "value": i}]

    rows = sweep(cell, {"i": range(6)}, store=tmp_path / "cells", jobs=2)
    assert rows.value.tolist() == list(range(6))
    calls = Counter(int(path.name.split("-")[0]) for path in log.iterdir())
    assert calls == Counter([*range(6), 2]), "the neighbour of the dead worker goes on undisturbed"


def test_a_cell_that_always_kills_its_worker_is_given_up(tmp_path):
    log = tmp_path / "log"
    log.mkdir()

    def cell(i, seed):
        (log / f"{i}-{time.time_ns()}").touch()
        if i == 1:
            os._exit(3)
        return [{"metric": "m", "value": i}]

    with pytest.raises(SweepError, match=r"1 of 4 cells failed(.|\n)*i=1(.|\n)*died 3 times") as caught:
        sweep(cell, {"i": range(4)}, store=tmp_path / "cells", jobs=2)
    assert [arguments["i"] for arguments, _ in caught.value.failures] == [1]
    assert len(list(log.glob("1-*"))) == 3
    assert len(list((tmp_path / "cells").glob("*.json"))) == 3


def test_a_store_that_vanishes_during_the_sweep(tmp_path):
    store = tmp_path / "cells"

    def cell(i, seed):
        for path in store.iterdir():
            path.unlink()
        store.rmdir()
        return [{"metric": "m", "value": i}]

    with pytest.raises(StoreError, match="cells: No such file") as caught:
        sweep(cell, {"i": [1, 2]}, store=store, jobs=0)
    assert "0 of 2 cells are saved" in caught.value.__notes__[0]
