"""Robust means: by hand, and against Flower's own median and Multi-Krum."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum

from ouikit.fl.strategies.mean import median
from ouikit.fl.strategies.replies import Reply
from ouikit.fl.strategies.robust import CoordinateMedian, MultiKrum, krum_scores
from ouikit.fl.strategies.weights import size_weights

UPDATES = np.random.default_rng(0).normal(size=(9, 5))
UPDATES[:2] += 30.0  # clients 0 and 1 are far from everybody, and from one another
UPDATES[1] += 100.0
SIZES = [50, 40, 10, 20, 30, 10, 20, 30, 10]


def replies():
    models = [{"w": update.astype(np.float32)} for update in UPDATES]
    return [Reply(k, k, models[k], UPDATES[k], {"num-examples": SIZES[k]}) for k in range(len(UPDATES))]


def test_the_median_of_each_number_keeps_shapes_and_types():
    models = [
        {"w": np.array([[a], [b]], np.float32), "z": np.array([c]), "n": np.array(4), "m": np.array(d)}
        for a, b, c, d in ((1, 5, 1 + 9j, True), (2, 5, 2 + 1j, True), (90, -7, 3 + 2j, False))
    ]
    found = median(models)
    assert found["w"].tolist() == [[2.0], [5.0]]
    assert found["z"].tolist() == [2 + 2j]
    assert (found["n"], found["m"]) == (4, True)  # agreed, and voted
    assert all(found[name].dtype == models[0][name].dtype for name in found)
    assert median(models[:2])["w"].tolist() == [[1.5], [5.0]]


def test_one_client_moves_a_mean_as_far_as_it_likes_and_no_median():
    strategy, models = CoordinateMedian(), [reply.arrays for reply in replies()]
    weights = strategy.weights(replies(), 1)
    assert weights.tolist() == [1 / 9] * 9
    before = strategy.mean(models, weights)["w"]
    models[1] = {"w": models[1]["w"] + np.float32(1e6)}
    assert strategy.mean(models, weights)["w"] == pytest.approx(before)
    assert before == pytest.approx(np.median(UPDATES, axis=0), rel=1e-6)


def test_krum_by_hand():
    # 0, 1, 3, 9: with f = 1 the one nearest other counts, with f = 0 the two nearest
    assert krum_scores([[0.0], [1.0], [3.0], [9.0]], 1).tolist() == [1, 1, 4, 36]
    assert krum_scores([[0.0], [1.0], [3.0], [9.0]], 0).tolist() == [10, 5, 13, 100]
    assert krum_scores([[2.0]], 3).tolist() == [0]


@pytest.mark.parametrize("faulty", [0, 1, 2, 4, 8, 20])
def test_multi_krum_takes_the_clients_that_flower_takes(faulty):
    weights = MultiKrum(faulty=faulty).weights(replies(), 1)
    contents = [
        RecordDict({"arrays": ArrayRecord({"w": Array(update)}), "metrics": MetricRecord({"k": k})})
        for k, update in enumerate(UPDATES)
    ]
    count = max(1, len(UPDATES) - faulty)
    kept = sorted(content["metrics"]["k"] for content in select_multikrum(contents, faulty, count))
    assert np.flatnonzero(weights).tolist() == kept
    assert weights[kept] == pytest.approx(size_weights([SIZES[k] for k in kept]))


def test_multi_krum_leaves_the_far_ones_out_and_refuses_a_negative_count():
    assert MultiKrum(faulty=2).weights(replies(), 1)[:2].tolist() == [0, 0]
    with pytest.raises(ValueError, match="at least 0: got -1"):
        MultiKrum(faulty=-1)
