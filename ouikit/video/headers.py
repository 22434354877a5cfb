"""Parameter sets and slice headers of HEVC, as far as they lead to the entry points of wavefronts.

Source: ITU-T H.265, clauses 7.3.2 (parameter sets), 7.3.6 (slice headers), 7.3.7 (reference picture sets).
Syntax that is read to no end here, such as scaling lists, is refused by name.
"""

from dataclasses import dataclass

from ouikit.video.bits import Bits

Deltas = list[int]  # of a short-term reference picture set: distances in time


@dataclass(frozen=True)
class Sequence:
    """What a sequence parameter set says of every picture."""

    width: int
    height: int
    ctu: int  # side of a coding tree unit, pixels
    chroma: bool
    planes_apart: bool
    time_bits: int
    sets: list[Deltas]
    long_term: bool
    long_term_sets: int
    motion_from_time: bool
    offsets: bool  # sample adaptive offset, SAO

    @property
    def columns(self) -> int:
        """CTUs in a row."""
        return -(-self.width // self.ctu)

    @property
    def rows(self) -> int:
        """Rows of CTUs."""
        return -(-self.height // self.ctu)


@dataclass(frozen=True)
class Picture:
    """What a picture parameter set says of its slices."""

    sequence: int
    dependent_slices: bool
    output_flag: bool
    extra_bits: int
    cabac_init: bool
    references: tuple[int, int]  # in use by default, in either list
    chroma_qp: bool
    weighted: tuple[bool, bool]  # P, B
    tiles: bool
    wavefront: bool
    across_slices: bool
    deblocking_override: bool
    deblocking_off: bool
    lists_modified: bool
    header_extension: bool


@dataclass(frozen=True)
class SliceHeader:
    """What leads a slice: which picture it begins or continues, its first CTU, kind and entry points."""

    first: bool
    dependent: bool
    address: int
    kind: str  # I, P or B; of a dependent slice that of the slice before
    offsets: list[int]  # bytes of all substreams but the last
    length: int  # of the header, bytes without emulation prevention


def read_sequence(payload: bytes) -> tuple[int, Sequence]:
    """A sequence parameter set and its number. Raises NotImplementedError for scaling lists."""
    bits = Bits(payload)
    bits.skip(4)
    sub_layers = bits.number(3)
    bits.skip(1)
    _skip_profile(bits, sub_layers)
    number, chroma = bits.unsigned(), bits.unsigned()
    apart = chroma == 3 and bits.flag()
    width, height = bits.unsigned(), bits.unsigned()
    if bits.flag():
        _skip_unsigned(bits, 4)  # the window that is shown
    _skip_unsigned(bits, 2)  # bit depths
    time_bits = bits.unsigned() + 4
    for _ in range(0 if bits.flag() else sub_layers, sub_layers + 1):
        _skip_unsigned(bits, 3)
    smallest = bits.unsigned() + 3
    ctu = 2 ** (smallest + bits.unsigned())
    _skip_unsigned(bits, 4)  # transform units
    if bits.flag() and bits.flag():
        raise NotImplementedError("scaling lists in a sequence parameter set are not read")
    bits.skip(1)
    offsets = bits.flag()
    if bits.flag():  # PCM
        bits.skip(8)
        _skip_unsigned(bits, 2)
        bits.skip(1)
    sets: list[Deltas] = []
    count = bits.unsigned()
    for index in range(count):
        sets.append(_reference_set(bits, index, count, sets))
    long_term, long_term_sets = bits.flag(), 0
    if long_term:
        long_term_sets = bits.unsigned()
        bits.skip(long_term_sets * (time_bits + 1))
    return number, Sequence(
        width, height, ctu, chroma != 0 and not apart, apart, time_bits, sets, long_term, long_term_sets,
        bits.flag(), offsets,
    )  # fmt: skip


def read_picture(payload: bytes) -> tuple[int, Picture]:
    """A picture parameter set and its number. Raises NotImplementedError for scaling lists and extensions."""
    bits = Bits(payload)
    number, sequence = bits.unsigned(), bits.unsigned()
    dependent, output, extra = bits.flag(), bits.flag(), bits.number(3)
    bits.skip(1)
    cabac_init, references = bits.flag(), (bits.unsigned() + 1, bits.unsigned() + 1)
    bits.signed()
    bits.skip(2)
    if bits.flag():
        bits.unsigned()
    bits.signed(), bits.signed()
    chroma_qp, weighted = bits.flag(), (bits.flag(), bits.flag())
    bits.skip(1)
    tiles, wavefront = bits.flag(), bits.flag()
    if tiles:
        _skip_tiles(bits)
    across, override, off = bits.flag(), False, False
    if bits.flag():
        override, off = bits.flag(), bits.flag()
        if not off:
            bits.signed(), bits.signed()
    if bits.flag():
        raise NotImplementedError("scaling lists in a picture parameter set are not read")
    modified = bits.flag()
    bits.unsigned()
    extension = bits.flag()
    if bits.flag() and bits.flag():
        raise NotImplementedError("range extensions of a picture parameter set are not read")
    return number, Picture(
        sequence, dependent, output, extra, cabac_init, references, chroma_qp, weighted, tiles, wavefront,
        across, override, off, modified, extension,
    )  # fmt: skip


def read_slice(
    payload: bytes,
    unit: int,
    pictures: dict[int, Picture],
    sequences: dict[int, Sequence],
    kind: str = "",
) -> tuple[SliceHeader, Picture, Sequence]:
    """The header of a slice in a NAL unit of type `unit`; kind: that of the slice before.

    Raises KeyError for a parameter set that was not there, NotImplementedError for long-term references and
    modified lists of references.
    """
    bits = Bits(payload)
    first = bits.flag()
    if 16 <= unit <= 23:
        bits.skip(1)
    picture = pictures[bits.unsigned()]
    sequence = sequences[picture.sequence]
    dependent = not first and picture.dependent_slices and bits.flag()
    places = sequence.rows * sequence.columns
    address = 0 if first else bits.number((places - 1).bit_length())
    if not dependent:
        kind = _independent(bits, unit, picture, sequence)
    offsets: list[int] = []
    if picture.tiles or picture.wavefront:
        count = bits.unsigned()
        size = bits.unsigned() + 1 if count else 0
        offsets = [bits.number(size) + 1 for _ in range(count)]
    if picture.header_extension:
        bits.skip(8 * bits.unsigned())
    if not bits.flag() or bits.number(-bits.position % 8):
        raise ValueError("a slice header does not end as it should")
    return (
        SliceHeader(first, dependent, address, kind, offsets, bits.position // 8),
        picture,
        sequence,
    )


def _independent(bits: Bits, unit: int, picture: Picture, sequence: Sequence) -> str:
    """The part of a slice header that a dependent slice lacks; what it tells of the kind."""
    bits.skip(picture.extra_bits)
    kind = "BPI"[bits.unsigned()]
    bits.skip(picture.output_flag + 2 * sequence.planes_apart)
    from_time = unit not in (19, 20) and _references(bits, sequence)
    offsets = sequence.offsets and [bits.flag() for _ in range(1 + sequence.chroma)]
    if kind != "I":
        _prediction(bits, kind, picture, sequence, from_time)
    bits.signed()
    if picture.chroma_qp:
        bits.signed(), bits.signed()
    off = picture.deblocking_off
    if picture.deblocking_override and bits.flag():
        off = bits.flag()
        if not off:
            bits.signed(), bits.signed()
    if picture.across_slices and (any(offsets or []) or not off):
        bits.skip(1)
    return kind


def _references(bits: Bits, sequence: Sequence) -> bool:
    """Which pictures are referred to; returns whether motion is predicted from another time."""
    bits.skip(sequence.time_bits)
    count = len(sequence.sets)
    if not bits.flag():
        _reference_set(bits, count, count, sequence.sets)
    elif count > 1:
        bits.skip((count - 1).bit_length())
    if sequence.long_term:
        named = sequence.long_term_sets and bits.unsigned()
        if named or bits.unsigned():
            raise NotImplementedError("long-term reference pictures are not read")
    return sequence.motion_from_time and bits.flag()


def _prediction(bits: Bits, kind: str, picture: Picture, sequence: Sequence, from_time: bool) -> None:
    """What a slice says of its prediction from other pictures."""
    used = list(picture.references)
    if bits.flag():
        used[0] = bits.unsigned() + 1
        if kind == "B":
            used[1] = bits.unsigned() + 1
    if picture.lists_modified:
        raise NotImplementedError("modified lists of reference pictures are not read")
    bits.skip((kind == "B") + picture.cabac_init)
    if from_time:
        other = kind == "B" and not bits.flag()
        if used[other] > 1:
            bits.unsigned()
    if picture.weighted["PB".index(kind)]:
        _skip_weights(bits, used[: 1 + (kind == "B")], sequence.chroma)
    bits.unsigned()


def _skip_weights(bits: Bits, used: list[int], chroma: bool) -> None:
    bits.unsigned()
    if chroma:
        bits.signed()
    for count in used:
        luma = [bits.flag() for _ in range(count)]
        colours = [chroma and bits.flag() for _ in range(count)]
        for has_luma, has_colours in zip(luma, colours, strict=True):
            for _ in range(2 * has_luma + 4 * has_colours):
                bits.signed()


def _reference_set(bits: Bits, index: int, count: int, sets: list[Deltas]) -> Deltas:
    """A short-term reference picture set, written out or as a change of one before it."""
    if index and bits.flag():
        base = sets[index - (bits.unsigned() + 1 if index == count else 1)]
        sign = bits.flag()
        step = (bits.unsigned() + 1) * (-1 if sign else 1)
        kept = [bits.flag() or bits.flag() for _ in range(len(base) + 1)]
        moved = [delta + step for delta in [*base, 0]]
        return sorted({d for d, keep in zip(moved, kept, strict=True) if keep and d}, key=_in_order)
    negative, positive = bits.unsigned(), bits.unsigned()
    found: Deltas = []
    for side, number in ((-1, negative), (1, positive)):
        delta = 0
        for _ in range(number):
            delta += side * (bits.unsigned() + 1)
            bits.skip(1)
            found.append(delta)
    return found


def _in_order(delta: int) -> tuple[bool, int]:
    """Past before future, the nearest first: the order in which flags of a later set count them."""
    return delta > 0, abs(delta)


def _skip_profile(bits: Bits, sub_layers: int) -> None:
    bits.skip(88 + 8)
    present = [(bits.flag(), bits.flag()) for _ in range(sub_layers)]
    bits.skip(2 * (8 - sub_layers) if sub_layers else 0)
    bits.skip(sum(88 * profile + 8 * level for profile, level in present))


def _skip_tiles(bits: Bits) -> None:
    columns, rows = bits.unsigned(), bits.unsigned()
    if not bits.flag():
        _skip_unsigned(bits, columns + rows)
    bits.skip(1)


def _skip_unsigned(bits: Bits, count: int) -> None:
    for _ in range(count):
        bits.unsigned()
