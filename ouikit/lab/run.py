"""Turn a chapter and parameters into a run record: what is there already, what is made, what failed."""

import dataclasses
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ouikit.lab import record, sources
from ouikit.lab.attempt import EXECUTED, FAILED, attempt, clear
from ouikit.lab.chapter import Chapter
from ouikit.lab.spec import HANDED_ON, RunSpec


class RunError(RuntimeError):
    """A run failed; the message names the chapter, the error, the cell, and where the executed copy lies."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its record, and whether it was there already."""

    folder: Path
    record: dict
    cached: bool


def find(chapter: Chapter, spec: RunSpec) -> Run | None:
    """The run with these parameters and today's code and data, if it lies there as it was made."""
    folder = chapter.folder(spec.key)
    if not sources.unchanged(folder):
        return None  # absent, damaged or of other data: the run is made again
    return Run(folder, record.read(folder), cached=True)


def last_cost(chapter: Chapter) -> float:
    """CPU-seconds of the chapter's newest run at reduced scale here; infinite where there is none."""
    paths = sorted(chapter.folder("").glob("*/record.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(paths):
        try:
            found = record.read(path.parent)
        except record.RecordError:
            continue
        if found["run"]["scale"] == "reduced" and found["result"].get("cpu_seconds"):
            return float(found["result"]["cpu_seconds"])
    return math.inf


def execute(chapter: Chapter, spec: RunSpec) -> Run:
    """Run a chapter, or return the run that is already there.

    Raises:
        RunError: if the notebook did not run to its end, or left no record; a changed verdict is such a case.
        PermissionError: if the run folder cannot be written.
    """
    clear(chapter.folder(""))
    if not spec.force and (run := find(chapter, spec)):
        return run
    from ouikit.lab import kernel  # takes a second to import; what is there already need not wait for it

    folder = chapter.folder(spec.key)
    changed = {k: v for k, v in spec.parameters.items() if v != chapter.parameters[k].default}
    try:
        with attempt(folder) as fresh:
            with handing_on(chapter.root, dataclasses.replace(spec, folder=str(fresh))):
                kernel.execute(chapter.path, fresh / EXECUTED, changed, chapter.root)
            _check(fresh)
            sources.seal(fresh)
    except kernel.StoppedError as error:
        raise _failure(chapter, spec, str(error)) from error
    return Run(folder, record.read(folder), cached=False)


def lost(chapter: Chapter, spec: RunSpec) -> RunError:
    """The failure of a run whose process was killed."""
    clear(chapter.folder(""))
    return _failure(chapter, spec, "its process was killed (out of memory?) or crashed")


def _check(folder: Path) -> None:
    """Raise StoppedError where an executed notebook left no record of a good end."""
    from ouikit.lab.kernel import StoppedError

    try:
        status = record.read(folder)["result"]["status"]
    except record.RecordError:
        raise StoppedError(
            "it left no record: it never called report(), or begin() found other parameters than were given"
        ) from None
    if status != "ok":
        raise StoppedError(f"its record says: {status}")


def _failure(chapter: Chapter, spec: RunSpec, why: str) -> RunError:
    """Why a run failed, in which cell, and where the copy of what was executed lies."""
    from ouikit.lab.kernel import last_begun

    copy = chapter.folder(spec.key) / FAILED
    try:
        cell = last_begun(copy) or "the start of its kernel, before its first cell"
    except ValueError:  # it stopped before there was a copy
        return RunError(f"{chapter.slug}: {why}")
    return RunError(f"{chapter.slug}: {why}\nStopped at {cell}\nThe executed copy: {copy}")


def publish(run: Run, root: Path) -> Path:
    """Copy a run's record, rows and figures to `book/results/`, where they are committed."""
    target = root / "book" / "results" / run.record["run"]["slug"] / run.record["run"]["scale"]
    fresh = target.with_name(f".{target.name}")
    scratch = shutil.ignore_patterns("*.ipynb", "*.part", sources.LIST)
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(run.folder, fresh, ignore=scratch)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


@contextmanager
def handing_on(root: Path, spec: RunSpec, **more: str) -> Iterator[None]:
    """What the kernel finds: its run, the IPython profile that leaves progress to the terminal, and `more`.

    OUIKIT_ENGINE is for notebooks that are run by hand, and for the cells of engines of Flower.
    """
    wanted: dict[str, str | None] = {
        HANDED_ON: spec.to_json(),
        "OUIKIT_ENGINE": None,
        "IPYTHONDIR": str(root / "ci" / "ipython"),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        **more,
    }
    before = {name: os.environ.get(name) for name in wanted}
    try:
        _set(wanted)
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
