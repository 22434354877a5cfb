"""FedSQ on Flower: what travels, what is averaged, what a node that lost its structure does; the source."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ouikit import data
from ouikit.data.dataset import fingerprint
from ouikit.fl.read.averaging import averaging_gap
from ouikit.fl.read.readings import pace, paced_rows, rounds_to
from ouikit.fl.run.apps import client_app, identify
from ouikit.fl.run.client import dual_network, local_update
from ouikit.fl.run.first_round import first_round_gap
from ouikit.fl.run.grid import LocalGrid, quiet
from ouikit.fl.run.judge import Judge
from ouikit.fl.run.rounds import federate
from ouikit.fl.run.simulate import simulate
from ouikit.fl.setting import federation as federation_module
from ouikit.fl.setting.federation import Federation
from ouikit.fl.setting.gates import FrozenGates
from ouikit.fl.setting.population import Population
from ouikit.fl.setting.source import Source, fresh_head, pretrained, set_aside
from ouikit.fl.strategies.fedsq import FedSQ, StructureMissingError, structure_of
from ouikit.fl.strategies.paired import PairedFedAvg
from ouikit.fl.strategies.replies import RoundFailedError
from ouikit.nn import models
from ouikit.train import evaluate

TINY = Federation(
    method="fedsq", rounds=2, clients=4, per_round=4, lr=0.02,
    population=Population("dirichlet", alpha=0.3), source=Source("rotated", epochs=3),
)  # fmt: skip
CNN = replace(TINY, model="residual_cnn", epochs=1, source=Source("rotated", epochs=1), train_size=900)
FULL_BATCH = {"batch_size": 10**6, "epochs": 1, "rounds": 1}


pytestmark = pytest.mark.usefixtures("one_thread")


class CountingGrid(LocalGrid):
    """Notes what each training message carries: (records, bytes of arrays) per node."""

    def __init__(self, app, clients):
        super().__init__(app, clients)
        self.sent = []

    def push_messages(self, messages):
        messages = list(messages)
        for message in messages:
            if message.metadata.message_type == MessageType.TRAIN:
                records = message.content.array_records
                size = sum(array.numpy().nbytes for record in records.values() for array in record.values())
                self.sent.append((message.metadata.dst_node_id, sorted(records), size))
        return super().push_messages(messages)


def test_one_full_batch_step_is_fedavg_to_the_bit_and_drift_parts_them():
    def ends(**steps):
        return [simulate(replace(TINY, method=m, **steps)).checksum() for m in ("fedavg", "fedsq")]

    first = ends(**FULL_BATCH)
    assert first[0] == first[1]
    second = ends(**{**FULL_BATCH, "rounds": 2})  # the same first step, then gates that have moved
    assert second[0] != second[1]
    third = ends(**{**FULL_BATCH, "epochs": 2})
    assert third[0] != third[1]


def test_gates_of_the_global_model_stay_and_those_of_fedavg_do_not():
    frozen, plain = simulate(TINY), simulate(replace(TINY, method="fedavg"))
    assert [entry["flips"] for entry in frozen.rounds] == [0.0, 0.0, 0.0]
    assert frozen.rounds[-1]["disagreement"] > 0.01
    assert plain.rounds[0] == frozen.rounds[0]
    assert plain.rounds[-1]["flips"] == plain.rounds[-1]["disagreement"] > 0.01
    assert plain.rounds[-1]["accuracy"] > plain.rounds[0]["accuracy"]


def test_the_structure_travels_once_to_each_node_and_then_a_round_costs_what_fedavg_costs():
    grids = {}
    for method in ("fedavg", "fedsq"):
        grids[method] = CountingGrid(client_app, 4)
        with quiet():
            federate(grids[method], replace(TINY, method=method, epochs=1, rounds=3))
    both, one = ["arrays", "structure"], ["arrays"]
    carried = [records for _, records, _ in grids["fedsq"].sent]
    assert carried == [both] * 4 + [one] * 8
    sizes = {name: [size for *_, size in grid.sent] for name, grid in grids.items()}
    assert sizes["fedsq"][4:] == sizes["fedavg"][4:]
    assert sizes["fedsq"][0] == 2 * sizes["fedavg"][0]


def test_a_node_that_lost_its_structure_says_so_sits_out_a_round_and_gets_it_again():
    app = ClientApp()
    app.query()(identify)
    asked = Counter()

    @app.train()
    def train(message, context):
        node = int(context.node_config["partition-id"])
        asked[node] += 1
        if node == 2 and asked[node] == 2:
            context.state.clear()  # a restart on another disk
        assert structure_of(message, context) is not None
        content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=message)

    grid = CountingGrid(app, 4)
    strategy = FedSQ(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=4)
    start = ArrayRecord({"w": torch.arange(3.0)})
    with quiet():
        strategy.start(grid=grid, initial_arrays=start, num_rounds=4, train_config=ConfigRecord())
    (fault,) = strategy.faults
    assert (fault["round"], fault["client"]) == (2, 2)
    assert "StructureMissingError: this node has lost its structural copy" in fault["reason"]
    carried = [node for node, records, _ in grid.sent if "structure" in records]
    assert carried == [1, 2, 3, 4, 3]
    assert [entry["round"] for entry in strategy.contributions if entry["client"] == 2] == [1, 3, 4]


def asked_to_train(records, frozen=True):
    config = ConfigRecord({"frozen-gates": True} if frozen else {})
    return Message(RecordDict({**records, "config": config}), 1, MessageType.TRAIN)


def test_a_node_keeps_the_structure_it_was_sent():
    LocalGrid(client_app, 1)  # lets messages be made
    context = Context(1, 1, {}, RecordDict(), {})
    arrays = ArrayRecord({"w": torch.ones(2)})
    assert structure_of(asked_to_train({"arrays": arrays}, frozen=False), context) is None
    with pytest.raises(StructureMissingError):
        structure_of(asked_to_train({"arrays": arrays}), context)
    sent = ArrayRecord({"w": torch.tensor([3.0, -0.5])})
    for message in (
        asked_to_train({"arrays": arrays, "structure": sent}),
        asked_to_train({"arrays": arrays}),
    ):
        assert torch.equal(structure_of(message, context)["w"], torch.tensor([3.0, -0.5]))


def test_a_server_that_goes_on_names_the_structure_and_the_bits_are_those_of_the_whole_run():
    whole, half = simulate(replace(TINY, rounds=3)), simulate(replace(TINY, rounds=2))
    assert simulate(replace(TINY, rounds=3), after=half).checksum() == whole.checksum()
    weights = TINY.network().state_dict()
    named = FedSQ(structure=ArrayRecord(weights), fraction_train=1.0, min_available_nodes=4)
    later = ArrayRecord({name: tensor + 1 for name, tensor in weights.items()})
    messages = list(named.configure_train(7, later, ConfigRecord(), LocalGrid(client_app, 4)))
    for message in messages:
        sent = message.content["structure"].to_torch_state_dict()
        assert fingerprint(sent.values()) == fingerprint(weights.values())


def test_only_quantities_are_averaged_and_counters_and_statistics_stay():
    outcome = simulate(CNN)
    start = CNN.network().state_dict()
    for name, tensor in outcome.arrays.items():
        if "tracked" in name:
            assert tensor.dtype == torch.int64
            assert torch.equal(tensor, start[name])
        elif "running" in name:
            assert torch.allclose(tensor, start[name], rtol=1e-6)
    assert not torch.equal(outcome.arrays["4.residual.0.weight"], start["4.residual.0.weight"])
    assert torch.allclose(outcome.arrays["1.weight"], start["1.weight"], rtol=1e-6)
    plain = simulate(replace(CNN, method="fedavg"))
    assert not torch.allclose(plain.arrays["1.running_mean"], start["1.running_mean"], rtol=1e-2)


@pytest.mark.parametrize(("choice", "flips"), [({"norm": "affine"}, False), ({"gate": "own"}, True)])
def test_choices_reach_the_clients_and_the_judge(choice, flips):
    other = simulate(replace(CNN, rounds=1, gates=FrozenGates(**choice)))
    base = simulate(replace(CNN, rounds=1))
    assert other.rounds[0] == base.rounds[0]
    assert other.checksum() != base.checksum()
    assert (other.rounds[1]["flips"] > 0) == flips


def test_a_client_trains_the_dual_network_and_never_pretrains(monkeypatch):
    weights = TINY.network().state_dict()

    def refuse(*args):
        raise AssertionError("a client pretrains")

    monkeypatch.setattr(federation_module, "_backbone", refuse)
    state, metrics = local_update(TINY, 1, 1, weights, structure=weights)
    own = TINY.client_data(1)
    dual = dual_network(TINY, own).load(weights, state)
    assert metrics["loss"] == pytest.approx(evaluate(dual, own)[0], rel=1e-5)
    assert metrics["loss"] < evaluate(dual.load(weights, weights), own)[0]
    free, free_metrics = local_update(TINY, 1, 1, weights)
    assert list(free) == list(state)
    assert not torch.equal(free["2.weight"], state["2.weight"])
    other = local_update(replace(TINY, lr=0.001), 1, 1, weights, structure=weights)[1]
    assert other["oui"] == metrics["oui"] != free_metrics["oui"]  # frozen gates: that of the structure


def test_steps_that_frozen_gates_do_not_survive_leave_the_global_model_alone():
    with pytest.raises(RoundFailedError, match="a weight that is not finite"):
        simulate(replace(TINY, lr=1e3))


def test_a_backbone_is_the_same_for_every_method_and_another_for_every_seed():
    start = Judge(TINY, frozen=True).initial
    again = Judge(replace(TINY, method="fedavg", lr=0.5, population=Population(alpha=9.0))).initial
    other = Judge(replace(TINY, seed=1)).initial
    assert fingerprint(start.values()) == fingerprint(again.values()) != fingerprint(other.values())
    federation_module._backbone.cache_clear()
    assert fingerprint(TINY.network().state_dict().values()) == fingerprint(start.values())


def test_pretraining_learns_the_source_and_the_head_is_fresh():
    source, target = set_aside(data.load("digits", train_size=1437), "rotated", 700, seed=3)
    torch.manual_seed(0)
    network = models.build("mlp", 10, 1)
    backbone = pretrained(network, source, epochs=5, seed=3)
    assert evaluate(network, source)[1] > 0.95
    torch.manual_seed(1)
    drawn = models.build("mlp", 10, 1)
    head = drawn[6].weight.clone()
    moved = fresh_head(backbone, drawn)
    assert torch.equal(moved[2].weight, backbone["2.weight"])
    assert torch.equal(moved[6].weight, head)
    assert evaluate(moved, target)[1] < 0.4


def test_source_and_target_share_no_image_and_rotation_is_a_quarter_turn():
    whole = data.load("digits", train_size=1437)
    source, target = set_aside(whole, "rotated", 700, seed=0)
    assert (len(source.train), len(target.train), len(target.validation)) == (700, 737, 360)
    upright = torch.rot90(source.train.images, -1, (2, 3))
    both = torch.cat([upright, target.train.images]).flatten(1)
    assert torch.equal(both.unique(dim=0), whole.train.images.flatten(1).unique(dim=0))
    labels = torch.cat([source.train.labels, target.train.labels])
    assert torch.equal(labels.bincount(), whole.train.labels.bincount())
    assert torch.equal(source.train.images[0, 0, 0], upright[0, 0, :, -1])  # the right edge is now on top
    half, rest = set_aside(whole, "first_half", 700, seed=0)
    assert set(half.train.labels.tolist()) == set(range(5))
    assert torch.equal(rest.train.labels, target.train.labels)
    again = set_aside(whole, "rotated", 700, seed=1)[1]
    assert not torch.equal(again.train.labels, target.train.labels)


def test_the_averaging_gap_is_that_of_its_definition():
    clients = torch.tensor([[[1.0, 0.0]], [[3.0, 4.0]]])
    mean = torch.tensor([[2.0, 2.0]])
    assert averaging_gap(mean, clients, [0.5, 0.5]) == 0
    # off by (0, 1); the clients lie √5 from their mean
    assert averaging_gap(mean + torch.tensor([[0.0, 1.0]]), clients, [0.5, 0.5]) == pytest.approx(5**-0.5)
    assert np.isnan(averaging_gap(mean, mean.expand(2, 1, 2), [0.5, 0.5]))


def test_the_gap_after_a_round_grows_with_the_steps_and_is_that_of_the_method():
    small = {m: first_round_gap(replace(TINY, method=m, lr=0.001)) for m in ("fedavg", "fedsq")}
    large = {m: first_round_gap(replace(TINY, method=m, lr=0.02)) for m in ("fedavg", "fedsq")}
    assert all(0 < 3 * small[m] < large[m] for m in small)
    assert large["fedsq"] != large["fedavg"]


def test_pace_counts_rounds_from_one():
    found = pace([0.2, 0.96, 0.8, 1.0, 0.9, 1.0])
    assert found == {
        "best": 1.0, "best_round": 4.0, "mean": pytest.approx(0.81), "final": 1.0,
        "jitter": pytest.approx(0.4 / 3),
    }  # fmt: skip
    assert pace([0.5])["jitter"] == 0
    outcome = simulate(replace(TINY, epochs=1))
    rows = {(r["metric"], r["step"]): r["value"] for r in paced_rows(outcome)}
    assert rows["accuracy", 1] == outcome.rounds[1]["accuracy"]
    assert rows["final", 2] == outcome.rounds[2]["accuracy"]
    norms = [entry["update_norm"] for entry in outcome.contributions]
    assert rows["drift", 2] == pytest.approx(np.mean(norms))
    assert rows["faults", 2] == 0


def test_rounds_to_a_target_count_from_one_and_past_the_end_where_it_is_missed():
    curve = [0.2, 0.96, 0.8, 1.0]
    assert [rounds_to(target, curve) for target in (0.1, 0.96, 0.97, 1.1)] == [1, 2, 4, 5]
    assert np.isnan(rounds_to(float("nan"), curve))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Source("upside_down"), ValueError, "rotated, first_half"),
        (lambda: FrozenGates(pool="max"), ValueError, "structure, own"),
        (
            lambda: replace(TINY, source=Source("rotated", size=1437)).data(),
            ValueError,
            "1 to 1436 of the training images",
        ),
        (lambda: replace(TINY, source=Source()).source_data(), ValueError, "got 'none'"),
        (lambda: fresh_head({}, torch.nn.Sequential(torch.nn.Flatten())), ValueError, "no linear layer"),
        (lambda: simulate(replace(TINY, model="row_transformer")), ValueError, "not affine in its input"),
    ],
)
def test_bad_settings_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_fedsq_is_an_ordinary_strategy():
    assert issubclass(FedSQ, PairedFedAvg)
    with pytest.raises(ValueError, match="min_replies"):
        FedSQ(min_replies=0)
