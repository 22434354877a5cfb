"""Timing in turns, against a clock that the test moves by hand."""

import pytest

from ouikit.bench.timing import in_turns, seconds_each


class Clock:
    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def __call__(self) -> float:
        return self.now

    def arm(self, name: str, seconds: float):
        def run() -> None:
            self.calls.append(name)
            self.now += seconds

        return run


def test_arms_take_turns_and_the_order_turns_round():
    clock = Clock()
    times = in_turns(3, clock.arm("a", 1), clock.arm("b", 2), clock=clock)
    assert times == [[1, 1, 1], [2, 2, 2]]
    assert "".join(clock.calls) == "ab" + "ba" + "ab" + "ba"


def test_short_arms_are_repeated_and_their_time_is_that_of_one_call(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    times = seconds_each({"a": clock.arm("a", 0.25), "b": clock.arm("b", 2.0)}, 2, shortest=1.0, clock=clock)
    assert times == {"a": pytest.approx([0.25, 0.25]), "b": [2.0, 2.0]}
    assert (
        clock.calls.count("a") == 2 + 3 * 5
    )  # two to find the number, then a warm-up and two rounds of five
    assert clock.calls.count("b") == 2 + 3 * 1


def test_arms_settle_before_every_timing_which_is_not_counted(monkeypatch):
    clock, rests = Clock(), []

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        clock.now += seconds

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.perf_counter", clock)
    times = in_turns(2, clock.arm("a", 1), clock.arm("b", 2), clock=clock, settle=3)
    assert times == [[1, 1], [2, 2]]
    assert rests == [3] * 4
    # A warm-up; then three calls of a, or two of b, that fill the time to settle, and the one that counts.
    assert "".join(clock.calls) == "ab" + "bbb" + "aaaa" + "aaaa" + "bbb"
