"""How a notebook ends in a real kernel, and which Python that is."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ouikit.lab import kernel, notebook
from ouikit.lab.kernel import StoppedError, execute, last_begun

pytestmark = pytest.mark.slow


def executed(folder: Path, *cells: str) -> Path:
    """A copy of a notebook with these code cells, which was executed in the folder."""
    nb = new_notebook(cells=[new_markdown_cell("# T"), *map(new_code_cell, cells)])
    nbformat.write(notebook.normal(nb), folder / "source.ipynb")
    execute(folder / "source.ipynb", folder / "copy.ipynb", {}, folder)
    return folder / "copy.ipynb"


@pytest.fixture(autouse=True)
def profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(ROOT / "ci" / "ipython"))


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ("import sys; sys.exit()", "^SystemExit"),
        ("quit()", "^SystemExit"),
        ("import os; os.kill(os.getpid(), 9)", "^its kernel was killed"),
        ("raise ValueError('\\x1b[31mred\\x1b[0m')", "^ValueError: red$"),
    ],
)
def test_an_early_end_is_no_good_end_and_the_cell_is_named(tmp_path: Path, second: str, why: str) -> None:
    with pytest.raises(StoppedError, match=why):
        executed(tmp_path, "print('first')", second, "print('third')")
    assert last_begun(tmp_path / "copy.ipynb") == f"code cell 2 of 3, which begins with: {second}"
    assert [cell.get("outputs") for cell in notebook.read(tmp_path / "copy.ipynb").cells][-1] == []


def test_the_kernel_is_this_python_whatever_spec_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["false"], "display_name": "Other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    folder = tmp_path / "with {braces}"
    folder.mkdir()
    copy = executed(folder, "import sys\nprint(sys.executable)")
    assert notebook.own_cells(notebook.read(copy))[0].outputs[0].text == f"{sys.executable}\n"
    assert str(tmp_path) not in copy.read_text()


@pytest.mark.parametrize("deaths", [2, 3])
def test_a_kernel_that_dies_at_its_start_is_started_anew_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    """As one does whose port another kernel took in between."""
    spec, tries = kernel.get_kernel_dict(), tmp_path / "tries"
    program = (
        f"import os, sys\nos.write(os.open({str(tries)!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY), b'x')\n"
    )
    program += (
        f"os.path.getsize({str(tries)!r}) > {deaths} or sys.exit(1)\nos.execv(sys.argv[1], sys.argv[1:])"
    )
    argv = [sys.executable, "-c", program, *spec["argv"]]
    monkeypatch.setattr(kernel, "get_kernel_dict", lambda: spec | {"argv": argv})
    if deaths > 2:
        with pytest.raises(StoppedError, match="Kernel died before replying"):
            executed(tmp_path, "print('first')")
        assert last_begun(tmp_path / "copy.ipynb") == ""
    else:
        assert last_begun(executed(tmp_path, "print('first')")).startswith("code cell 1 of 1")
    assert tries.read_text() == "xxx"
