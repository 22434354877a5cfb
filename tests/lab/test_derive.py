"""A record that is edited by hand is found: its numbers and words follow from its rows, or it fails."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT, edit, play

from ouikit.lab import derive, record, rows
from ouikit.lab.chapter import Chapter, chapters
from ouikit.lab.commands import main
from ouikit.lab.run import Run, publish

COMMITTED = [(chapter, folder) for chapter in chapters(ROOT) for folder in derive.committed(chapter)]


@pytest.mark.slow
@pytest.mark.parametrize(("chapter", "folder"), COMMITTED, ids=lambda x: getattr(x, "slug", None))
def test_a_committed_record_follows_from_its_rows(chapter, folder):
    assert derive.problems(chapter, folder) == []


@pytest.fixture
def published(repo) -> Path:
    """The toy chapter with a committed record of its extended scale: two arms, x = 0 and 1, of five seeds.

    Its number is 1.1, the paper's is 1.
    """
    edit(repo / "chapters" / "toy.ipynb", "gain * x", "1.1 * gain * x")
    study = play(repo, seeds=[0, 1, 2, 3, 4])["study"]
    return publish(Run(study.folder, record.read(study.folder), cached=False), repo)


def problems(folder: Path) -> list[str]:
    return derive.problems(Chapter("toy", folder.parents[3]), folder)


def change_record(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit_by_hand(folder: Path) -> None:
        found = record.read(folder)
        change(found)
        record.write(found, folder)

    return edit_by_hand


def change_rows(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """Rewrite the rows with all that the file says of itself, and the digest in the record as well."""

    def edit_by_hand(folder: Path) -> None:
        new = rows.write(folder, [change(pd.read_parquet(folder / record.ROWS))])
        change_record(lambda found: found["result"].update(rows=new))(folder)

    return edit_by_hand


def both(found: dict[str, Any], change: Callable[..., object]) -> None:
    """Change a number where the claim says it and where the metric does."""
    result = found["result"]
    (claim,) = [claim for claim in result["claims"] if claim["id"] == "grows"]
    for place in (claim, result["metrics"]["rise"]):
        change(place)


def swap(one: dict[str, Any], other: dict[str, Any], *names: str) -> None:
    for name in names:
        one[name], other[name] = other[name], one[name]


def metric_labels_swapped(found: dict[str, Any]) -> None:
    metrics = found["result"]["metrics"]
    metrics["rise"], metrics["other"] = metrics["other"], metrics["rise"]


def arms_swapped(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(x=1 - table["x"])


NUMBERS = ("value", "low", "high")
EDITS = {
    "numbers of two claims swapped": change_record(lambda r: swap(*r["result"]["claims"], *NUMBERS)),
    "the paper's value": change_record(lambda r: both(r, lambda at: at.update(value=1.0))),
    "one seed": change_record(lambda r: r["run"].update(seeds=[0])),
    "one seed among the parameters": change_record(
        lambda r: (r["run"].update(seeds=[0]), r["run"]["parameters"].update(seeds=[0]))
    ),
    "n of one": change_record(lambda r: both(r, lambda at: at.update(n=1))),
    "sentences swapped": change_record(lambda r: swap(*r["result"]["claims"], "says")),
    "a registered verdict": change_record(lambda r: r["result"]["claims"][0].update(registered="weaker")),
    "a verdict, and the registered one": change_record(
        lambda r: r["result"]["claims"][0].update(registered="weaker", verdict="weaker")
    ),
    "labels of two metrics swapped": change_record(metric_labels_swapped),
    "a metric left out": change_record(lambda r: r["result"]["metrics"].pop("other")),
    "a claim left out": change_record(lambda r: r["result"]["claims"].pop()),
    "another test": change_record(lambda r: r["result"]["claims"][0].update(against=0.9)),
    "arms swapped in the rows": change_rows(arms_swapped),
    "a row left out": change_rows(lambda table: table.iloc[:-1]),
    "one value values moved in their eighth digit": change_rows(
        lambda table: table.assign(value=table["value"] * (1 + 1e-8))
    ),
}


def test_a_record_of_today_follows_from_its_rows(published):
    assert problems(published) == []


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_by_hand_is_found(published, name):
    EDITS[name](published)
    assert problems(published)


def test_rows_are_known_by_their_digest(published):
    table = pd.read_parquet(published / record.ROWS)
    table["value"] += 0.0  # the same numbers in other bytes
    table.to_parquet(published / record.ROWS)
    assert any("result.rows" in line for line in problems(published))


def test_fewer_seeds_in_record_and_yaml_are_found(repo, published):
    EDITS["one seed among the parameters"](published)
    edit(repo / "chapters" / "toy.yaml", "seeds: [0, 1, 2, 3, 4]", "seeds: [0]")
    assert "holds rows of x=0, seed=1, which this run does not compute" in problems(published)[0]


def test_more_seeds_in_record_and_yaml_are_found(repo, published):
    edit(repo / "chapters" / "toy.yaml", "seeds: [0, 1, 2, 3, 4]", "seeds: [0, 1, 2, 3, 4, 5]")
    assert "holds no rows of x=0, seed=5" in problems(published)[0]


def test_a_verdict_that_is_registered_otherwise_is_found(repo, published):
    change_record(lambda r: r["result"]["claims"][1].update(registered="weaker", verdict="weaker"))(published)
    edit(repo / "chapters" / "toy.yaml", "status: reproduced", "status: weaker")
    lines = problems(published)
    assert any("result.status" in line and "verdict changed" in line for line in lines)


def test_what_differs_is_named_with_both_numbers(published):
    EDITS["n of one"](published)
    assert problems(published) == [
        "toy/extended: result.claims.grows.n is 1; derived again it is 5",
        "toy/extended: result.metrics.rise.n is 1; derived again it is 5",
    ]


def test_a_record_without_a_scale_or_rows_is_a_problem(published):
    published.rename(published.with_name("large"))
    assert "toy.yaml has no scale 'large'" in problems(published.with_name("large"))[0]
    published.with_name("large").rename(published)
    (published / record.ROWS).unlink()
    assert "rows.parquet" in problems(published)[0]


def test_a_record_says_what_todays_claims_say_of_its_rows(repo, published, capsys):
    before = record.read(published)
    edit(repo / "chapters" / "toy.yaml", "a quarter of the effect", "a quarter of it")
    assert main(["check", "--records"]) == 1
    assert "result.claims.grows.why is 'a quarter of the effect'" in capsys.readouterr().err
    assert main(["check", "--records", "--fix"]) == 0
    after = record.read(published)
    assert after["result"]["claims"][0]["why"] == "a quarter of it"
    after["result"]["claims"] = before["result"]["claims"]
    assert after == before
    assert main(["check", "--records"]) == 0


def test_a_record_is_not_rewritten_from_other_rows_or_to_another_verdict(repo, published, capsys):
    text = (published / "record.json").read_text()
    edit(repo / "chapters" / "toy.yaml", "within: 0.25", "within: 0.01")
    assert main(["check", "--records", "--fix"]) == 1
    assert "a verdict changed; register it" in capsys.readouterr().err
    edit(repo / "chapters" / "toy.yaml", "within: 0.01", "within: 0.25")
    table = pd.read_parquet(published / record.ROWS)
    rows.write(published, [table.assign(value=table["value"] * 1.01)])
    assert main(["check", "--records", "--fix"]) == 1
    assert "the rows are not those that the record was made with" in capsys.readouterr().err
    assert (published / "record.json").read_text() == text


def test_a_cell_that_is_computed_again_finds_swapped_arms_in_a_record_that_is_sound_otherwise(
    published, capsys
):
    assert main(["check", "--again"]) == 0
    change_record(lambda found: found["result"].update(metrics={}, claims=[]))(published)
    EDITS["arms swapped in the rows"](published)
    toy = published.parents[3] / "chapters" / "toy.yaml"
    edit(toy, "within: 0.25", "within: 9.0")
    edit(toy, "metric: rise\n    null: 0", "metric: rise\n    null: -20")
    derive.rewrite(Chapter("toy", published.parents[3]), published)
    assert main(["check", "--records"]) == 0
    assert main(["check", "--again"]) == 1
    assert re.search(r"again, x=[01].0 is what the record calls x=[01].0", capsys.readouterr().err)


def test_each_table_comes_back_as_it_was(tmp_path):
    first = pd.DataFrame({"arm": ["a", "b"], "index": [0, 1], "seed": 0, "metric": "y", "value": [1.0, 2.0]})
    second = pd.DataFrame({"seed": [0], "wrong": [True], "metric": "z", "value": [float("nan")]})
    rows.write(tmp_path, [first, second])
    points = [{"arm": arm, "index": index, "seed": 0} for index, arm in enumerate("ab")]
    pd.testing.assert_frame_equal(rows.read(tmp_path, 0, points), first)
    found = rows.read(tmp_path, 1, [{"seed": 0}])
    pd.testing.assert_frame_equal(found, second)
    assert found.attrs["cells"]["diverged"] == 1
    with pytest.raises(rows.RowsError, match="holds 2 sweeps; the notebook asks for another"):
        rows.read(tmp_path, 2, [{"seed": 0}])
    with pytest.raises(rows.RowsError, match="has no column lr"):
        rows.read(tmp_path, 0, [{"lr": 0.1, "seed": 0}])
