"""The one lock, and the part of it that a piece of code depends on.

A library that one chapter adds to the lock must not make the records of the other nineteen look old, so a key
counts the pins of the libraries that the code imports and of all that these require.
"""

import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distributions, requires, version
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
    if not all(map(_providers, modules)):
        return pins
    waiting = {_plain(name) for module in modules for name in _providers(module)}
    found: set[str] = set()
    while waiting:
        found.add(name := waiting.pop())
        waiting |= _required(name) - found
    return {name: version for name, version in pins.items() if name in found}


def installed(modules: Iterable[str]) -> dict[str, str]:
    """Distribution -> version behind modules, of those that are installed; Python's own are none."""
    names = {name for module in modules for name in _providers(module.partition(".")[0])}
    return {_plain(name): version(name) for name in sorted(names)}


@cache
def _providers(module: str) -> tuple[str, ...]:
    """Distributions that bring a top-level module, as `importlib.metadata.packages_distributions` has it.

    That function makes an object of every installed file; here the lists of files are searched as text.
    """
    return tuple(one.metadata["Name"] for one, names in _tops() if module in names)


@cache
def _tops() -> list[tuple[Distribution, set[str]]]:
    """Each installed distribution with the names of its top-level modules."""
    return [(one, _declared(one) or _listed(one)) for one in distributions()]


def _declared(one: Distribution) -> set[str]:
    return set((one.read_text("top_level.txt") or "").split())


# A line of RECORD: `folder/…/file.py,…` or `file.py,…`, in quotes where the path has a comma.
_TOP = re.compile(r'^"?([^/,\n]+?)(?:/[^,\n]*)?\.py"?,', re.MULTILINE)


def _listed(one: Distribution) -> set[str]:
    record = one.read_text("RECORD")
    if record is not None:
        return set(_TOP.findall(record))
    return {f.parts[0] if len(f.parts) > 1 else f.stem for f in one.files or () if f.suffix == ".py"}


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
