"""ARM and RISC-V under emulation: every kernel exact on every CPU, the right rung on each. No timings."""

import os
import shutil

import pytest

from ouikit.products.emulation import SOURCES, TARGETS, build, counter, emulate, instructions

BEST = {
    ("aarch64", "ARMv8.6"): ["neoni8mm", "neondot", "neon", "portable"],
    ("aarch64", "ARMv8.2"): ["neondot", "neon", "portable"],
    ("aarch64", "ARMv8.0"): ["neon", "portable"],
    ("riscv64", "RVV, 128 bits"): ["rvv", "portable"],
    ("riscv64", "RVV, 256 bits"): ["rvv", "portable"],
    ("riscv64", "RVV, 512 bits"): ["rvv", "portable"],
    ("riscv64", "no vectors"): ["portable"],
}
OWN = {"neoni8mm": {"u8s8", "s8s8"}, "neondot": {"u8s8", "s8s8"}}  # of the rungs that have not all types


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Target -> its test program, built when it is first asked for."""
    built = {}

    def program(name):
        missing = TARGETS[name].missing()
        if missing and not os.environ.get("OUIGEMM_REQUIRE_CROSS"):
            pytest.skip(f"{', '.join(missing)} not found: apt-get install {TARGETS[name].packages}")
        if name not in built:
            built[name] = build(TARGETS[name], tmp_path_factory.mktemp(name))
        return built[name]

    return program


@pytest.mark.parametrize(("name", "cpu"), BEST)
def test_kernels_are_exact_and_the_ladder_is_right(programs, name, cpu):
    lines = emulate(TARGETS[name], cpu, programs(name)).splitlines()
    assert not [line for line in lines if line.startswith("WRONG")]
    seen = [line.split() for line in lines]
    assert list(dict.fromkeys(rung for rung, *_ in seen)) == BEST[name, cpu]
    for rung, kind, kernel in seen:
        if kind != "hamming" and kind in OWN.get(rung, {kind}):
            assert kernel.startswith(f"{rung}/")


def test_without_sources_the_checkout_is_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no sources of ouigemm in .*checkout"):
        build(TARGETS["aarch64"], tmp_path / "build", tmp_path)


def test_what_a_cpu_lacks_is_named(programs):
    lines = emulate(TARGETS["aarch64"], "ARMv8.0", programs("aarch64"), "rungs").splitlines()
    assert lines == [
        "neoni8mm: NEON 8-bit matrix products",
        "neondot: NEON dot products",
        "neon: ",
        "portable: ",
    ]


def test_dot_products_and_matrix_instructions_need_fewer_instructions(programs, tmp_path):
    """Per multiply-add: f32 by vectors of 4, dot products of 4 × 4, 2 × 2 × 8."""
    target, program, plugin = TARGETS["aarch64"], programs("aarch64"), counter(tmp_path)
    shape = (48, 48, 128)
    used = [
        instructions(target, "ARMv8.6", program, plugin, rung, kind, shape)[1]
        for rung, kind in (("neon", "f32"), ("neondot", "s8s8"), ("neoni8mm", "s8s8"))
    ]
    macs = 48 * 48 * 128
    assert macs / 4 < used[0] < macs / 1.5
    assert 3 < used[0] / used[1] < 4.5
    assert 1.3 < used[1] / used[2] < 2.2


def test_the_check_notices_a_wrong_kernel(programs, tmp_path):
    """One that drops its last column of sums."""
    programs("aarch64")
    sources = tmp_path / "kernels"
    shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("build", "__pycache__"))
    kernel = sources / "src" / "ukernels" / "neondot" / "s8s8_s32.h"
    kernel.write_text(kernel.read_text().replace("vdotq_s32(sum,", "vdotq_s32(vsetq_lane_s32(0, sum, 3),"))
    program = build(TARGETS["aarch64"], tmp_path / "build", sources)
    with pytest.raises(RuntimeError, match=r"WRONG neondot s8s8 ") as failure:
        emulate(TARGETS["aarch64"], "ARMv8.2", program)
    assert "WRONG neon " not in str(failure.value)
