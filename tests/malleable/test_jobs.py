"""Real processes that come and go: the data of a run with changes, and what is left after a fault."""

import time
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest

from ouikit.malleable import JobFailedError, launch, steps

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]
PROGRAM = Path(__file__).with_name("program.py")
DATA = ("block", "pairs", "halo", "first", "all", "few")


def processes(folder):
    """Living processes that were given this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            given = str(folder) in " ".join(process.environ().values())
            if given and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def nothing_left(tmp_path):
    yield
    until = time.monotonic() + 5
    while (left := processes(tmp_path)) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """The result of a run without changes, by number of rows."""
    return cache(lambda n: launch(PROGRAM, tmp_path_factory.mktemp("unchanged"), str(n)))


def same(found, expected):
    assert found["iteration"] == expected["iteration"] == 8
    for name in DATA:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_set_that_is_spawned_anew_goes_on_with_the_same_bits(tmp_path, unchanged):
    found = launch(PROGRAM, tmp_path, "10", manager=steps({1: 2, 2: 4, 4: 2, 6: 1}))
    sizes = [(change["before"], change["after"]) for change in found["changes"]]
    assert sizes == [(1, 2), (2, 4), (4, 2), (2, 1)]
    assert all(seconds >= 0 for change in found["changes"] for seconds in change.values())
    same(found, unchanged(10))


def test_survivors_go_on_with_the_same_bits(tmp_path, unchanged):
    found = launch(PROGRAM, tmp_path, "7", "survivors", manager=steps({1: 3, 3: 5, 6: 2}))
    assert [change["after"] for change in found["changes"]] == [3, 5, 2]
    assert found["size"] == 2
    same(found, unchanged(7))


@pytest.mark.parametrize("trouble", ["killed", "raises"])
def test_a_child_that_dies_while_rows_move_costs_an_attempt_and_no_iteration(trouble, tmp_path, unchanged):
    found = launch(PROGRAM, tmp_path, "7", trouble, manager=steps({2: 2, 3: 3}), attempts=2, timeout=60)
    assert (tmp_path / "met").exists()
    assert found["attempts"] == 2
    # The restart begins after iteration 2, with one process.
    (change,) = found["changes"]
    assert (change["iteration"], change["before"], change["after"]) == (3, 1, 3)
    same(found, unchanged(7))


def test_a_launcher_that_is_told_to_stop_leaves_a_job_that_can_go_on(tmp_path, unchanged):
    found = launch(PROGRAM, tmp_path, "7", "terminated", manager=steps({1: 2}), attempts=2, timeout=60)
    assert found["attempts"] == 2
    same(found, unchanged(7))


def test_a_job_that_is_done_leaves_no_checkpoint_for_the_next_one_in_its_folder(tmp_path):
    for n in ("7", "10"):
        found = launch(PROGRAM, tmp_path, n, manager=steps({1: 2}))
        assert (len(found["block"]), len(found["changes"])) == (int(n), 1)
        assert not (tmp_path / "checkpoint.npz").exists()


def test_an_exit_code_of_zero_is_no_success(tmp_path):
    with pytest.raises(JobFailedError, match="left no result, exit code 0"):
        launch(PROGRAM, tmp_path, "7", "liar", timeout=30)


def test_a_job_that_hangs_is_ended(tmp_path):
    started = time.monotonic()
    with pytest.raises(JobFailedError, match="no result"):
        launch(PROGRAM, tmp_path, "7", "hangs", manager=steps({1: 2}), timeout=8)
    assert time.monotonic() - started < 20


def test_what_cannot_be_launched_is_refused(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no program"):
        launch(tmp_path / "absent.py", tmp_path)
    with pytest.raises(ValueError, match="one attempt"):
        launch(PROGRAM, tmp_path, attempts=0)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"install ouikit\[mpi\]"):
        launch(PROGRAM, tmp_path)


def test_a_pattern_of_nothing_ends_the_job_and_is_named(tmp_path):
    program = tmp_path / "wrong.py"
    program.write_text("from ouikit.malleable import Block, Malleable\nMalleable({}, {'x': Block()})\n")
    with pytest.raises(JobFailedError, match=r"patterns of \['x'\]"):
        launch(program, tmp_path, timeout=30)
