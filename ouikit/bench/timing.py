"""How every benchmark is measured: ways to do one thing, timed in turns in one process, and a row per ratio.

Turns slow all ways alike where the machine is busy. Times are of the processor (CPU time), with one thread,
unless a benchmark says otherwise. No test asserts a time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import binom

Arm = Callable[[], object]
Row = dict[str, Any]


def in_turns(
    rounds: int, *arms: Arm, clock: Callable[[], float] = time.process_time, settle: float = 0
) -> list[list[float]]:
    """Seconds of each arm in each round, after one warm-up; every round reverses the order.

    Before each timing the arm's turn begins with `settle` seconds of sleep, in which the threads of the arm
    before stop looking for work, and as many seconds of untimed calls, which wake the arm's own threads.
    """
    times: list[list[float]] = [[] for _ in arms]
    for arm in arms:
        arm()
    for turn in range(rounds):
        order = list(enumerate(arms))
        for index, arm in order if turn % 2 else reversed(order):
            time.sleep(settle)
            settled = time.perf_counter() + settle
            while time.perf_counter() < settled:
                arm()
            start = clock()
            arm()
            times[index].append(clock() - start)
    return times


def seconds_each(
    arms: Mapping[str, Arm],
    rounds: int,
    shortest: float = 3e-3,
    clock: Callable[[], float] = time.process_time,
    settle: float = 0,
) -> dict[str, list[float]]:
    """Seconds of one call of each arm, in each round; a timing repeats the call until it takes `shortest`.

    Caches are warm: operands and results are those of the call before.
    """
    repeated = {name: _repeated(arm, shortest) for name, arm in arms.items()}
    times = in_turns(rounds, *(again for again, _ in repeated.values()), clock=clock, settle=settle)
    return {
        name: [t / count for t in row]
        for (name, (_, count)), row in zip(repeated.items(), times, strict=True)
    }


def _repeated(arm: Arm, shortest: float) -> tuple[Arm, int]:
    """The arm as often as fills the shortest timing, and how often that is."""
    arm()
    start = time.perf_counter()
    arm()
    count = int(shortest / (time.perf_counter() - start)) + 1

    def again() -> None:
        for _ in range(count):
            arm()

    return again, count


def ratio_row(name: str, ratios: Sequence[float], target: str, note: str) -> Row:
    """One figure: the median of some ratios, its 95 % interval, and whether it meets its target.

    target: "<= x" or ">= x". The row has name, value, low, high, n, unit, target, met and note.
    """
    value, (low, high), (sign, bound) = median(ratios), median_interval(ratios), target.split()
    met = value <= float(bound) if sign == "<=" else value >= float(bound)
    row: Row = {"name": name, "value": value, "low": low, "high": high, "n": len(ratios)}
    return row | {"unit": "ratio", "target": target, "met": met, "note": note}


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The distribution-free interval of a median: the k-th lowest and the k-th highest value.

    k is as large as the level allows, by the binomial distribution; of five values or fewer, which cannot
    reach 95 %, it is the range.
    """
    ordered, n = sorted(values), len(values)
    k = max(int(binom.ppf((1 - level) / 2, n, 0.5)), 1)
    return ordered[k - 1], ordered[n - k]


def read_bandwidth(mib: int = 256, rounds: int = 5) -> float:
    """Bytes per CPU second at which one thread reads so many MiB again and again, at best."""
    words = np.ones(mib * 2**17, np.uint64)
    (times,) = in_turns(rounds, lambda: np.bitwise_or.reduce(words))
    return words.nbytes / min(times)
