"""The parameters cell is documentation, default and type check at once; the normal form is stable."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ouikit.lab import notebook
from ouikit.lab.notebook import ParameterError

CELL = """\
epochs: int = 60  # passes over the data
lr: float = 0.05  # learning rate
seeds: list[int] = [0, 1]  # one run each
device: str = "auto"  # cpu, cuda or auto
shuffle: bool = True  # shuffle the data
"""


def read(source, tmp_path):
    cell = new_code_cell(source, metadata={"tags": ["parameters"]})
    return notebook.parameters(new_notebook(cells=[cell]), tmp_path / "x.ipynb")


def test_parameters_are_read_with_type_default_and_help(tmp_path):
    known = read(CELL, tmp_path)
    assert {name: p.kind for name, p in known.items()} == {
        "epochs": "int", "lr": "float", "seeds": "list[int]", "device": "str", "shuffle": "bool",
    }  # fmt: skip
    assert known["lr"].help == "learning rate"
    assert notebook.resolve(known, {"lr": 1, "seeds": (3,)}) == {
        "epochs": 60, "lr": 1.0, "seeds": [3], "device": "auto", "shuffle": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"epoch": 1}, "unknown parameter 'epoch'; did you mean 'epochs'"),
        ({"zzz": 1}, "there are: epochs, lr"),
        ({"epochs": "many"}, "'epochs' is int, but got 'many'"),
        ({"epochs": 1.5}, "is int"),
        ({"epochs": True}, "is int"),
        ({"seeds": 3}, "write a list"),
        ({"seeds": [0.5]}, "is list"),
        ({"shuffle": 1}, "is bool"),
        ({"device": 0}, "is str"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path, overrides, words):
    with pytest.raises(ParameterError, match=words):
        notebook.resolve(read(CELL, tmp_path), overrides)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("epochs = 60  # passes", "write `name: type"),
        ("epochs: int = 60", "needs a comment"),
        ("sizes: dict = {}  # sizes", "use bool, int"),
        ("epochs: int = 'x'  # passes", "is int"),
    ],
)
def test_a_wrong_parameters_cell_is_refused(tmp_path, source, words):
    with pytest.raises(ValueError, match=words):
        read(source, tmp_path)


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
