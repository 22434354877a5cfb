"""Wavefronts on real threads of unequal speed: what `biglittle` simulates, with real work and real waiting.

A thread is made slow by doing everything several times: its speed is then a known share of a quick one's,
whatever else the machine does. Rows are cut into segments, which stand for coding tree units: a segment waits
for its left neighbour and for the one above and to the right, and a row changes threads between segments.

Source: as for `biglittle`, Rodríguez-Sánchez and Quintana-Ortí (arXiv 1601.05313), abstract.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier, Condition, Lock

import numpy as np

from ouikit.machines.biglittle import POLICIES, Policy

Work = Callable[[int, int, int, int], object]
"""What a thread does: called with its number, and picture, row and segment."""


@dataclass(frozen=True)
class Ran:
    """What happened.

    seconds: by the clock on the wall. thread: `[pictures, rows, segments]`, who did each. moves: how often a
    row changed its thread.
    """

    seconds: float
    thread: np.ndarray
    moves: int


def run(
    work: Work,
    shape: tuple[int, int, int],
    times: Sequence[int],
    policy: Policy = "oblivious",
    reach: int | None = None,
    real_time: bool = False,
) -> Ran:
    """Do all segments of all rows of all pictures, on as many threads as `times` has items.

    Args:
        work: should release the interpreter's lock while it works, as decoders do.
        shape: pictures, rows and segments of a row.
        times: how often each thread does its work, the quickest (1) first.
        policy: see `ouikit.machines.biglittle`; lengths of rows are taken to be equal.
        reach: rows below its own that a row may refer to in the picture before; None: all of it.
        real_time: the threads run before all others of the machine (`SCHED_RR`), so that its other work
            disturbs them little. For fractions of a second only: nothing else runs meanwhile.

    Raises:
        PermissionError: `real_time`, and this system does not allow it.
        ValueError: a shape with a zero, times below 1 or not rising, another policy, a negative reach.

    >>> done = []
    >>> ran = run(lambda *segment: done.append(segment), (1, 2, 3), [1])
    >>> done[:4], ran.moves
    ([(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 2), (0, 0, 1, 0)], 0)
    """
    if min(shape) < 1 or not times or min(times) < 1 or list(times) != sorted(times):
        raise ValueError(
            f"give a shape without zeros, and times >= 1 that rise: got {shape} and {list(times)}"
        )
    if policy not in POLICIES or (reach is not None and reach < 0):
        raise ValueError(
            f"the policy is one of {', '.join(POLICIES)} and reach >= 0: got {policy!r}, {reach}"
        )
    board = _Board(shape, times, policy, shape[1] if reach is None else reach)
    together = Barrier(len(times))

    def thread(k: int) -> tuple[float, float]:
        if real_time:
            _before_all_others()
        together.wait()
        start = time.perf_counter()
        board.thread(k, work)
        return start, time.perf_counter()

    with ThreadPoolExecutor(len(times)) as pool:
        starts, ends = zip(*pool.map(thread, range(len(times))), strict=True)
    return Ran(max(ends) - min(starts), np.reshape(board.who, shape), board.moves)


def _before_all_others() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except (AttributeError, PermissionError):
        raise PermissionError(
            "threads may not run before all others here; on Linux root may let them"
        ) from None


class _Board:
    """Who holds which row, and how far each is. All pictures are one tall one, rows are taken in order."""

    def __init__(self, shape: tuple[int, int, int], times: Sequence[int], policy: str, reach: int) -> None:
        pictures, self.height, self.segments = shape
        self.rows, self.times, self.policy, self.reach = pictures * self.height, times, policy, reach
        self.holder = [-1] * self.rows
        self.done = [0] * self.rows  # segments
        self.busy = [False] * self.rows  # with one more
        self.who = [[-1] * self.segments for _ in range(self.rows)]
        self.came, self.next, self.moves, self.failed = 0, 0, 0, False
        lock = Lock()
        self.changed, self.taken = Condition(lock), Condition(lock)  # a segment is done; a row is taken

    def thread(self, k: int, work: Work) -> None:
        """What thread k does, to the end."""
        try:
            while (row := self._take(k)) is not None:
                while (segment := self._begin(k, row)) is not None:
                    for _ in range(self.times[k]):
                        work(k, *divmod(row, self.height), segment)
                    self._end(row)
        except BaseException:
            with self.changed:
                self.failed = True
                self.changed.notify_all()
                self.taken.notify_all()
            raise

    def _take(self, k: int) -> int | None:
        """A row for a thread that has none; None at the end."""
        with self.changed:
            self.taken.wait_for(lambda: self.failed or self.came >= k)  # the quickest is the first to begin
            self.came = max(self.came, k + 1)
            self.taken.notify_all()
            row = self._held_by_a_slower(k) if self.policy == "migrating" else None
            if row is not None:
                self.moves += 1
            else:
                while self.policy == "aware" and self.next < self.rows and self._left_to_a_quicker(k):
                    self.taken.wait()
                if self.next == self.rows or self.failed:
                    return None
                row, self.next = self.next, self.next + 1
            self.holder[row] = k
            self.changed.notify_all()  # its holder before may wait for its turn
            self.taken.notify_all()
            return row

    def _begin(self, k: int, row: int) -> int | None:
        """The next segment, once it may begin; None if the row is done or now another thread's."""
        with self.changed:
            self.changed.wait_for(lambda: self.failed or self.holder[row] != k or self._ready(row))
            if self.failed or self.holder[row] != k or self.done[row] == self.segments:
                return None
            self.busy[row] = True
            self.who[row][self.done[row]] = k
            return self.done[row]

    def _end(self, row: int) -> None:
        with self.changed:
            self.done[row] += 1
            self.busy[row] = False
            self.changed.notify_all()

    def _ready(self, row: int) -> bool:
        """Whether the next segment of the row has all that it refers to, or there is none."""
        line = row % self.height
        above = not line or self.done[row - 1] >= min(self.done[row] + 2, self.segments)
        lowest = row - line - self.height + min(line + self.reach, self.height - 1)
        return not self.busy[row] and above and (lowest < 0 or self.done[lowest] == self.segments)

    def _held_by_a_slower(self, k: int) -> int | None:
        """The topmost row of a slower thread of which a segment is left to take."""
        for row in range(self.next):
            left = self.segments - self.done[row] - self.busy[row]
            if left and self.times[self.holder[row]] > self.times[k]:
                return row
        return None

    def _left_to_a_quicker(self, k: int) -> bool:
        """Whether a quicker thread, when it has done its row, will have done the next one before thread k."""
        left = dict.fromkeys(range(len(self.times)), 0)
        for row in range(self.next):
            left[self.holder[row]] += self.segments - self.done[row]
        theirs = [
            (left[j] + self.segments) * times for j, times in enumerate(self.times) if times < self.times[k]
        ]
        return not self.failed and min(theirs, default=np.inf) < self.segments * self.times[k]
