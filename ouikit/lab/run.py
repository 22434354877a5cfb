"""Turn a chapter and parameters into a run record: key, cache, papermill."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ouikit.lab import notebook, record
from ouikit.lab.chapter import Chapter, Settings

EXECUTED = "executed.ipynb"


class RunError(RuntimeError):
    """The notebook raised; the message holds the error and where the executed copy lies."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its record, and whether it was there already."""

    folder: Path
    record: dict
    cached: bool


def find(chapter: Chapter, settings: Settings) -> Run | None:
    """The run with these parameters and today's code, if it is complete on disk."""
    folder = chapter.folder(chapter.key(settings.parameters))
    try:
        found = record.read(folder)
    except record.RecordError:
        return None  # absent, truncated or garbage: the run is made again
    complete = found["result"].get("status") == "ok" and (folder / EXECUTED).exists()
    return Run(folder, found, cached=True) if complete else None


def execute(
    chapter: Chapter,
    settings: Settings,
    *,
    engine: str = "local",
    jobs: int | None = None,
    force: bool = False,
) -> Run:
    """Run a chapter, or return the run that is already there.

    Raises:
        RunError: if a cell raised; a changed verdict is such a cell.
        PermissionError: if the run folder cannot be written.
    """
    if not force and (run := find(chapter, settings)):
        return run
    folder = chapter.folder(chapter.key(settings.parameters))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(
            f"cannot write {folder} ({error.strerror}); set OUIKIT_RUNS to a folder"
        ) from error
    part = folder / f"part-{os.getpid()}.ipynb"
    try:
        with _environment(chapter.root, engine, jobs, force):
            _papermill(chapter, settings, part)
    except RunError:
        os.replace(part, folder / "failed.ipynb")
        raise
    finally:
        part.unlink(missing_ok=True)
    return Run(folder, record.read(folder), cached=False)


def publish(run: Run, root: Path) -> Path:
    """Copy a run's record, rows and figures to `book/results/`, where they are committed."""
    target = root / "book" / "results" / run.record["run"]["slug"] / run.record["run"]["scale"]
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        run.folder, target, ignore=lambda _, names: [n for n in names if n.endswith((".ipynb", ".part"))]
    )
    return target


def _papermill(chapter: Chapter, settings: Settings, part: Path) -> None:
    import papermill  # takes a second to import; `ouikit list` need not wait for it
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            chapter.path,
            part,
            parameters=settings.parameters,
            progress_bar=False,
            cwd=chapter.root,
            kernel_name=notebook.KERNEL["name"],
        )
    except PapermillExecutionError as error:
        raise RunError(
            f"{chapter.slug}: cell {error.cell_index} raised {error.ename}: {error.evalue}\n"
            f"The executed copy: {part.with_name('failed.ipynb')}"
        ) from error
    os.replace(part, part.with_name(EXECUTED))


@contextmanager
def _environment(root: Path, engine: str, jobs: int | None, force: bool) -> Iterator[None]:
    """What the notebook's sweep reads, and the IPython profile that leaves progress bars to the terminal."""
    wanted = {
        "OUIKIT_ENGINE": engine,
        "OUIKIT_FORCE": "1" if force else "0",
        "IPYTHONDIR": str(root / "ci" / "ipython"),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
    }
    if jobs is not None:
        wanted["OUIKIT_JOBS"] = str(jobs)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
