"""Ways to do one thing, timed in turns in one process, so that a busy machine slows all of them alike."""

import time
from collections.abc import Callable, Mapping

Arm = Callable[[], object]


def in_turns(
    rounds: int, *arms: Arm, clock: Callable[[], float] = time.process_time, settle: float = 0
) -> list[list[float]]:
    """Seconds of each arm in each round, after one warm-up; the order turns round every time.

    `settle` seconds pass before each timing, since the threads of the arm before go on looking for work for a
    while; then as many in which the arm runs untimed, to wake its own.
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

    The caches are warm: operands and results are those of the call before.
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
