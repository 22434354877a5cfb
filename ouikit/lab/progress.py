"""How far the whole book is: chapters, cells, time left. One bar on a terminal, else one line a minute."""

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loky import cpu_count
from tqdm import tqdm

from ouikit.lab.sweep.progress import NOTES, counts

LINE = 60.0  # seconds between lines where there is no terminal
TICK = 1.0  # seconds between looks at the cells on a terminal


class BookProgress:
    """Shows the progress of chapters that run one after the other in kernels of their own.

    The sweeps of a kernel note their cells in a file that OUIKIT_CELLS names; a thread reads it. Use it as a
    context. `costs`: CPU-seconds that each waiting chapter took when it last ran, infinite where none is
    known.
    """

    def __init__(self, costs: Mapping[str, float], *, every: float = LINE) -> None:
        known = [cost for cost in costs.values() if cost < float("inf")]
        usual = sum(known) / len(known) if known else None  # stands for a chapter that never ran here
        self._costs = {slug: cost if cost < float("inf") else usual for slug, cost in costs.items()}
        self._waiting = list(costs)
        self._current, self._done = "", 0
        self._rate = float(cpu_count())  # CPU-seconds a second; measured once a chapter has ended
        self._started = self._cells_before = 0.0
        self._spent = (0.0, 0.0)  # CPU-seconds and seconds of the chapters that ended
        self._terminal = sys.stderr.isatty()
        self._every = TICK if self._terminal else every
        self._over = threading.Event()

    def __enter__(self) -> "BookProgress":
        self._scratch = TemporaryDirectory(prefix="ouikit-")
        self._notes = Path(self._scratch.name) / "cells"
        os.environ[NOTES] = str(self._notes)
        self._bar: Any = tqdm(
            total=len(self._waiting), disable=not self._terminal, bar_format="{desc} |{bar}|", leave=False
        )
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._bar.close()
        os.environ.pop(NOTES, None)
        self._scratch.cleanup()

    def begin(self, slug: str) -> None:
        """A chapter starts."""
        self._notes.write_text("")
        self._current, self._started = slug, time.monotonic()
        self.say(self.line() if not self._terminal else "")

    def end(self, took: str, cpu_seconds: float | None) -> None:
        """The current chapter ended; what it cost says how long the others will take."""
        if cpu_seconds:
            cpu, wall = self._spent
            self._spent = cpu + cpu_seconds, wall + time.monotonic() - self._started
            self._rate = self._spent[0] / max(self._spent[1], 1e-9)
        self._waiting.remove(self._current)
        self.say(f"{self._current}: {took}")
        self._current, self._done = "", self._done + 1

    def say(self, words: str) -> None:
        """A line above the bar."""
        if words:
            tqdm.write(words, file=sys.stderr)

    def line(self) -> str:
        """`2 of 8 chapters done; fedsq: 12 of 40 cells; about 6 min left`."""
        parts = [f"{self._done} of {self._done + len(self._waiting)} chapters done"]
        done, total = counts(self._notes)
        if self._current:
            parts.append(f"{self._current}: {done} of {total} cells" if total else self._current)
        if (left := self.seconds_left()) is not None:
            parts.append(f"about {left / 60:.0f} min left" if left >= 60 else "less than a minute left")
        return "; ".join(parts)

    def seconds_left(self) -> float | None:
        """From the CPU-seconds of earlier runs; None where no chapter ran here before."""
        costs = [cost for slug in self._waiting if (cost := self._costs[slug]) is not None]
        if not costs:
            return None
        left = sum(costs)
        if self._current and (cost := self._costs[self._current]):
            left -= cost * self._share()
        return left / self._rate

    def _share(self) -> float:
        """How much of the current chapter is done: by its cells, or by the time that it has taken."""
        done, total = counts(self._notes)
        if total:
            return done / total
        cost = self._costs[self._current] or 1.0
        return min((time.monotonic() - self._started) * self._rate / cost, 0.9)

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            if self._terminal:
                self._bar.n = self._done + (self._share() if self._current else 0)
                self._bar.set_description_str(self.line())
            else:
                self.say(self.line())
