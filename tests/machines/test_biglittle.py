"""Wavefronts on fast and slow cores: known makespans, a simulation CTU by CTU as oracle, properties."""

import numpy as np
import pytest

from ouikit.machines.biglittle import POLICIES, decode


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("rows", "columns", "expected"), [(17, 30, 62), (34, 60, 126), (68, 120, 254), (1, 5, 5)]
)
def test_the_wavefront_of_equal_ctus_takes_its_length_and_two_per_row(policy, rows, columns, expected):
    picture = np.ones((1, 1, rows, columns))
    assert decode(picture, np.ones(rows), policy).makespan == expected == columns + 2 * (rows - 1)
    assert decode(picture, np.ones(1), policy).makespan == rows * columns


def ctu_by_ctu(costs, speeds, reach, migrating):
    """One decoding, simulated with a clock that stops at every end of a CTU; times `[F, R, C]`."""
    pictures, height, width = costs.shape
    costs = costs.reshape(-1, width)
    done, begun = np.full(costs.shape, np.inf), [0] * len(costs)
    holds, computes = [None] * len(speeds), [None] * len(speeds)  # a row; a CTU and its end
    next_row, now = 0, 0.0

    def ready(row):
        line, c = row % height, begun[row]
        needs = [done[row, c - 1]] if c else []
        if line:
            needs.append(done[row - 1, min(c + 1, width - 1)])
        if row >= height:
            needs.append(done[(row // height - 1) * height + min(line + reach, height - 1), -1])
        return c < width and max(needs, default=0) <= now

    while np.isinf(done).any():
        for k in range(len(speeds)):
            if holds[k] is None and next_row < len(costs):
                holds[k], next_row = next_row, next_row + 1
        for k, row in enumerate(holds):
            if row is not None and computes[k] is None and ready(row):
                computes[k] = row, begun[row], now + costs[row, begun[row]] / speeds[k]
                begun[row] += 1
        k = min((c for c in range(len(speeds)) if computes[c]), key=lambda c: computes[c][2])
        row, c, now = computes[k]
        done[row, c], computes[k] = now, None
        if c == width - 1:
            k = holds.index(row)
            holds[k] = None
            slower = [j for j, held in enumerate(holds) if held is not None and speeds[j] < speeds[k]]
            j = min(slower, key=lambda j: holds[j], default=None)
            if migrating and j is not None and begun[holds[j]] < width:
                holds[k], holds[j] = holds[j], None
    return done.reshape(pictures, height, width)


@pytest.mark.parametrize("reach", [0, 1, None])
@pytest.mark.parametrize("cores", [(1, 1, 1), (1, 1, 0.4, 0.4), (1, 0.6, 0.25), (2, 0.5)])
@pytest.mark.parametrize("policy", ["oblivious", "migrating"])
def test_times_are_those_of_a_simulation_ctu_by_ctu(policy, cores, reach):
    rng = np.random.default_rng(len(cores))
    costs = rng.lognormal(0, 0.7, (6, 3, 5, 7))
    found = decode(costs, np.array(cores), policy, reach)
    for stream, times in zip(costs, found.finish, strict=True):
        expected = ctu_by_ctu(stream, cores, 5 if reach is None else reach, policy == "migrating")
        np.testing.assert_allclose(times, expected, rtol=1e-12)
    assert (found.moves > 0).any() == (policy == "migrating" and len(set(cores)) > 1)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_ctu_waits_for_its_neighbours_and_takes_its_time_on_its_core(policy):
    rng = np.random.default_rng(1)
    costs, speeds = rng.lognormal(0, 0.5, (4, 2, 6, 9)), np.array([1, 1, 0.5, 0.3])
    run = decode(costs, speeds, policy, reach=1)
    begin = run.finish - costs / speeds[run.core]
    slack = 1e-9
    assert (begin[..., 1:] >= run.finish[..., :-1] - slack).all()
    assert (begin[:, :, 1:, :-1] >= run.finish[:, :, :-1, 1:] - slack).all()
    assert (begin[:, :, 1:, -1] >= run.finish[:, :, :-1, -1] - slack).all()
    assert (begin[:, 1:, :-1] >= run.finish[:, :-1, 1:, -1:] - slack).all()
    np.testing.assert_allclose(run.busy.sum(1), (costs / speeds[run.core]).sum((1, 2, 3)))
    for k in range(4):  # no core computes two CTUs at a time
        for stream in range(4):
            mine = run.core[stream] == k
            order = np.argsort(begin[stream][mine])
            assert (begin[stream][mine][order][1:] >= run.finish[stream][mine][order][:-1] - slack).all()


def test_decodings_do_not_touch_each_other():
    rng = np.random.default_rng(2)
    costs = rng.lognormal(0, 0.5, (3, 2, 5, 6))
    speeds = np.array([[1, 1, 0.5], [1, 0.9, 0.2], [1, 1, 1]])
    for policy in POLICIES:
        together = decode(costs, speeds, policy)
        for i in range(3):
            alone = decode(costs[i : i + 1], speeds[i : i + 1], policy)
            assert np.array_equal(together.finish[i], alone.finish[0])


def test_an_aware_slow_core_leaves_the_next_row_to_a_fast_one():
    picture = np.ones((1, 1, 4, 8))
    slow_helps_nobody = np.array([1, 0.1])
    assert decode(picture, slow_helps_nobody, "oblivious").makespan > 32
    aware = decode(picture, slow_helps_nobody, "aware")
    assert aware.makespan == 32  # as the fast core alone
    assert aware.busy.tolist() == [[32, 0]]


def test_energy_counts_what_cores_do_and_what_they_wait():
    run = decode(np.ones((1, 1, 2, 4)), np.array([1.0, 1.0]))  # 6 units of time, 4 of them busy on each core
    assert run.makespan == 6
    assert run.energy(np.array([3.0, 3.0]), np.array([1.0, 0.0]), base=0.5) == 3 * 8 + 2 + 0.5 * 6


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"costs": np.ones((1, 2, 3))}, r"costs must be finite.*\(1, 2, 3\)"),
        ({"costs": np.full((1, 1, 2, 2), np.nan)}, "costs must be finite"),
        ({"costs": np.zeros((1, 1, 2, 2))}, "costs must be finite and > 0"),
        ({"speeds": np.array([0.5, 1])}, "falling order"),
        ({"speeds": np.array([1, 0])}, "> 0"),
        ({"speeds": np.ones((3, 2))}, r"speeds must be \[cores\] or \[1, cores\]"),
        ({"policy": "fair"}, "oblivious, aware, migrating: got 'fair'"),
        ({"reach": -1}, "reach is a number of rows >= 0, or None: got -1"),
    ],
)
def test_bad_input_is_refused_by_name(change, complaint):
    given = {"costs": np.ones((1, 1, 2, 2)), "speeds": np.ones(2)} | change
    with pytest.raises(ValueError, match=complaint):
        decode(**given)
