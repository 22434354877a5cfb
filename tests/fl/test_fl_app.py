"""The pair of apps: same bits every time, paired between methods, clients that train as written."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from ouikit import balance_oui, data
from ouikit.data.dataset import Dataset, Images
from ouikit.fl.run import client as client_module
from ouikit.fl.run.apps import client_app, server_app
from ouikit.fl.run.client import client_seed, local_update, probe_positions
from ouikit.fl.run.grid import LocalGrid, run_local
from ouikit.fl.run.rounds import federate
from ouikit.fl.run.simulate import simulate
from ouikit.fl.setting import samples as samples_module
from ouikit.fl.setting.anomalies import Anomaly
from ouikit.fl.setting.federation import Federation
from ouikit.fl.setting.gates import FrozenGates
from ouikit.fl.setting.networks import build
from ouikit.fl.setting.population import Population
from ouikit.fl.setting.source import Source
from ouikit.fl.strategies.methods import METHODS
from ouikit.probe import Probe
from ouikit.train import evaluate

TINY = Federation(rounds=2, epochs=1, clients=6, per_round=3)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_two_runs_agree_to_the_bit_whatever_the_global_generators_hold():
    first = simulate(TINY)
    torch.manual_seed(99)
    np.random.seed(99)
    second = simulate(TINY)
    assert first.checksum() == second.checksum()
    assert first.rounds == second.rounds
    assert simulate(replace(TINY, seed=1)).checksum() != first.checksum()


@pytest.mark.parametrize("method", METHODS)
def test_methods_start_alike_and_their_first_clients_do_the_same(method):
    """Before the first aggregation nothing depends on the method, but FedProx's term and FedSQ's gates."""
    base, other = simulate(replace(TINY, rounds=1)), simulate(replace(TINY, rounds=1, method=method))
    assert other.rounds[0] == base.rounds[0]
    same = ("client", "num-examples", "oui", "loss", "update_norm")
    if method in ("fedprox", "fedsq"):
        same = ("client", "num-examples")
    for mine, theirs in zip(base.contributions, other.contributions, strict=True):
        assert [mine[name] for name in same] == [theirs[name] for name in same]


def test_the_server_app_leaves_the_outcome_in_its_state_and_in_a_folder(tmp_path):
    context = run_local(server_app, client_app, 6, {**TINY.config(), "out": str(tmp_path / "out")})
    left = json.loads(context.state["outcome"]["json"])
    written = json.loads((tmp_path / "out" / "outcome.json").read_text())
    assert written == left
    assert left["checksum"] == simulate(TINY).checksum()
    weights = torch.load(tmp_path / "out" / "weights.pt", weights_only=True)
    model = TINY.network()
    model.load_state_dict(weights)
    assert evaluate(model, TINY.data())[1] == pytest.approx(left["rounds"][-1]["accuracy"])
    assert left["faults"] == []


def test_learning_happens():
    outcome = simulate(Federation(rounds=15, clients=10, per_round=5, population=Population(alpha=10.0)))
    accuracy = [entry["accuracy"] for entry in outcome.rounds]
    assert len(accuracy) == 16
    assert accuracy[0] < 0.3 < 0.8 < accuracy[-1]


def plain_sgd(federation, client, server_round, mu):
    """The client's round written out: shuffled batches, momentum SGD, the proximal term in the loss."""
    own, model = federation.client_data(client), federation.network()
    start = [p.detach().clone() for p in model.parameters()]
    sgd = torch.optim.SGD(model.parameters(), federation.lr, federation.momentum)
    generator = torch.Generator().manual_seed(client_seed(federation.seed, server_round, client))
    for _ in range(federation.epochs):
        torch.randint(2**62, (), generator=generator)  # the seed of dropout, drawn and unused here
        for images, labels in own.train.batches(federation.batch_size, generator):
            loss = functional.cross_entropy(model(own.normalised(images)), labels)
            for p, anchor in zip(model.parameters(), start, strict=True):
                loss = loss + mu / 2 * ((p - anchor) ** 2).sum()
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    return model


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_a_clients_round_is_sgd_with_the_squared_proximal_term(mu):
    federation = replace(TINY, epochs=2)
    weights = federation.network().state_dict()
    ours, metrics = local_update(federation, 4, 7, weights, mu)
    theirs = plain_sgd(federation, 4, 7, mu)
    for name, tensor in theirs.state_dict().items():
        assert torch.allclose(ours[name], tensor, atol=1e-6), name
    own = federation.client_data(4)
    assert metrics["num-examples"] == len(own.train)
    assert metrics["loss"] == pytest.approx(evaluate(theirs, own)[0], rel=1e-4)


def test_the_proximal_term_holds_clients_back():
    weights = TINY.network().state_dict()

    def distance(mu):
        state, _ = local_update(TINY, 0, 1, weights, mu)
        return sum(float((state[name] - weights[name]).norm() ** 2) for name in weights) ** 0.5

    assert distance(0.0) > 1.02 * distance(1.0) > 1.02**2 * distance(10.0)


def test_oui_is_that_of_the_local_model_on_its_own_probe_at_the_penultimate_layer():
    weights = TINY.network().state_dict()
    state, metrics = local_update(TINY, 2, 1, weights)
    model = TINY.network()
    model.load_state_dict(state)
    own = TINY.client_data(2)
    chosen = np.random.default_rng(TINY.seed + 10007 * 2).choice(len(own.train), 32, replace=False)
    images = own.normalised(own.train.images[torch.from_numpy(chosen)])
    bits = Probe(model, images, layers=["5"]).patterns()
    assert bits["5"].shape == (32, 128)
    assert metrics["oui"] == balance_oui(bits)
    assert metrics["oui"] != balance_oui(Probe(TINY.network(), images, layers=["5"]).patterns())


def test_a_small_client_fills_its_probe_with_replacement():
    small = replace(TINY, population=Population(protocol="as_released", rare_size=12))
    rare = small.holdings().rare[0]
    chosen = probe_positions(small, rare)
    assert len(small.client_data(rare).train) <= 12
    assert len(chosen) == 32
    assert len(chosen.unique()) < 32
    assert chosen.max() < 12


def test_noisy_clients_train_on_their_wrong_labels_and_the_server_judges_on_clean_ones():
    released = replace(TINY, population=Population(protocol="as_released"))
    people = released.holdings()
    clean = released.data().train.labels.numpy()
    noisy = people.noisy[0]
    seen = released.client_data(noisy).train.labels.numpy()
    assert (seen != clean[people.indices[noisy]]).mean() == pytest.approx(0.4, abs=0.02)
    honest = next(c for c in range(6) if c not in people.noisy)
    mine = released.client_data(honest).train.labels.numpy()
    assert np.array_equal(mine, clean[people.indices[honest]])


def test_seeds_of_clients_do_not_collide():
    seeds = {client_seed(s, r, c) for s in range(5) for r in range(20) for c in range(20)}
    assert len(seeds) == 5 * 20 * 20


PARTS = Federation(
    method="fedsq", lr=0.1,
    population=Population("dirichlet", alpha=0.3), anomaly=Anomaly("noise", clients=2, onset=7),
    source=Source("rotated", size=300), gates=FrozenGates(norm="affine"),
)  # fmt: skip


@pytest.mark.parametrize("federation", [TINY, PARTS])
def test_a_federation_travels_as_scalars(federation):
    config = federation.config()
    assert all(isinstance(value, int | float | str) for value in config.values())
    assert Federation.of({**config, "server-round": 3, "proximal-mu": 0.1}) == federation
    assert Federation.of({}) == Federation()
    assert Federation.of(asdict(federation)) == federation  # nested, as TOML reads dotted keys
    assert Federation.of({"population.alpha": 0.3, "anomaly": {"onset": 2}}) == Federation(
        population=Population(alpha=0.3), anomaly=Anomaly(onset=2)
    )


def test_clients_data_are_dealt_once_for_all_methods_rates_and_onsets():
    """What does not change the samples does not deal them again."""
    base = replace(TINY, anomaly=Anomaly("inverted", clients=2))
    other = replace(base, method="fedprox", lr=0.5, rounds=9, anomaly=replace(base.anomaly, onset=4))
    assert other.client_data(0) is base.client_data(0)
    assert replace(base, seed=1).client_data(0) is not base.client_data(0)


def test_the_authors_small_cnn():
    """896 + 18,496 + 524,416 + 1,290 parameters; the probe layer is its last gate, of 128 units."""
    model = build("small_cnn", 10, 3)
    assert sum(p.numel() for p in model.parameters()) == 545_098
    images = torch.randn(2, 3, 32, 32)
    assert model(images).shape == (2, 10)
    assert Probe(model, images, layers=["8"]).patterns()["8"].shape == (2, 128)


def test_sizes_of_a_set_that_is_split_on_loading():
    small = replace(TINY, train_size=600, test_size=100)
    assert (len(small.data().train), len(small.data().validation)) == (600, 100)
    other = replace(small, seed=1)
    assert torch.equal(small.data().train.labels, other.data().train.labels)
    assert not torch.equal(small.data().validation.labels, other.data().validation.labels)
    assert sum(len(index) for index in small.holdings().indices) == 600


def test_images_of_another_set_are_drawn_by_the_seed(monkeypatch):
    """As the authors draw 3,000 of CIFAR-10; here 600 of digits under another name."""
    digits = data.load("digits", train_size=1437)
    monkeypatch.setattr(samples_module.data, "load", lambda name: replace(digits, name=name))
    drawn = replace(TINY, dataset="cifar10", train_size=600)
    expected = np.sort(np.random.default_rng(TINY.seed + 12345).choice(1437, 600, replace=False))
    assert torch.equal(drawn.data().train.labels, digits.train.labels[torch.from_numpy(expected)])
    assert not torch.equal(replace(drawn, seed=1).data().train.labels, drawn.data().train.labels)
    samples_module._loaded.cache_clear()


@pytest.fixture
def colour_images(monkeypatch):
    """CIFAR-10 in form: 200 training and 60 test images, 32 × 32, of noise."""
    generator = torch.Generator().manual_seed(0)

    def split(count):
        images = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return Images(images, torch.arange(count) % 10)

    third = (0.5,) * 3
    fake = Dataset("cifar10", tuple("0123456789"), split(200), split(60), third, third, "none")
    monkeypatch.setattr(samples_module.data, "load", lambda name: fake)
    samples_module._loaded.cache_clear()
    yield Federation(
        dataset="cifar10", train_size=160, test_size=40, model="small_cnn", augment="cifar", lr=0.01,
        epochs=1, rounds=1, clients=5, per_round=2, method="fedoui",
        population=Population(minimum=2, protocol="as_released"),
    )  # fmt: skip
    samples_module._loaded.cache_clear()


def test_the_papers_configuration_starts(colour_images):
    outcome = simulate(colour_images)
    assert outcome.faults == []
    assert [entry["round"] for entry in outcome.rounds] == [0, 1]
    assert all(0 < entry["oui"] < 1 for entry in outcome.contributions)


@pytest.mark.parametrize(("protocol", "moves"), [("as_described", False), ("as_released", True)])
def test_only_the_released_probe_is_read_through_the_augmentation(colour_images, protocol, moves):
    federation = replace(colour_images, population=Population(minimum=2, protocol=protocol))
    first, again, later = (client_module._probe(federation, 0, 1, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, later) != moves


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Population(protocol="as_printed"), ValueError, "as_described, as_released"),
        (lambda: Population(partition="shards"), ValueError, "pathological"),
        (lambda: Federation(per_round=21), ValueError, "1 to 20"),
        (lambda: Federation(rounds=0), ValueError, "rounds must be ≥ 1: got 0"),
        (lambda: TINY.client_data(6), ValueError, "0 to 5"),
        (lambda: federate(LocalGrid(client_app, 6), replace(TINY, method="fedsgd")), KeyError, "fedsgd"),
        (lambda: simulate(replace(TINY, model="perceptron")), KeyError, "perceptron"),
    ],
)
def test_bad_settings_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
