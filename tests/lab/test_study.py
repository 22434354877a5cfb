"""The notebook's side: parameters, record, verdicts that raise, and what must never raise."""

import json
import os
from dataclasses import replace

import pandas as pd
import pytest
from conftest import edit, play

from ouikit.lab import VerdictChangedError, record
from ouikit.lab.chapter import Chapter
from ouikit.lab.parameters import ParameterError
from ouikit.lab.spec import HANDED_ON


def test_a_run_leaves_record_rows_and_figures(repo, capsys):
    study = play(repo)["study"]
    found = record.read(study.folder)
    assert found["run"] == {
        "slug": "toy",
        "scale": "reduced",
        "parameters": {"gain": 1.0, "seeds": [0, 1, 2]},
        "differences": {},
        "seeds": [0, 1, 2],
        "key": study.run.key,
        "engine": "local",
        "reads": {},
    }
    grows, shrinks = found["result"]["claims"]
    assert (grows["verdict"], grows["registered"], grows["n"]) == ("reproduced", "reproduced", 3)
    assert (shrinks["verdict"], shrinks["note"]) == ("contradicted", "it rises here")
    assert found["result"]["cells"]["total"] == 6
    assert found["made_by"]["lock"]
    assert found["made_by"]["versions"]["numpy"]
    rows = pd.read_parquet(study.folder / "rows.parquet")
    assert list(rows.columns) == ["x", "seed", "metric", "value"]
    (figure,) = found["result"]["figures"]
    assert (study.folder / figure["dark"]).read_text() == "<svg>d</svg>"
    shown = capsys.readouterr().out
    assert "scale: reduced" in shown
    assert "reproduced  grows" in shown
    assert "Run key" in shown


def test_cells_of_much_work_run_here_unless_the_run_asks_for_workers(repo):
    study = play(repo)["study"]

    def process(seed):
        return [{"metric": "process", "value": os.getpid()}]

    assert study.sweep(process, [{}], seeds=[0], here=True).value.tolist() == [os.getpid()]
    study.run = replace(study.run, jobs=1)
    assert study.sweep(process, [{}], seeds=[1], here=True).value.tolist() != [os.getpid()]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("status: reproduced", "status: weaker", "grows: registered weaker, now reproduced"),
        (
            "status: contradicted",
            "status: inconclusive",
            "shrinks: registered inconclusive, now contradicted",
        ),
        ("greater: 0.5", "greater: 1.5", "grows: registered reproduced, now weaker"),
    ],
)
def test_a_changed_verdict_raises_in_both_directions_after_the_record_is_kept(repo, old, new, words):
    edit(repo / "chapters" / "toy.yaml", old, new)
    with pytest.raises(VerdictChangedError, match=words):
        play(repo)
    chapter = Chapter("toy", repo)
    folder = chapter.folder("by-hand") / chapter.key(chapter.resolve().parameters)
    assert record.read(folder)["result"]["status"] == "verdict changed"


def test_what_a_machine_cannot_measure_is_not_run_and_guards_nothing(repo):
    edit(repo / "chapters" / "toy.ipynb", '"rise\\": {', '"rise\\": None and {')
    grows, shrinks = record.read(play(repo)["study"].folder)["result"]["claims"]
    assert (grows["verdict"], grows["registered"], grows["value"]) == ("not run", None, None)
    assert (shrinks["verdict"], shrinks["registered"]) == ("contradicted", "contradicted")


def test_a_metric_that_is_forgotten_is_a_changed_verdict(repo):
    edit(repo / "chapters" / "toy.ipynb", '"rise\\": {', '"rose\\": {')
    with pytest.raises(VerdictChangedError, match="grows: registered reproduced, now not run"):
        play(repo)


def test_a_metric_of_an_arm_that_was_not_run_is_a_changed_verdict_too(repo):
    edit(repo / "chapters" / "toy.ipynb", 'max(rise), \\"n\\": len(rise)', 'max(rise), \\"n\\": 0')
    with pytest.raises(VerdictChangedError, match="grows: registered reproduced, now not run"):
        play(repo)


def test_a_parameter_is_refused_by_name_with_its_value_and_the_fix(repo):
    study = play(repo)["study"]
    study.require("gain", True, "never said")
    with pytest.raises(ParameterError, match=r"parameter 'gain' is 1\.0; give at least 2"):
        study.require("gain", False, "give at least 2")
    with pytest.raises(KeyError, match="gian"):
        study.require("gian", False, "give at least 2")


def test_a_list_without_items_is_refused_unless_the_chapter_can_do_without(repo):
    with pytest.raises(ParameterError, match=r"parameter 'seeds' is \[\]; give at least one"):
        play(repo, seeds=[])
    with pytest.raises(ParameterError, match=r"parameter 'seeds' is \[1, 2, 1\]; give each item once"):
        play(repo, seeds=[1, 2, 1])
    edit(repo / "chapters" / "toy.ipynb", "globals())", 'globals(), may_be_empty=[\\"seeds\\"])')
    with pytest.raises(ValueError, match="seeds is empty"):  # by the sweep, which cannot
        play(repo, seeds=[])


def test_a_figure_with_nothing_to_draw_is_left_out_in_words(repo, capsys):
    edit(repo / "chapters" / "toy.ipynb", "<svg>l</svg>", "")
    study = play(repo)["study"]
    assert record.read(study.folder)["result"]["figures"] == []
    assert "Left out, because these parameters give nothing to draw: y." in capsys.readouterr().out


def test_an_exploratory_run_never_raises(repo):
    study = play(repo, gain=-5.0)["study"]
    found = record.read(study.folder)
    assert found["run"]["scale"] == "exploratory"
    assert found["run"]["differences"] == {"gain": -5.0}
    assert found["result"]["claims"][0]["verdict"] == "contradicted"
    assert found["result"]["claims"][0]["registered"] is None


def test_parameters_that_equal_a_scale_bind_its_claims(repo):
    study = play(repo, seeds=[0, 1, 2, 3, 4])["study"]
    grows, shrinks = record.read(study.folder)["result"]["claims"]
    assert (grows["predicate"], grows["verdict"]) == ("within", "reproduced")
    assert (shrinks["predicate"], shrinks["verdict"]) == (None, "not run")


def test_a_wrong_type_is_an_error_where_papermill_lets_it_pass(repo):
    with pytest.raises(ParameterError, match="'seeds' is list"):
        play(repo, seeds=3)


def test_scales_share_cells(repo):
    play(repo)
    study = play(repo, seeds=[0, 1, 2, 3, 4])["study"]
    cells = record.read(study.folder)["result"]["cells"]
    assert (cells["computed"], cells["cached"]) == (4, 6)


def test_cells_run_by_hand_cannot_pass_for_the_official_run(repo, monkeypatch):
    by_hand = play(repo)["study"]
    assert by_hand.folder == Chapter("toy", repo).folder("by-hand") / by_hand.run.key
    monkeypatch.setenv(HANDED_ON, by_hand.run.to_json())
    assert play(repo)["study"].folder == Chapter("toy", repo).folder(by_hand.run.key)
    monkeypatch.setenv(HANDED_ON, replace(by_hand.run, folder=str(repo / "run")).to_json())  # as the runner
    assert play(repo)["study"].folder == repo / "run"
    other = play(repo, gain=2.0)["study"]
    assert other.folder == Chapter("toy", repo).folder("by-hand") / other.run.key


def test_the_nearest_scale_judges_an_exploratory_run(repo):
    grows, _ = record.read(play(repo, seeds=[0, 1, 2, 3])["study"].folder)["result"]["claims"]
    assert grows["predicate"] == "greater"
    grows, _ = record.read(play(repo, seeds=[0, 1, 2, 3, 4], gain=2.0)["study"].folder)["result"]["claims"]
    assert (grows["predicate"], grows["verdict"]) == ("within", "contradicted")


def test_a_number_that_is_not_finite_is_null_and_inconclusive(repo):
    edit(repo / "chapters" / "toy.ipynb", "gain * x", "float('nan') * x")
    edit(repo / "chapters" / "toy.yaml", "status: reproduced", "status: inconclusive")
    study = play(repo)["study"]
    text = (study.folder / "record.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["result"]["claims"][0]["value"] is None
    assert record.read(study.folder)["result"]["cells"]["diverged"] == 6


def test_a_run_folder_that_cannot_be_written_is_named_with_the_way_out(repo, monkeypatch):
    (repo / "full").write_text("a file where the folder should be")
    monkeypatch.setenv("OUIKIT_RUNS", str(repo / "full"))
    with pytest.raises(PermissionError, match=r"full.*OUIKIT_RUNS"):
        play(repo)


def test_the_key_follows_code_parameters_claims_and_lock_but_not_prose(repo):
    def key() -> str:
        chapter = Chapter("toy", repo)
        return chapter.key(chapter.resolve().parameters)

    pair = repo / "chapters"
    edit(pair / "toy.ipynb", "rise = (table", "import torch\\n\\nrise = (table")  # whose pin then counts
    first = key()
    edit(pair / "toy.ipynb", "Words.", "Other words.")
    assert key() == first
    keys = {first}
    for path, old, new in [
        (pair / "toy.ipynb", "0.01 * seed", "0.02 * seed"),
        (pair / "toy.yaml", "half the effect", "half"),
        (repo / "ci" / "constraints.txt", "2.13.0", "2.14.0"),
        (pair / "toy.ipynb", "gain: float = 1.0", "gain: float = 2.0"),
    ]:
        edit(path, old, new)
        keys.add(key())
    assert len(keys) == 5
