"""FedAvg that is repeatable, paired and guarded: what all strategies here share.

Each of them is an ordinary Flower strategy (Message API) that takes the place of
`flwr.serverapp.strategy.FedAvg` in any ServerApp.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

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
from ouikit.fl.strategies.arrays import Arrays, record_of, records_of
from ouikit.fl.strategies.mean import check_types, flat, form_of, model_of, weighted_mean
from ouikit.fl.strategies.nodes import LeftOut, enough_nodes
from ouikit.fl.strategies.replies import (
    Reply,
    RoundFailedError,
    metrics_of,
    model_and_update,
    numbers_of,
    sift,
)
from ouikit.fl.strategies.weights import Vector, size_weights

_EVALUATION = 1  # the generator of those who evaluate: default_rng([seed, 1])


class PairedFedAvg(FedAvg):
    """FedAvg that is repeatable, paired between strategies, and guarded.

    * Participants are partitions, drawn without replacement from `default_rng(seed)`, round after round, as
      in the authors' code: equal seeds give equal participants, whatever the strategy and the node ids. Nodes
      say which partition they hold in answer to a query (`ouikit.fl.identify`).
    * Replies are decoded once, and averaged in the order of the partitions: the same sum to the last bit.
    * A reply that is an error, is missing after the timeout, cannot be read, has other names, shapes or types
      than the global model, holds a weight or a metric that is not finite, lacks a metric that the weights
      need, or has other metrics than most replies, is left out, and noted in `faults`. The round continues
      with the others; with fewer than `min_replies` it raises `RoundFailedError`, where Flower alone would
      continue in silence.
    * The same holds for evaluation by clients, whose metrics are averaged by num-examples; without a usable
      reply, or without a sample, there are none.
    * A node that does not say which partition it holds, or whose partition a newer node holds, is left out
      and noted: a node that was restarted has another id, and its former one stays on the list for a while.
    * What is no float, such as a counter or a mask, keeps its type, and its value where the replies agree
      (`ouikit.fl.strategies.mean`).

    Args:
        seed: of the participants.
        min_replies: usable replies that a round needs; if that is all participants, every fault is fatal.
        patience: seconds for enough nodes to be there, and for a node to say which partition it holds.
        flower: keywords of `flwr.serverapp.strategy.FedAvg`, such as fraction_train; `weighted_by_key` is
            not among them.

    Attributes:
        faults: one {round, client, reason} per reply or node that was left out; of a node that never said its
            partition, client is None.
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
        self._left_out: dict[int, LeftOut] = {}
        self._noted: set[int] = set()  # nodes that were left out and are among the faults
        self._asked: dict[int, int] = {}  # the participants of this round: node -> partition
        self._evaluating: dict[int, int] = {}  # the same of its evaluation
        self.global_arrays: Arrays = {}

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """The aggregation weights of a round's usable replies; they sum to 1. Subclasses override this."""
        return size_weights([reply.metrics["num-examples"] for reply in replies])

    def scores(self, replies: list[Reply], server_round: int) -> list[dict[str, float]]:
        """What the server measures of each usable reply, before the weights are made. Nothing here.

        It joins `contributions`, and `weights` finds it in the replies.
        """
        return [{} for _ in replies]

    def mean(self, models: Sequence[Arrays], weights: Sequence[float]) -> Arrays:
        """The next global model from those of the replies: `weighted_mean`. Subclasses override it."""
        return weighted_mean(models, weights)

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
            TypeError: an array of the global model is of a type without a mean. ValueError: one holds NaN.
        """
        self._asked = {}
        if self.fraction_train == 0.0:
            return []
        check_types(arrays)
        nodes = self._nodes(grid, server_round, self.min_train_nodes)
        self.global_arrays = model_of(arrays)
        count = max(int(len(nodes) * self.fraction_train), self.min_train_nodes)
        chosen = participants(self.seed, server_round, sorted(nodes), count)
        self._asked = {nodes[partition]: partition for partition in chosen}
        return self._messages(self._asked, MessageType.TRAIN, server_round, arrays, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The mean of the usable replies. Raises RoundFailedError."""
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
        metrics = self.train_metrics_aggr_fn(self._weighted(usable, answers, weights), self.weighted_by_key)
        return record_of(self.mean([reply.arrays for reply in usable], weights)), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the global model to those who evaluate it, drawn by the seed too.

        Where too few nodes are there nobody does, and that is noted.
        """
        self._evaluating = {}
        if self.fraction_evaluate == 0.0:
            return []
        try:
            nodes = self._nodes(grid, server_round, self.min_evaluate_nodes)
        except RoundFailedError as error:
            self._fault(server_round, None, f"evaluation: {error}")
            return []
        count = max(int(len(nodes) * self.fraction_evaluate), self.min_evaluate_nodes)
        chosen = participants((self.seed, _EVALUATION), server_round, sorted(nodes), count)
        self._evaluating = {nodes[partition]: partition for partition in chosen}
        return self._messages(self._evaluating, MessageType.EVALUATE, server_round, arrays, config)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Metrics of the clients' own evaluation, weighted by num-examples; None without any sample."""
        answers = {answer.metadata.src_node_id: answer for answer in replies}

        def read(client: int, node: int, answer: Message | None) -> Reply:
            return Reply(client, node, {}, np.empty(0), numbers_of(metrics_of(answer)))

        usable, flaws = sift(self._evaluating, answers, read)
        for client, reason in flaws:
            self._fault(server_round, client, f"evaluation: {reason}")
        sizes = [reply.metrics["num-examples"] for reply in usable]
        if not sum(sizes):
            return None
        return self.evaluate_metrics_aggr_fn(self._weighted(usable, answers, sizes), self.weighted_by_key)

    def _nodes(self, grid: Grid, server_round: int, least: int) -> dict[int, int]:
        """Partition -> node, of the nodes that are there; waits until enough of them are."""
        needed = max(self.min_available_nodes, least)
        try:
            return enough_nodes(grid, self._partition, self._left_out, needed, self.patience)
        except RoundFailedError as error:
            raise RoundFailedError(f"round {server_round}: {error}") from None
        finally:
            for node in self._left_out.keys() - self._noted:
                self._noted.add(node)
                self._fault(server_round, self._left_out[node].client, self._left_out[node].reason)

    def _messages(
        self,
        asked: Iterable[int],
        kind: str,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
    ) -> list[Message]:
        config["server-round"] = server_round
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return [Message(record, node, kind) for node in asked]

    def _fault(self, server_round: int, client: int | None, reason: str) -> None:
        self.faults.append({"round": server_round, "client": client, "reason": reason})

    def _usable(self, server_round: int, answers: dict[int, Message]) -> list[Reply]:
        """Replies in the order of the partitions; the others are entered in `faults`. answers: by node."""
        before, form = flat(self.global_arrays), form_of(self.global_arrays)

        def read(client: int, node: int, answer: Message | None) -> Reply:
            metrics = metrics_of(answer)
            assert answer is not None  # or it would have raised
            model, update = model_and_update(answer, before, form)
            return Reply(client, node, model, update, numbers_of(metrics, self.needs))

        usable, flaws = sift(self._asked, answers, read)
        for client, reason in flaws:
            self._fault(server_round, client, reason)
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
            ours = {**entry, "size_weight": float(size), "update_norm": norm}
            own = {**reply.metrics, **reply.scores}  # where a client's "weight" does not replace ours
            self.contributions.append({**ours, **own, **ours})

    def _weighted(
        self, replies: list[Reply], answers: Mapping[int, Message], weights: Sequence[float]
    ) -> list[RecordDict]:
        """The contents of the replies with their weights, as Flower's functions take them for a mean."""
        contents = [answers[reply.node].content for reply in replies]
        for content, weight in zip(contents, weights, strict=True):
            (metrics,) = records_of(content, MetricRecord).values()
            metrics[self.weighted_by_key] = weight
        return contents


def participants(
    seed: int | tuple[int, ...], server_round: int, partitions: list[int], count: int
) -> list[int]:
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
def _draws(
    seed: int | tuple[int, ...], partitions: tuple[int, ...], count: int
) -> tuple[np.random.Generator, list[list[int]]]:
    """A generator, and what has been drawn from it so far: one entry a round."""
    return np.random.default_rng(seed), []
