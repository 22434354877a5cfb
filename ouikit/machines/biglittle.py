"""Wavefront decoding on a processor with fast and slow cores, many decodings side by side.

A picture is a grid of coding tree units (CTUs). In HEVC's wavefront order a CTU waits for its left neighbour
and for the one above and to the right; a row is decoded by one core at a time. Pictures follow each other:
row r may refer to rows of the picture before down to r + `reach`, and waits for them.

Three policies give rows to cores (which one the paper has is not known; these are a reconstruction from its
abstract and a later paper of the authors):

==========  =================================================================================================
oblivious   a core that becomes free takes the next row, whatever its speed
aware       the same, but a slow core leaves the next row to a fast one that will have decoded it earlier
migrating   oblivious, and a fast core that becomes free takes over the topmost row that a slow one holds, at
            the end of its CTU; the slow core goes on to the next row
==========  =================================================================================================

Every number is simulated. Source: Rodríguez-Sánchez and Quintana-Ortí (arXiv 1601.05313), abstract.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Policy = Literal["oblivious", "aware", "migrating"]
POLICIES: tuple[Policy, ...] = ("oblivious", "aware", "migrating")


@dataclass(frozen=True)
class Schedule:
    """What happened, for each of B decodings.

    finish: `[B, F, R, C]`, when each CTU was done. busy: `[B, cores]`, time in which a core computed; a core
    that waits with a row is not busy. core: `[B, F, R, C]`, who decoded each CTU. moves: `[B]`, rows that
    changed their core.
    """

    finish: np.ndarray
    busy: np.ndarray
    core: np.ndarray
    moves: np.ndarray

    @property
    def makespan(self) -> np.ndarray:
        """`[B]`, the time of the last CTU."""
        return self.finish.max(axis=(1, 2, 3))

    def energy(self, active: np.ndarray, idle: np.ndarray, base: float = 0.0) -> np.ndarray:
        """`[B]`: Σ over cores of active · busy + idle · (makespan − busy), and `base` all the time.

        active, idle: power of each core, `[cores]` or `[B, cores]`; unit: that of power times that of costs.
        """
        waiting = self.makespan[:, None] - self.busy
        return (active * self.busy + idle * waiting).sum(1) + base * self.makespan


def decode(
    costs: np.ndarray, speeds: np.ndarray, policy: Policy = "oblivious", reach: int | None = None
) -> Schedule:
    """Decode B streams of F pictures.

    costs: `[B, F, R, C]`, time of each CTU on a core of speed 1. speeds: `[cores]` or `[B, cores]`, in
    falling order. reach: rows below its own that a row may refer to in the picture before; None: all of it.

    Raises ValueError for costs that are not finite and > 0, speeds that are not or do not fall, a `reach`
    below zero, or another policy.

    >>> picture = np.ones((1, 1, 17, 30))  # 1080 lines in CTUs of 64 pixels
    >>> float(decode(picture, np.ones(17)).makespan[0]), float(decode(picture, np.ones(1)).makespan[0])
    (62.0, 510.0)
    """
    costs, speeds = _checked(costs, speeds, policy, reach)
    run = _Run(costs, speeds, reach)
    for _ in range(run.rows):
        run.hand_out(policy)
        run.finish_next(policy)
    shape = costs.shape
    return Schedule(run.finish.reshape(shape), run.busy(), run.core.reshape(shape), run.moves)


class _Run:
    """The state of B decodings; all pictures are one tall one of F·R rows.

    Every step ends one row in each decoding, so that they stay side by side. Rows in progress are computed
    to their ends as if nobody moved; what lies after the next end may be computed again.
    """

    def __init__(self, costs: np.ndarray, speeds: np.ndarray, reach: int | None) -> None:
        self.streams, pictures, self.height, width = costs.shape
        self.rows, self.reach = pictures * self.height, self.height if reach is None else reach
        self.costs, self.speeds = costs.reshape(self.streams, self.rows, width), speeds
        self.cores = speeds.shape[1]
        self.all = np.arange(self.streams)
        self.finish = np.full_like(self.costs, np.inf)
        self.core = np.full(self.costs.shape, -1)
        self.start = np.full((self.streams, self.rows), np.inf)  # when the first core took the row
        self.holds = np.full((self.streams, self.cores), -1)  # the row of each core, or -1
        self.free = np.zeros((self.streams, self.cores))  # since when, for cores without a row
        self.next = np.zeros(self.streams, int)  # the first row that nobody has taken
        self.now = np.zeros(self.streams)
        self.moves = np.zeros(self.streams, int)

    def hand_out(self, policy: str) -> None:
        """Give rows to free cores, the fastest first, until none is wanted."""
        for k in range(self.cores):
            idle = (self.holds[:, k] < 0) & (self.next < self.rows)
            if policy == "aware":
                idle &= ~self._left_to_a_faster(k)
            self._take(np.flatnonzero(idle), k)

    def finish_next(self, policy: str) -> None:
        """Go on to the next end of a row in each decoding; with `migrating`, rows change cores then."""
        ends = self._ends()
        k = ends.argmin(1)
        self.now = ends[self.all, k]
        self.holds[self.all, k] = -1
        self.free[self.all, k] = self.now
        if policy == "migrating":
            self._migrate(k)

    def busy(self) -> np.ndarray:
        """`[B, cores]`: Σ cost / speed over the CTUs of each core."""
        found = np.zeros((self.streams, self.cores))
        for k in range(self.cores):
            found[:, k] = np.where(self.core == k, self.costs, 0).sum((1, 2)) / self.speeds[:, k]
        return found

    def _take(self, streams: np.ndarray, k: int) -> None:
        """In these decodings core k takes the next row."""
        if len(streams):
            row = self.next[streams]
            self.holds[streams, k], self.next[streams] = row, row + 1
            self.start[streams, row] = np.maximum(self.free[streams, k], self.now[streams])
            self.core[streams, row] = k
            self._compute(streams, row)

    def _compute(self, streams: np.ndarray, row: np.ndarray) -> None:
        """Times of a row's CTUs: each begins when its core, its left and its upper right neighbour allow."""
        cores = self.core[streams, row]
        work = self.costs[streams, row] / np.take_along_axis(self.speeds[streams], cores, 1)
        done = work.cumsum(1)
        above = self.finish[streams, row - 1]  # of row 0 the last one, which is not used
        above = np.concatenate([above[:, 1:], above[:, -1:]], 1)
        above[row % self.height == 0] = 0
        begins = np.maximum(
            above, np.maximum(self.start[streams, row], self._referred(streams, row))[:, None]
        )
        self.finish[streams, row] = done + np.maximum.accumulate(begins - (done - work), 1)

    def _referred(self, streams: np.ndarray, row: np.ndarray) -> np.ndarray:
        """When the last row of the picture before that this row refers to is done."""
        picture, line = np.divmod(row, self.height)
        lowest = (picture - 1) * self.height + np.minimum(line + self.reach, self.height - 1)
        return np.where(picture == 0, 0, self.finish[streams, lowest, -1])

    def _ends(self) -> np.ndarray:
        """`[B, cores]`: the end of the row that each core holds, as things stand."""
        ends = np.take_along_axis(self.finish[:, :, -1], self.holds.clip(0), 1)
        return np.where(self.holds < 0, np.inf, ends)

    def _left_to_a_faster(self, k: int) -> np.ndarray:
        """Whether a faster core, once free, will have decoded the next row before core k would."""
        row = self.next.clip(max=self.rows - 1)
        work = self.costs[self.all, row].sum(1)
        ends = np.where(self.holds < 0, self.now[:, None], self._ends())
        faster = self.speeds > self.speeds[:, k : k + 1]
        theirs = np.where(faster, ends + work[:, None] / self.speeds, np.inf).min(1)
        return theirs < self.now + work / self.speeds[:, k]

    def _migrate(self, freed: np.ndarray) -> None:
        """The core that became free takes over the topmost row of a slower one, from its next CTU on."""
        slower = self.speeds < self.speeds[self.all, freed][:, None]
        rows = np.where(slower & (self.holds >= 0), self.holds, self.rows)
        slow, row = rows.argmin(1), rows.min(1)
        held = np.flatnonzero(row < self.rows)
        slow, row, fast, now = slow[held], row[held], freed[held], self.now[held, None]
        work = self.costs[held, row] / np.take_along_axis(self.speeds[held], self.core[held, row], 1)
        # The last that has begun is in progress, or just done; what begins now has not (but for rounding).
        begun = self.finish[held, row] - work < now - 1e-9 * work
        moved = np.flatnonzero(~begun[:, -1])
        held, slow, row, fast, begun = (x[moved] for x in (held, slow, row, fast, begun))
        self.holds[held, fast], self.holds[held, slow] = row, -1
        last = begun.sum(1) - 1
        own = (last >= 0) & (self.core[held, row, last] == slow)  # a CTU that it has to end
        ends = np.where(own, self.finish[held, row, last], self.now[held])
        # What was there before may be the end of a CTU of a row that had moved on.
        self.free[held, slow] = np.maximum(np.maximum(ends, self.now[held]), self.free[held, slow])
        self.start[held, row] = np.where(last < 0, self.now[held], self.start[held, row])
        self.core[held, row] = np.where(begun, self.core[held, row], fast[:, None])
        self.moves[held] += 1
        self._again(held, row)

    def _again(self, streams: np.ndarray, row: np.ndarray) -> None:
        """Compute a row that changed, and those that were taken after it, anew."""
        while len(streams):
            self._compute(streams, row)
            row = row + 1
            below = row < self.next[streams]
            streams, row = streams[below], row[below]


def _checked(
    costs: np.ndarray, speeds: np.ndarray, policy: str, reach: int | None
) -> tuple[np.ndarray, np.ndarray]:
    costs, speeds = np.asarray(costs, float), np.asarray(speeds, float)
    if policy not in POLICIES:
        raise ValueError(f"the policy is one of {', '.join(POLICIES)}: got {policy!r}")
    if costs.ndim != 4 or not costs.size or not (np.isfinite(costs) & (costs > 0)).all():
        raise ValueError(
            f"costs must be finite and > 0, [streams, pictures, rows, columns]: got {costs.shape}"
        )
    if speeds.ndim == 1:
        speeds = np.broadcast_to(speeds, (len(costs), len(speeds)))
    if speeds.ndim != 2 or len(speeds) != len(costs) or not speeds.size:
        raise ValueError(f"speeds must be [cores] or [{len(costs)}, cores]: got {speeds.shape}")
    if not (np.isfinite(speeds) & (speeds > 0)).all() or (np.diff(speeds) > 0).any():
        raise ValueError("speeds must be finite, > 0 and in falling order, the fastest core first")
    if reach is not None and reach < 0:
        raise ValueError(f"reach is a number of rows >= 0, or None: got {reach}")
    return costs, speeds
