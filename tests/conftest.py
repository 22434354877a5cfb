"""A throw-away repository with one small chapter: everything the laboratory touches, in a second."""

import ast
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from nbformat import write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ouikit.lab import check, notebook

# No test depends on the speed of the machine.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ROOT = Path(__file__).parents[1]

YAML = """\
paper: {title: A toy paper, authors: [A. Author, B. Author], year: 2025, arxiv: "2504.00001"}
area: activation patterns
idea: Numbers grow.
evidence: measured
scales:
  reduced: {}
  extended: {seeds: [0, 1, 2, 3, 4]}
claims:
  - id: grows
    says: The number grows with the gain.
    where: abstract
    source: abstract
    metric: rise
    null: 0
    paper: {value: 1.0}
    at_reduced: {greater: 0.5, why: half the effect}
    at_extended: {within: 0.25, why: a quarter of the effect}
    status: reproduced
  - id: shrinks
    says: The other number shrinks.
    where: Table 1
    source: text
    metric: other
    null: 0
    at_reduced: {trend: {falling: 0.5}, why: clearly falling}
    status: contradicted
    note: it rises here
not_tested: ["everything else"]
"""
CELLS = {
    "What the paper claims": 'from ouikit import lab\n\nlab.paper_claims("toy")',
    "Parameters": "gain: float = 1.0  # how much the number grows\n"
    "seeds: list[int] = [0, 1, 2]  # repetitions",
    "Method": 'study = lab.begin("toy", globals())',
    "Experiment": """\
def cell(x: int, seed: int):
    return [{"metric": "y", "value": gain * x + 0.01 * seed}]


rows = study.sweep(cell, {"x": [0, 1]}, seeds=seeds)""",
    "Results": """\
class Drawn:
    light, dark = "<svg>l</svg>", "<svg>d</svg>"


table = rows.pivot(index="seed", columns="x", values="value")
study.figure(Drawn, name="y", title="y", alt="y grows with x", numbers=table.reset_index())""",
    "Paper vs ours": """\
rise = (table[1] - table[0]).to_list()
study.report({
    "rise": {"value": rise[0], "low": min(rise), "high": max(rise), "n": len(rise)},
    "other": {"value": 0.9, "low": 0.8, "high": 1.0, "n": len(rise)},
})""",
    "Provenance and cite": "study.provenance()",
}


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the chapter `toy`; the working directory is inside it."""
    (tmp_path / "chapters").mkdir()
    shutil.copytree(
        ROOT / "ci" / "ipython" / "profile_default", tmp_path / "ci" / "ipython" / "profile_default"
    )
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "ci" / "constraints.txt").write_text("torch==2.13.0\n")
    (tmp_path / "chapters" / "toy.yaml").write_text(YAML)
    cells = [new_markdown_cell("# A toy paper")]
    for section in check.SECTIONS:
        cells.append(new_markdown_cell(f"## {section}\n\nWords."))
        if section in CELLS:
            tags = {"tags": ["parameters"]} if section == "Parameters" else {}
            cells.append(new_code_cell(CELLS[section], metadata=tags))
    path = tmp_path / "chapters" / "toy.ipynb"
    write(new_notebook(cells=cells), path)
    notebook.normalise(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUIKIT_JOBS", "0")
    monkeypatch.delenv("OUIKIT_RUNS", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def one_thread():
    """Torch with one thread while a module's tests run."""
    from ouikit.train import one_thread

    with one_thread():
        yield


def play(root: Path, **overrides) -> dict:
    """Run the toy chapter's code cells in this process, as papermill would with these parameters."""
    names: dict = {"__name__": "__main__"}
    for source in notebook.code_cells(notebook.read(root / "chapters" / "toy.ipynb")):
        exec(source, names)
        if source.startswith("gain:"):
            names |= overrides
    return names


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that must be there."""
    text = path.read_text()
    assert old in text, f"{old!r} is not in {path.name}"
    path.write_text(text.replace(old, new))


def imported(path: Path) -> set[str]:
    """Modules that a file imports anywhere, as written."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: write imports in full, so that their direction can be seen"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def hooks_of(model: Any) -> int:
    """How many forward hooks a torch module carries, in all."""
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_forward_hooks_with_kwargs",
        "_forward_pre_hooks_with_kwargs",
    )
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
