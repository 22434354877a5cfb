"""Which node holds which partition: each is asked once, and one that has gone away is left out."""

import time
from dataclasses import dataclass

from ouikit.fl.flower import Grid, Message, MessageType, RecordDict
from ouikit.fl.strategies.replies import RoundFailedError, UnusableReplyError, metrics_of


@dataclass(frozen=True)
class LeftOut:
    """Why a node takes no part.

    client: its partition, None if that is not known. answered: it is there, and set up wrongly.
    """

    client: int | None
    reason: str
    answered: bool


def enough_nodes(
    grid: Grid, partition: dict[int, int], left_out: dict[int, LeftOut], needed: int, patience: float
) -> dict[int, int]:
    """`roll_call` as soon as it finds `needed` nodes; those without a partition are asked again until then.

    Raises:
        RoundFailedError: there are too few after `patience` seconds, or at once if the others answer wrongly.
    """
    deadline = time.monotonic() + patience
    while True:
        last = time.monotonic() >= deadline
        nodes = roll_call(grid, partition, left_out, patience)
        wrong = sum(node.answered for node in left_out.values())
        if len(nodes) >= needed:
            return nodes
        if last or (wrong and len(nodes) + wrong >= needed):
            counted = f"{len(nodes)} nodes are there, {needed} needed"
            raise RoundFailedError("; ".join([counted, *(node.reason for node in left_out.values())]))
        time.sleep(min(1.0, patience))
        for silent in [node for node, why in left_out.items() if why.client is None]:
            del left_out[silent]


def roll_call(
    grid: Grid, partition: dict[int, int], left_out: dict[int, LeftOut], timeout: float
) -> dict[int, int]:
    """Partition → node, of the nodes of the grid that say which partition they hold.

    A node that was restarted comes back under another id, and its former one stays on the list until its
    heartbeat is missed. So of two nodes with one partition the one that was asked later holds it.

    Args:
        grid: whose nodes register `ouikit.fl.identify`.
        partition: node → partition, as far as it is known; added to.
        left_out: nodes that are not to be asked again; added to, with the client where it is known.
        timeout: seconds for all answers.
    """
    present = dict.fromkeys(grid.get_node_ids())
    unknown = [node for node in present if node not in partition and node not in left_out]
    queries = [Message(RecordDict(), node, MessageType.QUERY) for node in unknown]
    answers = list(grid.send_and_receive(queries, timeout=timeout)) if queries else []
    by_node, said = {answer.metadata.src_node_id: answer for answer in answers}, dict[int, int]()
    for node in unknown:
        try:
            said[node] = _partition_in(by_node.get(node))
        except UnusableReplyError as flaw:
            reason, answered = f"node {node} does not say its partition: {flaw}", node in by_node
            hint = "; register ouikit.fl.identify as the query function of its ClientApp" if answered else ""
            left_out[node] = LeftOut(None, reason + hint, answered)
    partition.update(said)
    nodes = {partition[node]: node for node in partition if node in present}
    for node in [node for node in partition if node in present and nodes[partition[node]] != node]:
        client = partition.pop(node)
        if node in said:
            reason = f"nodes {node} and {nodes[client]} hold the same partition: give each one of its own"
        else:
            reason = f"node {node} is left out: node {nodes[client]}, which came later, holds its partition"
        left_out[node] = LeftOut(client, reason, node in said)
    return nodes


def _partition_in(answer: Message | None) -> int:
    partition = metrics_of(answer).get("partition-id")
    if not isinstance(partition, int | float) or partition < 0 or partition % 1 != 0:
        raise UnusableReplyError(f"partition-id is {partition}")
    return int(partition)
