"""The files that a run's data came from, and whether they are still what they were.

The list lies beside the record and is not published: it holds paths of this machine.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ouikit.lab.record import write_atomically

LIST = "sources.json"
LARGE = 10 * 2**30  # bytes


def write(folder: Path, paths: Iterable[Path]) -> None:
    """Note stamp and checksum of files and folders beside a record."""
    content = json.dumps([_entry(path) for path in sorted(set(paths))], indent=1)
    write_atomically(folder / LIST, content.encode())


def unchanged(folder: Path) -> bool:
    """Whether all files that are listed in a run's folder still have their checksums; True without a list."""
    try:
        listed = json.loads((folder / LIST).read_text())
    except FileNotFoundError:
        return True
    return all(_is_still(entry) for entry in listed)


def _is_still(entry: dict[str, Any]) -> bool:
    path = Path(entry["path"])
    try:
        if _stamp(path) == entry["stamp"]:
            return True  # not touched, so not read again
        return _checksum(path) == entry["sha256"]
    except OSError:
        return False


def _entry(path: Path) -> dict[str, Any]:
    return {"path": str(path.resolve()), "stamp": _stamp(path), "sha256": _checksum(path)}


def _stamp(path: Path) -> str:
    """Names, sizes and times of a file or of all below a folder: equal stamps mean that nobody wrote."""
    stats = ((name, inner.stat()) for name, inner in _files(path))
    return _hash(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def _checksum(path: Path) -> str:
    """Of the contents; of names and sizes for a folder that takes minutes to read."""
    files = _files(path)
    if sum(inner.stat().st_size for _, inner in files) > LARGE:
        return _hash(f"{name} {inner.stat().st_size}" for name, inner in files)
    return _hash(f"{name} {_digest(inner)}" for name, inner in files)


def _files(path: Path) -> list[tuple[str, Path]]:
    if not path.is_dir():
        return [(path.name, path)]
    return sorted((str(inner.relative_to(path)), inner) for inner in path.rglob("*") if inner.is_file())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
