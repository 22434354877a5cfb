"""Generated products: exact, safe on any array, what is wrong refused by name; other CPUs emulated."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from ouikit.products.emulation import TARGETS as EMULATED

pytest.importorskip("tvm")

from ouikit.products.generators import KINDS, VARIANTS, foreign, generate, targets
from ouikit.products.generators.tiles import tiles

RAGGED, BLOCKS = (50, 37, 29), (24, 32, 16)
HERE = targets.target("native")


def tile_of(variant, short=4, vectors=1):
    """mr and nr of a small tile on this CPU."""
    tile = short, vectors * HERE.vector // 4
    return tile[::-1] if VARIANTS[variant].resident == "A" else tile


def matrices(shape, dtype, seed=0):
    """Small whole numbers, and their product in Python's own integers."""
    m, n, k = shape
    rng = np.random.default_rng(seed)
    low = 0 if dtype == "u8s8" else -9
    a, b = rng.integers(low, 10, (m, k)), rng.integers(-9, 10, (k, n))
    left, right = KINDS[dtype][0]
    return a.astype(left), b.astype(right), a @ b


def alone(code):
    """Run code in a process of its own; its output, or its end as an error."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("shape", [(7, 5, 3), RAGGED, (48, 64, 32)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_exact_on_any_shape(variant, shape):
    a, b, want = matrices(shape, "int32")
    out = np.full(shape[:2], 77, "int32")  # what was in C does not count
    routine = generate(variant, *tile_of(variant), "int32").routine(*shape, BLOCKS)
    assert routine(a, b, out) is out
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_other_types_are_exact_on_whole_numbers(dtype):
    a, b, want = matrices(RAGGED, dtype)
    c = generate("B3A2C0", 4, 16, dtype)(a, b)
    assert c.dtype == KINDS[dtype][2]
    np.testing.assert_array_equal(c, want)


def test_integers_wrap_at_32_bits():
    a, b = np.full((3, 5), 2**30, "int32"), np.full((5, 2), 3, "int32")
    assert (generate("B3A2C0", 4, 16, "int32")(a, b) == np.int64(15 * 2**30).astype("int32")).all()


@pytest.mark.parametrize("variant", ["B3A2C0", "C3B2A0", "A3C2B0"])
def test_the_error_of_f32_stays_below_its_bound(variant):
    m, n, k = RAGGED
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((m, k)).astype("float32"), rng.standard_normal((k, n)).astype("float32")
    off = np.abs(generate(variant, *tile_of(variant))(a, b) - a.astype(float) @ b)
    bound = np.abs(a).astype(float) @ np.abs(b) * (k * 2**-24 / (1 - k * 2**-24))
    assert (off <= bound).all()


def test_a_condition_never_reaches_the_loop_of_the_micro_kernel():
    """A stored tile at every step would cost two thirds of the rate; no size here divides another."""
    code = generate("B3A2C0", 6, 32, "float32", "avx512").routine(100, 70, 51, (30, 64, 20)).assembly
    loops = [block for block in re.split(r"^\.LBB\w+:", code, flags=re.M) if "vfmadd" in block]
    hottest = max(loops, key=lambda block: block.count("vfmadd"))
    body = hottest[: hottest.rindex("vfmadd")]
    assert body.count("vfmadd") >= 11  # twelve a step
    assert not re.search(r"vmov\w+\s+%zmm\d+, [^%\s]*\(", body)


def test_arrays_need_no_alignment():
    """TVM's default would take 64 bytes for granted, and NumPy's arrays have 16: that ends the process."""
    alone("""
import numpy as np
from ouikit.products.generators import VARIANTS, generate

def unaligned(shape):
    room = np.ones(shape[0] * shape[1] + 32, "float32")
    first = -room.ctypes.data % 64 // 4 + 1
    return room[first : first + shape[0] * shape[1]].reshape(shape)

lanes = generate("B3A2C0", 1, 1).lanes
for name, variant in VARIANTS.items():
    tile = (lanes, 4) if variant.resident == "A" else (4, lanes)
    a, b, c = (unaligned(shape) for shape in ((32, 64), (64, 64), (32, 64)))
    assert (generate(name, *tile)(a, b, c) == 64).all()
""")


def test_rows_that_are_not_contiguous_are_copied():
    a, b, want = matrices(RAGGED, "int32")
    product = generate("B3A2C0", 4, 16, "int32")
    np.testing.assert_array_equal(product(np.asfortranarray(a), b[:, ::-1]), want[:, ::-1])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("B3A2D0", 4, 16), "unknown variant 'B3A2D0'; there are B3A2C0"),
        (("B3A2C0", 4, 16, "float16"), "unknown dtype 'float16'; there are float32"),
        (("B3A2C0", 4, 16, "int32", "sparc"), "unknown target 'sparc'; there are native"),
        (("B3A2C0", 4, 24, "float32", "avx512"), "4×24 does not fit B3A2C0 on avx512: nr must be a multiple"),
        (("B3C2A0", 12, 4, "float32", "avx2"), "12×4 does not fit B3C2A0 on avx2: mr must be a multiple"),
        (("B3A2C0", 0, 16), "0×16 does not fit"),
        (("B3A2C0", 64, 128, "float32", "avx512"), "has 512 vectors, more than 256"),
        (("B3C2A0", 16, 4, "u8s8", "avx512vnni"), "u8s8 needs a variant that holds C"),
        (("B3A2C0", 4, 16, "u8s8", "avx2"), "a target with dot products"),
        (("B3A2C0", 4, 16, "float32", "native", 2), "threads=2: .* give threads=1"),
    ],
)
def test_what_cannot_be_generated_is_refused_by_name(arguments, error):
    with pytest.raises(ValueError, match=error):
        generate(*arguments)


def test_wrong_types_and_shapes_are_refused_by_name():
    a, b, _ = matrices(RAGGED, "int32")
    product = generate("B3A2C0", 4, 16, "int32")
    with pytest.raises(TypeError, match=r"a is of type float32; .* takes int32"):
        product(a.astype("float32"), b)
    with pytest.raises(TypeError, match="out is of type float64"):
        product(a, b, np.empty((50, 37)))
    with pytest.raises(ValueError, match=r"out has shape \(50, 36\); .* takes \(50, 37\)"):
        product(a, b, np.empty((50, 36), "int32"))
    with pytest.raises(
        ValueError, match=r"shapes \(50, 29\) and \(28, 37\): give matrices of m × k and k × n"
    ):
        product(a, b[:-1])
    with pytest.raises(ValueError, match="sizes must be at least 1: m, n, k = 50, 0, 29"):
        product(a, b[:, :0])
    with pytest.raises(ValueError, match="out must be contiguous and writeable"):
        product(a, b, np.empty((37, 50), "int32").T)
    square = np.ones((16, 16), "int32")
    with pytest.raises(ValueError, match="out shares memory with a or b"):
        product(square, square, square)


def test_code_of_another_cpu_compiles_and_is_refused_by_name():
    routine = generate("B3A2C0", 8, 12, "float32", "aarch64").routine(*RAGGED)
    assert routine.assembly.count("fmla") >= 8 * 12 // 4
    a, b, _ = matrices(RAGGED, "float32")
    with pytest.raises(
        RuntimeError, match=r"for aarch64> needs a CPU of aarch64 \(this one is .*: export it"
    ):
        routine(a, b)


def test_a_feature_that_this_cpu_lacks_is_named(monkeypatch):
    real = targets.has
    lacking = lambda llvm, features: "avx512f" not in features and real(llvm, features)  # noqa: E731
    monkeypatch.setattr(targets, "has", lacking)
    if HERE.architecture != "x86_64":
        pytest.skip("the features are those of x86")
    assert "avx512f" in targets.target("avx512").absent()
    assert "avx512f" not in targets.target("avx2").absent()


def test_without_a_compiler_an_object_can_be_exported_and_a_library_cannot(tmp_path, monkeypatch):
    routine = generate("B3A2C0", 4, 16, "int32").routine(*RAGGED)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert routine.export(tmp_path / "product.o") == (tmp_path / "product.o").stat().st_size > 1000
    with pytest.raises(FileNotFoundError, match=r"no compiler on the PATH to link product.so: install gcc"):
        routine.export(tmp_path / "product.so")
    with pytest.raises(ValueError, match=r"product.a: give a name that ends in .o"):
        routine.export(tmp_path / "product.a")


def test_an_exported_library_computes_in_a_program_without_the_generator(tmp_path):
    path = tmp_path / "product.so"
    assert generate("A3C2B0", *tile_of("A3C2B0"), "int32").routine(*RAGGED).export(path) < 2**20
    alone(f"""
import numpy as np, tvm
a, b, c = np.ones((50, 29), "int32"), np.ones((29, 37), "int32"), np.zeros((50, 37), "int32")
tvm.runtime.load_module({str(path)!r})["main"](a, b, c)
assert (c == 29).all()
""")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot bind a process to a core")
def test_one_core_is_enough_and_no_thread_is_started():
    assert "0 more" in alone("""
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
from ouikit.products.generators import generate
product = generate("B3A2C0", 4, 16, "int32")
routine = product.routine(64, 64, 64)
before = len(os.listdir("/proc/self/task"))
assert (routine(np.ones((64, 64), "int32"), np.ones((64, 64), "int32")) == 64).all()
print(len(os.listdir("/proc/self/task")) - before, "more")
""")


def test_without_tvm_one_error_says_what_to_install():
    assert "pip install 'ouikit[tvm]'" in alone("""
import sys
sys.modules["tvm"] = None
from ouikit.products.generators import VARIANTS, generate
try:
    generate("B3A2C0", 4, 16)
except ModuleNotFoundError as error:
    print(error)
""")


def test_dot_products_come_from_the_intrinsic_only():
    shape = 48, 64, 64
    count = {
        dtype: generate("B3A2C0", 6, 32, dtype, "avx512vnni").routine(*shape).assembly.count("vpdpbusd")
        for dtype in ("u8s8", "int8")
    }
    assert count["u8s8"] >= 12
    assert count["int8"] == 0


@pytest.mark.skipif(not HERE.dots, reason="this CPU has no dot products of 8-bit numbers")
@pytest.mark.parametrize("shape", [(7, 5, 3), RAGGED])
def test_dot_products_are_exact_at_the_ends_of_their_types(shape):
    m, n, k = shape
    rng = np.random.default_rng(2)
    a = rng.choice(np.array([0, 1, 255], "uint8"), (m, k))
    b = rng.choice(np.array([-128, -1, 127], "int8"), (k, n))
    c = generate("A3B2C0", 4, HERE.vector // 4, "u8s8")(a, b)
    np.testing.assert_array_equal(c, a.astype(int) @ b.astype(int))


@pytest.mark.parametrize(("target", "cpu"), [(name, cpu) for name in EMULATED for cpu in EMULATED[name].cpus])
def test_other_cpus_compute_the_same(target, cpu):
    missing = foreign.missing(target)
    if missing and not os.environ.get("OUIGEMM_REQUIRE_CROSS"):
        pytest.skip(f"{', '.join(missing)} not found: apt-get install {EMULATED[target].packages}")
    if cpu == "no vectors":
        pytest.skip("the target has vectors")
    a, b, want = matrices(RAGGED, "float32")
    routine = generate("C3A2B0", 4, 12, "float32", target).routine(*RAGGED, BLOCKS)
    np.testing.assert_array_equal(foreign.run(routine, cpu, a, b), want)


def test_missing_emulators_are_named_with_their_packages(monkeypatch, tmp_path):
    routine = generate("B3A2C0", 4, 4, "int32", "aarch64").routine(*RAGGED)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"qemu-aarch64.* not found; on Debian: apt-get install gcc-aarch64"
    ):
        foreign.run(routine, "ARMv8.6", *matrices(RAGGED, "int32")[:2])


def test_every_variant_has_as_many_tiles_and_none_twice():
    for target in ("avx2", "avx512", "aarch64"):
        listed = {variant: [p.tile for p in tiles(variant, 8, target=target)] for variant in VARIANTS}
        assert all(len(set(found)) == 8 for found in listed.values())
        assert listed["B3A2C0"] == listed["A3C2B0"] == [tile[::-1] for tile in listed["B3C2A0"]]
    with pytest.raises(ValueError, match="count is 9: give 1 to 8"):
        tiles("B3A2C0", 9)
