"""Which rung and which kernel a product runs on."""

import itertools

import numpy as np
import pytest
from oracle import INTEGERS, PRESENT, RUNGS, random_operands, sums

import ouigemm
from ouigemm import _core
from ouigemm.ladder import TYPES

A, B = np.ones((2, 3), np.uint8), np.ones((3, 2), np.int8)


@pytest.mark.usefixtures("unforced")
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


@pytest.mark.usefixtures("unforced")
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


AVX2 = (("avx2", "f32"), ("avx2", "s16"), ("avxvnni", "u8s8"))  # tiles of 6x16 4x16 4x24 12x8 8x8
AVX512 = (("avx512", "f32"), ("avx512vnni", "u8s8"))  # 8x48 3x48 14x32 4x32 7x64 6x64 2x64 24x16 8x16


@pytest.mark.parametrize(
    ("rungs", "m", "n", "best"),
    [
        # One step of a tile costs, in cycles: 6x16 20, 4x16 14, 4x24 19, 12x8 25, 8x8 17.
        (AVX2, 12, 8, "12x8"),  # 25 against two 8x8 of 17
        (AVX2, 8, 8, "8x8"),
        (AVX2, 6, 16, "6x16"),  # 20 against two 4x16 of 14
        (AVX2, 8, 16, "4x16"),  # two of 14 against two of 20
        (AVX2, 49, 16, "6x16"),  # nine of 20 against thirteen of 14
        (AVX2, 4, 17, "4x24"),  # 19/4 a row; two 16 wide are 2 · 20/6, three 8 wide 3 · 25/12
        (AVX2, 3136, 48, "4x24"),  # 2 · 19/4 against 3 · 20/6
        (AVX2, 3136, 64, "6x16"),  # 4 · 20/6 against 3 · 19/4
        # 8x48 35, 3x48 15, 14x32 44, 4x32 14, 7x64 41 (one register too many), 6x64 34, 2x64 14, 24x16 49,
        # 8x16 17.
        (AVX512, 24, 16, "24x16"),  # 49 against three of 17
        (AVX512, 16, 16, "8x16"),  # two of 17
        (AVX512, 14, 32, "14x32"),  # 44 against four of 14
        (AVX512, 12, 32, "4x32"),  # three of 14
        (AVX512, 8, 48, "8x48"),  # 35 against three of 15
        (AVX512, 3, 48, "3x48"),
        (AVX512, 7, 64, "7x64"),  # 41 against two of 34 and four of 14
        (AVX512, 6, 64, "6x64"),
        (AVX512, 2, 64, "2x64"),
        (AVX512, 3136, 96, "8x48"),  # 2 · 35/8 a row; three 32 wide are 3 · 44/14, two 64 wide 2 · 34/6
        (AVX512, 3136, 100, "6x64"),  # 2 · 34/6; four 32 wide are 4 · 44/14, three 48 wide 3 · 35/8
    ],
)
def test_the_tile_with_the_fewest_cycles_is_picked(rungs, m, n, best):
    """By hand: the width for a tall matrix of n columns first, then the height for m rows."""
    present = [(rung, kind) for rung, kind in rungs if rung in PRESENT]
    if not present:
        pytest.skip(f"{rungs[0][0]} is absent")
    for rung, kind in present:
        assert ouigemm.kernel_name(kind, m, n, rung).endswith(f"_{best}")


def test_both_signs_of_a_share_the_panels_of_b():
    """So that weights packed once serve both."""
    for rung in RUNGS.values():
        kernels = rung["kernels"]
        assert [tile(k) for k in kernels.get("u8s8", [])] == [tile(k) for k in kernels.get("s8s8", [])]


@pytest.mark.parametrize(
    ("l2", "blocks"), [(2**18, (64, 256, 1024)), (2**19, (64, 512, 2048)), (2**21, (64, 4096, 4096))]
)
def test_block_sizes_by_hand(l2, blocks):
    """f32 on tiles of 4x8, all sides 4096: an eighth of level 2 holds 8 columns of B as deep as kc.

    64 rows of A, the fewest, leave a quarter of it to 64 x nc sums of 4 bytes while kc < 4096.
    """
    assert ouigemm.block_sizes("f32", 4096, 4096, 4096, "portable", l2) == blocks


def test_block_sizes_are_those_of_this_machine_unless_a_cache_is_named():
    here = ouigemm.capabilities()["caches"]["L2"]
    shape = ("s16", 3136, 512, 4608)
    assert ouigemm.block_sizes(*shape) == ouigemm.block_sizes(*shape, l2=here)


@pytest.mark.parametrize("l2", [2**18, 2**19, 2**21])
@pytest.mark.parametrize("kind", TYPES)
def test_block_sizes_fit_the_caches(rung, kind, l2):
    """Inequalities of the model in src/blocking.c."""
    for m, n, k in itertools.product((1, 49, 512, 12544), (1, 64, 4096), (1, 64, 147, 4608)):
        name = ouigemm.kernel_name(kind, m, n, rung)
        mr, nr = tile(name)
        element = name.split("/")[1].split("_")[0]
        bytes_a = {"f32": 4, "bf16": 2, "s16": 2, "s32": 4, "u8s8": 1, "s8s8": 1, "s16s8": 2}[element]
        bytes_b = 1 if element.endswith("s8") else bytes_a
        mc, nc, kc = ouigemm.block_sizes(kind, m, n, k, rung, l2)
        deepest_group = 64 // bytes_b
        assert mc % mr == nc % nr == 0
        assert mc < m + mr
        assert nc < n + nr
        assert kc < k + deepest_group
        assert kc * nr * bytes_b <= max(l2 / 8, deepest_group * nr * bytes_b)
        assert mc * k * bytes_a <= max(l2 / 2, (64 + mr) * k * bytes_a)
        if k > kc:
            assert mc * nc * 4 <= max(l2 / 4, mc * nr * 4)


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
    lanes = 4 if instruction.startswith("vpmaddubsw") else lanes
    if not tiles:
        assert instruction.endswith("zmm" if own.startswith("avx512") else "ymm")
    each = 2 * lanes * (16 * 16 * 16 if tiles else 16 if instruction.endswith("zmm") else 8)
    number, index = TYPES.index(kind), list(RUNGS).index(rung)
    independent = 4 if tiles else 12
    assert _core.run_stream(number, index, 3) == (instruction, 3.0 * independent * each)
    assert rate > 0
