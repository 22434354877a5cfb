"""The one lock, and the part of it that a piece of code depends on.

A library that one chapter adds to the lock must not make the records of the other nineteen look old, so a key
counts the pins of the libraries that the code imports and of all that these require.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement

Pins = dict[str, str]


def read_pins(root: Path) -> Pins:
    """Distribution -> version, from `ci/constraints.txt`. Raises FileNotFoundError where it is missing."""
    lines = (root / "ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {_plain(name): version for name, version in pairs}


def reached_pins(root: Path, libraries: Iterable[str]) -> Pins:
    """The pins behind modules that are imported (our own and Python's count nothing).

    All pins where that is unclear: for an import that can be anything (`*`), or of something not installed.
    """
    pins = read_pins(root)
    modules = {library.partition(".")[0] for library in libraries}
    modules -= {"ouikit", "ouigemm", *sys.stdlib_module_names}
    known = _distributions()
    if not modules <= known.keys():
        return pins
    waiting = {_plain(name) for module in modules for name in known[module]}
    found: set[str] = set()
    while waiting:
        found.add(name := waiting.pop())
        waiting |= _required(name) - found
    return {name: version for name, version in pins.items() if name in found}


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Importable name -> distributions; finding it out reads the records of all that is installed."""
    return packages_distributions()


@cache
def _required(distribution: str) -> frozenset[str]:
    """What an installed distribution needs here, with the extras of it that our own package asks for."""
    extras = {""} | {
        extra for line in _own_requirements() if _plain(line.name) == distribution for extra in line.extras
    }
    return frozenset(
        _plain(line.name)
        for line in _requirements(distribution)
        if line.marker is None or any(line.marker.evaluate({"extra": extra}) for extra in extras)
    )


@cache
def _own_requirements() -> tuple[Requirement, ...]:
    return _requirements("ouikit")


def _requirements(distribution: str) -> tuple[Requirement, ...]:
    try:
        return tuple(map(Requirement, requires(distribution) or ()))
    except PackageNotFoundError:
        return ()


def _plain(name: str) -> str:
    """A distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()
