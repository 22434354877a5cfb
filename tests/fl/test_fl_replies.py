"""One poor reply, node or type is a fault, not the end: in training, in evaluation, under every strategy."""

import math

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_fl_strategies import OUIS, SIZES, START, STEPS, client, expected, full, records, run
from torch import nn

from ouikit.fl.run.apps import identify
from ouikit.fl.run.grid import LocalGrid
from ouikit.fl.strategies.mean import TYPES, weighted_mean
from ouikit.fl.strategies.methods import METHODS
from ouikit.fl.strategies.monitor import AtypicalClientMonitor
from ouikit.fl.strategies.paired import PairedFedAvg
from ouikit.fl.strategies.replies import RoundFailedError
from ouikit.fl.strategies.weighted import FedOUI, FedOUIAlignment, GradientAlignment
from ouikit.fl.strategies.weights import size_weights

# Types


def federated(start, rounds=2, edit=lambda k, arrays: None, **options):
    """The final arrays and the strategy; client k adds STEPS[k] to `w`, then `edit` changes its arrays."""
    app = ClientApp()
    app.query()(identify)

    @app.train()
    def train(message, context):
        k = int(context.node_config["partition-id"])
        arrays = {name: array.numpy().copy() for name, array in message.content["arrays"].items()}
        if "w" in arrays:
            arrays["w"] += STEPS[k]
        edit(k, arrays)
        metrics = MetricRecord({"num-examples": int(SIZES[k]), "oui": float(OUIS[k])})
        return Message(RecordDict({"arrays": records(arrays), "metrics": metrics}), reply_to=message)

    strategy = full(**options)
    result = strategy.start(
        grid=LocalGrid(app, 6), initial_arrays=records(start), num_rounds=rounds, train_config=ConfigRecord()
    )
    return {name: array.numpy() for name, array in result.arrays.items()}, strategy


KEPT = {
    "mask": np.array([True, False, True]),
    "positions": np.array([2**62 + 1, -7]),  # no float has them
    "largest": np.array([2**64 - 1, 0], np.uint64),
    "small": np.array([127, -128], np.int8),
    "causal": np.array([0.0, -np.inf], np.float32),
    "flag": np.asarray(True),
}


@pytest.mark.parametrize("method", [PairedFedAvg, FedOUI, FedOUIAlignment])
def test_masks_and_counters_keep_type_and_value_round_after_round(method):
    arrays, strategy = federated({**START, **KEPT}, rounds=3, kind=method)
    assert strategy.faults == []
    for name, array in KEPT.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert arrays[name].tolist() == array.tolist()
    assert all(math.isfinite(entry["update_norm"]) for entry in strategy.contributions)


def test_where_masks_differ_the_weights_vote():
    """Clients 0 and 1 hold 436 of 589 samples: the second flag is set by them, the third by the others."""

    def edit(k, arrays):
        arrays["mask"] = np.array([True, k < 2, k >= 2])

    arrays, _ = federated({"mask": np.zeros(3, bool)}, rounds=1, edit=edit)
    assert arrays["mask"].tolist() == [True, True, False]


def test_complex_weights_are_averaged_and_watched():
    def edit(k, arrays):
        arrays["z"] += 1j * k
        arrays["z"][0] = complex(0, math.nan) if k == 3 else arrays["z"][0]

    arrays, strategy = federated({"z": np.ones(2, np.complex64)}, rounds=1, edit=edit, kind=GradientAlignment)
    assert arrays["z"].dtype == np.complex64
    assert arrays["z"].real == pytest.approx([1, 1])
    assert [entry["update_norm"] for entry in strategy.contributions] == pytest.approx(
        [k * math.sqrt(2) for k in (0, 1, 2, 4, 5)]
    )
    assert [fault["client"] for fault in strategy.faults] == [3]


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_client_that_changes_an_infinite_mask_is_left_out(value):
    def edit(k, arrays):
        if k == 2:
            arrays["causal"] = np.full(2, value, np.float32)

    arrays, strategy = federated({**START, "causal": KEPT["causal"]}, rounds=1, edit=edit)
    assert arrays["causal"].tolist() == [0.0, -math.inf]
    assert [fault["client"] for fault in strategy.faults] == [2]


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_integers_and_booleans_stay_between_the_clients_and_are_theirs_where_they_agree(data):
    kind = np.dtype(data.draw(st.sampled_from(sorted(t for t in TYPES if np.dtype(t).kind in "biu"))))
    models = data.draw(st.lists(hnp.arrays(kind, 4), min_size=1, max_size=4))
    weights = data.draw(st.lists(st.floats(0.01, 1.0), min_size=len(models), max_size=len(models)))
    mean = weighted_mean([{"n": model} for model in models], weights)["n"]
    assert mean.dtype == kind
    slack = 0 if kind.itemsize < 8 else 2**12  # the mean of 64-bit integers is one of floats
    for column, value in zip(np.stack(models).T.tolist(), mean.tolist(), strict=True):
        assert min(column) - slack <= value <= max(column) + slack
        if len(set(column)) == 1:
            assert value == column[0]


def test_a_model_of_weight_zero_has_no_part():
    models = [{"w": np.array([-np.inf, 1.0])}, {"w": np.array([-np.inf, 3.0])}]
    assert weighted_mean(models, [0.0, 0.5])["w"].tolist() == [-np.inf, 3.0]


REFUSED = {
    "bfloat16": Array("bfloat16", (2,), "numpy.ndarray", b""),
    "text": Array(np.array(["a"])),
    "of the other byte order": Array(np.zeros(2, ">f4")),
    "extended": Array(np.zeros(2, np.longdouble)),
    "of another framework": Array("float32", (2,), "tensor", b""),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_array_that_has_no_mean_is_refused_by_name_before_anything_is_sent(kind):
    grid = LocalGrid(client(), 6)
    arrays = records(START)
    arrays["scale"] = REFUSED[kind]
    with pytest.raises(TypeError, match=rf"'scale' \({REFUSED[kind].dtype}, .*bfloat16 as float32"):
        full().start(grid=grid, initial_arrays=arrays, num_rounds=1)
    assert grid._sent == 0


def test_a_global_model_with_nan_is_refused_by_name_before_it_is_sent():
    grid = LocalGrid(client(), 6)
    arrays = records({**START, "b": np.array([1.0, np.nan])})
    with pytest.raises(ValueError, match="the global model holds NaN in 'b'"):
        full().start(grid=grid, initial_arrays=arrays, num_rounds=1)
    assert grid._sent == 6  # the nodes were asked for their partitions


# Replies to training


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))


def poor(metrics=None, arrays=None):
    """An answer of client 2, made from a sound one."""

    def answer(message):
        metric = {"num-examples": 10, "oui": 0.3, **(metrics or {})}
        record = message.content["arrays"] if arrays is None else arrays(message.content["arrays"])
        return Message(RecordDict({"arrays": record, "metrics": MetricRecord(metric)}), reply_to=message)

    return answer


def with_file(data):
    def changed(record):
        record = ArrayRecord(dict(record))
        whole = record["0.weight"]
        record["0.weight"] = Array(whole.dtype, whole.shape, whole.stype, data(whole.data))
        return record

    return changed


POOR = {
    "a file that is cut": (poor(arrays=with_file(lambda data: data[:-1])), "cannot be read: ValueError"),
    "a file of another kind": (poor(arrays=with_file(lambda data: b"PK\3\4")), "cannot be read"),
    "another metric": (
        poor({"extra": 1.0}),
        "sent metrics: extra, num-examples, oui; most others metrics: num",
    ),
    "no record": (lambda message: Message(RecordDict(), reply_to=message), "not exactly one MetricRecord: 0"),
    "no model": (
        lambda message: Message(
            RecordDict({"m": MetricRecord({"num-examples": 1, "oui": 0.5})}), reply_to=message
        ),
        "not exactly one ArrayRecord: 0",
    ),
    "no message": (
        lambda message: None,
        "error: TypeError: a ClientApp answers with a Message, not NoneType",
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_under_every_strategy_a_poor_reply_is_a_fault_and_the_others_count(method):
    app, kind, special = ClientApp(), METHODS[method], {}
    app.query()(identify)

    @app.train()
    def train(message, context):
        k = int(context.node_config["partition-id"])
        return answer(message) if k == 2 else poor({"oui": 0.1 + 0.1 * k})(message)

    if issubclass(kind, AtypicalClientMonitor):
        special = {"network": network, "probe": torch.ones(2, 4), "risk_aware": method == "risk_aware"}
    for name, (answer, reason) in POOR.items():  # noqa: B007 (`train` uses it)
        strategy = full(kind, **special)
        strategy.start(
            grid=LocalGrid(app, 6), initial_arrays=ArrayRecord(network().state_dict()), num_rounds=1
        )
        assert [fault["client"] for fault in strategy.faults] == [2], name
        assert reason in strategy.faults[0]["reason"], name
        assert [entry["client"] for entry in strategy.contributions] == [0, 1, 3, 4, 5]


def test_of_two_forms_of_metrics_as_frequent_the_first_clients_counts():
    strategy = full()
    run(strategy, client(dict.fromkeys((1, 3, 5), lambda a, m: m.update(extra=1.0))))
    assert [entry["client"] for entry in strategy.contributions] == [0, 2, 4]
    assert [fault["client"] for fault in strategy.faults] == [1, 3, 5]


def test_a_metric_with_the_name_of_ours_does_not_replace_it():
    strategy = full()
    own = {"weight": 7.0, "client": 99.0, "round": 99.0, "size_weight": 9.0, "update_norm": 9.0}
    arrays = run(strategy, client(dict.fromkeys(range(6), lambda a, m: m.update(own))))
    assert arrays["w"] == pytest.approx(expected(size_weights(SIZES)), abs=1e-5)
    assert [entry["client"] for entry in strategy.contributions] == list(range(6))
    assert [entry["weight"] for entry in strategy.contributions] == pytest.approx(size_weights(SIZES))


def test_updates_too_long_for_a_float_are_left_out():
    def far(k, arrays):
        if k == 4:
            arrays["far"][:] = 1e200

    _, strategy = federated({"far": np.zeros(3)}, rounds=1, edit=far, kind=GradientAlignment)
    assert [fault["client"] for fault in strategy.faults] == [4]
    assert sum(entry["weight"] for entry in strategy.contributions) == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (FedOUI, {"epsilon": 0.0}),
        (FedOUI, {"gamma": -1.0}),
        (GradientAlignment, {"eta": math.nan}),
        (FedOUIAlignment, {"eta": -1.0}),
    ],
)
def test_wrong_values_are_refused_before_anybody_trains(kind, wrong):
    with pytest.raises(ValueError, match="epsilon must be"):
        full(kind, **wrong)


# Replies to evaluation


def evaluated(edit, rounds=1, clients=6, **options):
    """The metrics of the evaluation, and the strategy; client k has accuracy k, and `edit` changes that."""
    app = client()

    @app.evaluate()
    def judge(message, context):
        k = int(context.node_config["partition-id"])
        metrics = edit(k, {"num-examples": int(SIZES[k]), "accuracy": float(k)})
        content = {} if metrics is None else {"metrics": MetricRecord(metrics)}
        return Message(RecordDict(content), reply_to=message)

    strategy = PairedFedAvg(min_available_nodes=clients, **options)
    result = strategy.start(grid=LocalGrid(app, clients), initial_arrays=records(START), num_rounds=rounds)
    return result.evaluate_metrics_clientapp, strategy


def raises(k, metrics):
    raise MemoryError("no room")


POOR_METRICS = {
    "no size": (lambda m: {"accuracy": m["accuracy"]}, "'num-examples' is not in [0, 9.01e+15]: None"),
    "no metrics": (lambda m: None, "not exactly one MetricRecord: 0"),
    "a size of nan": (lambda m: m | {"num-examples": math.nan}, "'num-examples' is not in"),
    "an accuracy of nan": (lambda m: m | {"accuracy": math.nan}, "'accuracy' is not finite: nan"),
    "no accuracy": (lambda m: {"num-examples": 5}, "sent metrics: num-examples; most others metrics: acc"),
    "a list": (
        lambda m: m | {"accuracy": [0.5, 0.5]},
        "sent metrics: accuracy[2], num-examples; most others",
    ),
    "an error": (lambda m: raises(0, m), "error: MemoryError: no room"),
}


@pytest.mark.parametrize("fault", POOR_METRICS)
def test_a_poor_evaluation_is_a_fault_and_the_others_count(fault):
    change, reason = POOR_METRICS[fault]
    metrics, strategy = evaluated(lambda k, metrics: change(metrics) if k == 1 else metrics)
    others = [0, 2, 3, 4, 5]
    assert metrics[1]["accuracy"] == pytest.approx(size_weights(SIZES[others]) @ others)
    assert [(f["round"], f["client"]) for f in strategy.faults] == [(1, 1)]
    assert strategy.faults[0]["reason"].startswith("evaluation: ")
    assert reason in strategy.faults[0]["reason"]


def test_without_samples_or_without_a_usable_reply_there_are_no_metrics():
    metrics, strategy = evaluated(lambda k, metrics: metrics | {"num-examples": 0})
    assert (dict(metrics), strategy.faults) == ({}, [])
    metrics, strategy = evaluated(raises, rounds=2)
    assert (dict(metrics), len(strategy.faults)) == ({}, 12)


def test_a_client_without_samples_has_no_part_in_the_evaluation():
    metrics, _ = evaluated(lambda k, m: m | {"num-examples": 0 if k else 3})
    assert metrics[1]["accuracy"] == 0.0


def test_those_who_evaluate_are_drawn_by_the_seed():
    def drawn(seed):
        metrics, _ = evaluated(lambda k, m: m, rounds=4, seed=seed, fraction_evaluate=0.5)
        return [metrics[r]["accuracy"] for r in range(1, 5)]

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(set(drawn(0))) > 1


# Nodes


class Restarted(LocalGrid):
    """Node 2 (client 1) comes back as node 77 after the first training; its former id stays on the list."""

    gone, back = 2, 77

    def __init__(self, app, clients, at=1):
        super().__init__(app, clients)
        self.trainings, self.at = 0, at

    def get_node_ids(self):
        here = self.contexts if self.trainings < self.at else [*self.contexts, self.gone]
        return list(here)

    def send_and_receive(self, messages, *, timeout=None):
        sent = [message for message in messages if message.metadata.dst_node_id in self.contexts]
        answers = super().send_and_receive(sent, timeout=timeout)
        if sent and sent[0].metadata.message_type == "train":
            self.trainings += 1
            if self.trainings == self.at:
                context = self.contexts.pop(self.gone)
                context.state.clear()
                self.contexts[self.back] = context
        return answers


@pytest.mark.parametrize("method", ["fedavg", "product", "fedsq"])
def test_a_node_that_comes_back_under_another_id_keeps_its_partition_and_the_bits(method):
    plain = run(full(METHODS[method]), rounds=3)
    strategy = full(METHODS[method])
    arrays = run(strategy, rounds=3, grid=Restarted(client(), 6))
    assert all(np.array_equal(plain[name], arrays[name]) for name in plain)
    (fault,) = strategy.faults
    assert (fault["round"], fault["client"]) == (2, 1)
    assert fault["reason"] == "node 2 is left out: node 77, which came later, holds its partition"


def test_a_structure_is_sent_to_a_node_that_came_back():
    """A FedSQ client that has lost its state would fail without."""
    had = []
    app = client()
    inner = app._registered_funcs["train.default"]

    def spy(message, context):
        had.append((context.node_id, "structure" in message.content))
        return inner(message, context)

    app._registered_funcs["train.default"] = spy
    run(full(METHODS["fedsq"]), rounds=2, grid=Restarted(app, 6))
    again = had[6:]
    assert len(again) == 6
    assert sum(brought for _, brought in again) == 1


class WithGhost(LocalGrid):
    """One id more, 999, that never answers."""

    def get_node_ids(self):
        return [999, *super().get_node_ids()]

    def send_and_receive(self, messages, *, timeout=None):
        sent = [message for message in messages if message.metadata.dst_node_id != 999]
        return super().send_and_receive(sent, timeout=timeout)


def test_a_node_that_never_answers_is_left_out_and_noted_once():
    strategy = full(patience=0.1)
    arrays = run(strategy, grid=WithGhost(client(), 6), rounds=3)
    assert all(np.array_equal(run(full(), rounds=3)[name], arrays[name]) for name in arrays)
    reason = "node 999 does not say its partition: no answer"
    assert strategy.faults == [{"round": 1, "client": None, "reason": reason}]


def test_a_node_that_comes_in_time_is_waited_for():
    class Late(WithGhost):
        """The sixth node is there from the second look on."""

        looks = 0

        def get_node_ids(self):
            self.looks += 1
            return [node for node in super().get_node_ids() if node != 6 or self.looks > 1]

    strategy = full(patience=0.05)
    run(strategy, grid=Late(client(), 6))
    assert [entry["client"] for entry in strategy.contributions] == list(range(6))
    assert [fault["client"] for fault in strategy.faults] == [None]


@pytest.mark.parametrize("partition", [-1, 0.5, math.nan, math.inf, [0], None])
def test_a_node_that_says_no_partition_is_left_out_and_noted(partition):
    app = ClientApp()

    @app.query()
    def odd(message, context):
        held = partition if context.node_id == 3 else context.node_config["partition-id"]
        metrics = MetricRecord({} if held is None else {"partition-id": held})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    app._registered_funcs["train.default"] = client()._registered_funcs["train.default"]
    strategy = PairedFedAvg(fraction_evaluate=0.0, min_available_nodes=5, patience=0.0)
    run(strategy, app)
    assert [entry["client"] for entry in strategy.contributions] == [0, 1, 3, 4, 5]
    assert [fault["reason"] for fault in strategy.faults] == [
        f"node 3 does not say its partition: partition-id is {partition}; register ouikit.fl.identify as the "
        "query function of its ClientApp"
    ]
    with pytest.raises(RoundFailedError, match="round 1: 5 nodes are there, 6 needed; node 3 does not say"):
        run(full(), app)  # at once


def test_a_node_that_was_started_twice_is_left_out_where_enough_others_are_there():
    grid = LocalGrid(client(), 6)
    grid.contexts[2].node_config["partition-id"] = 0
    strategy = PairedFedAvg(fraction_evaluate=0.0, min_available_nodes=5)
    run(strategy, grid=grid)
    assert [entry["client"] for entry in strategy.contributions] == [0, 2, 3, 4, 5]
    (fault,) = strategy.faults
    assert (fault["client"], fault["reason"][:45]) == (0, "nodes 1 and 2 hold the same partition: give e")


def test_too_few_nodes_for_an_evaluation_are_noted_and_training_goes_on():
    class Leaving(LocalGrid):
        def send_and_receive(self, messages, *, timeout=None):
            answers = super().send_and_receive(messages, timeout=timeout)
            if any(message.metadata.message_type == "train" for message in messages):
                self.contexts.pop(6, None)
            return answers

    strategy = PairedFedAvg(min_available_nodes=5, min_train_nodes=5, min_evaluate_nodes=6, patience=0.0)
    run(strategy, grid=Leaving(client(), 6), rounds=2)
    assert {entry["round"] for entry in strategy.contributions} == {1, 2}
    assert [fault["reason"] for fault in strategy.faults] == [
        f"evaluation: round {r}: 5 nodes are there, 6 needed" for r in (1, 2)
    ]
