"""The benchmark of optimisers: its measure of memory on sizes that are known, and a small row of a sweep."""

import torch

from ouikit.bench import optim
from ouikit.bench.memory import peak


def test_the_peak_is_what_a_call_holds_at_once():
    peak(lambda: torch.zeros(1 << 20).add_(1))
    small = peak(lambda: torch.zeros(8 << 20).add_(1))
    twice = peak(lambda: torch.zeros(8 << 20).add_(1) + 1)
    assert 0.9 < small / (32 << 20) < 1.2
    assert 1.9 < twice / (64 << 19) < 2.2


def test_a_sweep_in_lockstep_is_judged_on_ratios(monkeypatch):
    monkeypatch.setattr(optim, "STEPS", 2)
    row = optim._lockstep(batch=16, rounds=2)
    assert row["n"] == 2
    assert row["value"] > 1  # 27 networks at once; the target is another matter
    assert row["name"] == "27 digits networks, batch 16: one after another / in lockstep"
