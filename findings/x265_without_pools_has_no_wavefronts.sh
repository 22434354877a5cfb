#!/usr/bin/env bash
# x265 4.2 (inside PyAV 18.1.0): with `pools=none` a stream has no wavefronts, although `wpp=1` asks for them. How many
# threads the encoder has then changes how many a decoder can use. Its picture parameter set is that of `wpp=0`.
# Seen: the picture parameter set is 4401c172b46240 with pools=1, and 4401c172b42240 both with pools=none and with wpp=0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 av==18.1.0 2> /dev/null
"$folder/venv/bin/python" - << 'PYTHON'
import io

import av
import numpy as np


def picture_parameters(options):
    file = io.BytesIO()
    with av.open(file, "w", format="hevc") as container:
        stream = container.add_stream("libx265", rate=24, options={"x265-params": f"{options}:log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 256, 192, "yuv420p"
        for shade in (50, 60):
            frame = av.VideoFrame.from_ndarray(np.full((192, 256, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    units = file.getvalue().split(b"\0\0\1")
    return next(unit.rstrip(b"\0") for unit in units if unit and unit[0] >> 1 == 34)


waves, none, off = (picture_parameters(o) for o in ("pools=1:wpp=1", "pools=none:wpp=1", "pools=1:wpp=0"))
print(av.__version__, "| pools=1 wpp=1:", waves.hex(), "| pools=none wpp=1:", none.hex(), "| wpp=0:", off.hex())
assert (waves.hex(), none.hex(), off.hex()) == ("4401c172b46240", "4401c172b42240", "4401c172b42240")
PYTHON
