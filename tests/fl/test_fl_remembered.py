"""What was trained for is remembered, and nothing else is taken for it."""

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("flwr")

from ouikit.fl import Anomaly, Federation, Outcome, Population, simulate
from ouikit.fl.run import client, remembered
from ouikit.fl.run.remembered import Remembered

SMALL = Federation(
    clients=4, per_round=4, rounds=2, steps=1, model="narrow_mlp", population=Population("dirichlet", 1.0)
)
SICK = Anomaly("permuted", clients=1, onset=0)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per training; the memory is empty."""
    calls: list[int] = []
    fit = client.fit

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return fit(*args, **options)

    monkeypatch.setattr(client, "fit", counted)
    monkeypatch.setattr(client, "_answers", Remembered())
    return calls


def said(outcome: Outcome) -> tuple[Any, ...]:
    return outcome.checksum(), outcome.rounds, outcome.contributions


def test_a_run_that_is_repeated_says_the_same_and_trains_nothing(trained: list[int]) -> None:
    first = simulate(SMALL)
    assert len(trained) == 8
    assert said(simulate(SMALL)) == said(first)
    assert len(trained) == 8


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"method": "fedoui"}, 4),  # the first round is alike
        ({"method": "fedsq"}, 8),  # trains behind frozen gates
        ({"anomaly": SICK}, 5),  # … but for the client with an anomaly
        ({"anomaly": replace(SICK, onset=1)}, 1),  # … from its onset on
        ({"rounds": 3}, 4),  # one more round
        ({"lr": 0.04}, 8),
        ({"seed": 1}, 8),
        ({"probe": 16}, 8),
        ({"clients": 5}, 8),
    ],
)
def test_what_the_memory_knows_gives_the_bits_of_a_run_without_it(
    trained: list[int], change: dict[str, Any], again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(SMALL)
    trained.clear()
    changed = replace(SMALL, **change)
    mine = simulate(changed)
    assert len(trained) == again
    monkeypatch.setattr(client, "_answers", Remembered())
    assert said(simulate(changed)) == said(mine)


def test_other_weights_are_another_question_and_answers_are_copies() -> None:
    memory, made = Remembered(), []

    def asked(value: float) -> torch.Tensor:
        def train() -> remembered.Answer:
            made.append(value)
            return {"w": torch.full((2,), value + 1)}, {"loss": value}

        state, metrics = memory.answer("question", [{"w": torch.full((2,), value)}], train)
        assert metrics.pop("loss") == value
        return state["w"]

    asked(1.0).zero_()
    assert asked(1.0).tolist() == [2.0, 2.0]
    asked(1.0).zero_()
    assert asked(1.0).tolist() == [2.0, 2.0]
    assert asked(5.0).tolist() == [6.0, 6.0]
    assert made == [1.0, 5.0]


def test_the_memory_forgets_the_oldest_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "LIMIT", 3 * 16)  # three times eight bytes sent and eight answered
    memory, made = Remembered(), []

    def ask(question: int) -> None:
        def train() -> remembered.Answer:
            made.append(question)
            return {"w": torch.zeros(2)}, {}

        memory.answer(question, [{"w": torch.zeros(2)}], train)

    for question in (1, 2, 3, 1, 4, 1, 3, 2):
        ask(question)
    assert made == [1, 2, 3, 4, 2]
