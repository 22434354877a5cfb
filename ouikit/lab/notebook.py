"""A chapter's `.ipynb` file: its cells, and the form in which it is committed."""

import hashlib
import tokenize
from pathlib import Path

import nbformat

from ouikit.lab.parameters import Parameters, parse

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WRITTEN_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}
HIDDEN = {"hide-input", "hide-cell"}


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook.

    Raises:
        ValueError: if the file is missing or is not a notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise ValueError(f"{path}: not a readable notebook ({error})") from error


def own_cells(nb: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells, without what papermill injected."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and not WRITTEN_BY_PAPERMILL & _tags(cell)]


def code_cells(nb: nbformat.NotebookNode) -> list[str]:
    """Their sources."""
    return [cell.source for cell in own_cells(nb)]


def up_to_parameters(nb: nbformat.NotebookNode) -> tuple[list[str], list[str]]:
    """Sources of the code cells up to the one tagged `parameters`, and of those after it."""
    (at,) = [i for i, cell in enumerate(own_cells(nb)) if "parameters" in _tags(cell)]
    sources = code_cells(nb)
    return sources[: at + 1], sources[at + 1 :]


def long_cells(nb: nbformat.NotebookNode, most: int) -> list[tuple[int, int]]:
    """Index and lines of the code cells with more than `most` lines that a reader sees.

    Hidden cells do not count, nor does the parameters cell, which has a line for each parameter and field.
    """
    shown = [not _tags(cell) & {*HIDDEN, "parameters"} for cell in own_cells(nb)]
    lines = [len(source.splitlines()) * seen for source, seen in zip(code_cells(nb), shown, strict=True)]
    return [(i, count) for i, count in enumerate(lines) if count > most]


def parameters(nb: nbformat.NotebookNode, path: Path) -> Parameters:
    """The parameters cell, read without running it.

    Raises:
        ValueError: naming the file and the line, if there is not exactly one cell tagged `parameters` or a
            line has not the form that `lab.parameters` describes.
    """
    cells = [c.source for c in nb.cells if "parameters" in _tags(c)]
    if len(cells) != 1:
        raise ValueError(f"{path}: {len(cells)} cells are tagged 'parameters'; exactly one must be")
    try:
        return parse(cells[0])
    except (SyntaxError, tokenize.TokenError, ValueError) as error:
        raise ValueError(f"{path}: parameters cell: {error}") from error


def normal(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The committed form: sources and tags, without outputs, counts and everything volatile.

    An executed copy normalises to the committed file, byte for byte.
    """
    cells: list[nbformat.NotebookNode] = []
    seen: set[str] = set()
    for cell in nb.cells:
        if WRITTEN_BY_PAPERMILL & _tags(cell):
            continue
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if cell.get("id") in seen or not cell.get("id"):
            cell["id"] = hashlib.sha1(f"{len(cells)}{cell.source}".encode()).hexdigest()[:8]
        seen.add(cell["id"])
        cells.append(cell)
    nb.cells = cells
    nb.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    nb.nbformat, nb.nbformat_minor = 4, 5
    return nb


def normalise(path: Path, *, check: bool = False) -> bool:
    """Rewrite a notebook in normal form (or, with `check`, only look); return whether it already was."""
    old = path.read_text()
    new = nbformat.writes(normal(nbformat.reads(old, as_version=4))) + "\n"
    if new != old and not check:
        path.write_text(new)
    return new == old


def _tags(cell: nbformat.NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))
