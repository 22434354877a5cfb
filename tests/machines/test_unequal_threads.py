"""Rows on real threads: what is done, in which order, and by whom. No time is measured."""

import threading

import numpy as np
import pytest

from ouikit.machines.biglittle import POLICIES
from ouikit.machines.unequal_threads import run


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("times", [[1], [1, 3], [1, 1, 2, 4]])
def test_every_segment_waits_for_what_it_needs_and_is_done_by_one_thread(policy, times):
    shape, reach, log, lock = (3, 4, 5), 1, [], threading.Lock()

    def work(*segment):
        with lock:
            log.append(segment)

    ran = run(work, shape, times, policy, reach)
    done = {}
    for at, (thread, *segment) in enumerate(log):
        done.setdefault(tuple(segment), []).append((at, thread))
    assert len(done) == np.prod(shape)
    for (picture, row, column), calls in done.items():
        (thread,) = {thread for _, thread in calls}
        assert (thread, len(calls)) == (ran.thread[picture, row, column], times[thread])
        needs = [(picture, row, column - 1)] if column else []
        needs += [(picture, row - 1, min(column + 1, 4))] if row else []
        needs += [(picture - 1, min(row + reach, 3), 4)] if picture else []
        for other in needs:
            assert done[other][-1][0] < calls[0][0], (other, (picture, row, column))
    assert ran.moves == 0 or policy == "migrating"


def test_a_quick_thread_takes_over_what_a_slow_one_holds():
    """The slow thread stops in its first segment until the quick one has done all that it can without it."""
    goes_on, shape = threading.Event(), (1, 6, 4)
    quick = []

    def work(thread, picture, row, segment):
        if thread == 0:
            quick.append((row, segment))
            if (row, segment) == (0, 2):
                stopped.wait(10)
            if len(quick) == 4:  # row 0: what is left is below the slow thread's segment
                goes_on.set()
        else:
            stopped.set()
            goes_on.wait(10)

    stopped = threading.Event()
    ran = run(work, shape, [1, 2], "migrating")
    assert ran.moves >= 1
    assert (ran.thread == 0).sum() > 4
    assert ran.thread[0, 1, 0] == 1
    assert (ran.thread[0, 1, 1:] == 0).any()


def test_an_aware_slow_thread_leaves_rows_to_a_quick_one():
    """Three times as slow: a quick thread is always earlier, whatever it has to do before."""
    ran = run(lambda *_: None, (2, 5, 3), [1, 3], "aware")
    assert (ran.thread == 0).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_what_fails_in_one_thread_ends_all_and_is_told(policy):
    def work(thread, picture, row, segment):
        if (picture, row, segment) == (1, 2, 3):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run(work, (4, 5, 6), [1, 2, 2], policy)


def test_where_threads_may_not_be_first_it_is_said(monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.sched_setscheduler", refused, raising=False)
    with pytest.raises(PermissionError, match="may not run before all others"):
        run(lambda *_: None, (1, 1, 1), [1, 2], real_time=True)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (((1, 0, 2), [1]), "without zeros"),
        (((1, 1, 2), []), "times >= 1 that rise"),
        (((1, 1, 2), [2, 1]), "got .* \\[2, 1\\]"),
        (((1, 1, 2), [0]), "times >= 1"),
        (((1, 1, 2), [1], "greedy"), "'greedy'"),
        (((1, 1, 2), [1], "aware", -1), "reach >= 0"),
    ],
)
def test_what_cannot_be_is_refused(how, says):
    with pytest.raises(ValueError, match=says):
        run(lambda *_: None, *how)
