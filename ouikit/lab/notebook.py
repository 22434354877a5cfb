"""A chapter's `.ipynb` file: its typed parameters, its code, and the form in which it is committed."""

import ast
import hashlib
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

import nbformat

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WRITTEN_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}
SCALARS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}


class ParameterError(ValueError):
    """An unknown parameter, or a value of the wrong type."""


@dataclass(frozen=True)
class Parameter:
    """One line `name: type = default  # help` of the parameters cell."""

    name: str
    kind: str
    default: Any
    help: str

    def check(self, value: Any) -> Any:
        """Return `value` as this parameter's type.

        Raises:
            ParameterError: naming the value, the type it should have, and an example.
        """
        item = self.kind.removeprefix("list[").removesuffix("]")
        if item == self.kind:
            return self._scalar(value, SCALARS[item])
        if not isinstance(value, list | tuple):
            raise ParameterError(f"{self._got(value)}; write a list, for example {self.default!r}")
        return [self._scalar(v, SCALARS[item]) for v in value]

    def _scalar(self, value: Any, wanted: type) -> Any:
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not wanted:
            raise ParameterError(f"{self._got(value)}; for example {self.default!r}")
        return value

    def _got(self, value: Any) -> str:
        return f"parameter {self.name!r} is {self.kind}, but got {value!r} ({type(value).__name__})"


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook.

    Raises:
        ValueError: if the file is missing or is not a notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise ValueError(f"{path}: not a readable notebook ({error})") from error


def code_cells(nb: nbformat.NotebookNode) -> list[str]:
    """Sources of the code cells, without what papermill injected."""
    return [
        cell.source
        for cell in nb.cells
        if cell.cell_type == "code" and not WRITTEN_BY_PAPERMILL & _tags(cell)
    ]


def parameters(nb: nbformat.NotebookNode, path: Path) -> dict[str, Parameter]:
    """The parameters cell, read without running it.

    Raises:
        ValueError: naming the file and the line, if there is not exactly one cell tagged `parameters` or a
            line is not `name: type = literal  # help`.
    """
    cells = [c.source for c in nb.cells if "parameters" in _tags(c)]
    if len(cells) != 1:
        raise ValueError(f"{path}: {len(cells)} cells are tagged 'parameters'; exactly one must be")
    try:
        return _parameters(cells[0])
    except (SyntaxError, tokenize.TokenError, ValueError) as error:
        raise ValueError(f"{path}: parameters cell: {error}") from error


def _parameters(cell: str) -> dict[str, Parameter]:
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO(cell).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.parse(cell).body:
        line = ast.get_source_segment(cell, node)
        last = node.end_lineno or node.lineno
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value):
            raise ValueError(f"write `name: type = default  # help`, not {line!r}")
        kind = ast.unparse(node.annotation)
        if kind.removeprefix("list[").removesuffix("]") not in SCALARS:
            raise ValueError(f"{line!r}: use bool, int, float, str or a list of one")
        if last not in comments:
            raise ValueError(f"{line!r} needs a comment; it is the parameter's help")
        parameter = Parameter(node.target.id, kind, ast.literal_eval(node.value), comments[last])
        parameter.check(parameter.default)
        found[parameter.name] = parameter
    return found


def resolve(known: Mapping[str, Parameter], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults with `overrides` on top, every name and type checked.

    Raises:
        ParameterError: with the nearest known names, for an unknown parameter; see `Parameter.check`.
    """
    for name in overrides:
        if name not in known:
            near = get_close_matches(name, known, n=3)
            hint = (
                f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(known)}"
            )
            raise ParameterError(f"unknown parameter {name!r}; {hint}")
    return {name: p.check(overrides.get(name, p.default)) for name, p in known.items()}


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
