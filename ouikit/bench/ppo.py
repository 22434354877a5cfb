"""What watching costs PPO, and how fast the trainings are: `ouikit bench ppo`.

Every figure is a ratio of CPU times for the same environment steps, measured in turns in one process with one
thread, so that a busy machine slows all arms alike. Nothing here is asserted by a test.
"""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

from ouikit.bench._timing import in_turns, one_thread, ratio_row
from ouikit.rl import OUICallback, single_file
from ouikit.rl.ppo import Settings, model_of

STEPS = 20_480  # whole rollouts in every arm
ROUNDS = 6  # lowest and highest of 6 enclose the median with 97 % confidence
OURS = Settings("CartPole-v1", lr=1e-3, steps=STEPS)
DEFAULTS = replace(
    OURS, lr=3e-4, envs=1, rollout=2048, epochs=10, minibatches=32, entropy_weight=0.0
)  # SB3's own

Row = dict[str, Any]


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure everything, in about a minute. Returns one row per figure, as `ouikit.bench.oui.run`.

    Environment steps per CPU second of arm a over those of arm b are the CPU time of b over that of a.
    """
    (progress or (lambda part: None))("PPO on CartPole: watched, plain, SB3's defaults, single file")
    with one_thread():
        watched, plain, defaults, single = in_turns(ROUNDS, _watched, _plain, _defaults, _single_file)
    speed = {name: STEPS / median(times) for name, times in (("watched", watched), ("plain", plain))}
    rate = f"{speed['watched']:,.0f} environment steps per CPU second watched, {speed['plain']:,.0f} plain"

    def row(name: str, over: list[float], under: list[float], target: str, note: str) -> Row:
        return ratio_row(name, [a / b for a, b in zip(over, under, strict=True)], target, note)

    return [
        row("SB3 with OUICallback / plain SB3, CPU time", watched, plain, "<= 1.02", rate),
        row(
            "SB3's default settings / ours with OUICallback, CPU time",
            defaults,
            watched,
            ">= 1",
            f"{STEPS / median(defaults):,.0f} steps per CPU second: one environment, 10 epochs",
        ),
        row(
            "SB3 with OUICallback / CleanRL-style single file, same settings, CPU time",
            watched,
            single,
            "<= 2",
            f"{STEPS / median(single):,.0f} steps per CPU second in {len(_source())} lines without SB3",
        ),
    ]


def _learn(settings: Settings, callback: OUICallback | None) -> None:
    model = model_of(settings, 0)
    model.learn(settings.steps, callback=callback)


def _watched() -> None:
    _learn(OURS, OUICallback())


def _plain() -> None:
    _learn(OURS, None)


def _defaults() -> None:
    _learn(DEFAULTS, None)


def _single_file() -> None:
    single_file.train(OURS, 0)


def _source() -> list[str]:
    with open(single_file.__file__) as file:
        return file.read().splitlines()
