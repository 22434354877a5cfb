"""Several chapters at a time, each in a process of its own: at the reduced scale one keeps one core busy."""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

from ouikit.lab.chapter import Chapter
from ouikit.lab.run import Run, RunError, execute, lost
from ouikit.lab.spec import RunSpec
from ouikit.lab.sweep import worker
from ouikit.lab.sweep.executors import LocalWorkers, stopped
from ouikit.lab.sweep.progress import NOTES

_POLL = 0.2  # seconds between looks at the processes


def execute_all(
    specs: Mapping[Chapter, RunSpec], at_once: int, begin: Callable[[str], Path]
) -> Iterator[tuple[Chapter, Run | RunError]]:
    """Every chapter with its run, or with why it failed, as they end.

    specs: in the order in which they start. at_once: how many run at a time; one runs in this process.
    begin: called with a slug when its chapter starts; returns the file in which its sweeps note their cells.
    Whoever leaves the loop early, by Ctrl-C for example, ends the chapters that are running.
    """
    if min(at_once, len(specs)) <= 1:
        for chapter, spec in specs.items():
            yield chapter, _outcome(chapter.slug, chapter.root, spec, begin(chapter.slug))
        return
    waiting = deque(specs)
    with stopped(LocalWorkers(at_once, _prepare)) as executor:
        running = dict[Chapter, Future[Run | RunError]]()
        while waiting or running:
            while waiting and len(running) < at_once:
                chapter = waiting.popleft()
                call = (chapter.slug, chapter.root, specs[chapter], begin(chapter.slug))
                running[chapter] = executor.submit(_outcome, *call)
            for chapter in [chapter for chapter, future in running.items() if future.done()]:
                yield chapter, _result(running.pop(chapter), chapter, specs[chapter])
            time.sleep(_POLL)


def _outcome(slug: str, root: Path, spec: RunSpec, notes: Path) -> Run | RunError:
    """A chapter's run. Whatever goes wrong in it is its own failure: the others go on."""
    os.environ[NOTES] = str(notes)
    try:
        return execute(Chapter(slug, root), spec)
    except RunError as error:
        return error
    except Exception as error:
        return RunError(f"{slug}: {type(error).__name__}: {error}")
    finally:
        os.environ.pop(NOTES, None)


def _result(future: Future[Run | RunError], chapter: Chapter, spec: RunSpec) -> Run | RunError:
    try:
        return future.result()
    except BrokenExecutor:
        return lost(chapter, spec)


def _prepare(parent: int) -> None:
    """Ctrl-C reaches every process of a terminal; the parent decides, and ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker.start(parent)
