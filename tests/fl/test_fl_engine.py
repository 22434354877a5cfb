"""How the laboratory hands federations over to Flower, and refuses to pretend."""

import os

import pytest
from conftest import edit

from ouikit.lab import begin, notebook, record
from ouikit.lab.chapter import Chapter
from ouikit.lab.cli import main
from ouikit.lab.parameters import ParameterError
from ouikit.lab.sweep import sweep
from ouikit.lab.sweep.executors import flower

ENGINES = ["flower-sim", "flower://127.0.0.1:8443"]


@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    monkeypatch.delenv("OUIKIT_ENGINE", raising=False)


def federated(i: int, seed: int):
    """A cell that could call `simulate`, and says where it would run."""
    import ouikit.fl.run.apps  # noqa: F401

    return [{"metric": os.environ.get("OUIKIT_ENGINE", ""), "value": os.getpid()}]


def plain(i: int, seed: int):
    return [{"metric": "y", "value": i}]


@pytest.mark.parametrize("engine", ENGINES)
def test_cells_run_here_one_by_one_and_find_the_name_of_the_engine(engine, tmp_path):
    rows = sweep(federated, {"i": [1, 2]}, store=tmp_path, engine=engine, jobs=4)
    assert set(rows.metric) == {engine}
    assert set(rows.value) == {os.getpid()}
    assert "OUIKIT_ENGINE" not in os.environ


def test_what_another_engine_computed_is_not_passed_off(tmp_path):
    def computed(engine):
        return sweep(federated, {"i": [1]}, store=tmp_path, engine=engine, jobs=0).attrs["cells"]["computed"]

    assert [computed(engine) for engine in ("local", *ENGINES)] == [1, 1, 1]
    again = [computed(engine) for engine in ("local", "flower-sim", "flower://10.0.0.1:9999")]
    assert again == [0, 0, 0]  # a SuperLink's address makes no numbers


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cell_without_a_federation_is_refused(engine, tmp_path):
    with pytest.raises(
        ValueError, match=r"is for federations: the cell does not reach ouikit\.fl\.run\.apps"
    ):
        sweep(plain, {"i": [1]}, store=tmp_path, engine=engine)


@pytest.mark.parametrize(
    "engine", ["flower", "flower-ray", "flower://host", "flower://host:1/x", "local", "dask://a:1"]
)
def test_what_is_no_engine_of_flower(engine):
    assert flower(engine) == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_chapter_that_is_not_federated_is_refused_before_it_runs(engine, repo, capsys, monkeypatch):
    assert main(["run", "toy", "--engine", engine]) == 2
    assert "toy is not federated" in capsys.readouterr().err
    assert not (repo / ".runs").exists()
    assert main(["book", "--engine", engine]) == 2
    assert "runs every chapter" in capsys.readouterr().err
    monkeypatch.setenv("OUIKIT_ENGINE", engine)
    with pytest.raises(ParameterError, match="none of these chapters"):
        begin("toy", {})


def test_the_refusal_names_the_chapters_that_can(repo, capsys):
    for half in (".ipynb", ".yaml"):
        (repo / "chapters" / f"fed{half}").write_bytes((repo / "chapters" / f"toy{half}").read_bytes())
    edit(
        repo / "chapters" / "fed.ipynb",
        "def cell(",
        "from ouikit.fl.run.simulate import simulate\\n\\n\\ndef cell(",
    )
    assert main(["run", "toy", "--engine", "flower-sim"]) == 2
    assert "engine 'flower-sim' runs fed" in capsys.readouterr().err


def test_a_federated_chapters_run_has_a_key_of_its_own_and_its_record_names_the_engine(repo, monkeypatch):
    path = repo / "chapters" / "toy.ipynb"
    edit(path, "    return [{", "    import ouikit.fl.run.apps\\n    return [{")
    chapter = Chapter("toy", repo)
    values = chapter.resolve().parameters
    local, dask, ray, link, other = (
        chapter.key(values, engine) for engine in ("local", "dask://a:1", *ENGINES, "flower://10.0.0.1:1")
    )
    assert local == dask == chapter.key(values)
    assert len({local, ray, link}) == 3
    assert link == other
    monkeypatch.setenv("OUIKIT_ENGINE", ENGINES[1])
    names = {"__name__": "__main__"}
    for source in notebook.code_cells(notebook.read(path)):
        exec(source, names)
    run = record.read(names["study"].folder)["run"]
    assert (run["engine"], run["key"]) == (ENGINES[1], link)
