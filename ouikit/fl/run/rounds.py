"""The rounds of a federation on a grid, with a checkpoint after each."""

from pathlib import Path

from threadpoolctl import threadpool_limits
from torch import Tensor

from ouikit.fl.flower import ConfigRecord, Grid
from ouikit.fl.read.outcome import Outcome, load_checkpoint, save_checkpoint
from ouikit.fl.run.judge import Judge
from ouikit.fl.setting.federation import Federation
from ouikit.fl.strategies.arrays import record_of_state, state_of
from ouikit.fl.strategies.fedsq import FedSQ
from ouikit.fl.strategies.methods import strategy_of
from ouikit.fl.strategies.paired import PairedFedAvg
from ouikit.train import one_thread


def federate(grid: Grid, federation: Federation, out: Path | None = None) -> Outcome:
    """Run every round of a federation on a grid.

    With a folder `out` every round leaves a checkpoint there, and a run whose server was killed continues
    after the last one, with the same bits as without the interruption. A damaged checkpoint, or one of
    another federation, is reported and not used.

    Raises:
        KeyError: the method is unknown. RoundFailedError: too few nodes, or no usable reply; the checkpoint
        of the round before stays.
    """
    strategy, config = strategy_of(federation), federation.config()
    judge = Judge(federation, frozen=isinstance(strategy, FedSQ))
    arrays, rounds, resumed = judge.initial, list[dict[str, float]](), list[int]()
    with one_thread(), threadpool_limits(1):
        if before := out and load_checkpoint(out, config):
            arrays, rounds = before.arrays, before.rounds
            resumed = [*before.resumed, len(rounds) - 1]
            strategy.contributions, strategy.faults = before.contributions, before.faults
            strategy.restore(before.state)
        else:
            rounds.append({"round": 0, **judge(arrays)})
        record, sent = record_of_state(arrays), ConfigRecord(config)  # type: ignore[arg-type]
        for server_round in range(len(rounds), federation.rounds + 1):
            messages = strategy.configure_train(server_round, record, sent, grid)
            replies = grid.send_and_receive(messages, timeout=federation.timeout)
            aggregated, _ = strategy.aggregate_train(server_round, replies)
            assert aggregated is not None  # for a round without a usable reply has raised
            record, arrays = aggregated, state_of(aggregated)
            rounds.append({"round": server_round, **judge(arrays)})
            if out:
                save_checkpoint(out, config, _outcome(arrays, rounds, strategy, resumed))
    return _outcome(arrays, rounds, strategy, resumed)


def _outcome(
    arrays: dict[str, Tensor], rounds: list[dict[str, float]], strategy: PairedFedAvg, resumed: list[int]
) -> Outcome:
    return Outcome(arrays, rounds, strategy.contributions, strategy.faults, strategy.state(), resumed)
