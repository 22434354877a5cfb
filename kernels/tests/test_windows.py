"""Windows of images as the rows of A: the same numbers as a product of copies, and no byte beside them."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from oracle import ELEMENTS, INTEGERS, assert_product, random_matrix
from test_memory import guarded

import ouigemm
from ouigemm.ladder import TYPES

LOOKS = [  # size, stride, dilation; images of so many lines, pixels and channels
    ((3, 3), (1, 1), (1, 1), (9, 14, 64)),  # read where they lie, but for tiles across lines
    ((3, 3), (2, 2), (1, 1), (9, 30, 128)),
    ((1, 1), (2, 2), (1, 1), (13, 40, 256)),
    ((2, 3), (1, 2), (2, 2), (8, 33, 64)),  # dilated: no two pixels of a window are neighbours
    ((7, 7), (2, 2), (1, 1), (16, 16, 3)),
    ((5, 2), (1, 1), (1, 3), (6, 9, 5)),
    ((1, 1), (1, 1), (1, 1), (5, 7, 66)),
    ((4, 4), (1, 1), (1, 1), (4, 4, 1)),  # one window
]
DEEP = ((3, 3), (1, 1), (1, 1), (7, 7, 512))  # of several steps of the depth, which begin inside a run


def windows(images, size, stride, dilation):
    span = [d * (s - 1) + 1 for s, d in zip(size, dilation, strict=True)]
    every = sliding_window_view(images, span, axis=(1, 2))[:, :: stride[0], :: stride[1]]
    return every[..., :: dilation[0], :: dilation[1]].transpose(0, 1, 2, 4, 5, 3)


def as_matrix(seen):
    return np.ascontiguousarray(seen).reshape(int(np.prod(seen.shape[:3])), -1)


def operands(rng, kind, look, n, images=2):
    """Windows as `gemm` takes them, the same as a matrix, and a B."""
    *how, image = look
    pixels = random_matrix(rng, ELEMENTS[kind][0], (images, int(np.prod(image))))
    bits = (pixels.bits if kind == "bf16" else pixels).reshape(images, *image)
    seen = windows(bits, *how)
    rows, b = as_matrix(seen), random_matrix(rng, ELEMENTS[kind][1], (int(np.prod(seen.shape[3:])), n))
    return (ouigemm.BFloat16(seen), ouigemm.BFloat16(rows), b) if kind == "bf16" else (seen, rows, b)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("look", [*LOOKS, DEEP])
def test_windows_are_rows(rung, kind, look, rng):
    for n in (5, 70):
        seen, rows, b = operands(rng, kind, look, n)
        for right in (b, ouigemm.pack(b, isa=rung)):
            one, three = (ouigemm.gemm(seen, right, isa=rung, threads=threads) for threads in (1, 3))
            assert_product(one, rows, b)
            np.testing.assert_array_equal(one, three, "bits depend on the threads")


@pytest.mark.parametrize("look", [*LOOKS, DEEP])
def test_bits_do_not_depend_on_the_place_of_an_image(rung, look, rng):
    """Nor on whether a window shares a tile with one of the next line."""
    *how, image = look
    pixels = np.repeat(rng.standard_normal((1, *image), np.float32), 5, axis=0)
    seen = windows(pixels, *how)
    b = rng.standard_normal((int(np.prod(seen.shape[3:])), 40), np.float32)
    for right in (b, ouigemm.pack(b, isa=rung)):
        every = ouigemm.gemm(seen, right, isa=rung).reshape(5, -1)
        np.testing.assert_array_equal(every, every[[0] * 5])


@pytest.mark.parametrize("kind", ["f32", "u8s8", "s8s8"])
@pytest.mark.parametrize("look", [LOOKS[0], LOOKS[4], DEEP])
def test_windows_with_an_epilogue(rung, kind, look, rng):
    """Integers to the bit; small weights run on other kernels on some rungs."""
    seen, rows, b = operands(rng, kind, look, 40)
    b = b >> 1 if kind in INTEGERS else b
    scale = np.full(40, 2.0**-7 / len(b) ** 0.5 if kind in INTEGERS else 1, np.float32)
    epilogue = ouigemm.Requantised(scale, np.arange(40) - 20, relu=True, dtype="uint8", zero_point=3)
    weights = ouigemm.pack(b, isa=rung)
    for beta in (0, 0.5):
        found, want = (
            ouigemm.gemm(a, weights, np.full((len(rows), 40), 9, np.uint8), beta=beta, epilogue=epilogue)
            for a in (seen, rows)
        )
        assert np.abs(found.astype(int) - want).max() <= (0 if kind in INTEGERS else 1)
        assert np.ptp(want) > 40


def test_windows_of_images_that_lie_anywhere(rung, rng):
    """Part of larger ones, backwards, and one image again and again."""
    b = random_matrix(rng, "s8", (9 * 64, 20))
    large = random_matrix(rng, "u8", (3 * 20 * 20, 64)).reshape(3, 20, 20, 64)
    for images in (large[:, 3:15, 5:17], large[::-1, ::-1, ::2], np.broadcast_to(large[:1], large.shape)):
        seen = windows(images, (3, 3), (1, 1), (1, 1))
        for right in (b, ouigemm.pack(b, isa=rung)):
            assert_product(ouigemm.gemm(seen, right, isa=rung), as_matrix(seen), b)


@pytest.mark.parametrize("kind", ["f32", "u8s8", "s8s8"])
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("at_end", [True, False])
def test_windows_between_guard_pages(rung, kind, look, at_end, rng):
    *how, image = look
    pixels = random_matrix(rng, ELEMENTS[kind][0], (2, int(np.prod(image)))).reshape(2, *image)
    seen = windows(guarded(pixels, at_end), *how)
    b = random_matrix(rng, ELEMENTS[kind][1], (int(np.prod(seen.shape[3:])), 20))
    for right in (b, ouigemm.pack(b, isa=rung)):
        assert_product(ouigemm.gemm(seen, right, isa=rung), as_matrix(seen), b)


def test_windows_without_places_or_numbers(rung):
    b = np.ones((12, 5), np.int8)
    none = ouigemm.gemm(np.empty((0, 4, 4, 2, 2, 3), np.uint8), b, isa=rung)
    assert none.shape == (0, 5)
    empty = ouigemm.gemm(np.empty((2, 4, 4, 2, 2, 0), np.uint8), np.empty((0, 5), np.int8), isa=rung)
    np.testing.assert_array_equal(empty, np.zeros((32, 5)))


def test_windows_of_tensors():
    torch = pytest.importorskip("torch")
    images = torch.arange(2 * 5 * 5 * 3, dtype=torch.float32).reshape(2, 5, 5, 3)
    seen = images.unfold(1, 2, 1).unfold(2, 2, 1).permute(0, 1, 2, 4, 5, 3)
    got = ouigemm.gemm(seen, torch.ones(12, 4))
    assert isinstance(got, torch.Tensor)
    torch.testing.assert_close(got, seen.reshape(32, 12) @ torch.ones(12, 4))


def test_results_over_their_own_images_are_refused(rng):
    room = np.zeros(2 * 8 * 8 * 16, np.float32)
    seen = windows(room.reshape(2, 8, 8, 16), (3, 3), (1, 1), (1, 1))
    b = np.ones((144, 16), np.float32)
    for first in (0, len(room) - 72 * 16):
        with pytest.raises(ValueError, match=r"out, .* lies in the memory of a, f32 \(2, 6, 6, 3, 3, 16\)"):
            ouigemm.gemm(seen, b, room[first : first + 72 * 16].reshape(72, 16))


def test_other_windows_are_refused(rng):
    images = np.zeros((2, 8, 8, 4), np.float32)
    seen = windows(images, (3, 3), (1, 1), (1, 1))
    with pytest.raises(ValueError, match=r"a must be a matrix or windows of six axes, not of shape \(6,"):
        ouigemm.gemm(seen[0], np.ones((36, 2), np.float32))
    with pytest.raises(ValueError, match=r"a is f32 \(2, 6, .*\), b is .*: 36 columns do not meet 35 rows"):
        ouigemm.gemm(seen, np.ones((35, 2), np.float32))
    with pytest.raises(ValueError, match="must have their channels side by side, not 256 bytes apart"):
        ouigemm.gemm(seen.transpose(0, 1, 2, 5, 4, 3)[..., ::2], np.ones((24, 2), np.float32))
    with pytest.raises(ValueError, match="b must be a matrix, not of shape"):
        ouigemm.gemm(np.ones((4, 4), np.float32), seen)
