"""The runner, with real kernels: cache, failures, and the plain tools that must work beside it."""

import os
import subprocess
import sys

import nbformat
import pytest
from conftest import edit

from ouikit.lab import kernel, notebook, record, sources
from ouikit.lab.chapter import Chapter
from ouikit.lab.commands import main
from ouikit.lab.run import EXECUTED, RunError, execute, find, publish

pytestmark = pytest.mark.slow


def run(repo, **overrides):
    chapter = Chapter("toy", repo)
    return execute(chapter, chapter.spec(chapter.resolve(overrides=overrides), jobs=0))


def found(repo):
    chapter = Chapter("toy", repo)
    return find(chapter, chapter.spec(chapter.resolve(), jobs=0))


def test_a_second_run_is_there_already_and_damage_is_repaired(repo):
    first = run(repo)
    assert not first.cached
    assert run(repo).cached
    for damaged in ("record.json", "executed.ipynb", "rows.parquet", "figures/y-dark.svg"):
        sound = (first.folder / damaged).read_bytes()
        middle = len(sound) // 2
        for content in (sound[:middle], sound[:middle] + b"?" + sound[middle + 1 :], b""):
            (first.folder / damaged).write_bytes(content)
            assert found(repo) is None, damaged
        (first.folder / damaged).write_bytes(sound)
        assert found(repo), damaged
    (first.folder / "figures" / "y-dark.svg").unlink()
    again = run(repo)
    assert not again.cached
    assert again.record["result"]["cells"]["cached"] == 6  # no cell was lost
    assert run(repo).cached


def test_a_changed_data_file_makes_the_run_again_and_a_touched_one_does_not(repo):
    file = repo / "points.txt"
    file.write_text("1")
    edit(
        repo / "chapters" / "toy.ipynb",
        "rows = study.sweep(",
        "from hashlib import sha256\\n"
        "from pathlib import Path\\n"
        "class Points:\\n"
        "    name, files = 'points', (Path('points.txt'),)\\n"
        "    checksum = sha256(files[0].read_bytes()).hexdigest()\\n"
        "study.uses(Points)\\n"
        "rows = study.sweep(",
    )
    first = run(repo)
    assert run(repo).cached
    os.utime(file, (1, 1))
    assert run(repo).cached
    file.write_text("2")
    again = run(repo)
    assert not again.cached
    assert again.folder == first.folder
    assert again.record["made_by"]["data"] != first.record["made_by"]["data"]
    assert again.record["result"]["cells"]["computed"] == 6
    assert run(repo).cached
    file.unlink()
    with pytest.raises(RunError, match="FileNotFoundError"):
        run(repo)
    assert "sources.json" not in [path.name for path in publish(again, repo).iterdir()]


def test_a_folder_of_data_counts_by_what_is_in_it(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_text("1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text("{}")
    sources.write(tmp_path / "run", [tmp_path / "set"])
    assert not sources.unchanged(tmp_path / "run"), "not finished yet"
    sources.seal(tmp_path / "run")
    assert sources.unchanged(tmp_path / "run")
    os.utime(tmp_path / "set" / "a", (1, 1))
    (tmp_path / "run").rename(tmp_path / "moved")
    assert sources.unchanged(tmp_path / "moved")
    (tmp_path / "set" / "a").write_text("2")
    assert not sources.unchanged(tmp_path / "moved")


def test_the_executed_copy_is_the_committed_notebook_plus_outputs(repo):
    executed = nbformat.read(run(repo, gain=2.0).folder / EXECUTED, as_version=4)
    committed = repo / "chapters" / "toy.ipynb"
    assert any(cell.get("outputs") for cell in executed.cells)
    assert nbformat.writes(notebook.normal(executed)) + "\n" == committed.read_text()


def made(status: str):
    """In the place of a kernel: a notebook that ends, with a record of this status, or with none."""

    def execute(source, copy, *_):
        copy.write_bytes(source.read_bytes())
        if status:
            sources.write(copy.parent, [])
            parts = {"schema": record.SCHEMA, "run": {}, "result": {"status": status}, "made_by": {}}
            record.write(parts, copy.parent)

    return execute


@pytest.mark.parametrize(
    ("status", "why"),
    [("", "left no record: it never called report"), ("verdict changed", "record says: verdict")],
)
def test_success_is_what_this_run_produced(repo, monkeypatch, capsys, status, why):
    monkeypatch.setattr(kernel, "execute", made("ok"))
    old = run(repo)
    monkeypatch.setattr(kernel, "execute", made(status))
    assert main(["run", "toy", "--force"]) == 1
    said = capsys.readouterr()
    assert why in said.err
    assert str(old.folder / "failed.ipynb") in said.err
    assert "reproduced" not in said.out
    assert found(repo).record == old.record


def test_a_failing_cell_is_named_and_its_copy_kept(repo):
    edit(repo / "chapters" / "toy.ipynb", "rise = (table", "rise = (tabel")
    with pytest.raises(
        RunError, match=r"(?s)toy: NameError.*tabel.*cell 6 of 7, which begins with: rise = .*failed.ipynb"
    ):
        run(repo)
    chapter = Chapter("toy", repo)
    folder = chapter.folder(chapter.key(chapter.resolve().parameters))
    assert (folder / "failed.ipynb").exists()
    assert not (folder / EXECUTED).exists()


def test_a_changed_verdict_fails_the_run_every_time(repo):
    edit(repo / "chapters" / "toy.yaml", "status: reproduced", "status: weaker")
    for _ in range(2):
        with pytest.raises(RunError, match="registered weaker, now reproduced"):
            run(repo)


def test_a_record_is_published_without_scratch(repo):
    target = publish(run(repo), repo)
    assert target == repo / "book" / "results" / "toy" / "reduced"
    assert publish(run(repo), repo) == target  # in place of the old one
    assert sorted(path.name for path in target.iterdir()) == ["figures", "record.json", "rows.parquet"]
    assert record.read(target)["run"]["slug"] == "toy"


def test_plain_papermill_and_nbval_work(repo):
    out = repo / "out.ipynb"
    words = ["papermill", "chapters/toy.ipynb", str(out), "-p", "gain", "2.0", "--no-progress-bar"]
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=repo, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "scale: exploratory (reduced with gain = 2.0)" in out.read_text()

    nbval = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbval-lax",
        "--nbval-current-env",
    ]
    done = subprocess.run([*nbval, "chapters/"], cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    edit(repo / "chapters" / "toy.yaml", "status: reproduced", "status: weaker")
    done = subprocess.run([*nbval, "chapters/"], cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "VerdictChangedError" in done.stdout
