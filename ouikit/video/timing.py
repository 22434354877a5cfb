"""How long the rows of a picture take: libde265 (Debian: libde265-0), fed slice by slice."""

import ctypes
import ctypes.util
import time

import numpy as np

from ouikit.video.stream import SLICES, nal_units, parse


def row_seconds(data: bytes, repeats: int = 5) -> np.ndarray:
    """CPU seconds `[pictures, rows]` of each row of CTUs, the least of several decodings, on one thread.

    data: a byte stream with one slice for each row (`encode(…, slices=rows)`). Row 0 carries what is left
    to do of the picture before, its filters among it; leave it out.

    Raises:
        OSError: libde265 is not installed.
        ValueError: a slice that is no row.
        RuntimeError: the library refuses the stream.
    """
    stream = parse(data)
    shape = len(stream.kinds), stream.rows
    if len(stream.slices) != shape[0] * shape[1] or any(part.column for part in stream.slices):
        raise ValueError(f"give a stream with a slice for each row: {len(stream.slices)} slices in {shape}")
    library = _library()
    runs = [_decode(library, data) for _ in range(repeats)]
    return np.min(runs, axis=0).reshape(shape)


def _decode(library: ctypes.CDLL, data: bytes) -> list[float]:
    """CPU seconds of each slice."""
    context = ctypes.c_void_p(library.de265_new_decoder())
    more, seconds = ctypes.c_int(), []
    try:
        for begin, unit in _units(data):
            library.de265_push_NAL(context, begin, len(begin), ctypes.c_int64(0), None)
            start = time.thread_time()
            code = library.de265_decode(context, ctypes.byref(more))
            if unit in SLICES:
                seconds.append(time.thread_time() - start)
            if code not in (0, 13):  # 13: it waits for input
                raise RuntimeError(f"libde265 refuses the stream: error {code}")
            while library.de265_get_next_picture(context):
                pass
    finally:
        library.de265_free_decoder(context)
    return seconds


def _units(data: bytes) -> list[tuple[bytes, int]]:
    """Each NAL unit with its header, and its type. The second byte of a header is that of a first layer."""
    return [(bytes([unit << 1, 1]) + payload, unit) for unit, payload in nal_units(data)]


def _library() -> ctypes.CDLL:
    name = ctypes.util.find_library("de265")
    if name is None:
        raise OSError("libde265 is not installed; on Debian: apt-get install libde265-0")
    library = ctypes.CDLL(name)
    for call in (library.de265_new_decoder, library.de265_get_next_picture):
        call.restype = ctypes.c_void_p
    return library
