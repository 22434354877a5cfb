"""`ouigemm` forced to each x86 rung, against peers held to the same instructions: `ouikit bench rungs`.

For CPUs that have less than this one, and shapes that nobody tunes for: one to eight rows against a B that no
cache of a client holds, narrow products, shallow ones, which store more than they compute, and the layers of
four networks. Each rung has a process of its own, since libraries read at their start how far they may go:
MKL, OpenBLAS and oneDNN by environment variables. On a CPU that is not Intel's, MKL heeds none.
Rows, figures and peers are those of `ouikit.bench.gemm`; where B comes from memory, a further row gives the
share of the bandwidth of one thread, measured in the same run. *Not measured*: another CPU's caches and
clock, and ONNX Runtime, which cannot be told how far to go (`ouikit bench network` has it).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from statistics import median

import ouigemm

from ouikit.bench.gemm import BY_PEER, OWN, THREADS, Machine, Times, compare, measured, roofline
from ouikit.bench.timing import Row
from ouikit.products.layer_shapes import BERT_LARGE, MOBILENET_V2, RESNET50, VIT_BASE, Shape

FEW_ROWS, SHALLOW = "1 to 8 rows, B of 45 million numbers", "depth of 16 to 64"
CLASSES: dict[str, tuple[Shape, ...]] = {
    FEW_ROWS: tuple((m, 11008, 4096) for m in (1, 2, 4, 8)),
    "narrow or low": (
        *((12544, 16, 96), (12544, 32, 27), (3136, 24, 144), (784, 32, 192)),
        *((49, 320, 960), (49, 160, 576), (49, 512, 4608)),
    ),
    SHALLOW: ((3136, 64, 64), (3136, 256, 64), (12544, 64, 27), (12544, 96, 16), (512, 512, 64)),
    "ViT-Base": VIT_BASE,
    "MobileNetV2": MOBILENET_V2,
    "BERT-Large": BERT_LARGE,
    "ResNet-50": RESNET50,
}
KINDS = {  # what a rung is measured on: what no rung below has the same kernels for
    "avx2": ("f32", "s8s8", "u8s8 to f32", "u8s8 to u8"),
    "avxvnni": ("s8s8", "u8s8 to f32", "u8s8 to u8"),
    "avx512": ("f32",),
    "avx512vnni": ("s8s8", "u8s8 to f32", "u8s8 to u8"),
}
PEERS = {  # how far they may go
    "avx2": ("AVX2", "Haswell", "AVX2"),
    "avxvnni": ("AVX2", "Haswell", "AVX2_VNNI"),
    "avx512": ("AVX512", "SkylakeX", "AVX512_CORE"),
    "avx512vnni": ("AVX512", "SkylakeX", "AVX512_CORE_VNNI"),
}
VARIABLES = ("MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA")
NETWORKS = (1.05, 1.0)
TARGETS = {FEW_ROWS: (1.0, 1.0), "narrow or low": (1.1, 1.0), SHALLOW: (1.0, 1.0)}  # packed, plain


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure every rung that this CPU has, with one thread and with two, in about ten minutes.

    Rows as those of `ouikit.bench.gemm.compare`, the rung in front of their names.
    """
    rungs = ouigemm.capabilities()["rungs"]
    rows = []
    for rung in (name for name in PEERS if name in rungs and rungs[name]["absent"] is None):
        if progress:
            progress(rung)
        forced = dict(zip(VARIABLES, PEERS[rung], strict=True)) | {"OUIGEMM_ISA": rung}
        command = [sys.executable, "-m", "ouikit.bench.rungs", rung]
        done = subprocess.run(command, env=os.environ | forced, stdout=subprocess.PIPE, check=True)
        rows += json.loads(done.stdout)
    return rows


def rows_of(rung: str) -> list[Row]:
    """The rows of this process, whose libraries have been told how far to go."""
    rows = []
    for threads in range(1, THREADS + 1):
        for kind, times, machine, _ in measured(KINDS[rung], threads, CLASSES):
            rows += compare(kind, threads, times, machine, rung, CLASSES, target_of)
            rows += bandwidth_rows(kind, times, machine) if threads == 1 else []
    return [row | {"name": f"{rung}: {row['name']}"} for row in rows]


def target_of(rung: str, name: str, way: str, peer: str) -> float:
    """The least ratio aimed at."""
    packed, plain = TARGETS.get(name, NETWORKS)
    if peer == OWN:
        packed = BY_PEER[OWN]
    elif peer == "oneDNN" and name == FEW_ROWS:
        plain = 2.0
    elif peer == "oneDNN" and name != SHALLOW:
        packed, plain = 1.2 if rung == "avx2" else 1.0, 1.0
    return packed if way == "packed" else plain


def bandwidth_rows(kind: str, times: Mapping[Shape, Times], machine: Machine) -> list[Row]:
    """For few rows, the share of the time in which B cannot come any faster to one thread: a row per way."""
    few = {shape: times[shape] for shape in CLASSES[FEW_ROWS]}
    rows = []
    for way in ("packed", "plain"):
        shares = [
            roofline(shape, kind, machine) / median(seconds[way])
            for shape, seconds in few.items()
            if way in seconds
        ]
        if shares:
            rows.append({
                "name": f"{kind}, {way}, share of the bandwidth: {FEW_ROWS}, threads: 1",
                "value": median(shares), "low": min(shares), "high": max(shares), "n": len(shares),
                "unit": "ratio", "target": ">= 0.9", "met": min(shares) >= 0.9,
                "note": "of reading 256 MiB again and again", "detail": False,
            })  # fmt: skip
    return rows


if __name__ == "__main__":
    print(json.dumps(rows_of(sys.argv[1])))
