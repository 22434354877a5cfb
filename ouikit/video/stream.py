"""An HEVC stream taken apart: slices, and how many bytes each row of coding tree units has.

::

    stream = parse(open("clip.hevc", "rb").read())
    stream.row_bytes()                               # [pictures, rows]

Source: ITU-T H.265: Annex B (byte stream), clause 7.3.1 (NAL units), 7.4.7.1 (entry points, which count the
bytes that prevent the emulation of start codes).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ouikit.video.headers import Picture, Sequence, SliceHeader, read_picture, read_sequence, read_slice

SPS, PPS, SLICES = 33, 34, range(32)
_START = re.compile(b"\0\0\1")
_EMULATED = re.compile(b"\0\0\3")
_HEADER = 1024  # bytes: more than any slice header here takes


@dataclass(frozen=True)
class Slice:
    """A part of a picture. picture: counted in decoding order. row: its first row of CTUs, and column: the
    place in it. kind: I, P or B. sizes: bytes of its substreams, a row each where there are wavefronts."""

    picture: int
    row: int
    column: int
    kind: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Stream:
    """width, height: pixels, before any window. ctu: side of a coding tree unit. columns, rows: CTUs of a
    picture. wavefront: whether each row has an entry point. slices: in the order of the stream."""

    width: int
    height: int
    ctu: int
    columns: int
    rows: int
    wavefront: bool
    slices: tuple[Slice, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """I, P or B for each picture, in decoding order; that of its first slice."""
        first: dict[int, str] = {}
        for part in self.slices:
            first.setdefault(part.picture, part.kind)
        return tuple(first.values())

    def row_bytes(self) -> np.ndarray:
        """int64 `[pictures, rows]`: bytes of each row of CTUs, headers of slices left out.

        Raises ValueError where a substream is no row: a stream with neither wavefronts nor a slice a row.
        """
        found = np.zeros((len(self.kinds), self.rows), np.int64)
        starts = {(part.picture, part.row) for part in self.slices}
        for part in self.slices:
            rows = len(part.sizes)
            whole = self.wavefront or part.row + 1 == self.rows or (part.picture, part.row + 1) in starts
            if part.column or not whole:
                raise ValueError(
                    f"picture {part.picture} does not say where its rows begin: encode it with wavefronts "
                    "(wpp=1), or with a slice for each row"
                )
            found[part.picture, part.row : part.row + rows] = part.sizes
        return found


def parse(data: bytes) -> Stream:
    """Read the headers of a byte stream (Annex B).

    Raises:
        ValueError: no HEVC stream, a stream that is cut off, parameter sets that change the size of pictures,
            or slices whose parameter sets are missing.
        NotImplementedError: a picture in tiles, or syntax that is not read, by name.
    """
    pictures: dict[int, Picture] = {}
    sequences: dict[int, Sequence] = {}
    slices: list[Slice] = []
    used: tuple[Picture, Sequence] | None = None
    kind = ""
    for unit, payload in nal_units(data):
        try:
            if unit == SPS:
                number, sequence = read_sequence(_plain(payload))
                sequences[number] = sequence
            elif unit == PPS:
                number, picture = read_picture(_plain(payload))
                pictures[number] = picture
            elif unit in SLICES:
                header, picture, sequence = read_slice(
                    _plain(payload[:_HEADER]), unit, pictures, sequences, kind
                )
                used, kind = _same(used, picture, sequence), header.kind
                slices.append(_slice(header, payload, sequence, slices))
        except (EOFError, KeyError, IndexError, ValueError) as error:
            at = f"in picture {slices[-1].picture if slices else 0}"
            why = (
                "a parameter set is missing" if isinstance(error, KeyError) else str(error) or "it is cut off"
            )
            raise ValueError(f"this is no whole HEVC stream: {at}, NAL unit of type {unit}: {why}") from error
    if used is None:
        raise ValueError("this is no HEVC byte stream: it has no slice between start codes")
    picture, sequence = used
    return Stream(
        sequence.width, sequence.height, sequence.ctu, sequence.columns, sequence.rows, picture.wavefront,
        tuple(slices),
    )  # fmt: skip


def nal_units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each NAL unit, emulation prevention included."""
    starts = [match.end() for match in _START.finditer(data)]
    if not starts:
        return
    for begin, end in zip(starts, [start - 3 for start in starts[1:]] + [len(data)], strict=True):
        if end - begin > 2:
            yield (data[begin] >> 1) & 63, data[begin + 2 : end].rstrip(b"\0")


def _plain(payload: bytes) -> bytes:
    """Without the bytes that keep a payload from looking like a start code."""
    return _EMULATED.sub(b"\0\0", payload)


def _slice(header: SliceHeader, payload: bytes, sequence: Sequence, before: list[Slice]) -> Slice:
    """A slice with the sizes of its substreams; entry points count bytes as they are in the stream."""
    begin, plain = 0, 0
    for match in _EMULATED.finditer(payload[:_HEADER]):
        if plain + match.start() + 2 - begin > header.length:
            break
        plain += match.start() + 2 - begin
        begin = match.end()
    data = len(payload) - (begin + header.length - plain)
    last = data - sum(header.offsets)
    if last <= 0:
        raise ValueError(f"its entry points need more than {sum(header.offsets)} bytes, {data} are there")
    picture = before[-1].picture + header.first if before else 0
    row, column = divmod(header.address, sequence.columns)
    return Slice(picture, row, column, header.kind, (*header.offsets, last))


def _same(
    used: tuple[Picture, Sequence] | None, picture: Picture, sequence: Sequence
) -> tuple[Picture, Sequence]:
    if picture.tiles:
        raise NotImplementedError("pictures in tiles are not read")
    if used is not None and (used[1] != sequence or used[0].wavefront != picture.wavefront):
        raise ValueError("the size of pictures or their wavefronts change within the stream")
    return picture, sequence
