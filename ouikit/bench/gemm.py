"""`ouigemm` against the matrix products that everybody has: `ouikit bench gemm`.

A figure is how many times longer the quickest peer takes than we do: a geometric mean over the shapes of a
class, with the slowest and the quickest shape. All arms of a shape take turns in one process, on the same
data, with warm caches: operands and result are those of the call before. Every shape runs on the kernel
that the dispatcher picks.

Peers: torch's MKL and numpy's OpenBLAS for f32, torch's oneDNN for bf16 (whose result is rounded to bf16,
ours is f32), `torch._int_mm` for s8, torch's quantised linear layer (oneDNN, packed weights) for u8 results.
Needs `pip install ./kernels`.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import geometric_mean, median

import numpy as np
import ouigemm
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from ouikit.bench._timing import Row, in_turns
from ouikit.layer_shapes import BERT_LARGE, RESNET50, VGG16, Shape, operations

CLASSES: dict[str, tuple[Shape, ...]] = {
    "squares of 256 and 512": ((256, 256, 256), (512, 512, 512)),
    "squares of 1024 and 2048": ((1024, 1024, 1024), (2048, 2048, 2048)),
    "ResNet-50, early and middle": tuple(shape for shape in RESNET50 if shape[0] > 49),
    "ResNet-50, late": tuple(shape for shape in RESNET50 if shape[0] == 49),
    "VGG16": VGG16,
    "BERT-Large": BERT_LARGE,
    "16 rows": ((16, 4096, 4096),),
}
# At least, by rung and class: packed weights, plain matrices.
AMX = dict(
    zip(CLASSES, ((1.5, 1.2), (1.15, 1), (1.1, 1), (1.7, 1), (1.2, 1), (1.05, 1), (1, 2)), strict=True)
)
OTHERS = dict.fromkeys(CLASSES, (1.0, 1.0))
ROUNDS, SHORTEST = 7, 3e-3  # repetitions; seconds that one timing lasts at least
Arms = dict[str, Callable[[], object]]  # packed and plain are ours


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure every type and class with one thread and with two, in about ten minutes.

    Returns rows as `ouikit.bench._timing.ratio_row`; n counts shapes.
    """
    say = progress or (lambda part: None)
    rows = []
    for threads in range(1, min(2, os.cpu_count() or 1) + 1):
        with _cores(threads):
            for kind, arms_of in KINDS.items():
                for name, shapes in CLASSES.items():
                    say(f"{kind}, {name}, threads: {threads}")
                    rows += _class(kind, name, threads, {shape: arms_of(*shape, threads) for shape in shapes})
    return rows


def _class(kind: str, name: str, threads: int, arms: dict[Shape, Arms]) -> list[Row]:
    """One row for packed weights and one for plain matrices, where the peers have both."""
    rung = ouigemm.capabilities()["auto"][kind.split()[0]]
    times = {shape: _medians(of, threads) for shape, of in arms.items()}
    targets = (AMX if rung == "amxint8" else OTHERS)[name]
    rows = []
    for way, target in zip(("packed", "plain"), targets, strict=True):
        ratios, peers = {}, {}
        for shape, told in times.items():
            if way in told:
                peers[shape] = min(told.keys() - {"packed", "plain"}, key=told.__getitem__)
                ratios[shape] = told[peers[shape]] / told[way]
        if not ratios:
            continue
        worst = min(ratios, key=ratios.__getitem__)
        rate = geometric_mean(operations(shape) / told[way] / 1e9 for shape, told in times.items())
        value = geometric_mean(ratios.values())
        rows.append({
            "name": f"{kind}, {way}, {name}, threads: {threads}",
            "value": value, "low": ratios[worst], "high": max(ratios.values()), "n": len(ratios),
            "unit": "ratio", "target": f">= {target}", "met": value >= target,
            "note": f"{rung}: {rate:,.0f} G operations a second; lowest against {peers[worst]} at "
                    + " × ".join(map(str, worst)),
        })  # fmt: skip
    return rows


def _medians(arms: Arms, threads: int) -> dict[str, float]:
    """Seconds that each arm takes: wall time with several threads, else time on the processor."""
    clock = time.process_time if threads == 1 else time.perf_counter
    repeated = {name: _repeated(arm) for name, arm in arms.items()}
    times = in_turns(ROUNDS, *(again for again, _ in repeated.values()), clock=clock)
    counts = (count for _, count in repeated.values())
    return {name: median(t) / c for name, t, c in zip(repeated, times, counts, strict=True)}


def _repeated(arm: Callable[[], object]) -> tuple[Callable[[], object], int]:
    """The arm as often as fills the shortest timing, and how often that is."""
    arm()
    start = time.perf_counter()
    arm()
    count = int(SHORTEST / (time.perf_counter() - start)) + 1

    def again() -> None:
        for _ in range(count):
            arm()

    return again, count


def _f32(m: int, n: int, k: int, threads: int) -> Arms:
    a, b, c = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    x, y, z = (matrix.numpy() for matrix in (a, b, c))
    return {
        **_ours(a, b, c, threads),
        "torch.mm": lambda: torch.mm(a, b, out=c),
        "numpy.matmul": lambda: np.matmul(x, y, out=z),
    }


def _bf16(m: int, n: int, k: int, threads: int) -> Arms:
    a, b = torch.randn(m, k).bfloat16(), torch.randn(k, n).bfloat16()
    rounded = torch.empty(m, n, dtype=torch.bfloat16)
    return {
        **_ours(a, b, torch.empty(m, n), threads),
        "torch.mm": lambda: torch.mm(a, b, out=rounded),
    }


def _s8(m: int, n: int, k: int, threads: int) -> Arms:
    a, b, c = _integers(m, k, torch.int8), _integers(k, n, torch.int8), torch.empty(m, n, dtype=torch.int32)
    return {**_ours(a, b, c, threads), "torch._int_mm": lambda: torch._int_mm(a, b, out=c)}


def _u8(m: int, n: int, k: int, threads: int) -> Arms:
    """u8 · s8 → u8: torch keeps its quantised weights packed, and so there are no plain arms."""
    a, b, c = _integers(m, k, torch.uint8), _integers(k, n, torch.int8), torch.empty(m, n, dtype=torch.uint8)
    step = 2.0**-16 / k**0.5
    weights, epilogue = ouigemm.pack(b), ouigemm.Requantised(scale=step, dtype="uint8")
    with warnings.catch_warnings():  # the interface of quantised tensors is to go; nothing replaces it yet
        warnings.simplefilter("ignore")
        x = torch._make_per_tensor_quantized_tensor(a, step, 0)
        layer = torch._make_per_tensor_quantized_tensor(b.T.contiguous(), 1.0, 0)
        theirs = torch.ops.quantized.linear_prepack(layer, None)
    return {
        "packed": lambda: ouigemm.gemm(a, weights, out=c, epilogue=epilogue, threads=threads),
        "quantised linear": lambda: torch.ops.quantized.linear(x, theirs, 1.0, 0),
    }


KINDS: dict[str, Callable[[int, int, int, int], Arms]] = {
    "f32": _f32, "bf16": _bf16, "s8s8": _s8, "u8s8 to u8": _u8,
}  # fmt: skip


def _ours(a: Tensor, b: Tensor, c: Tensor, threads: int) -> Arms:
    weights = ouigemm.pack(b)
    return {
        "packed": lambda: ouigemm.gemm(a, weights, out=c, threads=threads),
        "plain": lambda: ouigemm.gemm(a, b, out=c, threads=threads),
    }


def _integers(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max + 1
    return torch.randint(low, high, (rows, columns), dtype=dtype)


@contextmanager
def _cores(threads: int) -> Iterator[None]:
    """Torch, NumPy and we on so many processors, the last ones; torch's quantised layers on oneDNN."""
    allowed, before, engine = (
        os.sched_getaffinity(0),
        torch.get_num_threads(),
        torch.backends.quantized.engine,
    )
    os.sched_setaffinity(0, sorted(allowed)[-threads:])
    torch.set_num_threads(threads)
    torch.backends.quantized.engine = "onednn"
    try:
        with threadpool_limits(threads):
            yield
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(before)
        torch.backends.quantized.engine = engine
