"""What the benchmarks of products make of their times: ratios, rooflines and counts, on hand-made numbers."""

import pytest

pytest.importorskip("ouigemm")
from ouikit.bench import emulated
from ouikit.bench import gemm as bench

SQUARE, LATE = (512, 512, 512), (49, 512, 4608)


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(bench, "CLASSES", {"squares": (SQUARE,), "late": (LATE,)})
    monkeypatch.setattr(bench, "AMX", dict.fromkeys(("squares", "late", bench.ALL), (1.5, 1.2)))
    monkeypatch.setattr(bench, "OTHERS", dict.fromkeys(("squares", "late", bench.ALL), (1.0, 1.0)))
    times = {
        SQUARE: {"packed": [1.0, 1.0, 9.0], "plain": [2.0, 2.0, 2.0], "MKL": [2.0, 2.0, 1.0]},
        LATE: {"packed": [4.0, 4.0, 4.0], "plain": [4.0, 4.0, 4.0], "MKL": [2.0, 2.0, 2.0]},
    }
    limits = {SQUARE: 0.5, LATE: 1.0}
    return {row["name"]: row for row in bench._of_kind("f32", 1, times, 1e9, limits)}


def test_rows_are_ratios_of_medians(rows):
    packed = rows["f32, packed, against MKL: all shapes, threads: 1"]
    assert (packed["value"], packed["low"], packed["high"], packed["n"]) == (1.0, 0.5, 2.0, 2)
    assert packed["met"]
    late = rows["f32, packed, against MKL: late, threads: 1"]
    assert (late["value"], late["met"]) == (0.5, False)
    assert rows["f32, plain, against MKL: squares, threads: 1"]["value"] == 1.0


def test_notes_say_the_share_of_peak_and_roofline(rows):
    note = rows["f32, packed, against MKL: squares, threads: 1"]["note"]
    assert "27% of the peak, 50% of the roofline" in note  # 2 · 512³ operations in 1 s
    assert "best times 1.00" in note
    assert "slowest round / quickest 9.00" in note


def test_the_roofline_is_the_longer_of_two_times(monkeypatch):
    monkeypatch.setattr(bench.ouigemm, "capabilities", lambda: {"caches": {"L2": 2**21}})
    bandwidth = {16: 1e9, 256: 5e8}
    assert bench._roofline((256, 256, 256), "f32", 1e9, bandwidth) == 2 * 256**3 / 1e9  # fits the cache
    moved = 4 * (16 * 4096 + 4096 * 4096 + 16 * 4096)
    assert bench._roofline((16, 4096, 4096), "f32", 1e12, bandwidth) == (moved - 2**21) / 5e8
    assert (
        bench._roofline((16, 1024, 4096), "s8s8", 1e12, bandwidth)
        == (16 * 4096 + 2**22 + 2**16 - 2**21) / 1e9
    )


def test_a_roofline_knows_what_a_result_takes(monkeypatch):
    monkeypatch.setattr(bench.ouigemm, "capabilities", lambda: {"caches": {"L2": 0}})
    operands, results = 1024 * 64 + 64 * 1024, 1024 * 1024
    for kind, moved in (("u8s8 to u8", operands + results), ("u8s8 to f32", operands + 4 * results)):
        assert bench._roofline((1024, 1024, 64), kind, 1e18, {16: 1e9}) == moved / 1e9


def test_fusion_is_judged_where_sums_would_leave_the_cache(monkeypatch):
    monkeypatch.setattr(bench, "CLASSES", {"squares": (SQUARE,), "tall": ((3136, 256, 64),)})
    took = {SQUARE: 9.0, (3136, 256, 64): 1.5}
    times = {shape: {"packed": [1.0], bench.OWN: [t]} for shape, t in took.items()}
    rows = bench._of_kind("u8s8 to u8", 1, times, 1e9, dict.fromkeys(took, 1.0))
    assert [(row["name"], row["value"], row["n"], row["target"]) for row in rows] == [
        ("u8s8 to u8, packed, against our own s32: all shapes, threads: 1", 1.5, 1, ">= 1.3")
    ]


def test_counts_are_rows_without_a_time():
    row = emulated._row("x", {"square": 0.5, "late": 0.75}, ["neon/a", "neon/a"])
    assert (row["value"], row["low"], row["high"], row["n"]) == (0.5, 0.5, 0.75, 2)
    assert row["note"] == "emulated; square 0.500, late 0.750; on neon/a"
    assert row["target"] is None
