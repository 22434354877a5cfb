"""What the benchmarks of products make of their times: ratios, rooflines and counts, on hand-made numbers."""

import pytest

pytest.importorskip("ouigemm")
from ouikit.bench import emulated
from ouikit.bench.gemm import ALL, AMX, CLASSES, OWN, Machine, compare, roofline, target_of

SQUARE, LATE, TALL = (512, 512, 512), (49, 512, 4608), (3136, 256, 64)
TIMES = {
    SQUARE: {"packed": [1.0, 1.0, 9.0], "plain": [2.0, 2.0, 2.0], "MKL": [2.0, 2.0, 1.0]},
    LATE: {"packed": [4.0, 4.0, 4.0], "plain": [4.0, 4.0, 4.0], "MKL": [2.0, 2.0, 2.0]},
}
# 2 · 512³ operations take 0.27 s; the three matrices of the square, 3 MiB, twice as long as that of a second.
SLOW_MEMORY = Machine(peak=1e9, l2=0, bandwidth={16: 3 * 2**21, 256: 1e9})


def rows_of(times, machine=SLOW_MEMORY, kind="f32", rung="avx2"):
    classes = {"squares": (SQUARE,), "late": (LATE,)}
    return {row["name"]: row for row in compare(kind, 1, times, machine, rung, classes)}


def test_rows_are_ratios_of_medians():
    rows = rows_of(TIMES)
    packed = rows["f32, packed, against MKL: all shapes, threads: 1"]
    assert (packed["value"], packed["low"], packed["high"], packed["n"]) == (1.0, 0.5, 2.0, 2)
    assert packed["met"]
    late = rows["f32, packed, against MKL: late, threads: 1"]
    assert (late["value"], late["met"]) == (0.5, False)
    assert rows["f32, plain, against MKL: squares, threads: 1"]["value"] == 1.0


def test_notes_give_the_share_of_peak_and_roofline():
    note = rows_of(TIMES)["f32, packed, against MKL: squares, threads: 1"]["note"]
    assert "27% of the peak, 50% of the roofline" in note
    assert "best times 1.00" in note
    assert "slowest round / quickest 9.00" in note


def test_the_roofline_is_the_longer_of_two_times():
    small, fast = (Machine(peak, 2**21, {16: 1e9, 256: 5e8}) for peak in (1e9, 1e12))
    assert roofline((256, 256, 256), "f32", small) == 2 * 256**3 / 1e9  # fits the cache
    moved = 4 * (16 * 4096 + 4096 * 4096 + 16 * 4096)
    assert roofline((16, 4096, 4096), "f32", fast) == (moved - 2**21) / 5e8
    assert roofline((16, 1024, 4096), "s8s8", fast) == (16 * 4096 + 2**22 + 2**16 - 2**21) / 1e9


@pytest.mark.parametrize(("kind", "bytes_each"), [("u8s8 to u8", 1), ("u8s8 to f32", 4)])
def test_a_roofline_knows_what_a_result_takes(kind, bytes_each):
    operands, results = 1024 * 64 + 64 * 1024, 1024 * 1024
    machine = Machine(1e18, 0, {16: 1e9})
    assert roofline((1024, 1024, 64), kind, machine) == (operands + bytes_each * results) / 1e9


@pytest.mark.parametrize(
    ("l2", "ratio", "shapes"),
    [(2**19, 3.0, 2), (2**20 - 1, 3.0, 2), (2**20, 1.5, 1), (2**21, 1.5, 1)],  # the square's sums take 2²⁰
)
def test_fusion_is_judged_where_sums_would_leave_the_cache(l2, ratio, shapes):
    times = {SQUARE: {"packed": [1.0], OWN: [6.0]}, TALL: {"packed": [1.0], OWN: [1.5]}}
    rows = rows_of(times, Machine(1e9, l2, {16: 1e9}), "u8s8 to u8")
    assert [(name, pytest.approx(row["value"]), row["n"], row["target"]) for name, row in rows.items()] == [
        ("u8s8 to u8, packed, against our own s32: all shapes, threads: 1", ratio, shapes, ">= 1.3")
    ]


def test_without_a_shape_whose_sums_leave_the_cache_fusion_has_no_row():
    times = {SQUARE: {"packed": [1.0], OWN: [6.0]}}
    assert rows_of(times, Machine(1e9, 2**22, {16: 1e9}), "u8s8 to u8") == {}


def test_targets_hang_on_rung_class_and_peer():
    late = "ResNet-50, late"
    assert target_of("amxint8", late, "packed", "oneDNN") == AMX[late][0] == 1.7
    assert target_of("amxbf16", late, "packed", "oneDNN") == 1.2
    assert target_of("avx2", late, "packed", "oneDNN") == 1.0
    assert target_of("avx2", late, "plain", "OpenBLAS") == 1.15
    assert {*AMX} == {*CLASSES, ALL}


def test_counts_are_rows_without_a_time():
    row = emulated.count_row("x", {"square": 0.5, "late": 0.75}, ["neon/a", "neon/a"])
    assert (row["value"], row["low"], row["high"], row["n"]) == (0.5, 0.5, 0.75, 2)
    assert row["note"] == "emulated; square 0.500, late 0.750; on neon/a"
    assert row["target"] is None
