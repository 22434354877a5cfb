"""Servers that are killed, checkpoints that are damaged, nodes that are not there: what a run does then."""

import json
import signal
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.clientapp import ClientApp

from ouikit.fl.flower import ArrayRecord
from ouikit.fl.read import outcome as outcome_module
from ouikit.fl.read.outcome import CHECKPOINT, Outcome, load_checkpoint, save_checkpoint
from ouikit.fl.run import rounds as rounds_module
from ouikit.fl.run.apps import client_app, identify, server_app, train
from ouikit.fl.run.grid import LocalGrid, run_local
from ouikit.fl.run.simulate import simulate
from ouikit.fl.setting.federation import Federation
from ouikit.fl.strategies.methods import METHODS
from ouikit.fl.strategies.paired import PairedFedAvg
from ouikit.fl.strategies.replies import RoundFailedError

FOUR = Federation(method="fedoui", rounds=4, epochs=1, clients=6, per_round=3)


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    monkeypatch.delenv("OUIKIT_ENGINE", raising=False)
    monkeypatch.delenv("OUIKIT_FLOWER_OUT", raising=False)


def rest(outcome):
    """All of an outcome but the rounds after which it was resumed."""
    return {name: value for name, value in json.loads(outcome.json()).items() if name != "resumed"}


class KilledError(Exception):
    """Stands for a kill where a process of its own would be too slow."""


def interrupted_after(monkeypatch, server_round, federation, out):
    """Run until the checkpoint of a round is written, and no further."""

    def save(folder, config, so_far):
        save_checkpoint(folder, config, so_far)
        if len(so_far.rounds) == server_round + 1:
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(rounds_module, "save_checkpoint", save)
        with pytest.raises(KilledError):
            simulate(federation, out=out)


KILLS_ITSELF = """
import os, signal, sys
from pathlib import Path
from ouikit.fl.run import rounds
from ouikit.fl.run.simulate import simulate
from test_fl_faults import FOUR

save = rounds.save_checkpoint


def then_die(folder, config, so_far):
    save(folder, config, so_far)
    if len(so_far.rounds) == 3:
        os.kill(os.getpid(), signal.SIGKILL)


rounds.save_checkpoint = then_die
simulate(FOUR, out=Path(sys.argv[1]))
"""


def test_a_killed_server_goes_on_with_the_same_bits(tmp_path):
    died = subprocess.run(
        [sys.executable, "-c", KILLS_ITSELF, tmp_path], cwd=__file__.rpartition("/")[0], check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    resumed, whole = simulate(FOUR, out=tmp_path), simulate(FOUR)
    assert rest(resumed) == rest(whole)
    assert (resumed.resumed, whole.resumed) == ([2], [])
    assert Outcome.load(tmp_path).json() == resumed.json()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_with_the_same_bits_twice(method, tmp_path, monkeypatch):
    federation = replace(FOUR, method=method)
    interrupted_after(monkeypatch, 1, federation, tmp_path)
    interrupted_after(monkeypatch, 3, federation, tmp_path)
    resumed = simulate(federation, out=tmp_path)
    assert rest(resumed) == rest(simulate(federation))
    assert resumed.resumed == [1, 3]


def test_a_strategy_that_remembers_more_says_so(tmp_path, monkeypatch):
    """A momentum of the server, kept in `state`: without the hook the resumed run would differ."""

    class Remembering(PairedFedAvg):
        pace = 0.0

        def weights(self, replies, server_round):
            self.pace += replies[0].metrics["loss"]
            weights = super().weights(replies, server_round) * (1 + np.arange(len(replies)) * self.pace)
            return weights / weights.sum()

        def state(self):
            return {"pace": self.pace}

        def restore(self, state):
            self.pace = state["pace"]

    monkeypatch.setitem(METHODS, "remembering", Remembering)
    federation = replace(FOUR, method="remembering")
    whole = simulate(federation)
    interrupted_after(monkeypatch, 2, federation, tmp_path)
    assert rest(simulate(federation, out=tmp_path)) == rest(whole)
    interrupted_after(monkeypatch, 2, federation, tmp_path)
    monkeypatch.delattr(Remembering, "restore")
    assert simulate(federation, out=tmp_path).checksum() != whole.checksum()


DAMAGES = {
    "truncated": lambda content: content[:-100],
    "one bit": lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:],
    "empty": lambda content: b"",
    "another file": lambda content: b"\x00" * len(content),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_reported_and_never_used(damage, tmp_path, monkeypatch):
    interrupted_after(monkeypatch, 2, FOUR, tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.warns(RuntimeWarning, match="checkpoint.pt is damaged; the run starts from the beginning"):
        outcome = simulate(FOUR, out=tmp_path)
    assert outcome.json() == simulate(FOUR).json()


def test_the_checkpoint_of_another_run_is_not_used(tmp_path, monkeypatch):
    interrupted_after(monkeypatch, 2, FOUR, tmp_path)
    other = replace(FOUR, seed=1)
    with pytest.warns(RuntimeWarning, match="another configuration"):
        outcome = simulate(other, out=tmp_path)
    assert outcome.json() == simulate(other).json()


def test_a_checkpoint_is_replaced_whole(tmp_path, monkeypatch):
    """Killed while round 3 is being written: the file still holds round 2."""
    interrupted_after(monkeypatch, 2, FOUR, tmp_path)

    def die(source, target):
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(outcome_module.os, "replace", die)
        with pytest.raises(KilledError):
            simulate(FOUR, out=tmp_path)
    assert len(load_checkpoint(tmp_path, FOUR.config()).rounds) == 3
    assert rest(simulate(FOUR, out=tmp_path)) == rest(simulate(FOUR))


def test_a_finished_run_is_not_taken_up_again(tmp_path):
    """Code may have changed since: the same call runs anew."""
    first = simulate(FOUR, out=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"outcome.json", "weights.pt"}
    assert simulate(FOUR, out=tmp_path).json() == first.json()


def test_a_run_goes_on_after_the_outcome_of_its_first_rounds():
    half = simulate(replace(FOUR, rounds=2))
    going_on = simulate(FOUR, after=half)
    assert rest(going_on) == rest(simulate(FOUR))
    assert going_on.resumed == [2]
    with pytest.raises(ValueError, match="no round is left of 2: 4 are done"):
        simulate(replace(FOUR, rounds=2), after=going_on)


def test_an_outcome_whose_files_do_not_fit_is_an_error(tmp_path):
    outcome = simulate(replace(FOUR, rounds=1))
    outcome.save(tmp_path)
    assert Outcome.load(tmp_path).json() == outcome.json()
    torch.save({name: value + 1 for name, value in outcome.arrays.items()}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="a file is damaged"):
        Outcome.load(tmp_path)


def failing(wrong):
    """The ClientApp, but clients for which `wrong(client, server_round)` holds raise."""
    app = ClientApp()
    app.query()(identify)

    @app.train()
    def maybe(message, context):
        if wrong(context.node_config["partition-id"], message.content["config"]["server-round"]):
            raise MemoryError("no room")
        return train(message, context)

    return app


def test_faults_of_before_are_remembered_after_a_restart(tmp_path):
    """Round 1 loses a client, in round 3 everybody fails, and the server is started again with sound ones."""
    first = simulate(replace(FOUR, rounds=1)).contributions[0]["client"]
    app = failing(lambda client, server_round: server_round == 3 or (server_round, client) == (1, first))
    with pytest.raises(RoundFailedError, match=r"round 3: 0 usable replies of 3.*MemoryError: no room"):
        run_local(server_app, app, 6, {**FOUR.config(), "out": str(tmp_path)})
    kept = load_checkpoint(tmp_path, FOUR.config())
    assert [entry["round"] for entry in kept.rounds] == [0, 1, 2]
    assert [(fault["round"], fault["client"]) for fault in kept.faults] == [(1, first)]
    resumed = simulate(FOUR, out=tmp_path)
    assert [(fault["round"], fault["client"]) for fault in resumed.faults] == [(1, first)]
    assert resumed.resumed == [2]
    whole = json.loads(
        run_local(server_app, failing(lambda c, r: (r, c) == (1, first)), 6, FOUR.config()).state["outcome"][
            "json"
        ]
    )
    assert rest(resumed) == {name: value for name, value in whole.items() if name != "resumed"}


def test_a_round_in_which_nobody_answers_in_time_fails():
    class Silent(LocalGrid):
        def send_and_receive(self, messages, *, timeout=None):
            asked = list(messages)
            return super().send_and_receive(asked) if asked[0].metadata.message_type == "query" else []

    grid = Silent(failing(lambda client, server_round: False), 6)
    with pytest.raises(RoundFailedError, match=r"round 1: 0 usable replies of 3.*no answer.*no answer"):
        rounds_module.federate(grid, FOUR)


def test_nodes_that_do_not_come_are_waited_for_and_then_missed():
    grid = LocalGrid(failing(lambda client, server_round: False), 4)
    strategy = PairedFedAvg(min_available_nodes=6, patience=0.0)
    arrays = ArrayRecord(FOUR.network().state_dict())
    with pytest.raises(RoundFailedError, match="round 1: 4 nodes are there, 6 needed"):
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=1)


def test_flowers_own_loop_gives_the_bits_of_ours():
    """The strategies are ordinary ones: in another project `start` runs them, without checkpoints."""
    from flwr.app import ConfigRecord

    from ouikit.fl.strategies.methods import strategy_of

    strategy, arrays = strategy_of(FOUR), ArrayRecord(FOUR.network().state_dict())
    grid = LocalGrid(client_app, 6)
    theirs = strategy.start(
        grid=grid, initial_arrays=arrays, num_rounds=4, train_config=ConfigRecord(FOUR.config())
    )
    ours = simulate(FOUR)
    state = theirs.arrays.to_torch_state_dict()
    assert all(torch.equal(state[name], ours.arrays[name]) for name in ours.arrays)
    assert strategy.contributions == ours.contributions


def test_threads_do_not_change_the_bits():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        several = simulate(replace(FOUR, method="product"))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    torch.set_num_threads(1)
    one = simulate(replace(FOUR, method="product"))
    torch.set_num_threads(before)
    assert one.json() == several.json()


def test_an_unknown_engine_of_flower_is_refused(monkeypatch):
    for engine in ("flower", "flower-ray", "flowers://127.0.0.1:1"):
        monkeypatch.setenv("OUIKIT_ENGINE", engine)
        with pytest.raises(ValueError, match="flower-sim or flower://HOST:PORT"):
            simulate(FOUR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setenv("OUIKIT_ENGINE", "dask://127.0.0.1:8786")  # a sweep's, whose cells run in place
        simulate(replace(FOUR, rounds=1))
