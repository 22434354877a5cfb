"""Schedules that were worked out by hand, and what every schedule keeps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ouikit.machines.cluster import Job, amdahl, knee, simulate

LINEAR = amdahl(0.0)


def job(arrival, work, request, least=None, most=None, curve=LINEAR, preferred=None):
    return Job(arrival, work, curve, request, least or request, most or request, preferred)


def test_jobs_come_first_come_first_served():
    # 3 + 2 nodes do not fit on 4: the second job waits for the end of the first, at 10.
    found = simulate([job(0, 30, 3), job(1, 10, 2), job(2, 8, 2)], 4)
    assert found.start.tolist() == [0, 10, 10]
    assert found.end.tolist() == [10, 15, 14]
    assert found.waiting.tolist() == [0, 9, 8]
    assert found.execution.tolist() == [10, 5, 4]
    assert found.completion.tolist() == [10, 14, 12]
    assert found.makespan == 15
    assert found.throughput == 3 / 15
    assert found.node_seconds == 30 + 10 + 8
    assert found.allocation_rate == 48 / 60
    assert found.energy(idle=1, busy=10) == 480 + 12


def test_a_short_job_overtakes_where_it_delays_nobody():
    # The 4-node job is due at 10. One node is free until then: 9 seconds fit, 11 do not.
    def jobs(last):
        return [job(0, 30, 3), job(1, 40, 4), job(2, last, 1)]

    assert simulate(jobs(8), 4).start.tolist() == [0, 10, 2]
    assert simulate(jobs(11), 4).start.tolist() == [0, 10, 20]


def test_a_long_job_overtakes_on_nodes_that_the_first_does_not_need():
    found = simulate([job(0, 30, 3), job(1, 30, 3), job(2, 100, 1)], 4)
    assert found.start.tolist() == [0, 10, 2]


def test_a_moldable_job_starts_on_what_is_free():
    found = simulate([job(0, 30, 3), job(1, 8, 4, least=1)], 4, moldable=True)
    assert found.start.tolist() == [0, 1]
    assert found.end.tolist() == [10, 9]  # on one node
    assert simulate([job(0, 30, 3), job(1, 8, 4, least=1)], 4).start.tolist() == [0, 10]


def test_a_malleable_job_shrinks_for_one_that_waits_and_grows_again():
    """8 nodes, 80 s of work; a job of 4 nodes for 8 s comes at 3; questions every 2 s, changes cost 1 s.

    At 4 the first has 48 left and shrinks to 4, which it holds from 5 on; the second runs from 5 to 13. At
    13 it ends; the next question is at 13 (8 after the change), with 48 − 4·8 = 16 left. It grows to 8,
    computes from 14 on, and ends at 16.
    """
    jobs = [job(0, 80, 8, least=2, most=8), job(3, 32, 4)]
    found = simulate(jobs, 8, malleable=True, period=2, cost=lambda before, after: 1.0)
    assert found.start.tolist() == [0, 5]
    assert found.end.tolist() == [16, 13]
    assert found.changes == [(4, 0, 8, 4), (13, 0, 4, 8)]
    assert found.holdings == [(0, 0, 8), (5, 0, 4), (5, 1, 4), (13, 1, 0), (13, 0, 8), (16, 0, 0)]


def test_alone_a_job_cannot_make_room_for_its_equal_but_together_they_can():
    jobs = [job(0, 400, 4, least=1, most=4), job(0, 400, 4, least=1, most=4), job(1, 40, 4)]
    alone = simulate(jobs, 8, malleable=True, period=10, joint=False)
    together = simulate(jobs, 8, malleable=True, period=10)
    assert alone.changes == []
    assert alone.start[2] == 100
    # 4 → 1 frees 3; the other needs to free one more, and 4 → 2 is the largest size that does.
    assert together.changes[:2] == [(10, 0, 4, 1), (10, 1, 4, 2)]
    assert together.start[2] == 10


def test_who_prefers_a_size_shrinks_no_further_and_grows_beyond_it_only_alone():
    jobs = [job(0, 800, 8, least=1, most=16, preferred=4), job(1, 400, 8)]
    found = simulate(jobs, 12, malleable=True, period=10)
    assert found.changes[0] == (10, 0, 8, 4)
    assert found.start[1] == 10
    wide = simulate([job(0, 800, 4, least=1, most=16, preferred=4)], 16, malleable=True, period=10)
    assert wide.changes == [(10, 0, 4, 16)]


def test_a_speed_up_that_is_flat_makes_large_requests_waste():
    flat = [job(0, 100, 4, least=1, most=4, curve=knee(1)) for _ in range(8)]
    assert simulate(flat, 8).makespan == 400
    assert simulate(flat, 8, malleable=True, period=1).makespan < 300


def random_jobs(rng, count, nodes):
    for _ in range(count):
        request = 2 ** int(rng.integers(0, 4))
        least, most = 2 ** int(rng.integers(0, int(np.log2(request)) + 1)), nodes
        curve = [LINEAR, knee(2), amdahl(0.2)][rng.integers(3)]
        yield Job(float(rng.integers(0, 200)), float(rng.integers(1, 500)), curve, request, least, most)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 3.0]),
    st.sampled_from([5, 40]),
)
def test_nodes_and_work_are_conserved(seed, moldable, malleable, joint, cost, period):
    rng = np.random.default_rng(seed)
    jobs = list(random_jobs(rng, 12, 16))
    found = simulate(
        jobs,
        16,
        moldable=moldable,
        malleable=malleable,
        joint=joint,
        period=period,
        cost=lambda before, after: cost,
    )
    assert (found.start >= found.arrival).all()
    assert np.isfinite(found.end).all()
    _, counts = found.allocated
    assert counts.min() >= 0
    assert counts.max() <= 16
    assert counts[-1] == 0
    if not malleable:
        assert found.changes == []
    for number, one in enumerate(jobs):
        # The speeds at which it ran, change by change, add up to its work.
        sizes = [found.holdings[i][2] for i in range(len(found.holdings)) if found.holdings[i][1] == number]
        assert sizes[-1] == 0
        mine = [change for change in found.changes if change[1] == number]
        since, done, size = found.start[number], 0.0, sizes[0]
        assert size == one.request or moldable
        for at, _, before, after in mine:
            assert before == size
            assert before != after
            assert after in one.sizes
            done += (at - since) * one.curve(before)
            since, size = at + cost, after
        done += (found.end[number] - since) * one.curve(size)
        assert done == pytest.approx(one.work)
    # No more nodes than the cluster's, so no less time than the work and the best speeds need.
    assert found.makespan >= max(one.seconds(one.sizes[-1]) for one in jobs) * (1 - 1e-12)


def test_backfill_does_not_delay_the_first_of_the_queue():
    """The first job that has to wait starts no later than if none overtook it."""
    for seed in range(20):
        jobs = [job(0, int(w), int(n)) for w, n in np.random.default_rng(seed).integers(1, 9, (10, 2))]
        first, free, running = [], 8, []
        now = 0.0
        for number, one in enumerate(jobs):  # strictly in order
            while free < one.request:
                now, who = min(running)
                running.remove((now, who))
                free += jobs[who].request
            free -= one.request
            first.append(now)
            running.append((now + one.seconds(one.request), number))
        found = simulate(jobs, 8)
        blocked = next((n for n in range(len(jobs)) if first[n] > 0), None)
        if blocked is not None:
            assert found.start[blocked] <= first[blocked] + 1e-12


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda: job(0, 0, 1), "work is a positive number"),
        (lambda: job(0, 1, 4, least=8), "least ≤ request"),
        (lambda: job(0, 1, 4, least=1, preferred=3), "none of the sizes"),
        (lambda: amdahl(1.5), "between 0 and 1"),
        (lambda: knee(0), "one node or more"),
        (lambda: simulate([], 4), "no job"),
        (lambda: simulate([job(0, 1, 8)], 4), "needs 8 nodes to start, and the cluster has 4"),
        (lambda: simulate([job(0, 1, 1)], 4, period=0), "period is a positive"),
    ],
)
def test_what_cannot_be_is_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        bad()
