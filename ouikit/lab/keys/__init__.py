"""Keys of runs and of sweep cells: equal keys mean equal code, parameters, data and environment.

What counts: every character of a chapter's code cells, which the reader sees beside the results; the
statements of the package modules that the code reaches, without comments, layout and docstrings (a typing
mistake mended in a docstring must not make an hour of results look old); the libraries that it reaches, as
the lock pins them; the data; the device.
"""

import ast
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ouikit.lab.keys.identity import identify
from ouikit.lab.keys.imports import PACKAGES, imports, module_closure
from ouikit.lab.keys.lock import reached_pins

LABORATORY = ("ouikit.lab",)
_SCHEMA = 1  # raising it makes every key new


def run_key(
    code_cells: Iterable[str],
    parameters: Mapping[str, Any],
    *,
    lock: str,
    data: Mapping[str, str] | None = None,
    device: str,
) -> str:
    """16 hex digits that name a run.

    `lock`: `reached_lock_hash`; `data`: set -> checksum; `device`: "cpu", "cuda".

    The order of the cells matters, that of `parameters` and `data` does not; values count as in `canonical`.
    """
    code = source_hash(list(code_cells))
    parts = {"code": code, "parameters": parameters, "lock": lock, "data": data or {}, "device": device}
    return _sha(canonical({"schema": _SCHEMA, **parts}))[:16]


def source_hash(
    code: str | list[str], *, packages: Iterable[str] = PACKAGES, exclude: Iterable[str] = ()
) -> str:
    """SHA-256 (64 hex digits) of code cells as they stand and of the package modules that they reach."""
    cells = [code] if isinstance(code, str) else list(code)
    names = {name for cell in cells for name in imports(cell)}
    return _sha(canonical([cells, _digests(module_closure(names, packages, exclude))]))


def cell_hash(
    cell: Callable[..., Any], *, packages: Iterable[str] = PACKAGES, exclude: Iterable[str] = LABORATORY
) -> str:
    """SHA-256 (64 hex digits) of what a cell function computes, wherever it is defined.

    A function of a package module counts by its name and the modules that it reaches; one of a notebook or
    script by its compiled code, defaults, and the functions, classes and constants that it names,
    recursively, with the package modules that these reach. The laboratory is left out: it does not change
    what a cell computes. Raises TypeError for what cannot be identified (see `identity.identify`).
    """
    packages = tuple(packages)
    found = identify(cell, packages)
    local = {"/".join(path.parts[-2:]): path for path in found.files}
    sources = _digests(module_closure(found.references, packages, exclude) | local)
    return _sha(canonical([_SCHEMA, found.description, sources]))


def reaches(code: Callable[..., Any] | Iterable[str], module: str) -> bool:
    """Whether a cell function, or code cells, reach a module of our packages. Raises as `cell_hash`."""
    if callable(code):
        names = identify(code, tuple(PACKAGES)).references
    else:
        names = {name for cell in code for name in imports(cell)}
    return module in module_closure(names)


def canonical(value: Any) -> str:
    """One JSON text per value: sorted keys, no spaces, NumPy scalars as Python's, tuples as lists.

    `1`, `1.0` and `True` stay three values ("1", "1.0", "true"), since code may treat them differently;
    `0.001` and `1e-3` are one. A non-finite float becomes `{"float": "nan"}`: the text is strict JSON.
    Raises TypeError for anything that JSON cannot hold.
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise TypeError(
        f"{value!r:.80} ({type(value).__name__}) cannot be part of a key; "
        "use numbers, strings, booleans, None, and lists or string-keyed dicts of them"
    )


def lock_hash(root: Path) -> str:
    """SHA-256 of the one lock file, `ci/constraints.txt`. Raises FileNotFoundError where it is missing."""
    return _sha((root / "ci" / "constraints.txt").read_bytes())


def reached_lock_hash(root: Path, code: Iterable[str], *, packages: Iterable[str] = PACKAGES) -> str:
    """SHA-256 of the pins that code cells, and the science they reach, depend on (see `keys.lock`)."""
    references = {reference for cell in code for reference in imports(cell)}
    for name, path in module_closure(references, packages, LABORATORY).items():
        if path.suffix == ".py":
            references |= imports(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")
    return _sha(canonical(reached_pins(root, references)))


def repo_root(start: Path | None = None) -> Path:
    """The repository around `start` (default: the working directory), known by `chapters/`.

    Raises FileNotFoundError outside the repository.
    """
    here = (start or Path.cwd()).resolve()
    for folder in [here, *here.parents]:
        if (folder / "pyproject.toml").is_file() and (folder / "chapters").is_dir():
            return folder
    raise FileNotFoundError(
        f"{here} is not inside the repository; run inside the repository, or pass its path"
    )


def _digests(files: Mapping[str, Path]) -> dict[str, str]:
    return {
        name: _statements(path.read_text(encoding="utf-8"))
        if path.suffix == ".py"
        else _sha(path.read_bytes())
        for name, path in files.items()
    }


@lru_cache(maxsize=512)
def _statements(source: str) -> str:
    """Hash of a module's statements, or of its text where it does not parse."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return _sha(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            documented = ast.get_docstring(node, clean=False) is not None
            node.body = node.body[documented:]
    return _sha(ast.unparse(tree))


def _sha(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
