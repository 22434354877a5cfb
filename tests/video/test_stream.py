"""Headers of HEVC: against what the encoder was told, the stream's own structure, and damaged streams."""

import ctypes.util

import numpy as np
import pytest

from ouikit.video import headers
from ouikit.video.bits import Bits
from ouikit.video.clip import moving_crop
from ouikit.video.codec import PictureDecoder, checksum, decode, encode, scalar
from ouikit.video.stream import PPS, nal_units, parse
from ouikit.video.timing import row_seconds


@pytest.fixture(scope="module")
def clip():
    return moving_crop(width=200, height=136, frames=6)


@pytest.fixture(scope="module")
def waves(clip):
    return encode(clip, 27, ctu=16)


def test_numbers_of_the_standards_table():
    codes = {"1": 0, "010": 1, "011": 2, "00100": 3, "00111": 6, "0001000": 7}
    for code, number in codes.items():
        payload = int(code.ljust(8, "0"), 2).to_bytes(1, "big")
        assert Bits(payload).unsigned() == number
        assert Bits(payload).signed() == (-1) ** (number + 1) * -(-number // 2)


def test_a_header_that_ends_early_is_noticed():
    for read in (lambda b: b.number(9), lambda b: b.unsigned(), lambda b: b.skip(9)):
        with pytest.raises(EOFError):
            read(Bits(b"\0"))
    with pytest.raises(EOFError):
        Bits(b"").flag()


@pytest.mark.parametrize(("ctu", "rows", "columns"), [(16, 9, 13), (32, 5, 7), (64, 3, 4)])
def test_sizes_are_those_that_the_encoder_was_given(clip, ctu, rows, columns):
    stream = parse(encode(clip, 30, ctu=ctu))
    assert (stream.width, stream.height, stream.ctu) == (200, 136, ctu)
    assert (stream.rows, stream.columns, stream.wavefront) == (rows, columns, True)
    assert len(stream.kinds) == len(clip)
    assert stream.kinds[0] == "I"
    assert set(stream.kinds[1:]) <= {"P", "B"}


def test_rows_have_all_the_bytes_of_their_slices_but_the_headers(waves):
    rows = parse(waves).row_bytes()
    sizes = [2 + len(payload) for unit, payload in nal_units(waves) if unit < 32]
    assert rows.shape == (6, 9)
    assert (rows > 0).all()
    left = np.array(sizes) - rows.sum(1)
    assert (left > 2).all()
    assert (left < 60).all()  # a header, with an offset of some bytes for each row


def test_the_last_byte_of_each_row_is_what_the_standard_ends_it_with(waves):
    """A substream ends with a stop bit and zeros: a wrong offset would meet a zero byte sooner or later."""
    rows = parse(waves).row_bytes()
    payloads = [payload for unit, payload in nal_units(waves) if unit < 32]
    for sizes, payload in zip(rows, payloads, strict=True):
        ends = len(payload) - sizes.sum() + sizes.cumsum() - 1
        assert all(payload[end] for end in ends)


def test_rows_of_wavefronts_are_nearly_those_of_row_slices(clip):
    waves, slices = (parse(encode(clip, 27, slices=n)).row_bytes() for n in (1, 3))
    assert waves.shape == slices.shape == (6, 3)
    assert np.corrcoef(waves.ravel(), slices.ravel())[0, 1] > 0.99


def test_a_picture_without_entry_points_is_refused_when_rows_are_asked_for(clip):
    stream = parse(encode(clip, 27, wavefront=False))
    assert not stream.wavefront
    with pytest.raises(ValueError, match=r"picture 0 .* wavefronts \(wpp=1\)"):
        stream.row_bytes()


def test_every_way_to_decode_gives_the_same_pictures(clip, waves):
    pictures = list(decode(waves))
    assert len(pictures) == len(clip)
    assert pictures[0].shape == (136 * 3 // 2, 200)
    error = pictures[0][:136].astype(float) - (16 + clip[0] @ np.array([65.5, 128.6, 25.0]) / 255)
    assert np.abs(error).mean() < 6  # quantisation; another picture would be far off
    one = checksum(waves)
    assert checksum(waves, threads=2) == checksum(waves, threads=2, kind="FRAME") == one
    with scalar():
        assert checksum(waves) == one


def test_a_decoder_that_stays_open_gives_each_picture_its_number(clip):
    """In any order, and the same picture twice: as a decoder that is opened for each."""
    streams = [encode([picture], 27) for picture in clip[:3]]
    decoder, found = PictureDecoder(), {}
    for number, which in enumerate(order := [2, 0, 0, 1]):
        found |= decoder(streams[which], number)
    found |= decoder.rest()
    assert sorted(found) == [0, 1, 2, 3]
    for number, which in enumerate(order):
        (expected,) = decode(streams[which])
        np.testing.assert_array_equal(found[number], expected)


def test_streams_that_are_cut_off_or_foreign_are_refused(waves):
    with pytest.raises(ValueError, match="no HEVC byte stream"):
        parse(b"")
    with pytest.raises(ValueError, match="no HEVC byte stream"):
        parse(b"a text, and no stream")
    slices = [payload for unit, payload in nal_units(waves) if unit < 32]
    with pytest.raises(ValueError, match=r"picture 0, .* entry points need"):
        parse(waves[: waves.index(slices[0]) + 400])
    units = list(nal_units(waves))
    no_sets = b"".join(b"\0\0\1" + bytes([u << 1, 1]) + payload for u, payload in units if u != PPS)
    with pytest.raises(ValueError, match="a parameter set is missing"):
        parse(no_sets)


def test_a_reference_set_that_changes_another_is_derived_as_the_standard_says():
    # Set 0: past 1 and 3, future 2. Set 1 from it, all distances one less (sign 1, step 1), all kept.
    written = Bits(_bits("011", "010", "1", "1", "010", "1", "010", "1"))
    first = headers._reference_set(written, 0, 2, [])
    assert first == [-1, -3, 2]
    derived = Bits(_bits("1", "1", "1", "1", "1", "1", "1"))  # predicted; sign; step 1; four flags
    assert headers._reference_set(derived, 1, 2, [first]) == [-1, -2, -4, 1]


def _bits(*codes):
    text = "".join(codes)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


@pytest.mark.parametrize(
    ("frames", "given", "error", "complaint"),
    [
        ([], {}, ValueError, "no frame to encode"),
        ([np.zeros((16, 17, 3), np.uint8)], {}, ValueError, "must be even: got 17 × 16"),
        ([np.zeros((16, 16, 3))], {}, TypeError, "a frame is uint8"),
        ([np.zeros((64, 64, 3), np.uint8)], {"qp": 52}, ValueError, "qp is 0 to 51 .* got 52"),
        ([np.zeros((64, 64, 3), np.uint8)], {"ctu": 8}, ValueError, "ctu is 16, 32 or 64: got 8"),
        ([np.zeros((64, 64, 3), np.uint8)], {"slices": 9}, ValueError, "slices 1 to 8: got 30 and 9"),
        (
            [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)],
            {},
            ValueError,
            "a frame of 32 × 64 follows one of 64 × 64",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused_by_name(frames, given, error, complaint):
    with pytest.raises(error, match=complaint):
        encode(frames, **({"qp": 30} | given))


@pytest.mark.skipif(ctypes.util.find_library("de265") is None, reason="libde265 is not installed")
def test_rows_are_timed_one_by_one(clip):
    data = encode(clip, 27, slices=3)
    seconds = row_seconds(data, repeats=2)
    assert seconds.shape == (6, 3)
    assert (seconds > 0).all()
    with pytest.raises(ValueError, match="a slice for each row: 6 slices"):
        row_seconds(encode(clip, 27))
