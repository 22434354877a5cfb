"""A run takes its place when it has ended well, and not before."""

from pathlib import Path

import pytest

from ouikit.lab.attempt import EXECUTED, FAILED, attempt, clear


def made(folder: Path, content: str, end: str = "good") -> None:
    with attempt(folder) as fresh:
        (fresh / EXECUTED).write_text(content)
        if end != "good":
            raise RuntimeError(end)


def test_a_good_end_replaces_the_run_before(tmp_path: Path) -> None:
    made(tmp_path / "key", "old")
    (tmp_path / "key" / "of the old run only").touch()
    made(tmp_path / "key", "new")
    assert [path.name for path in (tmp_path / "key").iterdir()] == [EXECUTED]
    assert (tmp_path / "key" / EXECUTED).read_text() == "new"
    assert list((tmp_path / "under-way").iterdir()) == []


def test_a_failure_leaves_the_run_before_as_it_was_and_keeps_what_was_executed(tmp_path: Path) -> None:
    made(tmp_path / "key", "old")
    with pytest.raises(RuntimeError, match="out of memory"):
        made(tmp_path / "key", "cut off", "out of memory")
    assert (tmp_path / "key" / EXECUTED).read_text() == "old"
    assert (tmp_path / "key" / FAILED).read_text() == "cut off"
    assert list((tmp_path / "under-way").iterdir()) == []
    made(tmp_path / "key", "new")
    assert not (tmp_path / "key" / FAILED).exists()


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    left = tmp_path / "under-way" / "dead-01234567"
    (left / "new").mkdir(parents=True)
    (left / "new" / EXECUTED).write_text("cut off")
    left.with_suffix(".lock").touch()  # which nobody holds
    with attempt(tmp_path / "living") as fresh:
        (fresh / EXECUTED).write_text("going on")
        clear(tmp_path)
        assert (fresh / EXECUTED).read_text() == "going on"
    assert not left.exists()
    assert (tmp_path / "dead" / FAILED).read_text() == "cut off"
    assert (tmp_path / "living" / EXECUTED).read_text() == "going on"
