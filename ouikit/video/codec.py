"""Encoding and decoding of HEVC by PyAV: x265 and FFmpeg's decoder, which are inside its wheel."""

import ctypes
import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

Threads = Literal["NONE", "SLICE", "FRAME"]
MOST_SLICES = 8  # x265 4.2 has a list of NAL units of fixed length and breaks down where a picture needs more


def encode(
    frames: Iterable[np.ndarray], qp: int, *, ctu: int = 64, slices: int = 1, wavefront: bool = True
) -> bytes:
    """A byte stream of pictures, encoded by x265 with constant quantisation.

    frames: uint8 `[height, width, 3]` each, RGB, all of one size, even in both directions. qp: 0 (best) to
    51. ctu: side of a coding tree unit, 16, 32 or 64. slices: of each picture, 1 to 8. wavefront: whether
    rows have entry points.

    Raises:
        TypeError: a frame of another type or shape.
        ValueError: no frame, odd or changing sizes, another qp, ctu or number of slices.
    """
    av = _av()
    if not 0 <= qp <= 51 or not 1 <= slices <= MOST_SLICES:
        raise ValueError(f"qp is 0 to 51 and slices 1 to {MOST_SLICES}: got {qp} and {slices}")
    if ctu not in (16, 32, 64):
        raise ValueError(f"ctu is 16, 32 or 64: got {ctu}")
    file = io.BytesIO()
    size = None
    # With `pools=none` x265 leaves the wavefronts out, whatever `wpp` says.
    options = f"qp={qp}:ctu={ctu}:wpp={int(wavefront)}:slices={slices}:pools=1:frame-threads=1:log-level=none"
    with av.open(file, "w", format="hevc") as container:
        stream = container.add_stream("libx265", rate=24, options={"x265-params": options})
        for frame in frames:
            _check(frame, size)
            if size is None:
                size = stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if size is None:
            raise ValueError("there is no frame to encode")
        container.mux(stream.encode())
    return file.getvalue()


def decode(data: bytes, *, threads: int = 1, kind: Threads = "SLICE") -> Iterator[np.ndarray]:
    """The pictures of a byte stream as they are shown, uint8 `[height · 3 / 2, width]` each (YUV 4:2:0).

    threads: of the decoder. kind: what they share, the rows of a picture (SLICE) or pictures (FRAME).

    Raises ValueError where it is no video stream.
    """
    av = _av()
    try:
        container = av.open(io.BytesIO(data), format="hevc")
    except av.FFmpegError as error:
        raise ValueError(f"this is no HEVC stream: {error}") from None
    with container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.thread_type = kind
        for frame in container.decode(stream):
            yield frame.to_ndarray()


class PictureDecoder:
    """A decoder, on the thread that calls it, for streams of one picture each, one after the other.

    It stays open: for small pictures opening one costs more than decoding. Pictures may come out later than
    they went in, which is why they have numbers.

    ::

        decoder = PictureDecoder()
        pictures = decoder(first, 0) | decoder(second, 1) | decoder.rest()
    """

    def __init__(self) -> None:
        self._av = _av()
        self._context = self._av.CodecContext.create("hevc", "r")
        self._context.thread_count = 1

    def __call__(self, data: bytes, number: int = 0) -> dict[int, np.ndarray]:
        """Decode a stream; the pictures that are ready, by number (see `decode` for their form)."""
        packet = self._av.Packet(data)
        packet.pts = number
        return self._pictures(packet)

    def rest(self) -> dict[int, np.ndarray]:
        """The pictures that were not ready. The decoder takes no more streams."""
        return self._pictures(None)

    def _pictures(self, packet: Any) -> dict[int, np.ndarray]:
        return {frame.pts: frame.to_ndarray() for frame in self._context.decode(packet)}


def checksum(data: bytes, **how: Any) -> str:
    """SHA-256 over all decoded pictures, in hexadecimal; `how` as for `decode`."""
    found = hashlib.sha256()
    for picture in decode(data, **how):
        found.update(picture.tobytes())
    return found.hexdigest()


@contextmanager
def scalar() -> Iterator[None]:
    """Decoders that are opened inside use no vector instructions (SIMD); the pictures are the same.

    Raises NotImplementedError where the wheel of PyAV does not hold FFmpeg as this looks for it (Linux).
    """
    av = _av()
    libraries = sorted(Path(av.__file__).parents[1].glob("av.libs/libavutil*"))
    if not libraries:
        raise NotImplementedError("FFmpeg's libavutil was not found beside PyAV: its wheel for Linux has it")
    force = ctypes.CDLL(str(libraries[0])).av_force_cpu_flags
    force(0)
    try:
        yield
    finally:
        force(-1)  # whatever the CPU has


def _check(frame: Any, size: tuple[int, int] | None) -> None:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise TypeError(f"a frame is uint8 [height, width, 3]: got {getattr(frame, 'dtype', type(frame))}")
    if frame.shape[0] % 2 or frame.shape[1] % 2:
        raise ValueError(f"width and height must be even: got {frame.shape[1]} × {frame.shape[0]}")
    if size is not None and frame.shape[:2] != size:
        raise ValueError(
            f"a frame of {frame.shape[1]} × {frame.shape[0]} follows one of {size[1]} × {size[0]}"
        )


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError:
        raise ModuleNotFoundError("video needs PyAV: pip install 'ouikit[video]'", name="av") from None
    return av
