"""Keys of runs and of sweep cells: equal keys mean equal code, parameters, data and environment.

What counts: every character of a chapter's code cells, which the reader sees beside the results; the
definitions of our packages that the code reaches, without comments, layout and docstrings, and wherever they
lie (a moved function, or another one in its file, must not make an hour of results look old); the libraries
that it reaches, as the lock pins them; the data; the device.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ouikit.lab.keys.graph import Graph, Reached, today
from ouikit.lab.keys.identity import Place, identify
from ouikit.lab.keys.lock import Pins, installed, reached_pins
from ouikit.lab.keys.packages import PACKAGES

LABORATORY = ("ouikit.lab",)
_SCHEMA = 2  # raising it makes every key new


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
    """SHA-256 (64 hex digits) of code cells as they stand and of the definitions that they reach."""
    cells = [code] if isinstance(code, str) else list(code)
    return _sha(canonical([cells, _content(today(packages, exclude).reach(cells))]))


def cell_hash(
    cell: Callable[..., Any], *, packages: Iterable[str] = PACKAGES, exclude: Iterable[str] = LABORATORY
) -> str:
    """SHA-256 (64 hex digits) of what a cell function computes, wherever it is defined.

    A function of our packages counts by its definition and those that it reaches; one of a notebook or
    script by its compiled code, defaults, and the functions, classes and constants that it names,
    recursively, with the definitions of our packages that these reach. The laboratory is left out: it does
    not change what a cell computes. Raises TypeError for what cannot be identified (see `identity.identify`).
    """
    graph = today(packages, exclude)
    found = identify(cell, tuple(packages))
    beside = {"/".join(path.parts[-2:]): path.read_text(encoding="utf-8") for path in found.files}
    reached = graph.reach(beside.values(), found.references)
    description = _placed(found.description, graph)
    return _sha(canonical([_SCHEMA, description, beside, _content(reached)]))


def _content(reached: Reached) -> list[Any]:
    native = {name: _sha(path.read_bytes()) for name, path in reached.files.items()}
    return [sorted(map(list, reached.links)), native]


def _placed(description: Any, graph: Graph) -> Any:
    """A description with the digest of a definition where it names the place of one, which may move."""
    if isinstance(description, Place):
        return sorted(graph.digest(node) for node in graph.find(description.reference))
    return [_placed(part, graph) for part in description] if isinstance(description, list) else description


def reaches(code: Callable[..., Any] | Iterable[str], module: str) -> bool:
    """Whether a cell function, or code cells, reach a module of our packages. Raises as `cell_hash`."""
    science = today(exclude=LABORATORY)  # the laboratory names the federated module without using it
    if callable(code):
        return module in science.reach(references=identify(code, tuple(PACKAGES)).references).modules
    return module in science.reach(code).modules


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
    """SHA-256 of the pins that code cells depend on (see `pins_of`)."""
    return _sha(canonical(pins_of(root, code, packages=packages)))


def pins_of(root: Path, code: Iterable[str], *, packages: Iterable[str] = PACKAGES) -> Pins:
    """Distribution -> pinned version of what code cells, and the science they reach, depend on."""
    return reached_pins(root, today(packages, LABORATORY).reach(code).libraries)


def versions(code: Iterable[str], *, packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Distribution -> installed version of our packages and the libraries that code cells reach.

    The laboratory's count, too; what these libraries require themselves does not.
    """
    reached = today(packages).reach(code)
    return installed({module.partition(".")[0] for module in reached.modules} | reached.libraries)


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


def _sha(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
