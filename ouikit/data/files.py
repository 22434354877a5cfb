"""Where data sets lie on disk, and what to say when they do not."""

import hashlib
import os
from os import PathLike
from pathlib import Path

Root = str | PathLike[str] | None


class DataError(ValueError):
    """A file of a data set is corrupt, or is not the published one."""


class MissingDataError(FileNotFoundError):
    """A data set is not on this machine; the message says what to put where."""


def data_root(root: Root = None) -> Path:
    """The folder of data sets: `root`, else the environment variable OUIKIT_DATA, else ~/.cache/ouikit."""
    return Path(root or os.environ.get("OUIKIT_DATA") or "~/.cache/ouikit").expanduser()


def first_present(root: Path, candidates: tuple[str, ...], title: str, source: str) -> Path:
    """The first of `candidates` (files or folders) that lies in `root`.

    Raises:
        MissingDataError: none does; the message names them, the place and the official source.
    """
    for candidate in candidates:
        if (root / candidate).exists():
            return root / candidate
    raise MissingDataError(
        f"{title} is not on this machine, and nothing is downloaded silently. "
        f"Put {' or '.join(candidates)} into {root} (another place: the argument root, or the environment "
        f"variable OUIKIT_DATA). Official source: {source}."
    )


def check_md5(content: bytes | Path, expected: str, title: str) -> None:
    """Compare with the published md5, the only checksum that the official sites give.

    Raises:
        DataError: it differs; the message names both.
    """
    if isinstance(content, Path):
        with content.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
    else:
        found = hashlib.md5(content).hexdigest()
    if found != expected:
        raise DataError(
            f"{title} has md5 {found}, the published one is {expected}. Fetch the file again; a set of the "
            "same format that is meant to differ is read with verify=False."
        )
