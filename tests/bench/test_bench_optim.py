"""The benchmark of optimisers: its measure of memory on sizes that are known, and a small row of a sweep."""

import subprocess
import sys

import torch

from ouikit.bench import optim
from ouikit.bench.memory import peak


def test_the_peak_is_what_a_call_holds_at_once():
    peak(lambda: torch.zeros(1 << 20).add_(1))
    small = peak(lambda: torch.zeros(8 << 20).add_(1))
    twice = peak(lambda: torch.zeros(8 << 20).add_(1) + 1)
    assert 0.9 < small / (32 << 20) < 1.2
    assert 1.9 < twice / (64 << 19) < 2.2


def test_the_peak_counts_memory_that_the_c_library_had_kept():
    """Some libraries tell malloc to keep whatever is freed. A process of its own: that cannot be undone."""
    code = (
        "import ctypes, torch; from ouikit.bench.memory import peak\n"
        "libc, trim_threshold, mmap_threshold = ctypes.CDLL(None), -1, -3\n"
        "assert libc.mallopt(mmap_threshold, 1 << 30) and libc.mallopt(trim_threshold, 1 << 30)\n"
        "held = [torch.zeros(8 << 20) for _ in range(4)]; del held\n"
        "print(peak(lambda: torch.zeros(8 << 20).add_(1)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.9 < int(done.stdout) / (32 << 20) < 1.2


def test_a_sweep_in_lockstep_is_judged_on_ratios(monkeypatch):
    """One after another over in lockstep, round by round; every arm runs."""

    def turns(rounds, *arms):
        assert len([arm() for arm in arms]) == 4
        return [[1.0, 2.0], [30.0, 50.0], [0.5, 0.5], [0.1, 0.1]]

    monkeypatch.setattr(optim, "STEPS", 2)
    monkeypatch.setattr(optim, "in_turns", turns)
    row = optim._lockstep(batch=16, rounds=2)
    assert (row["n"], row["value"], row["low"], row["high"]) == (2, 27.5, 25.0, 30.0)
    assert row["met"]
    assert row["name"] == "27 digits networks, batch 16: one after another / in lockstep"
