"""Turn a chapter and parameters into a run record: key, cache, papermill."""

import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ouikit.lab import notebook, record, sources
from ouikit.lab.chapter import Chapter
from ouikit.lab.spec import HANDED_ON, RunSpec

EXECUTED = "executed.ipynb"


class RunError(RuntimeError):
    """The notebook raised; the message holds the error and where the executed copy lies."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its record, and whether it was there already."""

    folder: Path
    record: dict
    cached: bool


def find(chapter: Chapter, spec: RunSpec) -> Run | None:
    """The run with these parameters and today's code and data, if it is complete on disk."""
    folder = chapter.folder(spec.key)
    try:
        found = record.read(folder)
    except record.RecordError:
        return None  # absent, truncated or garbage: the run is made again
    complete = whole(folder, found["result"]) and sources.unchanged(folder)
    return Run(folder, found, cached=True) if complete else None


def whole(folder: Path, result: Mapping[str, Any]) -> bool:
    """Whether a run ended well, and the files that its record speaks of are there and readable."""
    try:
        figures = [folder / figure[theme] for figure in result["figures"] for theme in ("light", "dark")]
        notebook.read(folder / EXECUTED)
        sound = result["rows"] is None or result["rows"] == record.rows_digest(folder)
        ended_well = sound and result["status"] == "ok" and "claims" in result
    except (LookupError, ValueError, OSError):
        return False
    return ended_well and all(path.is_file() and path.stat().st_size for path in figures)


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
        RunError: if a cell raised; a changed verdict is such a cell.
        PermissionError: if the run folder cannot be written.
    """
    if not spec.force and (run := find(chapter, spec)):
        return run
    folder = record.make_folder(chapter.folder(spec.key))
    (folder / "failed.ipynb").unlink(missing_ok=True)  # of a run before this one
    part = folder / f"part-{os.getpid()}.ipynb"
    try:
        with handing_on(chapter.root, spec):
            _papermill(chapter, spec, part)
    except RunError:
        os.replace(part, folder / "failed.ipynb")
        raise
    finally:
        part.unlink(missing_ok=True)
    return Run(folder, record.read(folder), cached=False)


def publish(run: Run, root: Path) -> Path:
    """Copy a run's record, rows and figures to `book/results/`, where they are committed."""
    target = root / "book" / "results" / run.record["run"]["slug"] / run.record["run"]["scale"]
    fresh = target.with_name(f".{target.name}")
    scratch = shutil.ignore_patterns("*.ipynb", "*.part", "by-hand", sources.LIST)
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(run.folder, fresh, ignore=scratch)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


def _papermill(chapter: Chapter, spec: RunSpec, part: Path) -> None:
    import papermill  # takes a second to import; `ouikit list` need not wait for it
    from papermill.exceptions import PapermillExecutionError

    # After Ctrl-C the client's pending tasks would bury our one line under a hundred of theirs.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        papermill.execute_notebook(
            chapter.path,
            part,
            parameters={k: v for k, v in spec.parameters.items() if v != chapter.parameters[k].default},
            progress_bar=False,
            cwd=chapter.root,
            kernel_name=notebook.KERNEL["name"],
        )
    except PapermillExecutionError as error:
        raise RunError(
            f"{chapter.slug}: {error.ename}: {error.evalue}\n"
            f"raised by the cell that begins with: {error.source.strip().splitlines()[0]}\n"
            f"The executed copy: {part.with_name('failed.ipynb')}"
        ) from error
    os.replace(part, part.with_name(EXECUTED))


@contextmanager
def handing_on(root: Path, spec: RunSpec, **more: str) -> Iterator[None]:
    """The environment in which a notebook finds its run, and IPython's profile that leaves progress to the
    terminal; and `more` variables.

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
