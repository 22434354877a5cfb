"""What cannot be done is refused, with shapes and types in the message."""

import numpy as np
import pytest
from oracle import DTYPES, ELEMENTS

import ouigemm

U8, S8 = np.zeros((3, 4), np.uint8), np.zeros((4, 5), np.int8)
F32 = np.zeros((4, 4), np.float32)


@pytest.mark.parametrize(
    ("a", "b", "pair"),
    [
        (np.int8, np.uint8, "s8 and u8"),
        (np.uint8, np.uint8, "u8 and u8"),
        (np.int16, np.int8, "s16 and s8"),
        (np.int32, np.int16, "s32 and s16"),
        (np.float32, np.int8, "f32 and s8"),
    ],
)
def test_mixed_up_types(a, b, pair):
    message = rf"no product of {pair} \(a is .* \(3, 4\), b is .* \(4, 5\)\); there are f32·f32"
    with pytest.raises(TypeError, match=message):
        ouigemm.gemm(np.zeros((3, 4), a), np.zeros((4, 5), b))


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float16, np.int64, np.uint32, np.uint16, np.bool_, np.complex64]
)
def test_types_without_a_product(dtype):
    with pytest.raises(TypeError, match=r"a is .* \(3, 4\); the types are float32, bfloat16"):
        ouigemm.gemm(np.zeros((3, 4), dtype), S8)


@pytest.mark.parametrize("x", [[[1.0]], 3, None, "matrix", np.ma.zeros((3, 4), np.uint8)])
def test_things_that_are_no_arrays(x):
    with pytest.raises(TypeError, match=r"a must be a numpy array|a is a masked array"):
        ouigemm.gemm(x, S8)


class Metres(np.ndarray):
    """An array with arithmetic of its own, as packages of physical units have."""

    def __array_ufunc__(self, *inputs, **options):
        return NotImplemented


MEANINGS = {
    r"is big-endian, .*newbyteorder": lambda dtype: np.ones((4, 4), np.dtype(dtype).newbyteorder(">")),
    "masked array": lambda dtype: np.ma.ones((4, 4), dtype),
    r"Metres.* arithmetic of its own: .*\.view\(numpy\.ndarray\)": lambda d: np.ones((4, 4), d).view(Metres),
}


@pytest.mark.parametrize("message", MEANINGS)
@pytest.mark.parametrize(
    ("name", "dtype", "call"),
    [
        ("a", np.float32, lambda x: ouigemm.gemm(x, F32)),
        ("b", np.int16, ouigemm.pack),
        ("out", np.float32, lambda x: ouigemm.gemm(F32, F32, x)),
        ("bits", np.uint64, ouigemm.hamming),
    ],
)
def test_arrays_that_mean_more_than_their_numbers(message, name, dtype, call):
    with pytest.raises(TypeError, match=f"^{name}.*{message}"):
        call(MEANINGS[message](dtype))


def test_masked_and_foreign_numbers_of_an_epilogue():
    for x in (np.ma.ones(5), np.ones(5).view(Metres)):
        with pytest.raises(TypeError, match=r"^bias.*(masked array|arithmetic of its own)"):
            ouigemm.Scaled(bias=x)
    assert ouigemm.Scaled(np.ones(5, ">f8")).scale.dtype == np.float32  # copied, and so converted


def test_no_room_is_said_with_the_shapes():
    long = np.broadcast_to(np.int8(1), (1, 2**46))
    with pytest.raises(MemoryError, match=r"no room to pack a, s8 \(1, 70368744177664\), and b, s8"):
        ouigemm.gemm(long, long.T)
    with pytest.raises(MemoryError, match=r"no room to pack b, s8 \(70368744177664, 1\)"):
        ouigemm.pack(long.T)


@pytest.mark.parametrize("k", [2**60, 2**61, 2**62])
@pytest.mark.parametrize("kind", ["u8s8", "s8s8", "f32"])
def test_depths_whose_bytes_no_number_holds_are_refused(rung, kind, k):
    """At once: they are neither read nor, having wrapped, taken for small."""
    a, b = (np.zeros((1, 1), DTYPES[element]) for element in ELEMENTS[kind])
    k //= b.itemsize
    a, b = np.broadcast_to(a, (1, k)), np.broadcast_to(b, (k, 1))
    for left in (a, a.reshape(1, 1, 1, k, 1, 1)):
        with pytest.raises(MemoryError, match=r"no room to pack a, .* and b, "):
            ouigemm.gemm(left, b, isa=rung)
    with pytest.raises(MemoryError, match="no room to pack b, "):
        ouigemm.pack(b, isa=rung)


def test_weights_without_columns_are_packed_at_once(rung):
    assert ouigemm.pack(np.empty((2**40, 0), np.int8), isa=rung).shape == (2**40, 0)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4)])
def test_things_that_are_no_matrices(shape):
    with pytest.raises(ValueError, match="a must be a matrix or windows of six axes, not of shape"):
        ouigemm.gemm(np.zeros(shape, np.uint8), S8)


def test_shapes_that_do_not_meet():
    message = r"a is u8 \(3, 4\), b is s8 \(5, 5\): 4 columns do not meet 5 rows"
    with pytest.raises(ValueError, match=message):
        ouigemm.gemm(U8, np.zeros((5, 5), np.int8))
    with pytest.raises(ValueError, match=r"a is u8 \(3, 4\), b is Weights\(s8 \(5, 6\)"):
        ouigemm.gemm(U8, ouigemm.pack(np.zeros((5, 6), np.int8)))


def test_wrong_results():
    with pytest.raises(TypeError, match=r"out must be int32 \(3, 5\), not float32 \(3, 5\)"):
        ouigemm.gemm(U8, S8, np.zeros((3, 5), np.float32))
    with pytest.raises(ValueError, match=r"out must be int32 \(3, 5\), not int32 \(5, 3\)"):
        ouigemm.gemm(U8, S8, np.zeros((5, 3), np.int32))
    frozen = np.zeros((3, 5), np.int32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        ouigemm.gemm(U8, S8, frozen)


def test_results_that_overlap_themselves():
    line = np.zeros(20, np.int32)
    for strides in ((0, 4), (4, 4), (8, 4), (4, 0)):
        out = np.lib.stride_tricks.as_strided(line, (3, 5), strides, writeable=True)
        with pytest.raises(ValueError, match="overlaps itself"):
            ouigemm.gemm(U8, S8, out)


def test_results_in_the_memory_of_an_input():
    memory = np.zeros(64, np.float32)
    a, out = memory[:16].reshape(4, 4), memory[8:24].reshape(4, 4)
    with pytest.raises(ValueError, match=r"out, float32 \(4, 4\), lies in the memory of a, f32 \(4, 4\)"):
        ouigemm.gemm(a, F32, out)
    with pytest.raises(ValueError, match="lies in the memory of b"):
        ouigemm.gemm(F32, a, out)
    with pytest.raises(ValueError, match="lies in the memory of a"):
        ouigemm.gemm(a[::-1, ::-1], F32, memory[15:31].reshape(4, 4))
    assert not memory.any()
    assert ouigemm.gemm(a, F32, memory[16:32].reshape(4, 4)) is not None
    assert ouigemm.gemm(a[::-1, ::-1], F32, memory[16:32].reshape(4, 4)) is not None


def test_numbers_that_do_not_lie_on_elements():
    record = np.zeros((3, 4), np.dtype([("pad", "u1"), ("x", "<i2")]))
    with pytest.raises(ValueError, match="does not lie on whole elements"):
        ouigemm.gemm(record["x"], np.zeros((4, 5), np.int16))


@pytest.mark.parametrize("value", ["1", None, 1j, True])
def test_factors_that_are_no_numbers(value):
    with pytest.raises(TypeError, match="alpha must be a real number"):
        ouigemm.gemm(U8, S8, alpha=value)


@pytest.mark.parametrize("value", [0.5, 2**31, float("nan"), float("inf")])
def test_factors_of_integers_are_whole(value):
    with pytest.raises(ValueError, match=r"alpha = .* (must be whole|does not fit int32)"):
        ouigemm.gemm(U8, S8, alpha=value)


def test_beta_needs_a_result_to_add_to():
    with pytest.raises(ValueError, match=r"beta = 1 needs an out of int32 \(3, 5\)"):
        ouigemm.gemm(U8, S8, beta=1)
    with pytest.raises(ValueError, match=r"beta = 0.5 needs an out of uint8 \(3, 5\)"):
        ouigemm.gemm(U8, S8, beta=0.5, epilogue=ouigemm.Requantised(1.0, dtype="uint8"))


def test_epilogues_that_do_not_fit():
    with pytest.raises(ValueError, match="scale has 4 numbers for 5 columns"):
        ouigemm.gemm(U8, S8, epilogue=ouigemm.Scaled(np.ones(4)))
    with pytest.raises(ValueError, match="bias has 1 numbers for 5 columns"):
        ouigemm.gemm(U8, S8, epilogue=ouigemm.Scaled(1.0, np.ones(1)))
    with pytest.raises(TypeError, match="epilogue must be Scaled"):
        ouigemm.gemm(U8, S8, epilogue="relu")


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "scale must be real numbers", {"scale": "big"}),
        (
            ValueError,
            r"scale must be a number or a vector, not of shape \(2, 2\)",
            {"scale": np.ones((2, 2))},
        ),
        (ValueError, r"bias must be a vector, not of shape \(\)", {"scale": 1.0, "bias": 1.0}),
        (TypeError, "relu must be True or False", {"scale": 1.0, "relu": 1}),
        (TypeError, "dtype must be int8 or uint8, not int16", {"scale": 1.0, "dtype": "int16"}),
        (TypeError, "dtype must be int8 or uint8, not 'byte8'", {"scale": 1.0, "dtype": "byte8"}),
        (TypeError, "zero_point must be an int", {"scale": 1.0, "zero_point": 0.5}),
        (ValueError, "zero_point 200 does not fit int8", {"scale": 1.0, "zero_point": 200}),
    ],
)
def test_wrong_epilogues(error, message, arguments):
    with pytest.raises(error, match=message):
        ouigemm.Requantised(**arguments)


def test_bits_of_bf16_are_uint16():
    with pytest.raises(
        TypeError, match=r"BFloat16 takes a uint16 array, not int16 ndarray of shape \(2, 2\)"
    ):
        ouigemm.BFloat16(np.zeros((2, 2), np.int16))


@pytest.mark.parametrize(
    ("error", "threads"), [(TypeError, 1.0), (TypeError, True), (ValueError, 0), (ValueError, -1)]
)
def test_wrong_numbers_of_threads(error, threads):
    with pytest.raises(error, match="threads must be"):
        ouigemm.gemm(U8, S8, threads=threads)


def test_numbers_of_numpy_are_numbers():
    got = ouigemm.gemm(F32, F32, alpha=np.float32(1), beta=np.int64(0), threads=np.int64(2))
    assert got.shape == (4, 4)
    assert ouigemm.Requantised(relu=np.True_, zero_point=np.int8(3)).relu
