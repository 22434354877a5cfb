"""Every change of small arrays, piece by piece, without MPI."""

import numpy as np
import pytest

from ouikit.malleable import Block, BlockCyclic, Gathered, Halo, Replicated, apply, length, transfers

PATTERNS = [Block(), BlockCyclic(1), BlockCyclic(2), Halo(1), Halo(3), Gathered(), Replicated()]


def held(pattern, n, p, rank):
    """Numbers of the rows of a part, from a definition of its own."""
    if isinstance(pattern, BlockCyclic):
        return [row for row in range(n) if row // pattern.rows % p == rank]
    if isinstance(pattern, Gathered):
        return list(range(n)) if rank == 0 else []
    if isinstance(pattern, Replicated):
        return list(range(n))
    sizes = [n // p + (r < n % p) for r in range(p)]
    first, last = sum(sizes[:rank]), sum(sizes[: rank + 1])
    width = pattern.width if isinstance(pattern, Halo) else 0
    return [row for row in range(first - width, last + width) if 0 <= row < n] if first < last else []


@pytest.mark.parametrize("before", PATTERNS, ids=str)
@pytest.mark.parametrize("after", PATTERNS, ids=str)
def test_every_row_arrives_where_it_belongs(before, after):
    for n in (0, 1, 3, 7, 12):
        for p in range(1, 6):
            parts = [np.array(held(before, n, p, rank), np.int64) for rank in range(p)]
            assert [length(before, n, p, rank) for rank in range(p)] == [len(part) for part in parts]
            for q in range(1, 6):
                moves = transfers(n, before, p, after, q)
                assert len({(m.sender, m.receiver) for m in moves}) == len(moves)
                lengths = [length(after, n, q, rank) for rank in range(q)]
                # A row that no transfer wrote would keep what was in memory: count them as well.
                assert [sum(m.rows for m in moves if m.receiver == rank) for rank in range(q)] == lengths
                found = apply(moves, parts, lengths)
                assert [part.tolist() for part in found] == [held(after, n, q, rank) for rank in range(q)]


def test_a_row_of_several_numbers_stays_together():
    whole = np.arange(21.0).reshape(7, 3)
    parts = [whole[:4], whole[4:]]
    found = apply(transfers(7, Block(), 2, BlockCyclic(2), 2), parts, [4, 3])
    np.testing.assert_array_equal(found[0], whole[[0, 1, 4, 5]])
    np.testing.assert_array_equal(found[1], whole[[2, 3, 6]])


def test_a_change_of_the_halo_takes_rows_from_their_owners_and_not_from_copies():
    parts = [np.array([0, 1, 2, -1]), np.array([-1, 3, 4, 5])]  # stale copies are −1
    (found,) = apply(transfers(6, Halo(1), 2, Halo(1), 1), parts, [6])
    assert found.tolist() == [0, 1, 2, 3, 4, 5]


def test_only_neighbours_talk():
    """Blocks over p and q: at most p + q − 1 messages, and nothing that stays is sent twice."""
    for p in range(1, 9):
        for q in range(1, 9):
            moves = transfers(100, Block(), p, Block(), q)
            assert len(moves) <= p + q - 1
            assert sum(move.rows for move in moves) == 100


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda: BlockCyclic(0), "one row or more: got 0"),
        (lambda: Halo(-1), "zero or more: got -1"),
        (lambda: transfers(3, Block(), 0, Block(), 1), "got 3, 0 → 1"),
        (lambda: transfers(-1, Block(), 1, Block(), 1), "got -1, 1 → 1"),
    ],
)
def test_what_cannot_be_is_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        bad()


def test_four_million_numbers_move_in_as_few_copies_as_there_are_messages():
    n = 4_000_000
    parts = list(np.arange(float(n)).reshape(4, -1))
    moves = transfers(n, Block(), 4, Block(), 2)
    assert [len(move.pieces) for move in moves] == [1, 1, 1, 1]
    np.testing.assert_array_equal(np.concatenate(apply(moves, parts, [n // 2, n // 2])), np.arange(float(n)))
