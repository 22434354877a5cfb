"""Several chapters at a time, each in a process of its own: at the reduced scale one keeps one core busy."""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult
from pathlib import Path

from ouikit.lab.chapter import Chapter
from ouikit.lab.run import Run, RunError, execute
from ouikit.lab.spec import RunSpec
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
    with get_context("spawn").Pool(at_once, _leave_to_parent) as pool:
        running = dict[Chapter, AsyncResult[Run | RunError]]()
        while waiting or running:
            while waiting and len(running) < at_once:
                chapter = waiting.popleft()
                call = (chapter.slug, chapter.root, specs[chapter], begin(chapter.slug))
                running[chapter] = pool.apply_async(_outcome, call)
            for chapter in [chapter for chapter, result in running.items() if result.ready()]:
                yield chapter, running.pop(chapter).get()
            time.sleep(_POLL)
        pool.close()  # without it the processes would be ended in the middle of their own end
        pool.join()


def _outcome(slug: str, root: Path, spec: RunSpec, notes: Path) -> Run | RunError:
    os.environ[NOTES] = str(notes)
    try:
        return execute(Chapter(slug, root), spec)
    except RunError as error:
        return error
    finally:
        os.environ.pop(NOTES, None)


def _leave_to_parent() -> None:
    """Ctrl-C reaches every process of a terminal; the parent decides, and ends this one in good order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
