"""The normal form is stable, and there is one parameters cell."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ouikit.lab import notebook


def test_there_must_be_one_parameters_cell(tmp_path):
    with pytest.raises(ValueError, match="0 cells are tagged"):
        notebook.parameters(new_notebook(), tmp_path / "x.ipynb")


def test_an_executed_copy_normalises_to_the_committed_file(tmp_path):
    parameters = new_code_cell("x: int = 1  # a number", metadata={"tags": ["parameters"]})
    committed = tmp_path / "a.ipynb"
    nbformat.write(
        new_notebook(cells=[new_markdown_cell("# T"), parameters, new_code_cell("print(x)")]), committed
    )
    notebook.normalise(committed)
    assert notebook.normalise(committed, check=True)
    before = committed.read_text()

    executed = nbformat.read(committed, as_version=4)
    executed.cells.insert(2, new_code_cell("x = 2", metadata={"tags": ["injected-parameters"]}))
    executed.cells[-1].outputs = [nbformat.v4.new_output("stream", text="2\n")]
    executed.cells[-1].execution_count = 3
    executed.metadata["papermill"] = {"duration": 1.0}
    nbformat.write(executed, committed)
    assert not notebook.normalise(committed, check=True)
    assert notebook.code_cells(nbformat.read(committed, as_version=4)) == [
        "x: int = 1  # a number",
        "print(x)",
    ]
    notebook.normalise(committed)
    assert committed.read_text() == before


def test_an_unreadable_notebook_is_named(tmp_path):
    path = tmp_path / "broken.ipynb"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"broken\.ipynb: not a readable notebook"):
        notebook.read(path)
