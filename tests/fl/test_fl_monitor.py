"""The monitor on a grid, equal steps, clients that go wrong: what is scored and what it changes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.metrics import roc_auc_score
from torch import nn

from ouikit.data.dataset import Images
from ouikit.fl.read.detection import MEASURES, detection
from ouikit.fl.run.apps import identify
from ouikit.fl.run.client import local_update
from ouikit.fl.run.grid import LocalGrid
from ouikit.fl.run.simulate import simulate
from ouikit.fl.run.steps import FixedSteps, limited
from ouikit.fl.setting.anomalies import ANOMALIES, Anomaly, altered
from ouikit.fl.setting.federation import Federation
from ouikit.fl.setting.population import Population
from ouikit.fl.strategies.monitor import AtypicalClientMonitor
from ouikit.fl.strategies.paired import PairedFedAvg
from ouikit.fl.strategies.risk import risk_factors, robust_z
from ouikit.fl.strategies.weighted import FedOUI
from ouikit.fl.strategies.weights import fedoui_weights, size_weights, typicality
from ouikit.nn.chain import Chain
from ouikit.probe import Probe
from ouikit.signals.divergence import DIVERGENCES

SIZES = [30, 60, 20, 40]
OUIS = [0.2, 0.3, 0.5, 0.25]
PROBE = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
SMALL = Federation(
    method="monitor", rounds=2, clients=6, per_round=6, epochs=1, model="narrow_mlp",
    population=Population("dirichlet", alpha=1.0), anomaly=Anomaly("labels", clients=2),
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)
    )


def returned(client: int) -> dict[str, torch.Tensor]:
    """The model of client 0 … 3, from the initial one: none, small, output layer only, large step."""
    state = network().state_dict()
    generator = torch.Generator().manual_seed(client)
    for name, tensor in state.items():
        if tensor.is_floating_point() and (client != 2 or name.startswith("5.")):
            step = torch.randn(tensor.shape, generator=generator) * {0: 0.0, 1: 0.05, 2: 3.0, 3: 1.5}[client]
            tensor.add_(step.abs() if "var" in name else step)
    return state


def grid() -> LocalGrid:
    app = ClientApp()
    app.query()(identify)

    @app.train()
    def train(message, context):
        k = int(context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": SIZES[k], "oui": OUIS[k]})
        return Message(RecordDict({"arrays": ArrayRecord(returned(k)), "metrics": metrics}), reply_to=message)

    return LocalGrid(app, 4)


def test_arrays_of_another_network_are_refused_before_anybody_trains():
    seen, strategy = grid(), AtypicalClientMonitor(network=network, probe=PROBE, min_available_nodes=4)
    other = ArrayRecord(nn.Linear(3, 2).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        strategy.start(grid=seen, initial_arrays=other, num_rounds=1)
    assert seen._sent == 4  # each was asked for its partition


def run(kind=AtypicalClientMonitor, rounds=1, **options):
    if issubclass(kind, AtypicalClientMonitor):
        options = {"network": network, "probe": PROBE, **options}
    strategy = kind(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=4, **options)
    start = ArrayRecord(network().state_dict())
    result = strategy.start(grid=grid(), initial_arrays=start, num_rounds=rounds, train_config=ConfigRecord())
    return strategy, {name: array.numpy() for name, array in result.arrays.items()}


def by_hand(name):
    def patterns(state):
        model = network()
        model.load_state_dict(state)
        return Probe(model, PROBE).patterns()

    start = patterns(network().state_dict())
    return [DIVERGENCES[name](patterns(returned(k)), start) for k in range(4)]


def test_every_client_is_scored_from_what_it_sent_against_what_it_was_sent():
    strategy, _ = run()
    seen = pd.DataFrame(strategy.contributions)
    for name in DIVERGENCES:
        assert seen[name].tolist() == by_hand(name)
    assert seen.z.tolist() == pytest.approx(robust_z(by_hand("pairwise")))
    assert seen.pairwise[0] == seen.pairwise[2] == 0  # nothing moved, or the output layer alone
    assert 0 < seen.pairwise[1] < seen.pairwise[3]
    updates = [
        np.concatenate([v.flatten() for k, v in returned(c).items() if v.is_floating_point()])
        for c in range(4)
    ]
    start = np.concatenate([v.flatten() for v in network().state_dict().values() if v.is_floating_point()])
    steps = np.array(updates) - start
    mean = size_weights(SIZES) @ steps
    for k in (1, 2, 3):
        cosine = steps[k] @ mean / np.linalg.norm(steps[k]) / np.linalg.norm(mean)
        assert seen.cosine[k] == pytest.approx(cosine, abs=1e-6)


def test_watching_changes_nothing():
    strategy, watched = run(rounds=2)
    _, plain = run(PairedFedAvg, rounds=2)
    assert all(np.array_equal(watched[name], plain[name]) for name in plain)
    weights = [entry["weight"] for entry in strategy.contributions]
    assert weights == pytest.approx([*size_weights(SIZES)] * 2)


def test_watching_changes_nothing_in_a_federation():
    assert simulate(SMALL).checksum() == simulate(replace(SMALL, method="fedavg")).checksum()


def test_risk_aware_weights_lower_who_is_far_out_and_strike_out_nobody():
    strategy, _ = run(risk_aware=True, threshold=1.0, temperature=2.0)
    weights = np.array([entry["weight"] for entry in strategy.contributions])
    raw = size_weights(SIZES) * risk_factors(by_hand("pairwise"), threshold=1.0, temperature=2.0)
    assert weights == pytest.approx(raw / raw.sum())
    assert 0 < weights[3] < size_weights(SIZES)[3]


def test_risk_aware_weights_may_read_the_length_of_the_update():
    strategy, _ = run(risk_aware=True, score="L2", threshold=0.7)
    seen = pd.DataFrame(strategy.contributions)
    raw = size_weights(SIZES) * risk_factors(seen.update_norm, threshold=0.7)
    assert seen.weight.tolist() == pytest.approx(raw / raw.sum())
    assert seen.z.tolist() == pytest.approx(robust_z(seen.update_norm))
    assert seen.z[2] != robust_z(seen.pairwise)[2]  # it moved in the output layer, which no divergence sees


def test_it_goes_together_with_another_strategy():
    class Monitored(AtypicalClientMonitor, FedOUI):
        pass

    plain, _ = run(Monitored, gamma=2.0)
    assert [e["weight"] for e in plain.contributions] == pytest.approx(fedoui_weights(OUIS, SIZES, gamma=2.0))
    risky, _ = run(Monitored, gamma=2.0, risk_aware=True, score="direct", threshold=0.7)
    raw = fedoui_weights(OUIS, SIZES, gamma=2.0) * risk_factors(by_hand("direct"), threshold=0.7)
    assert [e["weight"] for e in risky.contributions] == pytest.approx(raw / raw.sum())
    assert risky.contributions[0]["z"] == pytest.approx(robust_z(by_hand("direct"))[0])


def test_named_layers_and_the_callers_model():
    strategy, _ = run(layers=["4"])
    model = network()
    before = Probe(model, PROBE, layers=["4"]).patterns()
    model.load_state_dict(returned(3))
    after = Probe(model, PROBE, layers=["4"]).patterns()
    assert strategy.contributions[3]["direct"] == DIVERGENCES["direct"](after, before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"score": "L1"}, ValueError, "pairwise, direct, cells, L2"),
        ({"threshold": 0.1}, ValueError, "0.1"),
        ({"network": lambda: nn.Linear(3, 2)}, ValueError, "no gate module"),
        ({"layers": ["conv"]}, ValueError, "no layer 'conv'"),
        ({"probe": PROBE[:1]}, ValueError, "2"),
    ],
)
def test_bad_settings_are_named(options, error, message):
    with pytest.raises(error, match=message):
        AtypicalClientMonitor(**{"network": network, "probe": PROBE, **options})


def split_of(count: int, side: int = 4) -> Images:
    generator = torch.Generator().manual_seed(count)
    return Images(torch.rand(count, 1, side, side, generator=generator), torch.arange(count) % 10)


@pytest.mark.parametrize(("count", "steps"), [(5, 4), (33, 3), (100, 2), (64, 2)])
def test_fixed_steps_are_full_batches_from_whole_passes(count, steps):
    split = FixedSteps(split_of(count), steps)
    batches = list(split.batches(32, torch.Generator().manual_seed(0)))
    assert [len(labels) for _, labels in batches] == [32] * steps
    images = torch.cat([images for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    seen = [int((images == image).flatten(1).all(1).sum()) for image in split.split.images]
    whole, rest = divmod(32 * steps, count)
    assert sorted(seen) == [whole] * (count - rest) + [whole + 1] * rest
    positions = [int((split.split.images == image).flatten(1).all(1).nonzero()[0]) for image in images]
    assert torch.equal(labels, split.labels[positions])
    again = torch.cat([labels for _, labels in split.batches(32, torch.Generator().manual_seed(0))])
    other = torch.cat([labels for _, labels in split.batches(32, torch.Generator().manual_seed(1))])
    assert torch.equal(again, labels)
    assert not torch.equal(other, labels)


def test_equal_steps_whatever_the_epochs_and_the_client():
    base = replace(SMALL, steps=3, anomaly=Anomaly())
    weights = base.network().state_dict()
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        real = Chain.backward
        patch.setattr(Chain, "backward", lambda *given: (calls.append(1), real(*given))[1])
        for client in range(base.clients):
            local_update(base, client, 1, weights)
    assert len(calls) == 3 * base.clients
    one, _ = local_update(base, 0, 1, weights)
    two, _ = local_update(replace(base, epochs=5), 0, 1, weights)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_without_a_number_of_steps_the_data_stay_as_they_are():
    data = SMALL.client_data(0)
    assert limited(data, 0).train is data.train
    assert limited(data, 2).validation is data.validation
    with pytest.raises(ValueError, match="-1"):
        limited(data, -1)


def test_what_each_anomaly_does():
    split = split_of(400)
    wrong = {name: altered(split, name, classes=10, seed=3) for name in ANOMALIES}
    assert (wrong["labels"].labels != split.labels).float().mean() == pytest.approx(0.9, abs=0.05)
    assert (wrong["half_labels"].labels != split.labels).float().mean() == pytest.approx(0.45, abs=0.05)
    assert torch.equal(wrong["inverted"].images + split.images, torch.ones_like(split.images))
    middle = (split.images > 0.45) & (split.images < 0.55)  # rarely cut
    spread = (wrong["noise"].images - split.images)[middle].std()
    assert spread == pytest.approx(0.383, abs=0.02)  # of a normal of σ = 0.6 that is cut at ±0.5
    order = [
        int((wrong["permuted"].images[0].flatten() == p).nonzero()[0]) for p in split.images[0].flatten()
    ]
    assert sorted(order) == list(range(16))
    assert order != sorted(order)
    assert torch.equal(wrong["permuted"].images.flatten(1)[:, order], split.images.flatten(1))
    for name in ("labels", "half_labels"):
        assert torch.equal(wrong[name].images, split.images)
    for name in ("noise", "permuted", "inverted"):
        assert torch.equal(wrong[name].labels, split.labels)


def test_letters_are_another_domain_with_shapes_of_its_own():
    strange = altered(split_of(200, side=8), "letters", classes=10, seed=3)
    assert strange.images[:, :, 3:5, 3:5].mean() > 2 * strange.images[:, :, 0].mean()  # bright on dark
    assert torch.bincount(strange.labels).tolist() == [20] * 10
    halves = [
        torch.stack([strange.images[i::20].mean(0).flatten() for i in range(10 * k, 10 * k + 10)])
        for k in (0, 1)
    ]
    nearest = torch.cdist(*halves).argmin(1)
    assert nearest.tolist() == list(range(10))  # what stands under a label in one half stands in the other


@pytest.mark.parametrize("name", ANOMALIES)
def test_an_anomaly_keeps_size_range_and_draw(name):
    split = Images(torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8), torch.arange(40) % 10)
    first, again, other = (altered(split, name, classes=10, seed=seed) for seed in (1, 1, 2))
    assert first.images.shape == split.images.shape
    assert first.images.dtype == torch.float32
    assert first.images.min() >= 0
    assert 0.5 < first.images.max() <= 1
    assert set(first.labels.tolist()) <= set(range(10))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    if name != "inverted":
        assert not (torch.equal(first.images, other.images) and torch.equal(first.labels, other.labels))


def test_clients_go_wrong_from_the_onset_on_and_stay_so():
    late = replace(SMALL, anomaly=Anomaly("inverted", clients=2, onset=2))
    bad = late.holdings().anomalous
    assert len(bad) == 2
    other = replace(late, anomaly=Anomaly("noise", clients=2), population=Population("dirichlet", alpha=9.0))
    assert other.holdings().anomalous == bad
    assert {replace(late, seed=s).holdings().anomalous for s in range(5)} != {bad}
    for client in range(late.clients):
        before, first, later = (late.client_data(client, r).train.images for r in (2, 3, 9))
        assert torch.equal(first, later)
        assert torch.equal(before, first) != (client in bad)
    clean = replace(late, anomaly=Anomaly())
    assert clean.holdings().anomalous == ()
    assert torch.equal(clean.client_data(bad[0], 9).train.images, late.client_data(bad[0], 0).train.images)
    assert torch.equal(clean.data().train.labels, late.data().train.labels)


def test_before_the_onset_a_run_is_a_clean_one_and_can_be_branched_off():
    late = replace(SMALL, anomaly=Anomaly("labels", clients=2, onset=2), rounds=3)
    clean = simulate(replace(late, anomaly=Anomaly(), rounds=2))
    assert simulate(replace(late, rounds=2)).checksum() == clean.checksum()
    whole = simulate(late)
    assert simulate(late, after=clean).checksum() == whole.checksum()
    assert whole.checksum() != simulate(replace(late, anomaly=Anomaly())).checksum()


def entries(pairwise, clients=range(5), server_round=1):
    seen = {"direct": 0.1, "cells": 0.0, "update_norm": 1.0, "cosine": 0.5}
    return [
        {"round": server_round, "client": c, "pairwise": p, "oui": 0.001 * p + 0.3, **seen}
        for c, p in zip(clients, pairwise, strict=True)
    ]


def test_detection_by_hand():
    rounds = [*entries([1, 2, 3, 4, 100]), *entries([4, 3, 2, 1, 1], server_round=2)]
    unwatched = {"round": 0, "client": 0, "oui": 0.5, "update_norm": 1.0}
    table = pd.DataFrame(detection([unwatched, *rounds], [3, 4]))
    assert set(table.step) == {1, 2}
    table = table.set_index(["measure", "metric", "step"]).value
    assert table["pairwise", "auroc", 1] == 1.0
    assert table["pairwise", "auroc", 2] == 0.0
    # z of round 1 orders 2, 1, 0, 1, 97: client 3 ties with 1 and loses to 0
    assert table["pairwise", "auroc_two_sided", 1] == pytest.approx((0.5 + 1 + 3) / 6)
    assert table["pairwise", "anomalous", 1] == 52
    assert table["pairwise", "benign", 1] == 2
    assert table["pairwise", "alarm_anomalous", 1] == 0.5
    assert table["pairwise", "alarm_benign", 1] == 0
    assert table["L2", "auroc", 1] == table["cosine", "auroc", 1] == 0.5  # all tie
    score = 1 - typicality([entry["oui"] for entry in rounds[:5]])
    assert table["oui", "auroc", 1] == pytest.approx(roc_auc_score([0, 0, 0, 1, 1], score))
    assert table["cosine", "benign", 1] == 0.5
    assert set(table.index.get_level_values("measure")) == set(MEASURES)


def test_detection_needs_both_kinds():
    for bad in ([], [0, 1, 2, 3, 4]):
        with pytest.raises(ValueError, match="round 1"):
            list(detection(entries([1, 2, 3, 4, 5]), bad))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Anomaly("tired"), "inverted, letters"),
        (lambda: replace(SMALL, anomaly=Anomaly("labels", clients=7)), "0 to 6"),
        (lambda: Anomaly(onset=-1), "onset"),
        (lambda: replace(SMALL, steps=-1), "steps"),
        (lambda: replace(SMALL, shared_probe=1), "shared_probe"),
    ],
)
def test_bad_scenarios_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_anomaly_is_named():
    with pytest.raises(KeyError, match="half_labels"):
        altered(split_of(4), "tired", classes=10, seed=0)
