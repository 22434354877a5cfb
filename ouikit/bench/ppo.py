"""What watching costs PPO, and how fast the trainings are: `ouikit bench ppo`.

Every figure is a ratio of CPU times for the same environment steps, measured in turns in one process with one
thread, so that a busy machine slows all arms alike. Nothing here is asserted by a test.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from ouikit.bench.timing import Row, in_turns, ratio_row
from ouikit.rl import OUICallback, lockstep
from ouikit.rl.ppo import Settings, model_of
from ouikit.train import one_thread

STEPS = 8_192  # whole rollouts in every arm; short, so that the arms of a ratio are close in time
ROUNDS = 20
THREADS = 1
SIDE_BY_SIDE = 9  # trainings in lockstep, as many as the chapter has learning rates
OURS = Settings("CartPole-v1", lr=1e-3, steps=STEPS)
DEFAULTS = replace(OURS, lr=3e-4, envs=1, rollout=2048, epochs=10, minibatches=32, entropy_weight=0)  # of SB3


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure everything, in about three minutes. Returns one row per figure, as `ouikit.bench.oui.run`.

    Environment steps per CPU second of arm a over those of arm b are the CPU time of b over that of a.
    """
    (progress or (lambda part: None))("PPO on CartPole: watched, plain, SB3's defaults, lockstep")
    with one_thread():
        watched, plain, defaults, nine = in_turns(ROUNDS, _watched, _plain, _defaults, _nine_in_lockstep)
        inside, sparse = ([_share_of_readings(s) for _ in range(ROUNDS)] for s in (OURS, DEFAULTS))
    per_second = {name: f"{STEPS / median(times):,.0f}" for name, times in (
        ("watched", watched), ("plain", plain), ("defaults", defaults))}  # fmt: skip
    each = [seconds / SIDE_BY_SIDE for seconds in nine]

    def row(name: str, over: list[float], under: list[float], target: str, note: str) -> Row:
        ratios = [a / b for a, b in zip(over, under, strict=True)]
        return ratio_row(name, ratios, target, f"environment steps per CPU second: {note}")

    return [
        row("PPO with OUICallback / plain SB3", watched, plain, "<= 1.02",
            f"{per_second['watched']} watched, {per_second['plain']} plain"),
        ratio_row("PPO with OUICallback / the same training less its readings", inside, "<= 1.02",
                  f"{_reads(OURS)}, four times as often as at SB3's defaults. Near its target: it has been "
                  "just above it on another CPU"),
        ratio_row("SB3's default settings with OUICallback / less its readings", sparse, "<= 1.02",
                  _reads(DEFAULTS)),
        row("SB3's default settings / PPO with OUICallback", defaults, watched, ">= 1",
            f"{per_second['defaults']} with one environment, 10 epochs and batches of 64"),
        row("PPO with OUICallback / one of nine trainings in lockstep", watched, each, ">= 4",
            f"{STEPS / median(each):,.0f} with the same settings and the same readings"),
    ]  # fmt: skip


class _Timed(OUICallback):
    """Adds up the CPU time of its own readings."""

    seconds = 0.0

    def _on_rollout_end(self) -> None:
        start = time.process_time()
        super()._on_rollout_end()
        self.seconds += time.process_time() - start


def _reads(settings: Settings) -> str:
    return (
        f"two networks on {settings.probe} states, every {settings.envs * settings.rollout} environment steps"
    )


def _share_of_readings(settings: Settings) -> float:
    """Whole training over what is left of it without the readings, from one run: no noise between runs."""
    timed = _Timed()
    start = time.process_time()
    _learn(settings, timed)
    whole = time.process_time() - start
    return whole / (whole - timed.seconds)


def _learn(settings: Settings, callback: OUICallback | None) -> None:
    model_of(settings, 0).learn(settings.steps, callback=callback)


def _watched() -> None:
    _learn(OURS, OUICallback())


def _plain() -> None:
    _learn(OURS, None)


def _defaults() -> None:
    _learn(DEFAULTS, None)


def _nine_in_lockstep() -> None:
    lockstep.train(OURS, [OURS.lr] * SIDE_BY_SIDE, range(SIDE_BY_SIDE))
