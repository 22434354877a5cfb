"""What the benchmark of the book makes of its measurements, and that it runs the commands it names."""

import subprocess
import sys

import pytest

from ouikit.bench import book


def test_a_ratio_is_the_new_time_over_the_old():
    row = book._ratio("fedoui: CPU-seconds", [50.0, 500.0], "<= 0.167", "cells 80%")
    assert (row["value"], row["met"]) == (0.1, True)
    assert row["note"] == "50 s of 500 s; cells 80%"
    assert not book._ratio("fedoui", [100.0, 500.0], "<= 0.167")["met"]


def test_a_limit_is_kept_up_to_itself():
    assert book._plain("memory", 1200, "MB", 1200)["met"]
    assert not book._plain("memory", 1200.1, "MB", 1200)["met"]
    assert book._plain("memory", 3.0, "MB")["met"] is None


def test_stages_share_the_whole_time():
    result = {"cpu_seconds": 40.0, "cells": {"cpu_seconds": 30.0}}
    assert (
        book._stages(result, 50.0)
        == "cells of the sweeps 60%, notebook and workers 20%, papermill and keys 20%"
    )


def test_a_command_counts_what_its_children_used(tmp_path):
    inner = "import time\nwhile time.process_time() < 0.3: pass"
    outer = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {inner!r}])\nprint('done')"
    spent = book.command([sys.executable, "-c", outer], tmp_path)
    assert spent.output == "done\n"
    assert 0.3 <= spent.cpu < 30


def test_a_command_that_fails_says_what_it_said(tmp_path):
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno such chapter"):
        book.command([sys.executable, "-c", "import sys; print('no such chapter'); sys.exit(3)"], tmp_path)


def test_rounds_are_measured_by_a_program_of_this_build():
    done = subprocess.run(
        [sys.executable, "-c", book.ROUNDS, "1", "2"], capture_output=True, text=True, check=True
    )
    wall, cpu, checksum = done.stdout.split()
    assert float(wall) > 0
    assert float(cpu) > 0
    assert len(checksum) == 64


def test_a_part_that_was_measured_to_its_end_is_not_measured_again(tmp_path):
    def stopped():
        raise KeyboardInterrupt

    said: list[str] = []
    kept = book.Kept(tmp_path, said.append)
    with pytest.raises(KeyboardInterrupt):
        kept.rows("fedoui", stopped)
    row = book._plain("memory", 3.0, "MB")
    assert kept.rows("fedoui", lambda: [row]) == [row]
    assert book.Kept(tmp_path, said.append).rows("fedoui", stopped) == [row]
    assert said == ["fedoui", "fedoui"]


def test_the_total_is_of_the_seconds_not_of_the_ratios():
    parts = [
        [book._ratio("a", [10.0, 100.0], "<= 0.5"), book._plain("a", 10.0, "s"), book._plain("m", 1, "MB")],
        [book._ratio("b", [50.0, 100.0], "<= 0.5"), book._plain("b", 50.0, "s"), book._plain("m", 1, "MB")],
    ]
    assert book._total(parts)["value"] == pytest.approx(0.3)
