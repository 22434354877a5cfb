"""The whole book's progress, and a stop at any moment."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ouikit.lab import progress
from ouikit.lab.progress import BookProgress
from ouikit.lab.sweep import sweep
from ouikit.lab.sweep.progress import NOTES, counts

SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background ignores it
import ouikit.lab.book
from pathlib import Path

def publish_book(root, runs, html):
    html.mkdir(parents=True, exist_ok=True)
    (html / "index.html").write_text(f"{len(list(runs))} runs")
    return html

def slow(chapter, spec):
    print("running", flush=True)
    time.sleep(60)

ouikit.lab.book.publish_book = publish_book
from ouikit.lab import commands, several
several.execute = slow
sys.exit(commands.main(["book"]))
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_book_says_what_is_whole_and_how_to_go_on(repo: Path, kind: signal.Signals) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SLOW], text=True, **pipes) as process:
        assert process.stdout
        assert process.stdout.readline() == "running\n"
        time.sleep(0.2)
        process.send_signal(kind)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "index.html is whole, 0 of 1 chapters have a run" in said
    assert "`ouikit book` goes on from there" in said
    assert "Traceback" not in said
    assert (repo / "build" / "html" / "index.html").read_text() == "0 runs"


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_the_site_is_swapped_waits(kind: signal.Signals) -> None:
    from ouikit.lab.book.render import signals_held_back

    reached = []

    def stop() -> None:
        with signals_held_back():
            os.kill(os.getpid(), kind)
            time.sleep(0.05)  # the system may hand it to the other thread
            reached.append("the end")

    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    before = signal.signal(kind, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            stop()
        assert signal.getsignal(kind) is signal.default_int_handler
    finally:
        signal.signal(kind, before)
        over.set()
        other.join()
    assert reached == ["the end"]


def test_another_thread_may_swap_the_site() -> None:
    from ouikit.lab.book.render import signals_held_back

    def swap() -> str:
        with signals_held_back():
            return "swapped"

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(swap).result() == "swapped"


def cell(i: int, seed: int) -> list[dict[str, float | str]]:
    return [{"metric": "y", "value": i}]


def test_sweeps_note_their_cells_for_the_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOTES, str(tmp_path / "notes"))
    sweep(cell, {"i": [1]}, store=tmp_path / "cells", jobs=0)
    sweep(cell, {"i": [1, 2, 3]}, store=tmp_path / "cells", jobs=0)  # one of them is there
    assert counts(tmp_path / "notes") == (4, 4)
    with (tmp_path / "notes").open("a") as notes:
        notes.write("1")  # a line that is still being written
    assert counts(tmp_path / "notes") == (4, 4)
    assert counts(tmp_path / "nowhere") == (0, 0)


def test_the_time_left_follows_the_cpu_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "cpu_count", lambda: 2)
    with BookProgress({"a": 100.0, "b": 300.0, "c": float("inf")}) as shown:
        assert shown.seconds_left() == (100 + 300 + 200) / 2, (
            "an unknown chapter costs the mean of the others"
        )
        shown.begin("a").write_text("1 4\n")
        assert shown.seconds_left() == (600 - 25) / 2
        assert shown.line() == "0 of 3 chapters done; a: 1 of 4 cells; about 5 min left"
        shown.begin("b").write_text("1 3\n")
        assert shown.line() == "0 of 3 chapters done; a: 1 of 4 cells, b: 1 of 3 cells; about 4 min left"
        clock[0] = 100.0
        shown.end("a", 100.0)
        assert shown.seconds_left() == 400 / 2, "two CPU-seconds a second are what this machine gave"
    with BookProgress({"a": float("inf")}) as shown:
        assert shown.seconds_left() is None
        assert shown.line() == "0 of 1 chapters done"


def test_off_a_terminal_a_line_comes_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with BookProgress({"a": 60.0}, every=0.05) as shown:
        shown.begin("a")
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert all("0 of 1 chapters done; a; " in line for line in lines)
