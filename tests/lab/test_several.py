"""Chapters side by side, with real kernels."""

from pathlib import Path

import pytest
from conftest import edit

from ouikit.lab.attempt import FAILED
from ouikit.lab.chapter import Chapter
from ouikit.lab.run import Run, RunError
from ouikit.lab.several import execute_all
from ouikit.lab.sweep.progress import counts

pytestmark = pytest.mark.slow


KERNEL = "import os; os.kill(os.getpid(), 9)"
WITH_ITS_PROCESS = "import os; os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"


@pytest.mark.parametrize(
    ("at_once", "killed", "why"), [(1, KERNEL, "its kernel was"), (2, WITH_ITS_PROCESS, "its process was")]
)
def test_every_chapter_comes_back_and_one_that_is_killed_stops_no_other(
    repo: Path, at_once: int, killed: str, why: str
) -> None:
    for half in (".ipynb", ".yaml"):
        text = (repo / "chapters" / f"toy{half}").read_text()
        (repo / "chapters" / f"also{half}").write_text(text.replace('toy\\"', 'also\\"'))
    edit(repo / "chapters" / "also.ipynb", "rise = (table", f"{killed}\\nrise = (table")
    specs = {
        chapter: chapter.spec(chapter.resolve()) for chapter in (Chapter("also", repo), Chapter("toy", repo))
    }
    notes = {slug: repo / f"{slug}-cells" for slug in ("toy", "also")}
    found = {chapter.slug: outcome for chapter, outcome in execute_all(specs, at_once, notes.__getitem__)}
    toy, also = found["toy"], found["also"]
    assert isinstance(toy, Run)
    assert toy.record["result"]["status"] == "ok"
    assert isinstance(also, RunError)
    assert f"also: {why} killed" in str(also)
    assert f"code cell 6 of 7, which begins with: {killed}" in str(also)
    copy = Path(str(also).rpartition("The executed copy: ")[2])
    assert copy.name == FAILED
    assert "grows" in copy.read_text(), "with what the cells before it showed"
    assert [counts(path) for path in notes.values()] == [(6, 6), (6, 6)]
