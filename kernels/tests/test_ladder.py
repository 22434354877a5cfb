"""Which rung and which kernel a product runs on."""

import itertools

import numpy as np
import pytest
from oracle import INTEGERS, PRESENT, RUNGS, random_operands, sums

import ouigemm
from ouigemm import _core
from ouigemm.ladder import TYPES

A, B = np.ones((2, 3), np.uint8), np.ones((3, 2), np.int8)


def test_capabilities_say_it_all():
    found = ouigemm.capabilities()
    assert set(found) == {"cpu", "rungs", "auto", "why", "caches", "threads", "tile_model"}
    assert list(found["rungs"])[-1] == "portable"
    assert found["rungs"]["portable"]["absent"] is None
    assert set(found["auto"]) == {*TYPES, "hamming"}
    assert found["why"].startswith("the best rung")
    for name, rung in found["rungs"].items():
        for kernel in itertools.chain.from_iterable(rung["kernels"].values()):
            assert kernel.startswith(f"{name}/")
        assert rung["absent"] is None or rung["absent"] in found["cpu"]
        assert rung["absent"] is None or not found["cpu"][rung["absent"]]


def test_auto_picks_the_best_available():
    """The first rung that is present and has kernels of its own; vdpbf16ps only where it is fast."""
    found = ouigemm.capabilities()
    for kind in TYPES:
        candidates = [name for name in PRESENT if kind in RUNGS[name]["kernels"]]
        if kind == "bf16" and not found["cpu"]["AMD's full-rate vdpbf16ps"]:
            candidates = [name for name in candidates if name != "avx512bf16"]
        assert found["auto"][kind] == candidates[0]


@pytest.mark.parametrize("kind", TYPES)
def test_a_forced_rung_runs_its_own_kernels_or_the_next_lower_ones(rung, kind):
    below = list(RUNGS)[list(RUNGS).index(rung) :]
    name = ouigemm.kernel_name(kind, 100, 100, rung).split("/")[0]
    assert name in below
    if kind in RUNGS[rung]["kernels"]:
        assert name == rung


def test_absent_rungs_are_refused():
    for name in set(RUNGS) - set(PRESENT):
        with pytest.raises(ValueError, match=f"isa asks for '{name}', which this machine lacks: "):
            ouigemm.gemm(A, B, isa=name)
        with pytest.raises(ValueError, match=name):
            ouigemm.pack(B, isa=name)


def test_unknown_rungs_are_refused():
    with pytest.raises(ValueError, match=r"isa names 'avx9000'; this build has: auto, .*portable"):
        ouigemm.gemm(A, B, isa="avx9000")
    with pytest.raises(TypeError, match="isa must be a name of a rung, not 2"):
        ouigemm.gemm(A, B, isa=2)


def test_the_environment_forces_a_rung(monkeypatch):
    monkeypatch.setenv("OUIGEMM_ISA", "portable")
    found = ouigemm.capabilities()
    assert set(found["auto"].values()) == {"portable"}
    assert found["why"].startswith("OUIGEMM_ISA=portable")
    assert ouigemm.pack(B).isa == "portable"
    assert ouigemm.gemm(A, B).tolist() == [[3, 3], [3, 3]]
    monkeypatch.setenv("OUIGEMM_ISA", "avx9000")
    with pytest.raises(ValueError, match="the environment variable OUIGEMM_ISA names 'avx9000'"):
        ouigemm.gemm(A, B)
    assert ouigemm.gemm(A, B, isa="portable").tolist() == [[3, 3], [3, 3]]


def test_the_environment_sets_the_threads(monkeypatch):
    monkeypatch.setenv("OUIGEMM_THREADS", "3")
    assert ouigemm.capabilities()["threads"] == 3
    monkeypatch.setenv("OUIGEMM_THREADS", "many")
    with pytest.raises(ValueError, match="OUIGEMM_THREADS must be a number from 1 on, not 'many'"):
        ouigemm.gemm(A, B)


def test_rungs_agree_on_integers(rng):
    for kind in INTEGERS:
        a, b = random_operands(rng, kind, 61, 83, 701)
        for name in PRESENT:
            np.testing.assert_array_equal(ouigemm.gemm(a, b, isa=name), sums(a, b))


def tile(name):
    return tuple(map(int, name.rsplit("_", 1)[1].split("x")))


def cost(name, lanes):
    """The shape rule, restated: multiply-adds or open latency, and loads; twice what finds no register."""
    rows, columns = tile(name)[0], tile(name)[1] // lanes
    registers = 2 * lanes  # 16 of 8 lanes, or 32 of 16
    return max(rows * columns, 8) + rows + columns + 2 * max(0, rows * columns + columns + 1 - registers)


@pytest.mark.parametrize(("name", "lanes"), [("avx512", 16), ("avx512vnni", 16), ("avx2", 8), ("avxvnni", 8)])
def test_the_shape_rule(name, lanes):
    """First the width with the fewest cycles for a tall matrix, then the height for these rows."""
    if name not in PRESENT:
        pytest.skip(f"{name} is absent")
    kind = "f32" if "f32" in RUNGS[name]["kernels"] else "u8s8"
    family = RUNGS[name]["kernels"][kind]

    def for_columns(kernel, n):
        mr, nr = tile(kernel)
        return (cost(kernel, lanes) / mr * -(-n // nr), -mr * nr)

    def for_rows(kernel, m):
        mr, nr = tile(kernel)
        return (cost(kernel, lanes) * -(-m // mr), -mr * nr)

    for m, n in itertools.product((1, 2, 3, 4, 7, 14, 16, 49, 196, 3136), (1, 16, 17, 48, 64, 96, 100, 512)):
        width = tile(min(family, key=lambda kernel: for_columns(kernel, n)))[1]
        best = min((k for k in family if tile(k)[1] == width), key=lambda kernel: for_rows(kernel, m))
        assert ouigemm.kernel_name(kind, m, n, name) == best


def test_both_signs_of_a_share_the_panels_of_b():
    """So that weights packed once serve both."""
    for rung in RUNGS.values():
        kernels = rung["kernels"]
        assert [tile(k) for k in kernels.get("u8s8", [])] == [tile(k) for k in kernels.get("s8s8", [])]


@pytest.mark.parametrize("kind", TYPES)
def test_block_sizes_fit_the_caches(rung, kind):
    """Inequalities of the model in src/blocking.c."""
    caches = ouigemm.capabilities()["caches"]
    for m, n, k in itertools.product((1, 49, 512, 12544), (1, 64, 4096), (1, 64, 147, 4608)):
        name = ouigemm.kernel_name(kind, m, n, rung)
        mr, nr = tile(name)
        element = name.split("/")[1].split("_")[0]
        panel = {"f32": 4, "bf16": 2, "s16": 2, "s32": 4, "u8s8": 1, "s8s8": 1}[element]
        mc, nc, kc = ouigemm.block_sizes(kind, m, n, k, rung)
        deepest_group = 64 // panel
        assert mc % mr == nc % nr == 0
        assert mc < m + mr
        assert nc < n + nr
        assert kc < k + deepest_group
        assert kc * nr * panel <= max(caches["L2"] / 8, deepest_group * nr * panel)
        assert mc * k * panel <= max(caches["L2"] / 2, (64 + mr) * k * panel)
        if k > kc:
            assert mc * nc * 4 <= max(caches["L2"] / 4, mc * nr * 4)


@pytest.mark.parametrize("kind", TYPES)
def test_the_peak_is_that_of_the_rungs_own_instruction(rung, kind):
    """Twice the rounds are twice the work; the vector's width says how much one instruction does."""
    found = ouigemm.peak(kind, rung, seconds=1e-4)
    own = ouigemm.kernel_name(kind, 100, 100, rung)
    if own.startswith("portable/"):
        assert found is None
        return
    instruction, rate = found
    element, tiles = own.split("/")[1].split("_")[0], own.startswith("amx")
    lanes = {"f32": 1, "bf16": 2, "s16": 2, "s32": 1, "u8s8": 4, "s8s8": 4}[element]
    if not tiles:
        assert instruction.endswith("zmm" if own.startswith("avx512") else "ymm")
    each = 2 * lanes * (16 * 16 * 16 if tiles else 16 if instruction.endswith("zmm") else 8)
    number, index = TYPES.index(kind), list(RUNGS).index(rung)
    independent = 4 if tiles else 12
    assert _core.run_stream(number, index, 3) == (instruction, 3.0 * independent * each)
    assert rate > 1e8
