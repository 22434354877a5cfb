"""Flower in one process: a grid that calls the ClientApp itself, one message after the other.

No Ray, no sockets, no daemons: a federation runs in a notebook, can be debugged, and gives the same bits
every time. Apps see Flower's own interface and nothing of this module.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

from ouikit.fl.flower import (
    ArrayRecord,
    ClientApp,
    ConfigRecord,
    Context,
    Grid,
    Message,
    MetricRecord,
    RecordDict,
    ServerApp,
    TaskIdentity,
)
from ouikit.fl.strategies.arrays import copied, filled
from ouikit.fl.strategies.reasons import answering

Record = ArrayRecord | ConfigRecord | MetricRecord
_RUN, _SERVER = 1, 0


class LocalGrid(Grid):
    """Clients 0 … n − 1 as nodes 1 … n of this process.

    Replies come in the order of the messages. What a client raises comes back as the error message that a
    remote client would send. Messages and replies are copied, so that neither side can change what the
    other holds; each client keeps its own `Context.state` between messages, as on a node.

    Args:
        client_app: called once per message.
        clients: how many nodes there are.
    """

    def __init__(self, client_app: ClientApp, clients: int) -> None:
        if clients < 1:
            raise ValueError(f"a grid needs at least one client: got {clients}")
        # Without these, Message() raises "TaskIdentity.run_id is not set".
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _RUN, _RUN, _SERVER
        self.client_app = client_app
        self.contexts = {
            client + 1: Context(
                run_id=_RUN,
                node_id=client + 1,
                node_config={"partition-id": client, "num-partitions": clients},
                state=RecordDict(),
                run_config={},
            )
            for client in range(clients)
        }
        self._replies: dict[str, Message] = {}
        self._sent = 0
        self._run: Any = None

    def set_run(self, run: Any) -> None:
        """Part of Flower's interface; the run is kept and otherwise unused."""
        self._run = run

    @property
    def run(self) -> Any:
        """What `set_run` was given."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str = "",
        ttl: float | None = None,
    ) -> Message:
        """A message to one node, as Flower makes it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """1 … n."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let each addressed client answer at once; returns the names under which the replies wait.

        Raises:
            KeyError: no node has the address.
        """
        names = []
        for message in messages:
            self._sent += 1
            name = f"message-{self._sent}"
            self._replies[name] = self._answer(message)
            names.append(name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have arrived, in the order asked for; each is returned once."""
        return [self._replies.pop(name) for name in list(message_ids) if name in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """`push_messages`, then `pull_messages`; nothing can be late here, so `timeout` has no effect."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node not in self.contexts:
            raise KeyError(f"no node {node}; this grid has 1 to {len(self.contexts)}")
        return _copied(answering(self.client_app)(_copied(message), self.contexts[node]))


def _copied(message: Message) -> Message:
    """The message with records of its own; what they hold, bytes and numbers, cannot be changed."""
    own = copy(message)
    own.__dict__["_metadata"] = copy(message.metadata)
    if message.has_content():
        records = {name: _copied_record(record) for name, record in message.content.items()}
        own.__dict__["_content"] = filled(RecordDict(), records)
    return own


def _copied_record(record: Record) -> Record:
    if isinstance(record, ArrayRecord):
        return filled(record.copy(), {name: copied(array) for name, array in record.items()})
    return filled(record.copy(), {n: [*value] for n, value in record.items() if isinstance(value, list)})


def run_local(
    server_app: ServerApp, client_app: ClientApp, clients: int, run_config: Mapping[str, Any]
) -> Context:
    """Run a whole federation in this process.

    Args:
        server_app, client_app: the pair.
        clients: how many nodes.
        run_config: what the ServerApp finds in `context.run_config`. As in Flower's simulation, clients see
            none of it: what they need travels in the messages.

    Returns:
        The ServerApp's context, with what it left in `context.state`. What the ServerApp raises is raised.
    """
    grid = LocalGrid(client_app, clients)
    context = Context(
        run_id=_RUN, node_id=_SERVER, node_config={}, state=RecordDict(), run_config=dict(run_config)
    )
    with quiet():
        server_app(grid, context)
    return context


@contextmanager
def quiet() -> Iterator[None]:
    """Without Flower's hundred lines of log per run."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
