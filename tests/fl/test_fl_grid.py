"""The in-process grid: Flower's own messages, errors and contexts, without Flower's daemons."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity

from ouikit.fl.run.apps import client_app
from ouikit.fl.run.grid import LocalGrid, run_local


def query(node, **config):
    return Message(RecordDict({"config": ConfigRecord(config)}), node, MessageType.QUERY)


def test_contract_with_the_private_part_of_flower():
    """Flower's upgrade is safe if a grid can make a message, and a reply to it knows where it came from."""
    assert {"task_id", "run_id", "node_id"} <= set(dir(type(TaskIdentity)))
    grid = LocalGrid(client_app, 3)
    message = grid.create_message(RecordDict(), MessageType.QUERY, 2)
    assert (message.metadata.src_node_id, message.metadata.dst_node_id) == (0, 2)
    (answer,) = grid.send_and_receive([message])
    assert not answer.has_error()
    assert (answer.metadata.src_node_id, answer.metadata.dst_node_id) == (2, 0)
    assert answer.content.metric_records["metrics"]["partition-id"] == 1


def test_replies_come_in_the_order_of_the_messages_and_once():
    grid = LocalGrid(client_app, 4)
    names = grid.push_messages([query(node) for node in (3, 1, 4)])
    answers = grid.pull_messages(names)
    assert [answer.metadata.src_node_id for answer in answers] == [3, 1, 4]
    assert grid.pull_messages(names) == []
    assert grid.get_node_ids() == [1, 2, 3, 4]


def test_a_client_that_raises_answers_with_an_error():
    app = ClientApp()

    @app.query()
    def fail(message, context):
        raise ZeroDivisionError("by nothing")

    (answer,) = LocalGrid(app, 1).send_and_receive([query(1)])
    assert answer.has_error()
    assert "ZeroDivisionError: by nothing" in answer.error.reason


def test_a_client_that_exits_does_not_take_the_server_with_it():
    app = ClientApp()

    @app.query()
    def leave(message, context):
        sys.exit("no data here")

    (answer,) = LocalGrid(app, 1).send_and_receive([query(1)])
    assert "SystemExit: no data here" in answer.error.reason


def test_neither_side_can_change_what_the_other_holds():
    app = ClientApp()

    @app.query()
    def meddle(message, context):
        message.content["config"]["lr"] = 666
        mine = context.state.setdefault("metrics", MetricRecord({"x": 1}))
        return Message(RecordDict({"metrics": mine}), reply_to=message)

    grid, sent = LocalGrid(app, 2), query(1, lr=0.1)
    first, second = grid.send_and_receive([sent, Message(sent.content, 2, MessageType.QUERY)])
    assert sent.content["config"]["lr"] == 0.1
    first.content["metrics"]["x"] = 99
    assert second.content["metrics"]["x"] == 1
    (again,) = grid.send_and_receive([query(1)])
    assert again.content["metrics"]["x"] == 1


def test_a_client_keeps_its_own_state_between_messages():
    app = ClientApp()

    @app.query()
    def count(message, context):
        calls = context.state.setdefault("calls", MetricRecord({"n": 0}))
        calls["n"] += 1
        return Message(RecordDict({"calls": calls}), reply_to=message)

    grid = LocalGrid(app, 2)
    answers = grid.send_and_receive([query(1), query(1), query(2)])
    assert [answer.content["calls"]["n"] for answer in answers] == [1, 2, 1]


def test_the_server_app_finds_its_configuration_and_leaves_its_state():
    app = ServerApp()

    @app.main()
    def main(grid, context):
        (answer,) = grid.send_and_receive([query(2)])
        context.state["got"] = answer.content["metrics"]
        context.state["config"] = ConfigRecord(dict(context.run_config))

    context = run_local(app, client_app, 2, {"rounds": 3})
    assert context.state["got"]["partition-id"] == 1
    assert context.state["config"]["rounds"] == 3


def test_what_the_server_app_raises_is_raised_and_the_log_is_as_before():
    app, logger = ServerApp(), logging.getLogger("flwr")
    before = logger.level

    @app.main()
    def main(grid, context):
        assert logger.level == logging.ERROR
        raise LookupError("nothing here")

    with pytest.raises(LookupError, match="nothing here"):
        run_local(app, client_app, 1, {})
    assert logger.level == before


def test_bad_addresses_and_empty_grids_are_named():
    with pytest.raises(KeyError, match="no node 9; this grid has 1 to 2"):
        LocalGrid(client_app, 2).send_and_receive([query(9)])
    with pytest.raises(ValueError, match="got 0"):
        LocalGrid(client_app, 0)


def test_arrays_survive_the_journey_to_the_bit():
    import torch

    app = ClientApp()

    @app.query()
    def echo(message, context):
        return Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)

    sent = {"w": torch.randn(3, 2), "n": torch.tensor(7)}
    message = Message(RecordDict({"arrays": ArrayRecord(sent)}), 1, MessageType.QUERY)
    grid = LocalGrid(app, 1)
    (answer,) = grid.send_and_receive([message])
    back = answer.content["arrays"].to_torch_state_dict()
    assert all(torch.equal(back[name], sent[name]) for name in sent)


def test_telemetry_and_update_checks_are_off_before_flower_is_imported():
    code = (
        "import os; [os.environ.pop(n, 0) for n in ('FLWR_TELEMETRY_ENABLED', 'FLWR_DISABLE_UPDATE_CHECK')]\n"
        "import sys, ouikit.fl.run.apps\n"
        "from flwr.supercore import telemetry\n"
        "off = telemetry.FLWR_TELEMETRY_ENABLED == '0' and os.environ['FLWR_DISABLE_UPDATE_CHECK'] == '1'\n"
        "sys.exit(not off)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_arrays_and_lists_that_a_client_puts_in_place_are_its_own():
    """Also those that one message shares with the next."""
    app = ClientApp()

    @app.query()
    def meddle(message, context):
        message.content["arrays"]["w"] = Array(np.zeros(3))
        message.content["arrays"]["v"].data = b"nothing"
        message.content["config"]["list"].append(666)
        message.metadata.group_id = "strangers"
        return Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)

    arrays = ArrayRecord({"w": Array(np.ones(3)), "v": Array(np.ones(2))})
    sent = Message(
        RecordDict({"arrays": arrays, "config": ConfigRecord({"list": [1]})}), 1, MessageType.QUERY
    )
    (answer,) = LocalGrid(app, 1).send_and_receive([sent])
    assert answer.content["arrays"]["v"].data == b"nothing"
    assert np.array_equal(sent.content["arrays"]["w"].numpy(), np.ones(3))
    assert np.array_equal(sent.content["arrays"]["v"].numpy(), np.ones(2))
    assert sent.content["config"]["list"] == [1]
    assert sent.metadata.group_id == ""
