"""Flower strategies whose weights are the pure functions of `ouikit.fl.weights`.

Each is an ordinary Flower strategy (Message API) that drops into any ServerApp in place of
`flwr.serverapp.strategy.FedAvg`. What they share is `PairedFedAvg`: participants drawn by partition and seed,
replies in a fixed order, and no reply that could poison the global model.
"""

import random
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from ouikit.fl.weights import (
    EPSILON,
    Vector,
    alignment_weights,
    fedoui_alignment_weights,
    fedoui_weights,
    size_weights,
)

Arrays = dict[str, NDArray[Any]]


class RoundFailedError(RuntimeError):
    """A round brought fewer usable replies than the strategy needs. The global model is that of before."""


class _UnusableError(ValueError):
    """A reply that must not reach the global model."""


@dataclass(frozen=True)
class Reply:
    """One usable answer: who, its update θ_k − θ_t over all floating-point arrays, its metrics."""

    client: int
    update: Vector
    metrics: dict[str, float]
    message: Message


class PairedFedAvg(FedAvg):
    """FedAvg that is repeatable, paired between strategies, and guarded.

    * Participants are partitions, drawn without replacement from `default_rng(seed)`, round after round, as
      in the authors' code: equal seeds give equal participants, whatever the strategy and the node ids. Nodes
      say which partition they hold in answer to a query (`ouikit.fl.app.identify`).
    * Replies are aggregated in the order of the partitions, so that the sum is the same to the last bit.
    * A reply that is an error, is missing after the timeout, has other names, shapes or types than the global
      model, holds a value that is not finite, or lacks a metric that the weights need, is left out, and noted
      in `faults`. The round goes on with the others; with fewer than `min_replies` it raises
      `RoundFailedError`, where Flower alone would go on in silence. Usable replies whose metrics have
      different names raise Flower's own `InconsistentMessageReplies`.

    Args:
        seed: of the participants.
        min_replies: usable replies that a round needs; the number of participants makes every fault fatal.
        patience: seconds for enough nodes to be there, and for a node to say which partition it holds.
        flower: keywords of `flwr.serverapp.strategy.FedAvg`, such as fraction_train; `weighted_by_key` is
            not among them.

    Attributes:
        faults: one {round, client, reason} per reply that was left out.
        contributions: one row per reply that was used: round, client, weight, size_weight (its share under
            FedAvg), update_norm, and the reply's metrics.
    """

    needs: ClassVar[tuple[str, ...]] = ()  # metrics in [0, 1] that the weights are made of

    def __init__(
        self, *, seed: int = 0, min_replies: int = 1, patience: float = 600.0, **flower: Any
    ) -> None:
        if min_replies < 1:
            raise ValueError(f"min_replies must be at least 1: got {min_replies}")
        super().__init__(weighted_by_key="weight", **flower)
        self.seed, self.min_replies, self.patience = seed, min_replies, patience
        self.faults: list[dict[str, Any]] = []
        self.contributions: list[dict[str, float]] = []
        self._partition: dict[int, int] = {}  # of a node
        self._asked: dict[int, int] = {}  # the participants of this round: node -> partition
        self._global: Arrays = {}

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """The aggregation weights of a round's usable replies; they sum to 1. Subclasses override this."""
        return size_weights([reply.metrics["num-examples"] for reply in replies])

    def state(self) -> dict[str, Any]:
        """What the strategy remembers from round to round besides `contributions` and `faults`.

        As JSON holds it. Nothing here; a subclass that remembers overrides this and `restore`.
        """
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Remember again what `state` told, in a server that was started anew."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the global model to this round's participants.

        Raises:
            RoundFailedError: there are too few nodes.
            RuntimeError: a node does not say which partition it holds, or two hold the same.
        """
        self._asked = {}
        if self.fraction_train == 0.0:
            return []
        nodes = self._nodes(grid, server_round)
        count = max(int(len(nodes) * self.fraction_train), self.min_train_nodes)
        chosen = participants(self.seed, server_round, sorted(nodes), count)
        self._asked = {nodes[partition]: partition for partition in chosen}
        self._global = _arrays_of(arrays)
        config["server-round"] = server_round
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return [Message(record, node, MessageType.TRAIN) for node in self._asked]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The weighted mean of the usable replies. Raises RoundFailedError."""
        usable = self._usable(server_round, list(replies))
        if not self._asked:
            return None, None
        if len(usable) < self.min_replies:
            now = [fault for fault in self.faults if fault["round"] == server_round]
            reasons = "; ".join(f"client {fault['client']}: {fault['reason']}" for fault in now)
            raise RoundFailedError(
                f"round {server_round}: {len(usable)} usable replies of {len(self._asked)}, "
                f"{self.min_replies} needed ({reasons})"
            )
        weights = self.weights(usable, server_round)
        sizes = size_weights([reply.metrics["num-examples"] for reply in usable])
        for reply, weight, size in zip(usable, weights, sizes, strict=True):
            _metrics_of(reply.message)["weight"] = float(weight)
            entry = {"round": server_round, "client": reply.client, "weight": float(weight)}
            norm = float(np.linalg.norm(reply.update))
            self.contributions.append(
                {**entry, "size_weight": float(size), "update_norm": norm, **reply.metrics}
            )
        arrays, metrics = super().aggregate_train(server_round, [reply.message for reply in usable])
        return arrays and _counters_restored(arrays, self._global), metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Metrics of the clients' own evaluation, weighted by num-examples."""
        answers = list(replies)
        for reply in answers:
            if not reply.has_error():
                metrics = _metrics_of(reply)
                metrics["weight"] = float(metrics["num-examples"])  # type: ignore[arg-type]
        return super().aggregate_evaluate(server_round, answers)

    def _nodes(self, grid: Grid, server_round: int) -> dict[int, int]:
        """Partition -> node, of the nodes that are there; waits until enough of them are."""
        needed = max(self.min_available_nodes, self.min_train_nodes)
        deadline = time.monotonic() + self.patience
        while len(present := list(grid.get_node_ids())) < needed:
            if time.monotonic() > deadline:
                raise RoundFailedError(
                    f"round {server_round}: {len(present)} nodes are there, {needed} needed"
                )
            time.sleep(min(1.0, self.patience))
        unknown = [node for node in present if node not in self._partition]
        if unknown:
            queries = [Message(RecordDict(), node, MessageType.QUERY) for node in unknown]
            for answer in grid.send_and_receive(queries, timeout=self.patience):
                if not answer.has_error():
                    partition = _metrics_of(answer)["partition-id"]
                    self._partition[answer.metadata.src_node_id] = int(partition)  # type: ignore[arg-type]
        silent = [node for node in present if node not in self._partition]
        if silent:
            raise RuntimeError(
                f"nodes {silent} do not say which partition they hold: they are gone, or their ClientApp "
                "does not register ouikit.fl.app.identify as its query function"
            )
        nodes = {self._partition[node]: node for node in present}
        if len(nodes) < len(present):
            raise RuntimeError("two nodes hold the same partition: give each a partition-id of its own")
        return nodes

    def _usable(self, server_round: int, answers: list[Message]) -> list[Reply]:
        """Replies in the order of the partitions; the others are entered in `faults`."""
        usable = []
        by_node = {answer.metadata.src_node_id: answer for answer in answers}
        for node, client in sorted(self._asked.items(), key=lambda item: item[1]):
            try:
                usable.append(self._reply(client, by_node.get(node)))
            except _UnusableError as flaw:
                self.faults.append({"round": server_round, "client": client, "reason": str(flaw)})
        return usable

    def _reply(self, client: int, answer: Message | None) -> Reply:
        """A checked reply. Raises _UnusableError, which says what is wrong with it."""
        if answer is None:
            raise _UnusableError("no answer")
        if answer.has_error():
            raise _UnusableError(f"error: {answer.error.reason}")
        if len(answer.content.array_records) != 1 or len(answer.content.metric_records) != 1:
            raise _UnusableError("not exactly one ArrayRecord and one MetricRecord")
        new = _arrays_of(next(iter(answer.content.array_records.values())))
        if _form(new) != _form(self._global):
            raise _UnusableError("names, shapes or types other than those of the global model")
        if not all(np.isfinite(array).all() for array in new.values()):
            raise _UnusableError("a weight that is not finite")
        metrics = _metrics_of(answer)
        for name in ("num-examples", *self.needs):
            value, most = metrics.get(name), 1.0 if name in self.needs else sys.float_info.max
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise _UnusableError(f"metric {name!r} is not in [0, {most:.3g}]: {value}")
        numbers = {str(n): float(value) for n, value in metrics.items() if isinstance(value, int | float)}
        return Reply(client, _flat(new) - _flat(self._global), numbers, answer)


class PairedFedProx(PairedFedAvg):
    """FedProx (arXiv 1812.06127): clients find μ as `proximal-mu` in their configuration and add the term.

    That term is μ/2 ‖θ − θ_t‖², with the square that the sample in Flower's own docstring lacks.
    """

    def __init__(self, *, proximal_mu: float = 0.01, **paired: Any) -> None:
        if not proximal_mu >= 0:
            raise ValueError(f"proximal_mu must be ≥ 0: got {proximal_mu}")
        super().__init__(**paired)
        self.proximal_mu = proximal_mu

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As `PairedFedAvg`, with μ in the configuration."""
        config["proximal-mu"] = self.proximal_mu
        return super().configure_train(server_round, arrays, config, grid)


class GradientAlignment(PairedFedAvg):
    """Weights by agreement with the mean update (`alignment_weights`); η and ε as there."""

    def __init__(self, *, eta: float = 1.0, epsilon: float = EPSILON, **paired: Any) -> None:
        super().__init__(**paired)
        self.eta, self.epsilon = eta, epsilon

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """As `alignment_weights`."""
        return alignment_weights(_updates(replies), _sizes(replies), eta=self.eta, epsilon=self.epsilon)


class FedOUI(PairedFedAvg):
    """FedOUI (arXiv 2605.11571): weights by the typicality of the clients' `oui` (`fedoui_weights`).

    Every reply carries a metric `oui` in [0, 1]; γ and ε as in `fedoui_weights`.
    """

    needs: ClassVar[tuple[str, ...]] = ("oui",)

    def __init__(self, *, gamma: float = 1.0, epsilon: float = EPSILON, **paired: Any) -> None:
        super().__init__(**paired)
        self.gamma, self.epsilon = gamma, epsilon

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """As `fedoui_weights`."""
        oui = self.oui(replies, server_round)
        return fedoui_weights(oui, _sizes(replies), gamma=self.gamma, epsilon=self.epsilon)

    def oui(self, replies: list[Reply], server_round: int) -> list[float]:
        """The value by which each client is judged: its own."""
        return [reply.metrics["oui"] for reply in replies]


class ShuffledFedOUI(FedOUI):
    """A control: FedOUI with the round's OUI values dealt to the wrong clients, by the seed and the round.

    As much weight moves, and none of it for a reason.
    """

    def oui(self, replies: list[Reply], server_round: int) -> list[float]:
        """The values of the round in random order."""
        values = super().oui(replies, server_round)
        random.Random(f"{self.seed}/{server_round}").shuffle(values)
        return values


class FedOUIAlignment(FedOUI):
    """The product of both factors (`fedoui_alignment_weights`)."""

    def __init__(self, *, eta: float = 1.0, **fedoui: Any) -> None:
        super().__init__(**fedoui)
        self.eta = eta

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """As `fedoui_alignment_weights`."""
        powers = {"gamma": self.gamma, "eta": self.eta, "epsilon": self.epsilon}
        oui = self.oui(replies, server_round)
        return fedoui_alignment_weights(oui, _updates(replies), _sizes(replies), **powers)


def participants(seed: int, server_round: int, partitions: list[int], count: int) -> list[int]:
    """The partitions that train in one round, in ascending order.

    `default_rng(seed)` draws `count` of them without replacement, round after round; round r has the r-th
    draw, so a run that is taken up again goes on with the same clients.

    Raises:
        ValueError: there are fewer partitions than participants.
    """
    if count > len(partitions):
        raise ValueError(f"{count} participants cannot be drawn from {len(partitions)} partitions")
    rng = np.random.default_rng(seed)
    for _ in range(server_round):
        drawn = rng.choice(partitions, count, replace=False)
    return sorted(int(partition) for partition in drawn)


def _updates(replies: list[Reply]) -> NDArray[np.float64]:
    return np.stack([reply.update for reply in replies])


def _sizes(replies: list[Reply]) -> list[float]:
    return [reply.metrics["num-examples"] for reply in replies]


def _arrays_of(record: ArrayRecord) -> Arrays:
    return {name: array.numpy() for name, array in record.items()}


def _counters_restored(arrays: ArrayRecord, like: Arrays) -> ArrayRecord:
    """Integers, such as the batch counter of batch normalisation, which Flower averages into floats."""
    for name, before in like.items():
        if np.issubdtype(before.dtype, np.integer):
            arrays[name] = Array(np.asarray(np.rint(arrays[name].numpy()), before.dtype))
    return arrays


def _form(arrays: Arrays) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, array.dtype.str) for name, array in arrays.items()}


def _flat(arrays: Arrays) -> Vector:
    """All floating-point arrays as one vector: parameters and running statistics, not counters."""
    kept = [array.ravel() for array in arrays.values() if np.issubdtype(array.dtype, np.floating)]
    return np.concatenate(kept).astype(np.float64)


def _metrics_of(message: Message) -> MetricRecord:
    return next(iter(message.content.metric_records.values()))
