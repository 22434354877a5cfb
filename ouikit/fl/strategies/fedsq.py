"""FedSQ: federated averaging inside the activation regimes of a pretrained network.

On the server `FedSQ` takes the place of Flower's FedAvg. On a client::

    structure = structure_of(message, context)                      # kept by the node from its first round on
    dual = DualCopy(network, example).load(structure, weights)      # ouikit.nn.gated
    ...                                                             # train dual; reply with
    ArrayRecord(dual.quantity.state_dict())

Source: arXiv 2604.02990 (abstract: a frozen structural copy supplies the gates, the quantitative copy alone
is trained and averaged). That the structural copy travels as a message, once per node, is ours.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from ouikit.fl.flower import ArrayRecord, ConfigRecord, Context, Grid, Message, MessageType, RecordDict
from ouikit.fl.strategies.arrays import records_of, state_of
from ouikit.fl.strategies.paired import PairedFedAvg
from ouikit.fl.strategies.replies import Reply

STRUCTURE = "structure"  # the name of the record, in messages and in a node's state
FROZEN = "frozen-gates"  # tells a client that its gates are to be frozen


class StructureMissingError(RuntimeError):
    """A node was asked to train with frozen gates and has no structural copy."""


class FedSQ(PairedFedAvg):
    """FedAvg of the quantitative copies; the structural copy is sent to each node once.

    A node's first message carries an ArrayRecord "structure" beside "arrays"; it keeps it in its
    `Context.state` (`structure_of`). From then on a round costs what a round of FedAvg costs. A node whose
    last answer could not be used (it failed, was late, or lost its state and said so) is sent the structure
    again with its next message.

    Args:
        structure: the weights whose gates are frozen, with the names of the global model's. None takes the
            initial arrays: a server that continues after an interruption must give them.
        paired: keywords of `PairedFedAvg`.
    """

    def __init__(self, *, structure: ArrayRecord | None = None, **paired: Any) -> None:
        super().__init__(**paired)
        self.structure = structure
        self._holders: set[int] = set()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As `PairedFedAvg`, with the structure for nodes that do not hold it."""
        if self.structure is None:
            self.structure = arrays
        config[FROZEN] = True
        messages = super().configure_train(server_round, arrays, config, grid)
        return [self._with_structure(message) for message in messages]

    def _with_structure(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node in self._holders:
            return message
        assert self.structure is not None
        return Message(RecordDict({**message.content, STRUCTURE: self.structure}), node, MessageType.TRAIN)

    def _usable(self, server_round: int, answers: dict[int, Message]) -> list[Reply]:
        usable = super()._usable(server_round, answers)
        good = {reply.node for reply in usable}
        self._holders = (self._holders - self._asked.keys()) | good
        return usable


def structure_of(message: Message, context: Context) -> dict[str, Tensor] | None:
    """The structural copy that this node is to train with; None where the strategy freezes no gates.

    What a message brings is kept in `context.state`, and found there in later rounds.

    Raises:
        StructureMissingError: gates are to be frozen, and neither the message nor the node has the structure.
    """
    (config,) = records_of(message.content, ConfigRecord).values()
    if not config.get(FROZEN):
        return None
    sent = records_of(message.content, ArrayRecord)
    if STRUCTURE in sent:
        context.state[STRUCTURE] = sent[STRUCTURE]
    kept = records_of(context.state, ArrayRecord)
    if STRUCTURE not in kept:
        raise StructureMissingError(
            "this node has lost its structural copy; the next message brings it again"
        )
    return state_of(kept[STRUCTURE])
