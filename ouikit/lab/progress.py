"""How far the whole book is: chapters, cells, time left. One bar on a terminal, else one line a minute."""

import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loky import cpu_count
from tqdm import tqdm

from ouikit.lab.sweep.progress import counts

LINE = 60.0  # seconds between lines where there is no terminal
TICK = 1.0  # seconds between looks at the cells on a terminal


class BookProgress:
    """Shows the progress of chapters that run in kernels of their own, some of them at the same time.

    The sweeps of a kernel note their cells in a file that `begin` names; a thread reads it. Use it as a
    context. `costs`: CPU-seconds that each waiting chapter took when it last ran, infinite where none is
    known.
    """

    def __init__(self, costs: Mapping[str, float], *, every: float = LINE) -> None:
        known = [cost for cost in costs.values() if cost < float("inf")]
        usual = sum(known) / len(known) if known else None  # stands for a chapter that never ran here
        self._costs = {slug: cost if cost < float("inf") else usual for slug, cost in costs.items()}
        self._waiting = list(costs)
        self._begun: dict[str, float] = {}  # when each running chapter began
        self._done, self._spent = 0, 0.0  # chapters that ended, and their CPU-seconds
        self._start = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._every = TICK if self._terminal else every
        self._over = threading.Event()

    def __enter__(self) -> "BookProgress":
        self._scratch = TemporaryDirectory(prefix="ouikit-")
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
        self._scratch.cleanup()

    def begin(self, slug: str) -> Path:
        """A chapter starts; its sweeps note their cells in the file that is returned."""
        self._notes(slug).write_text("")
        self._begun[slug] = time.monotonic()
        self.say(self.line() if not self._terminal else "")
        return self._notes(slug)

    def end(self, slug: str, cpu_seconds: float | None) -> None:
        """A chapter ended, or failed where it has no CPU-seconds; these say how long the others will take."""
        took = time.monotonic() - self._begun.pop(slug)
        self.say(f"{slug}: failed" if cpu_seconds is None else f"{slug}: {took:.0f} s")
        self._spent += cpu_seconds or 0
        self._waiting.remove(slug)
        self._done += 1

    def say(self, words: str) -> None:
        """A line above the bar."""
        if words:
            tqdm.write(words, file=sys.stderr)

    def line(self) -> str:
        """`2 of 8 chapters done; fedsq: 12 of 40 cells, glai; about 6 min left`."""
        parts = [f"{self._done} of {self._done + len(self._waiting)} chapters done"]
        if running := list(self._begun):
            parts.append(", ".join(self._cells(slug) for slug in running))
        if (left := self.seconds_left()) is not None:
            parts.append(f"about {left / 60:.0f} min left" if left >= 60 else "less than a minute left")
        return "; ".join(parts)

    def seconds_left(self) -> float | None:
        """From the CPU-seconds of earlier runs; None where no chapter ran here before."""
        costs = {slug: cost for slug in self._waiting if (cost := self._costs[slug]) is not None}
        if not costs:
            return None
        under_way = sum(costs[slug] * self._share(slug) for slug in list(self._begun) if slug in costs)
        return (sum(costs.values()) - under_way) / self._rate(under_way)

    def _rate(self, under_way: float) -> float:
        """CPU-seconds a second: all cores, until the first chapter has ended."""
        if not self._done:
            return float(cpu_count())
        return max(self._spent + under_way, 1.0) / max(time.monotonic() - self._start, 1e-9)

    def _share(self, slug: str) -> float:
        """How much of a running chapter is done: by its cells, or by the time that it has taken."""
        done, total = counts(self._notes(slug))
        if total:
            return done / total
        began = self._begun.get(slug, time.monotonic())  # it may have ended just now
        return min((time.monotonic() - began) / (self._costs[slug] or 1.0), 0.9)

    def _cells(self, slug: str) -> str:
        done, total = counts(self._notes(slug))
        return f"{slug}: {done} of {total} cells" if total else slug

    def _notes(self, slug: str) -> Path:
        return Path(self._scratch.name) / slug

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            if self._terminal:
                self._bar.n = self._done + sum(map(self._share, list(self._begun)))
                self._bar.set_description_str(self.line())
            else:
                self.say(self.line())
