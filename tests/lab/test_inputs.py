"""A chapter that reads another one's committed record: what it sees, and that it ages with that record."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import edit, play

from ouikit.lab import derive, inputs, record, sources
from ouikit.lab.book import outdated
from ouikit.lab.book.badges import badge_line
from ouikit.lab.book.shelf import Repository, read_shelf
from ouikit.lab.chapter import Chapter, UnknownNameError
from ouikit.lab.run import Run, publish
from ouikit.lab.study import Study


@pytest.fixture
def source(repo) -> Path:
    """The folder of the committed record of the chapter `source`, which `toy` reads as its other number."""
    study = play(repo, seeds=[0, 1, 2, 3, 4])["study"]
    publish(Run(study.folder, record.read(study.folder), cached=False), repo)
    (repo / "book" / "results" / "toy").rename(repo / "book" / "results" / "source")
    folder = repo / "book" / "results" / "source" / "extended"
    change(folder, lambda found: found["run"].update(slug="source"))
    for half in (".yaml", ".ipynb"):
        shutil.copy(repo / "chapters" / f"toy{half}", repo / "chapters" / f"source{half}")
    edit(repo / "chapters" / "source.ipynb", '\\"toy\\"', '\\"source\\"')
    edit(repo / "chapters" / "toy.ipynb", "globals())", 'globals())\\nother = study.reads(\\"source\\")')
    edit(
        repo / "chapters" / "toy.ipynb",
        '\\"other\\": {\\"value\\": 0.9, \\"low\\": 0.8, \\"high\\": 1.0, \\"n\\": len(rise)},',
        '\\"other\\": other[\\"rise\\"],',
    )
    return folder


def change(folder: Path, how: Callable[[dict[str, Any]], object]) -> None:
    found = record.read(folder)
    how(found)
    record.write(found, folder)


def published(repo: Path) -> Path:
    """The committed extended record of `toy`."""
    study = play(repo, seeds=[0, 1, 2, 3, 4])["study"]
    return publish(Run(study.folder, record.read(study.folder), cached=False), repo)


def started(repo: Path) -> Study:
    study: Study = play(repo)["study"]
    return study


def test_a_notebook_sees_metrics_with_interval_and_n_and_verdicts(repo, source):
    names = play(repo)
    rise = names["other"]["rise"]
    assert (rise.value, rise.low, rise.high, rise.n) == (1.0, 1.0, 1.0, 5)
    assert names["other"].verdict("grows") == "reproduced"
    assert names["other"].verdict("shrinks") == "not run"
    claim = record.read(names["study"].folder)["result"]["claims"][1]
    assert (claim["value"], claim["n"]) == (1.0, 5)


def test_what_was_read_is_in_the_record_and_shown(repo, source, capsys):
    found = record.read(started(repo).folder)
    read = record.read(source)
    identity = {"key": read["run"]["key"], "code": read["made_by"]["code"]}
    assert found["run"]["reads"] == {"source/extended": identity}
    assert f"source/extended (run {identity['key']}, code {identity['code']})" in capsys.readouterr().out


def test_a_name_that_the_record_lacks_is_an_error_with_the_nearest(repo, source):
    other = play(repo)["other"]
    with pytest.raises(KeyError, match=r"no metric 'rice' in source/extended; did you mean 'rise'"):
        other["rice"]
    with pytest.raises(KeyError, match=r"no claim 'grow' in source/extended; did you mean 'grows'"):
        other.verdict("grow")


def test_a_record_that_is_not_there_is_an_error_with_the_command_that_makes_it(repo, source):
    study = started(repo)
    with pytest.raises(UnknownNameError, match="did you mean 'source'"):
        study.reads("sauce")
    with pytest.raises(ValueError, match="toy cannot read its own record"):
        study.reads("toy")
    shutil.rmtree(source)
    with pytest.raises(inputs.MissingRecordError, match="ouikit run source --scale extended --publish"):
        study.reads("source")


def test_a_run_ages_with_the_record_that_it_read(repo, source):
    folder = started(repo).folder
    sources.seal(folder)
    assert sources.unchanged(folder)
    change(source, lambda found: found["result"]["metrics"]["rise"].update(value=0.9))
    assert not sources.unchanged(folder)


def test_a_committed_record_follows_from_its_rows_and_from_what_it_read(repo, source):
    folder = published(repo)
    toy = Chapter("toy", repo)
    assert derive.problems(toy, folder) == []
    change(source, lambda found: found["result"]["metrics"]["rise"].update(value=0.9, low=0.9))
    assert "toy/extended: result.metrics.other.value is 1.0; derived again it is 0.9" in derive.problems(
        toy, folder
    )
    change(source, lambda found: found["run"].update(key="another"))
    assert any("run.reads.source/extended.key" in line for line in derive.problems(toy, folder))
    figure = folder / "figures" / "y-light.svg"
    drawn = figure.read_text()
    figure.write_text("of what was read before")
    derive.rewrite(toy, folder)
    assert derive.problems(toy, folder) == []
    assert record.read(folder)["run"]["reads"]["source/extended"]["key"] == "another"
    assert figure.read_text() == drawn


def test_figures_are_drawn_again_only_where_something_else_was_read(repo, source):
    folder = published(repo)
    (folder / "figures" / "y-light.svg").write_text("as it was")
    derive.rewrite(Chapter("toy", repo), folder)
    assert (folder / "figures" / "y-light.svg").read_text() == "as it was"


def test_a_record_of_before_there_were_inputs_needs_no_new_one(repo):
    folder = published(repo)
    change(folder, lambda found: found["run"].pop("reads"))
    assert derive.problems(Chapter("toy", repo), folder) == []


def test_a_committed_record_that_read_another_one_than_todays_is_older(repo, source):
    found = record.read(published(repo))
    assert not outdated(found, repo)
    change(source, lambda read: read["made_by"].update(code="another"))
    assert outdated(found, repo)
    shutil.rmtree(source)
    assert outdated(found, repo)


def test_the_page_links_to_the_chapters_that_it_reads(repo, source):
    published(repo)
    (repo / "book" / "_config.yml").write_text("{}")
    shelf = read_shelf(repo, [], lambda found: False)
    badges = {entry.paper.slug: badge_line(entry, Repository("", "main")) for entry in shelf.entries}
    assert '<a href="source.html">source</a> (extended scale)' in badges["toy"]
    assert "Reads" not in badges["source"]
