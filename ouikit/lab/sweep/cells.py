"""The finished cells of a sweep, one file each: written whole or not at all, checked when read, shared.

A file is one line of strict JSON, `{"sha256": …, "body": {key, arguments, columns, seconds, cpu_seconds,
diverged}}`, with the SHA-256 of the body's bytes. Runs that share a folder claim a cell before they compute
it, by a lock on a file `<key>.lock`, which is removed when the claim is given back; the system drops the
locks of a run that is killed.
"""

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ouikit.lab.keys import canonical

_HEAD, _MIDDLE, _TAIL = b'{"sha256":"', b'","body":', b"}\n"
_DIGEST = slice(len(_HEAD), len(_HEAD) + 64)
_BODY = slice(_DIGEST.stop + len(_MIDDLE), -len(_TAIL))
_PROBE = b" " * 65536
_RUN = ".run"  # what the first run in a folder claims beside its cells
_ABANDONED = 60.0  # seconds; a temporary file lives for milliseconds


class StoreError(OSError):
    """The folder of cells cannot be written."""


class DamagedCellError(ValueError):
    """A cell's file is not what was written."""


@dataclass(frozen=True)
class Cell:
    """One finished cell: the call's arguments and its rows, column by column, all of one length."""

    arguments: dict[str, Any]
    columns: dict[str, list[Any]]
    seconds: float
    cpu_seconds: float

    @property
    def diverged(self) -> bool:
        """Whether any value is NaN or infinite."""
        return not all(map(math.isfinite, self.columns["value"]))


class Store:
    """A folder of cells. Reading needs no preparation; as a context manager it is ready to be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._claims: dict[str, FileLock] = {}

    def read(self, key: str) -> Cell | None:
        """The cell, or None where there is none. Raises DamagedCellError."""
        path = self.folder / f"{key}.json"
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DamagedCellError(f"{path} cannot be read ({error.strerror})") from error
        body = content[_BODY]
        if content != _sealed(body):
            raise DamagedCellError(f"{path} is damaged ({len(content)} bytes, checksum does not match)")
        fields = json.loads(body, object_hook=_float)
        if fields["key"] != key:
            raise DamagedCellError(f"{path} holds another cell")
        return Cell(fields["arguments"], dict(fields["columns"]), fields["seconds"], fields["cpu_seconds"])

    def write(self, key: str, cell: Cell) -> None:
        """Write one cell, whole or not at all. Raises StoreError."""
        body = canonical(
            {
                "key": key,
                "arguments": cell.arguments,
                "columns": list(cell.columns.items()),  # pairs, since the order of columns is the cell's
                "seconds": cell.seconds,
                "cpu_seconds": cell.cpu_seconds,
                "diverged": cell.diverged,
            }
        ).encode()
        try:
            self._write(f"{key}.json", _sealed(body))
        except OSError as error:
            raise self._refusal(error) from error

    def forget(self, keys: Iterable[str]) -> None:
        """Delete cells, so that they are computed again. Raises StoreError."""
        try:
            for key in keys:
                (self.folder / f"{key}.json").unlink(missing_ok=True)
        except OSError as error:
            raise self._refusal(error) from error

    def __enter__(self) -> "Store":
        """Make the folder, try it by writing, and sweep up what killed runs left. Raises StoreError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write("probe", _PROBE)
            (self.folder / "probe").unlink(missing_ok=True)
            for path in self.folder.glob("*.tmp"):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink(missing_ok=True)
            for path in self.folder.glob("[!.]*.lock"):  # of a cell that a killed run was computing
                if self.claim(path.stem):
                    self.release(path.stem)
        except OSError as error:
            raise self._refusal(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._claims):
            self.release(name)

    def other_run(self) -> str:
        """The process id of a run that was here first; empty, and ours noted, where we are alone."""
        note = self.folder / _RUN
        if self.claim(_RUN):
            note.write_text(str(os.getpid()))
            return ""
        return note.read_text(errors="replace").strip() if note.exists() else "(of another run)"

    def claim(self, key: str) -> bool:
        """Whether this run, and no other, may compute the cell now."""
        if key in self._claims:
            return True  # its worker died, and it is computed again
        lock = FileLock(self.folder / f"{key}.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        except (OSError, NotImplementedError):
            return True  # where the file system knows no locks, runs merely do work twice
        self._claims[key] = lock
        return True

    def release(self, key: str) -> None:
        """Give a claim back, after the cell is written or has failed."""
        if lock := self._claims.pop(key, None):
            (self.folder / f"{key}.lock").unlink(missing_ok=True)
            lock.release()

    def _write(self, name: str, content: bytes) -> None:
        part = self.folder / f"{name}.{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.folder / name)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def _refusal(self, error: OSError) -> StoreError:
        reason = error.strerror or str(error)
        return StoreError(
            f"cannot write results to {self.folder}: {reason}. Make room or give write permission there, "
            "or set the environment variable OUIKIT_RUNS to a folder that can be written"
        )


def _sealed(body: bytes) -> bytes:
    return _HEAD + hashlib.sha256(body).hexdigest().encode() + _MIDDLE + body + _TAIL


def _float(fields: dict[str, Any]) -> Any:
    return float(fields["float"]) if fields.keys() == {"float"} else fields
