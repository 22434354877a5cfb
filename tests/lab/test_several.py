"""Chapters side by side, with real kernels."""

from pathlib import Path

import pytest
from conftest import edit

from ouikit.lab.chapter import Chapter
from ouikit.lab.run import Run, RunError
from ouikit.lab.several import execute_all
from ouikit.lab.sweep.progress import counts

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("at_once", [1, 2])
def test_every_chapter_comes_back_and_one_that_fails_stops_no_other(repo: Path, at_once: int) -> None:
    for half in (".ipynb", ".yaml"):
        text = (repo / "chapters" / f"toy{half}").read_text()
        (repo / "chapters" / f"also{half}").write_text(text.replace('toy\\"', 'also\\"'))
    edit(repo / "chapters" / "also.ipynb", "rise = (table", "rise = (tabel")
    specs = {
        chapter: chapter.spec(chapter.resolve()) for chapter in (Chapter("toy", repo), Chapter("also", repo))
    }
    notes = {slug: repo / f"{slug}-cells" for slug in ("toy", "also")}
    found = {chapter.slug: outcome for chapter, outcome in execute_all(specs, at_once, notes.__getitem__)}
    toy, also = found["toy"], found["also"]
    assert isinstance(toy, Run)
    assert toy.record["result"]["status"] == "ok"
    assert isinstance(also, RunError)
    assert "also: NameError: name 'tabel' is not defined" in str(also)
    assert [counts(path) for path in notes.values()] == [(6, 6), (6, 6)]
