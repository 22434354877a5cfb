"""The strategies on a grid of tiny clients: what is averaged, who takes part, and what a fault does."""

from collections import Counter

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from hypothesis import given, settings
from hypothesis import strategies as st

from ouikit.fl.run.apps import identify
from ouikit.fl.run.grid import LocalGrid
from ouikit.fl.strategies import arrays
from ouikit.fl.strategies.mean import weighted_mean
from ouikit.fl.strategies.methods import METHODS
from ouikit.fl.strategies.paired import PairedFedAvg, participants
from ouikit.fl.strategies.replies import RoundFailedError
from ouikit.fl.strategies.weighted import FedOUI, GradientAlignment, PairedFedProx
from ouikit.fl.strategies.weights import (
    alignment_weights,
    fedoui_alignment_weights,
    fedoui_weights,
    size_weights,
)

SIZES = np.array([210, 226, 66, 40, 17, 30])
OUIS = np.array([0.126, 0.257, 0.310, 0.318, 0.372, 0.2])
STEPS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
START = {"w": np.arange(4, dtype=np.float32), "b": np.ones((2, 1), np.float32)}


def records(arrays):
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def client(faults=None):
    """A ClientApp whose client k adds STEPS[k] to `w`; `faults` maps clients to what they do instead."""
    app = ClientApp()
    app.query()(identify)

    @app.train()
    def train(message, context):
        k = int(context.node_config["partition-id"])
        arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
        arrays["w"] = arrays["w"] + STEPS[k]
        metrics = {"num-examples": int(SIZES[k]), "oui": float(OUIS[k])}
        if k in (faults or {}):
            faults[k](arrays, metrics)
        content = RecordDict({"arrays": records(arrays), "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=message)

    return app


def run(strategy, app=None, rounds=1, grid=None):
    grid = grid or LocalGrid(app or client(), 6)
    result = strategy.start(
        grid=grid, initial_arrays=records(START), num_rounds=rounds, train_config=ConfigRecord()
    )
    return {name: array.numpy() for name, array in result.arrays.items()}


def full(kind=PairedFedAvg, **options):
    return kind(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=6, **options)


def expected(weights, clients=range(6)):
    return START["w"] + np.asarray(weights) @ STEPS[list(clients)]


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        ("fedavg", size_weights(SIZES)),
        ("fedprox", size_weights(SIZES)),
        ("fedoui", fedoui_weights(OUIS, SIZES)),
        ("alignment", None),
        ("product", None),
    ],
)
def test_the_global_model_is_the_weighted_mean(method, weights):
    updates = np.concatenate([STEPS.astype(np.float64), np.zeros((6, 2))], axis=1)
    if method == "alignment":
        weights = alignment_weights(updates, SIZES)
    if method == "product":
        weights = fedoui_alignment_weights(OUIS, updates, SIZES)
    strategy = full(METHODS[method])
    arrays = run(strategy)
    assert arrays["w"] == pytest.approx(expected(weights), abs=1e-5)
    assert arrays["b"] == pytest.approx(START["b"])
    assert arrays["w"].dtype == np.float32
    assert [entry["weight"] for entry in strategy.contributions] == pytest.approx(weights, abs=1e-6)
    assert [entry["size_weight"] for entry in strategy.contributions] == pytest.approx(size_weights(SIZES))
    norms = [entry["update_norm"] for entry in strategy.contributions]
    assert norms == pytest.approx(np.linalg.norm(STEPS, axis=1), rel=1e-5)
    assert strategy.faults == []


def test_the_shuffled_control_has_the_same_factors_for_other_clients():
    def factors(seed, server_round):
        strategy = full(METHODS["shuffled"], seed=seed)
        run(strategy, rounds=server_round)
        entries = [e for e in strategy.contributions if e["round"] == server_round]
        return np.array([e["weight"] / e["size_weight"] for e in entries])

    own = fedoui_weights(OUIS, SIZES) / size_weights(SIZES)
    mine = factors(3, 1)
    assert sorted(mine / mine.max()) == pytest.approx(sorted(own / own.max()), rel=1e-4)
    assert mine / mine.max() != pytest.approx(own / own.max(), rel=1e-4)
    assert factors(3, 1) == pytest.approx(mine)
    assert factors(3, 2) != pytest.approx(mine)


def test_proximal_mu_travels_in_the_configuration():
    seen = []
    app = client()
    inner = app._registered_funcs["train.default"]

    def spy(message, context):
        seen.append(dict(message.content["config"]))
        return inner(message, context)

    app._registered_funcs["train.default"] = spy
    run(full(PairedFedProx, proximal_mu=0.25), app)
    assert all(config["proximal-mu"] == 0.25 for config in seen)
    assert all(config["server-round"] == 1 for config in seen)
    with pytest.raises(ValueError, match="proximal_mu"):
        PairedFedProx(proximal_mu=-1.0)


def partial(kind=PairedFedAvg, **options):
    return kind(
        fraction_train=0.5, fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=6, **options
    )


def test_participants_are_the_same_for_every_method_and_others_for_another_seed():
    def drawn(kind, seed):
        strategy = partial(kind, seed=seed)
        run(strategy, rounds=6)
        return [(entry["round"], entry["client"]) for entry in strategy.contributions]

    assert drawn(PairedFedAvg, 1) == drawn(FedOUI, 1) == drawn(GradientAlignment, 1)
    assert drawn(PairedFedAvg, 1) != drawn(PairedFedAvg, 2)
    assert len(drawn(PairedFedAvg, 1)) == 6 * 3
    assert len({tuple(c for r, c in drawn(PairedFedAvg, 1) if r == k) for k in range(1, 7)}) > 1


def test_participants_are_the_draws_of_one_generator_one_after_the_other():
    rng = np.random.default_rng(5)
    for server_round in (1, 2, 3):
        chosen = sorted(rng.choice(20, 5, replace=False).tolist())
        assert participants(5, server_round, list(range(20)), 5) == chosen
    with pytest.raises(ValueError, match="7 participants"):
        participants(0, 1, list(range(6)), 7)


class Scrambled(LocalGrid):
    """Node ids that say nothing about partitions, and replies in an order of their own."""

    def __init__(self, app, clients):
        super().__init__(app, clients)
        ids, contexts = [11, 5, 90, 3, 42, 8], reversed(self.contexts.values())
        self.contexts = dict(zip(ids, contexts, strict=True))
        self.calls = 0

    def send_and_receive(self, messages, *, timeout=None):
        self.calls += 1
        answers = list(super().send_and_receive(messages, timeout=timeout))
        return answers[self.calls % 3 :] + answers[: self.calls % 3]


@pytest.mark.parametrize("method", ["fedavg", "fedprox", "alignment", "fedoui", "product", "shuffled"])
def test_neither_node_ids_nor_the_order_of_arrival_change_a_bit(method):
    plain = run(partial(METHODS[method]), rounds=4)
    scrambled = run(partial(METHODS[method]), rounds=4, grid=Scrambled(client(), 6))
    assert all(np.array_equal(plain[name], scrambled[name]) for name in plain)


def raising(arrays, metrics):
    raise RuntimeError("out of memory")


FAULTS = {
    "raises": (raising, "error: RuntimeError: out of memory"),
    "nan": (lambda a, m: a["w"].__setitem__(0, np.nan), "not finite"),
    "infinite": (lambda a, m: a["w"].__setitem__(0, np.inf), "not finite"),
    "shape": (lambda a, m: a.update(w=np.zeros(5, np.float32)), "shapes"),
    "broadcastable shape": (lambda a, m: a.update(b=np.ones((1, 1), np.float32)), "shapes"),
    "type": (lambda a, m: a.update(w=a["w"].astype(np.float64)), "types"),
    "missing array": (lambda a, m: a.pop("b"), "names"),
    "another array": (lambda a, m: a.update(c=np.zeros(1, np.float32)), "names"),
    "no size": (lambda a, m: m.pop("num-examples"), "num-examples"),
    "negative size": (lambda a, m: m.update({"num-examples": -3}), "num-examples"),
    "infinite size": (lambda a, m: m.update({"num-examples": float("inf")}), "num-examples"),
    "no oui": (lambda a, m: m.pop("oui"), "oui"),
    "oui not a number": (lambda a, m: m.update(oui=float("nan")), "oui"),
    "oui out of range": (lambda a, m: m.update(oui=1.5), "oui"),
    "size beyond a float": (lambda a, m: m.update({"num-examples": 10**400}), "num-examples"),
    "another metric": (
        lambda a, m: m.update(extra=1.0),
        "sent metrics: extra, num-examples, oui; most others",
    ),
    "metric not finite": (lambda a, m: m.update(extra=float("nan")), "'extra' is not finite: nan"),
    "a list not finite": (lambda a, m: m.update(extra=[1.0, float("inf")]), "'extra' is not finite: inf"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_client_is_left_out_and_noted(fault):
    misbehave, reason = FAULTS[fault]
    strategy = full(FedOUI)
    arrays = run(strategy, client({2: misbehave}))
    others = [0, 1, 3, 4, 5]
    assert arrays["w"] == pytest.approx(
        expected(fedoui_weights(OUIS[others], SIZES[others]), others), abs=1e-5
    )
    assert [(f["round"], f["client"]) for f in strategy.faults] == [(1, 2)]
    assert reason in strategy.faults[0]["reason"]
    assert [entry["client"] for entry in strategy.contributions] == others


@pytest.mark.parametrize("fault", ["raises", "nan", "shape"])
def test_where_every_client_fails_the_run_fails_loudly(fault):
    misbehave, reason = FAULTS[fault]
    strategy = full()
    with pytest.raises(RoundFailedError, match=rf"round 1: 0 usable replies of 6, 1 needed .*{reason[:8]}"):
        run(strategy, client(dict.fromkeys(range(6), misbehave)))
    assert len(strategy.faults) == 6
    assert strategy.contributions == []


def test_min_replies_makes_one_fault_fatal():
    with pytest.raises(RoundFailedError, match="5 usable replies of 6, 6 needed"):
        run(full(min_replies=6), client({4: raising}))
    with pytest.raises(ValueError, match="min_replies"):
        PairedFedAvg(min_replies=0)


def test_integer_counters_stay_integers_round_after_round():
    """As batch normalisation has them; Flower alone returns float64, which the next round would refuse."""
    app, seen = ClientApp(), []
    app.query()(identify)

    @app.train()
    def train(message, context):
        arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
        seen.append(arrays["batches"].dtype)
        k = int(context.node_config["partition-id"])
        arrays["batches"] = np.asarray(arrays["batches"] + 10 + 2 * k)
        metrics = MetricRecord({"num-examples": 1, "oui": float(OUIS[k])})
        return Message(RecordDict({"arrays": records(arrays), "metrics": metrics}), reply_to=message)

    strategy = full()
    start = records({**START, "batches": np.asarray(7)})
    result = strategy.start(grid=LocalGrid(app, 6), initial_arrays=start, num_rounds=3)
    assert strategy.faults == []
    assert set(seen) == {np.dtype(np.int64)}
    assert result.arrays["batches"].numpy() == 7 + 3 * 15  # the mean of 10, 12, …, 20
    assert result.arrays["batches"].numpy().shape == ()


class Lossy(LocalGrid):
    """Some nodes never answer a training message."""

    silent = (2, 5)

    def pull_messages(self, message_ids):
        answers = super().pull_messages(message_ids)
        return [
            a
            for a in answers
            if a.metadata.message_type != "train" or a.metadata.src_node_id not in self.silent
        ]


def test_a_client_that_never_answers_is_left_out_and_noted():
    strategy = full()
    arrays = run(strategy, grid=Lossy(client(), 6))
    assert arrays["w"] == pytest.approx(expected(size_weights(SIZES[[0, 2, 3, 5]]), [0, 2, 3, 5]), abs=1e-5)
    assert [(f["client"], f["reason"]) for f in strategy.faults] == [(1, "no answer"), (4, "no answer")]


def test_flower_alone_lets_one_client_poison_the_model():
    """Why the guard exists: if Flower learns to refuse NaN, it can go."""
    from flwr.serverapp.strategy import FedAvg

    plain = FedAvg(fraction_evaluate=0.0, min_available_nodes=6)
    assert np.isnan(run(plain, client({2: FAULTS["nan"][0]}))["w"]).any()


def test_the_global_model_of_before_survives_a_failed_round():
    """The third round fails; the strategy still holds the model that it sent out, and that one is finite."""
    rounds = []

    def later(arrays, metrics):
        rounds.append(1)
        if len(rounds) > 12:
            arrays["w"][:] = np.nan

    strategy = full()
    with pytest.raises(RoundFailedError, match="round 3"):
        run(strategy, client(dict.fromkeys(range(6), later)), rounds=5)
    assert all(np.isfinite(array).all() for array in strategy.global_arrays.values())
    assert {entry["round"] for entry in strategy.contributions} == {1, 2}


def test_a_node_that_does_not_say_its_partition_is_an_error():
    app = client()
    app._registered_funcs.pop("query.default")
    with pytest.raises(RuntimeError, match=r"register ouikit\.fl\.identify"):
        run(full(), app)


def test_two_nodes_with_one_partition_are_an_error():
    grid = LocalGrid(client(), 6)
    grid.contexts[2].node_config["partition-id"] = 0
    with pytest.raises(RuntimeError, match="same partition"):
        run(full(), grid=grid)


def test_evaluation_by_the_clients_is_weighted_by_their_sizes():
    app = client()

    @app.evaluate()
    def judge(message, context):
        k = int(context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": int(SIZES[k]), "accuracy": float(k)})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    strategy = FedOUI(fraction_train=1.0, min_available_nodes=6)
    result = strategy.start(grid=LocalGrid(app, 6), initial_arrays=records(START), num_rounds=1)
    metrics = result.evaluate_metrics_clientapp[1]["accuracy"]
    assert metrics == pytest.approx(size_weights(SIZES) @ np.arange(6))


@given(
    clients=st.integers(1, 5),
    kind=st.sampled_from([np.float16, np.float32, np.float64, np.int64]),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=30)
def test_the_mean_has_the_bits_of_flowers_own(clients, kind, seed):
    rng = np.random.default_rng(seed)
    shapes = {"w": (3, 4), "b": (5,), "scalar": ()}
    models = [
        {name: np.asarray(rng.normal(0, 100, shape)).astype(kind) for name, shape in shapes.items()}
        for _ in range(clients)
    ]
    weights = [float(weight) for weight in size_weights(rng.integers(1, 500, clients))]
    contents = [
        RecordDict({"arrays": records(model), "metrics": MetricRecord({"weight": weight})})
        for model, weight in zip(models, weights, strict=True)
    ]
    theirs = {name: array.numpy() for name, array in aggregate_arrayrecords(contents, "weight").items()}
    ours = weighted_mean(models, weights)
    for name, array in ours.items():
        assert array.dtype == kind
        expected = np.rint(theirs[name]).astype(kind) if kind is np.int64 else theirs[name]
        assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("method", ["fedavg", "product"])
def test_a_reply_is_decoded_once(method, monkeypatch):
    decoded = Counter()
    plain = arrays._decoded

    def count(array):
        decoded[id(array)] += 1
        kept.append(array)  # so that no id is given twice
        return plain(array)

    class Watched(LocalGrid):
        """Counts only on the server's side."""

        def send_and_receive(self, messages, *, timeout=None):
            monkeypatch.setattr(arrays, "_decoded", plain)
            answers = list(super().send_and_receive(messages, timeout=timeout))
            monkeypatch.setattr(arrays, "_decoded", count)
            return answers

    kept = []
    strategy = full(METHODS[method])
    strategy.start(grid=Watched(client(), 6), initial_arrays=records(START), num_rounds=1)
    assert len(decoded) == (6 + 1) * len(START)  # six replies and the global model
    assert set(decoded.values()) == {1}
