"""A fault reads the same whatever the engine, the process and the run; an outcome is strict JSON."""

import json

import pytest
import torch

from ouikit.fl.flower import ClientApp, Message, RecordDict
from ouikit.fl.read.outcome import Outcome
from ouikit.fl.run.grid import LocalGrid
from ouikit.fl.strategies.reasons import plain


class RoomError(Exception):
    """What a client raises."""


LOCAL = "RoomError: no room at line 3 for 'a'"
RAY = """<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'\x1b[36mray::Actor.run()\x1b[39m (pid=24)
  File "/x/ray_actor.py", line 65, in run
Exception ClientAppException occurred. Message: no room'>"""  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (LOCAL, LOCAL),
        ("<class 'tests.fl.RoomError'>:<'no room at line 3 for 'a''>", LOCAL),
        ("<class '__main__.f.<locals>.RoomError'>:<'no room at line 3 for 'a''>", LOCAL),
        ("<class 'MemoryError'>:<''>", "MemoryError: "),
        (RAY, "RayTaskError(ClientAppException): Exception ClientAppException occurred. Message: no room"),
        ("<class 'ray.exceptions.ActorDiedError'>:<'It died.\n\tpid: 1'>", "ActorDiedError: It died."),
        ("E: \x1b[31mred\x1b[0m <Net object at 0x7f30171d4ab0>", "E: red <Net object>"),
        ("E: pid=17 died, process 4711 as well", "E: pid died, process as well"),
        ("E: '/tmp/tmpab12/run/a.pt', /var/tmp/b.pt, /data/tmp/c.pt", "E: 'a.pt', b.pt, /data/tmp/c.pt"),
        (None, "no reason given"),
    ],
)  # fmt: skip
def test_what_differs_from_run_to_run_is_left_out(reason, words):
    assert plain(reason) == words


@pytest.mark.parametrize("error", [RoomError("here"), SystemExit(1)])
def test_what_a_client_raises_is_a_reply(error):
    app = ClientApp()

    @app.query()
    def query(message, context):
        raise error

    (answer,) = LocalGrid(app, 1).send_and_receive([Message(RecordDict(), 1, "query")])
    assert answer.error.reason == f"{type(error).__name__}: {error}"


def test_an_outcome_is_strict_json_and_keeps_every_number():
    inf, nan = float("inf"), float("nan")
    rounds = [{"round": 0, "accuracy": 0.5, "loss": nan}, {"round": 1, "accuracy": 0.1, "loss": -inf}]
    state = {"seen": {"0": [inf, 1.0]}, "name": "nan"}
    outcome = Outcome({"w": torch.ones(2)}, rounds, state=state)
    text = outcome.json()
    json.loads(text, parse_constant=pytest.fail)
    read = Outcome.of(outcome.arrays, text)
    assert repr(read.rounds) == repr([dict(sorted(entry.items())) for entry in rounds])
    assert read.state == state
    assert read.json() == text


def test_equal_outcomes_give_equal_text_in_whatever_order_their_metrics_came():
    arrays = {"w": torch.ones(2)}
    one, other = ([{"a": 1.0, "b": 2.0}], [{"b": 2.0, "a": 1.0}])
    assert Outcome(arrays, contributions=one).json() == Outcome(arrays, contributions=other).json()
