"""Random products over shapes, strides, types, epilogues and rungs: a fixed number from a fixed seed.

`pytest tests/test_fuzz.py --fuzz-cases 20000 --fuzz-seed 1` runs more of them.
"""

import numpy as np
import pytest
from oracle import (
    DTYPES,
    ELEMENTS,
    INTEGERS,
    PRESENT,
    assert_product,
    bf16,
    epilogue_result,
    middle_of_8_bits,
    random_matrix,
    sums,
    weights_in_pairs,
    wrapped,
)
from test_windows import as_matrix, windows

import ouigemm
from ouigemm.ladder import TYPES

SIZES = (0, 1, 2, 3, 4, 7, 8, 13, 16, 31, 32, 33, 48, 49, 63, 64, 65, 96, 127, 200)
DEPTHS = (*SIZES, 255, 256, 700, 1153, 3000)


def strided(rng, values):
    """The same numbers somewhere in a larger array, with strides of either sign and order."""
    if rng.integers(3) == 0:
        return values
    row, column = rng.integers(1, 4, 2)
    larger = np.zeros((values.shape[0] * row + 3, values.shape[1] * column + 2), values.dtype)
    if rng.integers(2):
        larger = np.asfortranarray(larger)
    view = larger[1 : 1 + values.shape[0] * row : row, 2 : 2 + values.shape[1] * column : column]
    if rng.integers(2):
        view = view[::-1]
    if rng.integers(2):
        view = view[:, ::-1]
    view[...] = values
    return view


def matrix(rng, element, shape):
    if element == "bf16":
        return ouigemm.BFloat16(strided(rng, bf16(rng.standard_normal(shape)).bits))
    return strided(
        rng, random_matrix(rng, element, shape, extreme=element in DTYPES and rng.integers(4) == 0)
    )


def image_windows(rng, element, depth):
    """Windows of at most 3 x 3 pixels, and the same as a matrix; some are wide enough to be read in place."""
    size, stride, dilation = rng.integers(1, 4, (3, 2))
    channels = rng.choice((1, 3, 8, 64, 100)) if depth > 200 else rng.integers(1, 9)
    height, width = (d * (s - 1) + rng.integers(1, 20) for s, d in zip(size, dilation, strict=True))
    shape = (rng.integers(1, 4), height, width, channels)
    values = random_matrix(rng, element, (shape[0], height * width * channels))
    wrap = ouigemm.BFloat16 if element == "bf16" else np.asarray
    seen = windows((values.bits if element == "bf16" else values).reshape(shape), size, stride, dilation)
    return wrap(seen), wrap(as_matrix(seen))


def epilogue(rng, kind, n, k):
    middle = middle_of_8_bits(kind, k)
    scale = middle * rng.uniform(0.5, 2, n) if rng.integers(2) and n else middle
    bias = rng.uniform(-30, 30, n) if rng.integers(2) else None
    relu = bool(rng.integers(2))
    if rng.integers(2):
        return ouigemm.Scaled(scale, bias, relu)
    dtype = ("int8", "uint8")[rng.integers(2)]
    return ouigemm.Requantised(scale, bias, relu, dtype=dtype, zero_point=int(rng.integers(0, 128)))


def plain(rng, a, b, kind, how):
    """alpha·A·B + beta·C."""
    m, n = sums(a, b).shape
    alpha, beta = (int(x) for x in rng.integers(-2, 3, 2))
    c = rng.integers(-(2**31), 2**31, (m, n)).astype(np.int32)
    if kind in INTEGERS:
        out = strided(rng, c.copy())
        ouigemm.gemm(how["a"], how["b"], out, alpha=alpha, beta=beta, **how["rest"])
        np.testing.assert_array_equal(
            out, wrapped(alpha * sums(a, b).astype(np.int64) + beta * c.astype(np.int64))
        )
        return
    out = strided(rng, np.full((m, n), np.nan, np.float32))
    ouigemm.gemm(how["a"], how["b"], out, **how["rest"])
    assert_product(out, a, b)


def finished(rng, a, b, kind, how):
    """An epilogue, bit for bit; the sums of floats are those of the same call without one."""
    total = sums(a, b)
    e = epilogue(rng, kind, total.shape[1], a.shape[1] if kind in INTEGERS else 1)
    if kind not in INTEGERS:
        total = ouigemm.gemm(how["a"], how["b"], **how["rest"])
    got = ouigemm.gemm(how["a"], how["b"], alpha=2, epilogue=e, **how["rest"])
    np.testing.assert_array_equal(got, epilogue_result(total, e, 2.0))
    c = rng.integers(0, 127, total.shape).astype(got.dtype)
    out = strided(rng, c.copy())
    ouigemm.gemm(how["a"], how["b"], out, alpha=2, beta=-0.75, epilogue=e, **how["rest"])
    np.testing.assert_array_equal(out, epilogue_result(total, e, 2.0, -0.75, c))


def one_product(seed):
    rng = np.random.default_rng(seed)
    kind = TYPES[rng.integers(len(TYPES))]
    rung = PRESENT[rng.integers(len(PRESENT))]
    m, n = rng.choice(SIZES, 2)
    k = rng.choice(DEPTHS)
    left = a = matrix(rng, ELEMENTS[kind][0], (m, k))
    if rng.integers(4) == 0:
        left, a = image_windows(rng, ELEMENTS[kind][0], k)
        k = (a.bits if kind == "bf16" else a).shape[1]
    b = matrix(rng, ELEMENTS[kind][1], (k, n))
    if kind.endswith("s8") and rng.integers(2):
        b = strided(rng, weights_in_pairs(rng, (k, n)))
    right = ouigemm.pack(b, isa=rung) if rng.integers(2) else b
    how = {"a": left, "b": right, "rest": {"isa": rung, "threads": int(rng.integers(1, 4))}}
    (finished if rng.integers(2) else plain)(rng, a, b, kind, how)


def test_random_products(pytestconfig):
    first = pytestconfig.getoption("--fuzz-seed")
    for case in range(pytestconfig.getoption("--fuzz-cases")):
        try:
            one_product((first, case))
        except Exception as error:
            pytest.fail(f"one_product(({first}, {case})): {error!r}")
