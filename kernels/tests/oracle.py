"""What a product should be, in wide arithmetic."""

import numpy as np

import ouigemm

ELEMENTS = {same: (same, same) for same in ("f32", "bf16", "s16", "s32")} | {
    "u8s8": ("u8", "s8"),
    "s8s8": ("s8", "s8"),
}
DTYPES = {"f32": np.float32, "s16": np.int16, "s32": np.int32, "u8": np.uint8, "s8": np.int8}
INTEGERS = ("s16", "s32", "u8s8", "s8s8")

RUNGS = ouigemm.capabilities()["rungs"]
PRESENT = [name for name, rung in RUNGS.items() if rung["absent"] is None]


def random_matrix(rng, element, shape, extreme=False):
    """A matrix over the whole range of its type, or of its two end values only."""
    if element in ("f32", "bf16"):
        values = rng.standard_normal(shape).astype(np.float32)
        return bf16(values) if element == "bf16" else values
    limits = np.iinfo(DTYPES[element])
    if extreme:
        return rng.choice(np.array([limits.min, limits.max], DTYPES[element]), shape)
    return rng.integers(limits.min, limits.max, shape, DTYPES[element], endpoint=True)


def random_operands(rng, kind, m, n, k, extreme=False):
    a, b = ELEMENTS[kind]
    return random_matrix(rng, a, (m, k), extreme), random_matrix(rng, b, (k, n), extreme)


def weights_in_pairs(rng, shape):
    """int8 numbers of which no even row and the next add up to more than 128 or less than -128, but just so.

    Half of them are as large as that allows.
    """
    b = random_matrix(rng, "s8", shape).astype(np.int64)
    even, odd = b[: shape[0] // 2 * 2 : 2], b[1::2]
    low, high = np.maximum(-128, -128 - even), np.minimum(127, 128 - even)
    ends = np.where(even < 0, low, high)
    odd[...] = np.where(rng.integers(2, size=odd.shape), ends, np.clip(odd, low, high))
    return b.astype(np.int8)


def bf16(values):
    """The upper halves of f32 numbers."""
    return ouigemm.BFloat16(
        (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    )


def wide(x):
    """Any operand in f64, which holds all its numbers."""
    if isinstance(x, ouigemm.BFloat16):
        return (x.bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return x.astype(np.float64)


def wrapped(x):
    """Integers modulo 2³² as int32."""
    return (np.asarray(x).astype(np.int64) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def sums(a, b):
    """A·B: f64 for floats, s32 for integers, whose sums in f64 are exact below 2⁵³.

    Products of s32 are larger: the halves of A, of 16 bits, are multiplied one by one, and those of B.
    """
    if isinstance(a, ouigemm.BFloat16) or a.dtype == np.float32:
        return wide(a) @ wide(b)
    if a.dtype != np.int32:
        return wrapped(wide(a) @ wide(b))
    (high_a, low_a), (high_b, low_b) = ((wide(x >> 16), wide(x & 0xFFFF)) for x in (a, b))
    middle = (high_a @ low_b + low_a @ high_b).astype(np.int64)
    return wrapped((low_a @ low_b).astype(np.int64) + (middle << 16))


def middle_of_8_bits(kind, k):
    """A scale that brings random sums of this depth there."""
    largest = {"f32": 1, "bf16": 1, "s16": 2**30, "s32": 2**62, "u8s8": 2**14, "s8s8": 2**13}[kind]
    return 40 / min(largest * max(k, 1) ** 0.5, 2**31)


def assert_product(got, a, b):
    """Integers are exact; floats within (2k + 4)·2⁻²⁴ of the sum of the magnitudes.

    Every product and every sum rounds once, to within half of 2⁻²³; the bound grows with k and covers
    any order of summation.
    """
    want = sums(a, b)
    assert got.shape == want.shape
    if want.dtype == np.int32:
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, want)
        return
    assert got.dtype == np.float32
    magnitude = np.abs(wide(a)) @ np.abs(wide(b))
    error = np.abs(got - want)
    bound = (2 * wide(a).shape[1] + 4) * 2.0**-24 * magnitude + 1e-30
    assert (error <= bound).all(), f"error {(error / bound).max()} times the bound"


def epilogue_result(sums, epilogue, alpha=1.0, beta=0.0, c=None):
    """`Scaled` and `Requantised` in f32, with a rounding after each step, as their docstrings say."""
    f = np.float32
    with np.errstate(all="ignore"):
        x = sums.astype(f) * (f(alpha) * epilogue.scale)
        if epilogue.bias is not None:
            x = x + epilogue.bias
        if beta != 0:
            x = x + f(beta) * (c.astype(f) - f(getattr(epilogue, "zero_point", 0)))
        if epilogue.relu:
            x = np.where(x < 0, f(0), x)
        if not isinstance(epilogue, ouigemm.Requantised):
            return x
        limits = np.iinfo(epilogue.dtype)
        x = np.where(np.isnan(x), f(-65536), np.clip(x, f(-65536), f(65536)))
        q = np.rint(x).astype(np.int64) + epilogue.zero_point
    return np.clip(q, limits.min, limits.max).astype(epilogue.dtype)
