"""A run is made in a folder of its own, and takes its place only when it has ended well.

A chapter's folder of runs holds one folder for each key, and `under-way/` for the runs that are being made,
each with a lock beside it: the system drops the locks of processes that die.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from ouikit.lab.record import make_folder

EXECUTED = "executed.ipynb"
FAILED = "failed.ipynb"
_UNDER_WAY = "under-way"


@contextmanager
def attempt(folder: Path) -> Iterator[Path]:
    """A fresh folder in which the run of `folder` is made.

    It takes the place of `folder` at the end. Where the body raises, `folder` keeps the run that it had, and
    what was executed is kept there as `failed.ipynb`.

    Raises:
        PermissionError: if the folder cannot be written.
    """
    under_way = make_folder(folder.parent / _UNDER_WAY)
    (folder / FAILED).unlink(missing_ok=True)  # of an attempt before this one
    place = under_way / f"{folder.name}-{uuid4().hex[:8]}"
    with _claimed(place.with_suffix(".lock")):
        try:
            (place / "new").mkdir(parents=True)
            yield place / "new"
            if folder.exists():
                folder.rename(place / "old")
            (place / "new").rename(folder)
        except Exception:
            _keep_copy(place, folder)
            raise
        finally:
            shutil.rmtree(place, ignore_errors=True)


def clear(runs: Path) -> None:
    """Take away what killed processes left under way; what they had executed is kept as `failed.ipynb`."""
    for path in (runs / _UNDER_WAY).glob("*.lock"):
        with suppress(OSError), _claimed(path):  # Timeout is one; and those of others are theirs to clear
            place = path.with_suffix("")
            _keep_copy(place, runs / place.name.rpartition("-")[0])
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Hold a lock file, and remove it in the end. Raises Timeout where a living process holds it."""
    with FileLock(path, blocking=False):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _keep_copy(place: Path, folder: Path) -> None:
    if (copy := place / "new" / EXECUTED).exists():
        folder.mkdir(exist_ok=True)
        copy.rename(folder / FAILED)
