"""Who holds which rows of an array, and which rows must move when their holders change.

A pattern distributes n rows over p processes. `transfers` lists what has to be sent from one pattern over p
processes to another over q, for any p and q: sizes need not divide, and parts may be empty. Nothing here
knows MPI.

Block, gathered and halo distributions are those of the published examples of Iserte et al., "DMRlib" (IEEE
Trans. Computers 70(9), 2021), whose default patterns need factors that divide; block-cyclic is inferred
from their constants.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""k × 3: first row, one past the last, and where the first lies in the part of its holder."""


class Pattern(Protocol):
    """A distribution of n rows over p processes."""

    def sends(self, n: int, p: int, rank: int) -> Rows:
        """Rows for which this process answers: over all processes each row occurs once."""

    def holds(self, n: int, p: int, rank: int) -> Rows:
        """All rows in this process's part, copies included, in the order of the part."""


def _rows(*pieces: tuple[int, int, int]) -> Rows:
    return np.array([piece for piece in pieces if piece[0] < piece[1]], np.int64).reshape(-1, 3)


def block(n: int, p: int, rank: int) -> tuple[int, int]:
    """First row and one past the last of a block; the first n mod p blocks have one row more.

    >>> [block(10, 4, rank) for rank in range(4)]
    [(0, 3), (3, 6), (6, 8), (8, 10)]
    """
    size, more = divmod(n, p)
    return rank * size + min(rank, more), (rank + 1) * size + min(rank + 1, more)


@dataclass(frozen=True)
class Block:
    """Contiguous blocks, equal but for one row."""

    def sends(self, n: int, p: int, rank: int) -> Rows:
        """The block of the process."""
        first, last = block(n, p, rank)
        return _rows((first, last, 0))

    holds = sends


@dataclass(frozen=True)
class BlockCyclic:
    """Blocks of a given number of rows, dealt to the processes in turn; the last may be shorter.

    Raises:
        ValueError: a block has no row.
    """

    rows: int

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"a block has one row or more: got {self.rows}")

    def sends(self, n: int, p: int, rank: int) -> Rows:
        """Every p-th block."""
        first = np.arange(rank * self.rows, n, p * self.rows, dtype=np.int64)
        return np.stack([first, np.minimum(first + self.rows, n), np.arange(len(first)) * self.rows], axis=1)

    holds = sends


@dataclass(frozen=True)
class Halo:
    """Blocks with copies of up to `width` rows of what comes before and after, as stencils need them.

    After a redistribution the copies are fresh. Where a block is shorter than the width, they reach past
    the neighbour.

    Raises:
        ValueError: the width is negative.
    """

    width: int = 1

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ValueError(f"the width of a halo is zero or more: got {self.width}")

    def sends(self, n: int, p: int, rank: int) -> Rows:
        """The block without the copies."""
        first, last = block(n, p, rank)
        return _rows((first, last, first - max(first - self.width, 0)))

    def holds(self, n: int, p: int, rank: int) -> Rows:
        """The block with the copies; an empty block has none."""
        first, last = block(n, p, rank)
        return _rows((max(first - self.width, 0), min(last + self.width, n), 0)) if first < last else _rows()


@dataclass(frozen=True)
class Gathered:
    """All rows in the first process. From and to another pattern this is gathering and scattering."""

    def sends(self, n: int, p: int, rank: int) -> Rows:
        """All or nothing."""
        return _rows((0, n, 0)) if rank == 0 else _rows()

    holds = sends


@dataclass(frozen=True)
class Replicated:
    """All rows in every process. The first answers for them."""

    def sends(self, n: int, p: int, rank: int) -> Rows:
        """All or nothing."""
        return Gathered().sends(n, p, rank)

    def holds(self, n: int, p: int, rank: int) -> Rows:
        """All."""
        return _rows((0, n, 0))


@dataclass(frozen=True)
class Transfer:
    """Rows from one process's part to another's.

    `pieces` is k × 3: place in the sender's part, place in the receiver's, number of rows.
    """

    sender: int
    receiver: int
    pieces: Rows

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.pieces[:, 2].sum())

    def places(self, column: int) -> slice | NDArray[np.int64]:
        """Places of all rows in the sender's part (column 0) or the receiver's (1)."""
        first, count = self.pieces[:, column], self.pieces[:, 2]
        if len(first) == 1:
            return slice(first[0], first[0] + count[0])
        return np.arange(self.rows) + np.repeat(first - (np.cumsum(count) - count), count)

    def taken(self, part: np.ndarray) -> np.ndarray:
        """What the sender sends, rows × …; a view where it is one piece."""
        return np.ascontiguousarray(part[self.places(0)])

    def put(self, rows: np.ndarray, part: np.ndarray) -> None:
        """Lay what came into the receiver's part."""
        part[self.places(1)] = rows


def length(pattern: Pattern, n: int, p: int, rank: int) -> int:
    """Rows in the part of a process.

    >>> [length(Halo(1), 6, 3, rank) for rank in range(3)]
    [3, 4, 3]
    """
    held = pattern.holds(n, p, rank)
    return int((held[:, 1] - held[:, 0]).sum())


def transfers(n: int, before: Pattern, p: int, after: Pattern, q: int) -> list[Transfer]:
    """All that moves, a transfer for every pair of processes which have something to move.

    >>> [(t.sender, t.receiver, t.rows) for t in transfers(5, Block(), 2, Block(), 3)]
    [(0, 0, 2), (0, 1, 1), (1, 1, 1), (1, 2, 1)]

    Raises:
        ValueError: n is negative, or p or q is below one.
    """
    if n < 0 or p < 1 or q < 1:
        raise ValueError(f"n rows over p → q processes need n ≥ 0, p ≥ 1 and q ≥ 1: got {n}, {p} → {q}")
    parts = [before.sends(n, p, rank) for rank in range(p)]
    source = np.concatenate(parts)
    sender = np.repeat(np.arange(p), [len(part) for part in parts])
    order = np.argsort(source[:, 0])
    source, sender = source[order], sender[order]
    found = []
    for receiver in range(q):
        target = after.holds(n, q, receiver)
        # The sources that overlap each target are neighbours: from `low` up to `low + count`.
        low = np.searchsorted(source[:, 1], target[:, 0], side="right")
        count = np.searchsorted(source[:, 0], target[:, 1], side="left") - low
        t = np.repeat(np.arange(len(target)), count)
        s = np.arange(count.sum()) + np.repeat(low - (np.cumsum(count) - count), count)
        first = np.maximum(source[s, 0], target[t, 0])
        last = np.minimum(source[s, 1], target[t, 1])
        there = source[s, 2] + first - source[s, 0]
        here = target[t, 2] + first - target[t, 0]
        pieces = np.stack([there, here, last - first], axis=1)
        found += [Transfer(int(who), receiver, pieces[sender[s] == who]) for who in np.unique(sender[s])]
    return found


def apply(moves: Sequence[Transfer], parts: Sequence[np.ndarray], lengths: Sequence[int]) -> list[np.ndarray]:
    """The new parts, made in one process: what the messages of a real job do.

    Args:
        moves: of `transfers`.
        parts: of the p old processes, rows × ….
        lengths: rows of the q new parts, of `length`.

    >>> moves = transfers(5, Block(), 2, Block(), 3)
    >>> [part.tolist() for part in apply(moves, [np.array([0, 1, 2]), np.array([3, 4])], [2, 2, 1])]
    [[0, 1], [2, 3], [4]]
    """
    found = [np.empty((rows, *parts[0].shape[1:]), parts[0].dtype) for rows in lengths]
    for move in moves:
        move.put(move.taken(parts[move.sender]), found[move.receiver])
    return found
