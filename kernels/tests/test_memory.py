"""No byte outside the matrices is read or written: pages without permission lie against their ends."""

import ctypes
import itertools
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracle import ELEMENTS, INTEGERS, assert_product, random_matrix, random_operands

import ouigemm
from ouigemm.ladder import TYPES

PAGE, NO_ACCESS = mmap.PAGESIZE, 0
KINDS = ("f32", "s16", "s32", "u8s8", "s8s8")
SHAPES = [
    (1, 1, 1),
    (3, 5, 7),
    (6, 16, 4),
    (14, 64, 64),
    (17, 65, 129),
    (33, 100, 1030),
    (2, 1037, 700),
    (2, 3109, 700),
]


class Guarded:
    """Memory of whole pages between two pages that may not be touched."""

    def __init__(self, nbytes):
        self.room = -(-max(nbytes, 1) // PAGE) * PAGE
        self.map = mmap.mmap(-1, self.room + 2 * PAGE)
        self.bytes = np.frombuffer(self.map, np.uint8)
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for offset in (0, PAGE + self.room):
            assert protect(self.bytes.ctypes.data + offset, PAGE, NO_ACCESS) == 0

    def matrix(self, shape, dtype, at_end):
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start = PAGE + (self.room - nbytes if at_end else 0)
        return self.bytes[start : start + nbytes].view(dtype).reshape(shape)


def guarded(values, at_end):
    matrix = Guarded(values.nbytes).matrix(values.shape, values.dtype, at_end)
    matrix[...] = values
    return matrix


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_end", [True, False])
def test_products_between_guard_pages(rung, kind, at_end, rng):
    for (m, n, k), transposed, packed in itertools.product(SHAPES, (False, True), (False, True)):
        a = random_matrix(rng, ELEMENTS[kind][0], (k, m) if transposed else (m, k))
        b = random_matrix(rng, ELEMENTS[kind][1], (n, k) if transposed else (k, n))
        a, b = guarded(a, at_end), guarded(b, at_end)
        if transposed:
            a, b = a.T, b.T
        out = guarded(np.zeros((m, n), np.int32 if kind in INTEGERS else np.float32), at_end)
        ouigemm.gemm(a, ouigemm.pack(b, isa=rung) if packed else b, out, isa=rung)
        assert_product(out, a, b)


@pytest.mark.parametrize("at_end", [True, False])
def test_requantised_results_between_guard_pages(rung, at_end, rng):
    for m, n, k in SHAPES:
        a = guarded(random_matrix(rng, "u8", (m, k)), at_end)
        b = guarded(random_matrix(rng, "s8", (k, n)), at_end)
        out = guarded(np.zeros((m, n), np.int8), at_end)
        epilogue = ouigemm.Requantised(np.full(n, 0.01), np.zeros(n), relu=True)
        ouigemm.gemm(a, b, out, epilogue=epilogue, isa=rung)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("k", [1, 27, 63, 147])
def test_what_lies_between_the_rows_of_a_changes_nothing(rung, kind, k, rng):
    """Kernels may read it, as far as there are rows behind it; the last row ends at a guard page."""
    rows = 1344  # whole tiles of every height
    a, b = random_operands(rng, kind, rows, 70, k)
    numbers = a.bits if kind == "bf16" else a
    apart = Guarded(rows * (k + 5) * numbers.itemsize).matrix((rows, k + 5), numbers.dtype, at_end=True)
    apart[...] = {"f32": np.nan, "bf16": 0x7FC0}.get(kind, np.iinfo(np.int8).max)
    apart[:, 5:] = numbers
    spread = ouigemm.BFloat16(apart[:, 5:]) if kind == "bf16" else apart[:, 5:]
    assert_product(ouigemm.gemm(spread, b, isa=rung), a, b)


@pytest.mark.parametrize(("n", "k"), [(70, 20), (1037, 700)])
def test_what_lies_between_the_rows_of_b_changes_nothing(rung, n, k, rng):
    """Of a B that is read where it lies: no number is in front of its rows."""
    a, b = random_operands(rng, "f32", 3, n, k)
    apart = Guarded(k * (n + 5) * 4).matrix((k, n + 5), np.float32, at_end=True)
    apart[...] = np.nan
    apart[:, 5:] = b
    assert_product(ouigemm.gemm(a, apart[:, 5:], isa=rung), a, b)


def test_hamming_between_guard_pages(rung, rng):
    for rows, words in ((1, 1), (3, 2), (5, 9), (8, 64)):
        bits = guarded(rng.integers(0, 2**63, (rows, words), np.uint64), at_end=True)
        want = np.bitwise_count(bits[:, None] ^ bits[None]).sum(-1)
        np.testing.assert_array_equal(ouigemm.hamming(bits, isa=rung), want)


@pytest.mark.parametrize(("length", "dies"), [(64, False), (65, True)])
def test_the_guards_hold(length, dies):
    """A read beyond the end of such memory ends the process, as the tests assume."""
    code = (
        "from test_memory import Guarded; import numpy as np\n"
        "m = Guarded(64).matrix((64,), np.uint8, True)\n"
        f"np.lib.stride_tricks.as_strided(m, ({length},)).sum()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True)
    assert (done.returncode != 0) == dies
