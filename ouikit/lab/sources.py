"""The files of a run, and those that its data came from; and whether they are still what they were.

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
    """Note stamp and checksum of a run's data, files and folders, beside its record."""
    _write(folder, [_entry(path, path.resolve()) for path in sorted(set(paths))])


def seal(folder: Path) -> None:
    """Note a finished run's own files, too. They are listed relative to the folder, which may be moved."""
    own = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LIST)
    _write(folder, _read(folder) + [_entry(path, path.relative_to(folder)) for path in own])


def unchanged(folder: Path) -> bool:
    """Whether a run is sealed, and all files listed in its folder still have their checksums."""
    try:
        listed = _read(folder)
        sealed = any(not Path(entry["path"]).is_absolute() for entry in listed)
        return sealed and all(_is_still(folder / entry["path"], entry) for entry in listed)
    except (OSError, ValueError, LookupError, TypeError):  # absent, or not what was written
        return False


def _write(folder: Path, entries: list[dict[str, Any]]) -> None:
    write_atomically(folder / LIST, json.dumps(entries, indent=1).encode())


def _read(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / LIST).read_text())
    return found


def _is_still(path: Path, entry: dict[str, Any]) -> bool:
    try:
        if _stamp(path) == entry["stamp"]:
            return True  # not touched, so not read again
        return _checksum(path) == entry["sha256"]
    except OSError:
        return False


def _entry(path: Path, listed: Path) -> dict[str, Any]:
    return {"path": str(listed), "stamp": _stamp(path), "sha256": _checksum(path)}


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
