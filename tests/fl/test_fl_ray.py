"""Flower's simulation on Ray: the bits of one process, errors, a client that answers too late."""

import json
import os
import time
from dataclasses import replace

import pytest
from flwr.clientapp import ClientApp

from ouikit.fl.run.apps import identify, server_app, train
from ouikit.fl.run.ray import run_ray
from ouikit.fl.run.simulate import simulate
from ouikit.fl.setting.federation import Federation

pytest.importorskip("ray")
PAIR = Federation(method="fedoui", clients=2, per_round=2, rounds=2)


@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    monkeypatch.delenv("OUIKIT_ENGINE", raising=False)


@pytest.mark.slow
def test_ray_gives_the_bits_of_one_process(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "mine")
    expected = simulate(PAIR)
    monkeypatch.setenv("OUIKIT_ENGINE", "flower-sim")
    assert (
        simulate(PAIR).json() == expected.json()
    )  # weights, accuracies and contributions, to the last digit
    assert os.environ["PYTHONPATH"] == "mine"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.slow
def test_who_answers_late_is_left_out(tmp_path):
    """Workers are warm when the round begins: they have said before which partition they hold.

    What a client raises is named as in one process.
    """
    app, over = ClientApp(), tmp_path / "over"
    app.query()(identify)

    @app.train()
    def troubled(message, context):
        if context.node_config["partition-id"] == 2:
            raise MemoryError("no room")
        if context.node_config["partition-id"] == 1:
            while not over.exists():
                time.sleep(0.05)
        return train(message, context)

    def server(grid, context):
        try:
            server_app(grid, context)
        finally:
            over.touch()

    hurried = replace(PAIR, clients=3, per_round=3, rounds=1, timeout=20.0)
    left = json.loads(run_ray(server, app, 3, hurried.config()).state["outcome"]["json"])
    late, raised = left["faults"]
    assert late == {"round": 1, "client": 1, "reason": "no answer"}
    assert raised == {"round": 1, "client": 2, "reason": "error: MemoryError: no room"}
    assert [(entry["client"], entry["weight"]) for entry in left["contributions"]] == [(0, 1.0)]


@pytest.mark.slow
def test_what_the_server_raises_is_raised():
    with pytest.raises(KeyError, match="fedsgd"):
        run_ray(server_app, ClientApp(), 1, {"method": "fedsgd"})
