"""Which node holds which partition: each is asked once, and one that has gone away is left out."""

import time
from collections import Counter
from typing import Any

from ouikit.fl.flower import Grid, Message, MessageType, RecordDict
from ouikit.fl.strategies.replies import NO_ANSWER, RoundFailedError, UnusableReplyError, metrics_of

LeftOut = dict[int, dict[str, Any]]  # node → {client, reason}


def enough_nodes(
    grid: Grid, partition: dict[int, int], left_out: LeftOut, needed: int, patience: float
) -> dict[int, int]:
    """`roll_call` as soon as it finds `needed` nodes; those that gave no answer are asked again until then.

    Raises:
        RoundFailedError: after `patience` seconds there are too few, or none can say its partition.
        RuntimeError: as `roll_call`.
    """
    deadline = time.monotonic() + patience
    while True:
        last = time.monotonic() >= deadline
        nodes = roll_call(grid, partition, left_out, patience)
        if len(nodes) >= needed:
            return nodes
        reasons = [str(entry["reason"]) for entry in left_out.values()]
        if last or (not nodes and any(not reason.endswith(NO_ANSWER) for reason in reasons)):
            hint = "; its ClientApp must register ouikit.fl.identify as its query function" if reasons else ""
            raise RoundFailedError(
                "; ".join([f"{len(nodes)} nodes are there, {needed} needed", *reasons]) + hint
            )
        time.sleep(min(1.0, patience))
        for node in [node for node, entry in left_out.items() if entry["client"] is None]:
            del left_out[node]


def roll_call(grid: Grid, partition: dict[int, int], left_out: LeftOut, timeout: float) -> dict[int, int]:
    """Partition → node, of the nodes of the grid that say which partition they hold.

    A node that was restarted comes back under another id, and its former one stays on the list until its
    heartbeat is missed. So of two nodes with one partition the one that was asked later holds it.

    Args:
        grid: whose nodes register `ouikit.fl.identify`.
        partition: node → partition, as far as it is known; added to.
        left_out: nodes that are not to be asked again; added to, with the client where it is known.
        timeout: seconds for all answers.

    Raises:
        RuntimeError: two nodes that answer now hold the same partition.
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
            left_out[node] = {"client": None, "reason": f"node {node} does not say its partition: {flaw}"}
    holders = Counter(said.values())
    twice = [node for node in said if holders[said[node]] > 1]
    if twice:
        raise RuntimeError(f"nodes {twice} hold the same partition: give each a partition-id of its own")
    partition.update(said)
    nodes = {partition[node]: node for node in partition if node in present}
    for node in [node for node in partition if node in present and nodes[partition[node]] != node]:
        client = partition.pop(node)
        reason = f"node {node} is left out: node {nodes[client]}, which came later, holds its partition"
        left_out[node] = {"client": client, "reason": reason}
    return nodes


def _partition_in(answer: Message | None) -> int:
    partition = metrics_of(answer).get("partition-id")
    if not isinstance(partition, int | float) or partition < 0 or partition % 1 != 0:
        raise UnusableReplyError(f"partition-id is {partition}")
    return int(partition)
