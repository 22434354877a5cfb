"""FedAvg that is repeatable, paired and guarded: what all strategies here share.

Each of them is an ordinary Flower strategy (Message API) that takes the place of
`flwr.serverapp.strategy.FedAvg` in any ServerApp.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ouikit.fl.flower import (
    ArrayRecord,
    ConfigRecord,
    FedAvg,
    Grid,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from ouikit.fl.strategies.arrays import Arrays, arrays_of, record_of, records_of
from ouikit.fl.strategies.weights import Vector, size_weights

Form = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]  # shape and type of every array


class RoundFailedError(RuntimeError):
    """A round brought fewer usable replies than the strategy needs. The global model stays as it was."""


class _UnusableError(ValueError):
    """A reply that must not reach the global model."""


@dataclass(frozen=True)
class Reply:
    """One usable reply, decoded.

    client, node: who sent it. arrays: its model, as numpy arrays by name. update: θ_k − θ_t over all
    floating-point arrays, float64 [P]. metrics: its numbers. scores: what the server measured of it.
    """

    client: int
    node: int
    arrays: Arrays
    update: Vector
    metrics: dict[str, float]
    scores: dict[str, float] = field(default_factory=dict)


class PairedFedAvg(FedAvg):
    """FedAvg that is repeatable, paired between strategies, and guarded.

    * Participants are partitions, drawn without replacement from `default_rng(seed)`, round after round, as
      in the authors' code: equal seeds give equal participants, whatever the strategy and the node ids. Nodes
      say which partition they hold in answer to a query (`ouikit.fl.identify`).
    * Replies are decoded once, and averaged in the order of the partitions: the same sum to the last bit.
    * A reply that is an error, is missing after the timeout, has other names, shapes or types than the global
      model, holds a value that is not finite, or lacks a metric that the weights need, is left out, and noted
      in `faults`. The round continues with the others; with fewer than `min_replies` it raises
      `RoundFailedError`, where Flower alone would continue in silence. Usable replies whose metrics have
      different names raise Flower's own `InconsistentMessageReplies`.

    Args:
        seed: of the participants.
        min_replies: usable replies that a round needs; if that is all participants, every fault is fatal.
        patience: seconds for enough nodes to be there, and for a node to say which partition it holds.
        flower: keywords of `flwr.serverapp.strategy.FedAvg`, such as fraction_train; `weighted_by_key` is
            not among them.

    Attributes:
        faults: one {round, client, reason} per reply that was left out.
        contributions: one row per reply that was used: round, client, weight, size_weight (its share under
            FedAvg), update_norm, and the reply's metrics and scores.
        global_arrays: the model that this round's participants were sent, as numpy arrays by name.
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
        self.global_arrays: Arrays = {}

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """The aggregation weights of a round's usable replies; they sum to 1. Subclasses override this."""
        return size_weights([reply.metrics["num-examples"] for reply in replies])

    def scores(self, replies: list[Reply], server_round: int) -> list[dict[str, float]]:
        """What the server measures of each usable reply, before the weights are made. Nothing here.

        It joins `contributions`, and `weights` finds it in the replies.
        """
        return [{} for _ in replies]

    def state(self) -> dict[str, Any]:
        """What the strategy remembers from round to round besides `contributions` and `faults`.

        As JSON holds it. Nothing here; a subclass that remembers overrides this and `restore`.
        """
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned, in a server that was restarted."""

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
        self.global_arrays = arrays_of(arrays)
        config["server-round"] = server_round
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return [Message(record, node, MessageType.TRAIN) for node in self._asked]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The weighted mean of the usable replies. Raises RoundFailedError."""
        answers = {answer.metadata.src_node_id: answer for answer in replies}
        usable = self._usable(server_round, answers)
        if not self._asked:
            return None, None
        if len(usable) < self.min_replies:
            raise self._too_few(server_round, len(usable))
        for reply, scores in zip(usable, self.scores(usable, server_round), strict=True):
            reply.scores.update(scores)
        weights = [float(weight) for weight in self.weights(usable, server_round)]
        self._note(server_round, usable, weights)
        metrics = self._mean_metrics([answers[reply.node] for reply in usable], weights)
        mean = weighted_mean([reply.arrays for reply in usable], weights)
        return record_of(mean), metrics

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
                "does not register ouikit.fl.identify as its query function"
            )
        nodes = {self._partition[node]: node for node in present}
        if len(nodes) < len(present):
            raise RuntimeError("two nodes hold the same partition: give each a partition-id of its own")
        return nodes

    def _usable(self, server_round: int, answers: dict[int, Message]) -> list[Reply]:
        """Replies in the order of the partitions; the others are entered in `faults`. answers: by node."""
        usable, before, form = [], _flat(self.global_arrays), _form(self.global_arrays)
        for node, client in sorted(self._asked.items(), key=lambda item: item[1]):
            try:
                usable.append(self._reply(client, node, answers.get(node), before, form))
            except _UnusableError as flaw:
                self.faults.append({"round": server_round, "client": client, "reason": str(flaw)})
        return usable

    def _too_few(self, server_round: int, usable: int) -> RoundFailedError:
        now = [fault for fault in self.faults if fault["round"] == server_round]
        reasons = "; ".join(f"client {fault['client']}: {fault['reason']}" for fault in now)
        return RoundFailedError(
            f"round {server_round}: {usable} usable replies of {len(self._asked)}, "
            f"{self.min_replies} needed ({reasons})"
        )

    def _note(self, server_round: int, replies: list[Reply], weights: list[float]) -> None:
        """Enter a round's replies in `contributions`."""
        sizes = size_weights([reply.metrics["num-examples"] for reply in replies])
        for reply, weight, size in zip(replies, weights, sizes, strict=True):
            entry = {"round": server_round, "client": reply.client, "weight": weight}
            norm = float(np.linalg.norm(reply.update))
            own = {**reply.metrics, **reply.scores}
            self.contributions.append({**entry, "size_weight": float(size), "update_norm": norm, **own})

    def _mean_metrics(self, answers: list[Message], weights: list[float]) -> MetricRecord:
        """Flower's own mean of the metrics, under these weights; and its check, where names differ."""
        metrics = [_metrics_of(answer) for answer in answers]
        for numbers, weight in zip(metrics, weights, strict=True):
            numbers[self.weighted_by_key] = weight
        differ = len({frozenset(numbers) for numbers in metrics}) > 1  # all else is checked by now
        checked, _ = self._check_and_log_replies(answers, is_train=True, validate=differ)
        return self.train_metrics_aggr_fn([answer.content for answer in checked], self.weighted_by_key)

    def _reply(self, client: int, node: int, answer: Message | None, before: Vector, form: Form) -> Reply:
        """A checked reply; `before` is the global model, of this form. Raises _UnusableError."""
        if answer is None:
            raise _UnusableError("no answer")
        if answer.has_error():
            raise _UnusableError(f"error: {answer.error.reason}")
        models = records_of(answer.content, ArrayRecord)
        numbers = records_of(answer.content, MetricRecord)
        if len(models) != 1 or len(numbers) != 1:
            raise _UnusableError("not exactly one ArrayRecord and one MetricRecord")
        (model,), (metrics,) = models.values(), numbers.values()
        arrays = arrays_of(model)
        if _form(arrays) != form:
            raise _UnusableError("names, shapes or types other than those of the global model")
        after = _flat(arrays)
        if not np.isfinite(after).all():
            raise _UnusableError("a weight that is not finite")
        for name in ("num-examples", *self.needs):
            value, most = metrics.get(name), 1.0 if name in self.needs else sys.float_info.max
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise _UnusableError(f"metric {name!r} is not in [0, {most:.3g}]: {value}")
        own = {str(n): float(value) for n, value in metrics.items() if isinstance(value, int | float)}
        return Reply(client, node, arrays, np.subtract(after, before, out=after), own)


def participants(seed: int, server_round: int, partitions: list[int], count: int) -> list[int]:
    """The partitions that train in one round, in ascending order.

    `default_rng(seed)` draws `count` of them without replacement, round after round; round r has the r-th
    draw, so a resumed run continues with the same clients.

    Raises:
        ValueError: there are fewer partitions than participants.
    """
    if count > len(partitions):
        raise ValueError(f"{count} participants cannot be drawn from {len(partitions)} partitions")
    draws, drawn = _draws(seed, tuple(partitions), count)
    while len(drawn) < server_round:
        drawn.append(sorted(int(partition) for partition in draws.choice(partitions, count, replace=False)))
    return drawn[server_round - 1]


@lru_cache(maxsize=8)
def _draws(seed: int, partitions: tuple[int, ...], count: int) -> tuple[np.random.Generator, list[list[int]]]:
    """A generator, and what has been drawn from it so far: one entry a round."""
    return np.random.default_rng(seed), []


def weighted_mean(models: Sequence[Arrays], weights: Sequence[float]) -> Arrays:
    """Σ w_k θ_k / Σ w_k of models with the same arrays, in the arrays' own precision and in this order.

    The bits are those of Flower's `FedAvg`, except for integers, such as the batch counter of batch
    normalisation: they are rounded to integers again, where Flower returns floats.
    """
    total = sum(weights)
    mean: Arrays = {}
    for model, weight in zip(models, weights, strict=True):
        for name, array in model.items():
            part = array * (weight / total)
            if name in mean:
                mean[name] += part
            else:
                mean[name] = part
    return {name: _of_type(array, models[0][name].dtype) for name, array in mean.items()}


def _of_type(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if np.issubdtype(dtype, np.integer):
        return np.asarray(np.rint(array), dtype)
    return np.asarray(array)


def _form(arrays: Arrays) -> Form:
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def _flat(arrays: Arrays) -> Vector:
    """All floating-point arrays as one vector: parameters and running statistics, not counters."""
    kept = [array.ravel() for array in arrays.values() if array.dtype.kind == "f"]
    return np.concatenate([*kept, np.empty(0)], dtype=np.float64)


def _metrics_of(message: Message) -> MetricRecord:
    return next(iter(records_of(message.content, MetricRecord).values()))
