"""`ouigemm` against the usual matrix products: `ouikit bench gemm`.

A figure is how many times longer a peer takes than `ouigemm`: a geometric mean over the shapes of a class,
with the slowest and the quickest shape. All arms of a shape take turns in one process, on the same data, with
warm caches: operands and result are those of the call before. Every shape runs on the kernel that the
dispatcher picks. Figures are ratios of medians; the note gives the ratio of the best times, the share of the
peak (the instruction on registers alone) and of the roofline, both measured in the same run.

Peers: torch's MKL and numpy's OpenBLAS for f32; torch's oneDNN for bf16, whose result is rounded to bf16
where that of `ouigemm` is f32; MKL's `cblas_gemm_s16s16s32` where the package `mkl` is installed; for 8 bits
oneDNN as torch calls it: `torch._int_mm` on plain matrices, where the CPU has VNNI, and quantised linear
layers, with f32 and u8 results, on weights that it has packed. Without VNNI their sums of pairs saturate,
and torch's manual advises weights of 7 bits: both get such, and `ouigemm` adds pairs, too. Weights of s8 · s8
are of 8 bits.
Where a result of 32 bits would not fit level 2, u8 results are also compared with the product of `ouigemm`
without requantisation. Needs `pip install ./kernels`.
"""

import ctypes
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median

import numpy as np
import ouigemm
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from ouikit.bench.timing import Arm, Row, read_bandwidth, seconds_each
from ouikit.products.layer_shapes import BERT_LARGE, RESNET50, VGG16, Shape, operations
from ouikit.products.libraries import f32_libraries

CLASSES: dict[str, tuple[Shape, ...]] = {
    "squares of 256 and 512": ((256, 256, 256), (512, 512, 512)),
    "squares of 1024 and 2048": ((1024, 1024, 1024), (2048, 2048, 2048)),
    "ResNet-50, early and middle": tuple(shape for shape in RESNET50 if shape[0] > 49),
    "ResNet-50, late": tuple(shape for shape in RESNET50 if shape[0] == 49),
    "VGG16": VGG16,
    "BERT-Large": BERT_LARGE,
    "16 rows": ((16, 4096, 4096),),
}
ALL = "all shapes"
# At least, by class: packed weights, plain matrices. On AMX the peers leave more room at 8 bits.
AMX = dict(
    zip(
        [*CLASSES, ALL],
        ((1.5, 1.2), (1.15, 1), (1.1, 1), (1.7, 1), (1.2, 1), (1.05, 1), (1, 2), (1.2, 1)),
        strict=True,
    )
)
OTHERS = dict.fromkeys(AMX, (1.0, 1.0))
OWN = "our own s32"
BY_PEER = {"OpenBLAS": 1.15, "MKL s16": 1.1, OWN: 1.3}  # whatever the class
ROUNDS = 9
THREADS = min(2, len(os.sched_getaffinity(0)))  # the most that a row has
OURS = ("packed", "plain")  # the arms of `ouigemm`
Arms = dict[str, Arm]
Times = dict[str, list[float]]  # arm -> seconds of a call, round by round


@dataclass(frozen=True)
class Machine:
    """What limits a product here.

    peak: operations a second, of all threads together. l2: bytes of the second cache. bandwidth: bytes a
    second, by the MiB that are read again and again: 16 and 256.
    """

    peak: float
    l2: int
    bandwidth: Mapping[int, float]


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure every type and class with one thread and with two, in about seven minutes.

    Returns rows as `ouikit.bench.timing.ratio_row`; n counts shapes.
    """
    rows = []
    for threads in range(1, THREADS + 1):
        for kind, times, machine, rung in measured(KINDS, threads, CLASSES, progress):
            rows += compare(kind, threads, times, machine, rung)
    return rows


def measured(
    kinds: Iterable[str],
    threads: int,
    classes: Mapping[str, tuple[Shape, ...]],
    progress: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, dict[Shape, Times], Machine, str]]:
    """Per kind of product: its times by shape, what limits it here, and the rung that large ones run on."""
    known = ouigemm.capabilities()
    with _cores(threads):
        bandwidth = {mib: read_bandwidth(mib, rounds=9) for mib in (16, 256)}
        for kind in kinds:
            if progress:
                progress(f"{kind}, threads: {threads}")
            machine = Machine(_peak(kind) * threads, known["caches"]["L2"], bandwidth)
            shapes = dict.fromkeys(shape for shapes in classes.values() for shape in shapes)
            times = {shape: _times(KINDS[kind](*shape, threads), threads) for shape in shapes}
            yield kind, times, machine, known["auto"][kind.split()[0]]


def target_of(rung: str, name: str, way: str, peer: str) -> float:
    """The least ratio aimed at, by rung, class of shapes (one not listed counts as all shapes) and peer."""
    targets = {"amxint8": AMX, "amxbf16": dict.fromkeys(AMX, (1.2, 1.0))}.get(rung, OTHERS)
    return BY_PEER.get(peer, targets.get(name, targets[ALL])[OURS.index(way)])


def compare(
    kind: str,
    threads: int,
    times: Mapping[Shape, Times],
    machine: Machine,
    rung: str,
    classes: Mapping[str, tuple[Shape, ...]] = CLASSES,
    target: Callable[[str, str, str, str], float] = target_of,
) -> list[Row]:
    """A row per way (packed weights, plain matrices), peer and class of shapes, and one over all shapes.

    Without requantisation ("our own s32") only those shapes count whose sums of 32 bits do not fit the
    second cache, and they are one row.
    """
    peers = next(iter(times.values())).keys() - {*OURS}
    rows = []
    for way in (way for way in OURS if all(way in arms for arms in times.values())):
        for peer in peers:
            groups = {ALL: tuple(times), **classes}
            if peer == OWN:
                groups = {ALL: tuple(shape for shape in times if not _sums_fit(shape, machine.l2))}
            for name, shapes in groups.items():
                if not shapes:
                    continue
                title = f"{kind}, {way}, against {peer}: {name}, threads: {threads}"
                found = {shape: times[shape] for shape in shapes}
                row = _row(title, found, way, peer, target(rung, name, way, peer))
                note = f"{rung}: {_note(kind, found, way, peer, machine)}"
                rows.append(row | {"note": note, "detail": name != ALL})
    return rows


def _sums_fit(shape: Shape, l2: int) -> bool:
    """Whether sums of 32 bits fit the second cache."""
    m, n, _ = shape
    return 4 * m * n <= l2


def _row(title: str, times: Mapping[Shape, Times], way: str, peer: str, target: float) -> Row:
    ratios = [median(seconds[peer]) / median(seconds[way]) for seconds in times.values()]
    value = geometric_mean(ratios)
    return {
        "name": title, "value": value, "low": min(ratios), "high": max(ratios), "n": len(ratios),
        "unit": "ratio", "target": f">= {target}", "met": value >= target,
    }  # fmt: skip


def _note(kind: str, times: Mapping[Shape, Times], way: str, peer: str, machine: Machine) -> str:
    rates = {shape: operations(shape) / median(seconds[way]) for shape, seconds in times.items()}
    best = geometric_mean(min(seconds[peer]) / min(seconds[way]) for seconds in times.values())
    limits = {shape: roofline(shape, kind, machine) for shape in times}
    roof = geometric_mean(limits[shape] / median(seconds[way]) for shape, seconds in times.items())
    spread = median(max(seconds[way]) / min(seconds[way]) for seconds in times.values())
    slowest = min(times, key=lambda shape: median(times[shape][peer]) / median(times[shape][way]))
    return (
        f"{geometric_mean(rates.values()) / 1e9:,.0f} G operations a second, "
        f"{geometric_mean(rates.values()) / machine.peak:.0%} of the peak, {roof:.0%} of the roofline; "
        f"best times {best:.2f}; "
        f"slowest round / quickest {spread:.2f}; lowest at {' × '.join(map(str, slowest))}"
    )


def _times(arms: Arms, threads: int) -> Times:
    """With several threads wall time, each thread on a processor of its own; else time on the processor."""
    if threads == 1:
        return seconds_each(arms, ROUNDS)
    for arm in arms.values():
        arm()  # which starts its threads
    with _one_processor_each():
        return seconds_each(arms, ROUNDS, clock=time.perf_counter, settle=0.02)


@contextmanager
def _one_processor_each() -> Iterator[None]:
    """This thread on the first of its processors, all other threads of the process on the others in turn.

    Left alone, threads that wake up sit for milliseconds on the processor of the one that woke them.
    """
    allowed = os.sched_getaffinity(0)
    first, *others = sorted(allowed)
    mine = threading.get_native_id()
    threads = sorted(int(name) for name in os.listdir("/proc/self/task") if int(name) != mine)
    places = {mine: {first}} | {thread: {others[i % len(others)]} for i, thread in enumerate(threads)}
    _move(places)
    try:
        yield
    finally:
        _move(dict.fromkeys(places, allowed))


def _move(places: Mapping[int, set[int]]) -> None:
    for thread, processors in places.items():
        with suppress(ProcessLookupError):  # it may have ended
            os.sched_setaffinity(thread, processors)


def _peak(kind: str) -> float:
    """Operations a second of one core on registers alone; for weights of all 8 bits without adding pairs."""
    found = ouigemm.peak("s16" if kind == "s8s8" and ouigemm.adds_pairs() else kind.split()[0])
    return found[1] if found else float("nan")


def roofline(shape: Shape, kind: str, machine: Machine) -> float:
    """Seconds that no product of this shape can stay below: the longer of two times.

    One is that of its operations at the peak; the other that of the bytes of A, B and C that the second cache
    does not hold, at the bandwidth of reading 16 MiB, or 256 MiB where the matrices have more than 32 MiB.
    """
    m, n, k = shape
    element = {"f32": 4, "bf16": 2, "s16": 2, "s8s8": 1, "u8s8": 1}[kind.split()[0]]
    moved = element * (m * k + k * n) + (1 if kind.endswith("to u8") else 4) * m * n
    beyond = max(0, moved - machine.l2)
    return max(operations(shape) / machine.peak, beyond / machine.bandwidth[16 if moved <= 2**25 else 256])


def _f32(m: int, n: int, k: int, threads: int) -> Arms:
    a, b, c = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    return _ours(a, b, c, threads) | f32_libraries(a.numpy(), b.numpy(), c.numpy())


def _bf16(m: int, n: int, k: int, threads: int) -> Arms:
    a, b = torch.randn(m, k).bfloat16(), torch.randn(k, n).bfloat16()
    rounded = torch.empty(m, n, dtype=torch.bfloat16)
    return {
        **_ours(a, b, torch.empty(m, n), threads),
        "oneDNN": lambda: torch.mm(a, b, out=rounded),
    }


def _s16(m: int, n: int, k: int, threads: int) -> Arms:
    a, b, c = _integers(m, k, torch.int16), _integers(k, n, torch.int16), torch.empty(m, n, dtype=torch.int32)
    theirs = _mkl_s16(a.numpy(), b.numpy(), c.numpy())
    return _ours(a, b, c, threads) | ({"MKL s16": theirs} if theirs and threads == 1 else {})


def _mkl_s16(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Arm | None:
    """MKL's product, in sequence; None where the package is not installed."""
    library = Path(sys.prefix, "lib", "libmkl_rt.so.3")
    if not library.exists():
        return None
    mkl = ctypes.CDLL(str(library))
    mkl.MKL_Set_Threading_Layer(1)
    row_major, plain, fixed, none = 101, 111, 173, ctypes.c_int16(0)
    (m, k), n = a.shape, b.shape[1]
    offset, f32 = ctypes.c_int32(0), ctypes.c_float
    return lambda: mkl.cblas_gemm_s16s16s32(
        row_major, plain, plain, fixed, m, n, k, f32(1),
        ctypes.c_void_p(a.ctypes.data), k, none, ctypes.c_void_p(b.ctypes.data), n, none,
        f32(0), ctypes.c_void_p(c.ctypes.data), n, ctypes.byref(offset),
    )  # fmt: skip


def _s8(m: int, n: int, k: int, threads: int) -> Arms:
    """Without VNNI torch has a plain loop in the place of oneDNN, 30 to 120 times as slow as we: no peer."""
    a, b, c = _integers(m, k, torch.int8), _integers(k, n, torch.int8), torch.empty(m, n, dtype=torch.int32)
    theirs: Arms = {"oneDNN": lambda: torch._int_mm(a, b, out=c)} if torch.cpu._is_vnni_supported() else {}
    return _ours(a, b, c, threads) | theirs


def _u8(m: int, n: int, k: int, threads: int) -> Arms:
    """u8 · s8 → u8: oneDNN's quantised layers keep their weights packed, and so there are no plain arms."""
    a, b, c = _integers(m, k, torch.uint8), _weights(k, n), torch.empty(m, n, dtype=torch.uint8)
    step, sums = 2.0**-16 / k**0.5, torch.empty(m, n, dtype=torch.int32)
    weights, epilogue = ouigemm.pack(b), ouigemm.Requantised(scale=step, dtype="uint8")
    with warnings.catch_warnings():  # the interface of quantised tensors is to go; nothing replaces it yet
        warnings.simplefilter("ignore")
        x = torch._make_per_tensor_quantized_tensor(a, step, 0)
        layer = torch._make_per_tensor_quantized_tensor(b.T.contiguous(), 1.0, 0)
        theirs = torch.ops.quantized.linear_prepack(layer, None)
    return {
        "packed": lambda: ouigemm.gemm(a, weights, out=c, epilogue=epilogue, threads=threads),
        "oneDNN": lambda: torch.ops.quantized.linear(x, theirs, 1.0, 0),
        OWN: lambda: ouigemm.gemm(a, weights, out=sums, threads=threads),
    }


def _u8_to_f32(m: int, n: int, k: int, threads: int) -> Arms:
    """u8 · s8 → f32, by the same packed weights."""
    a, b, c = _integers(m, k, torch.uint8), _weights(k, n), torch.empty(m, n)
    weights, epilogue = ouigemm.pack(b), ouigemm.Scaled(1.0)
    theirs = torch.ops.onednn.qlinear_prepack(b.T.contiguous(), [m, k])
    scale, zero = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    return {
        "packed": lambda: ouigemm.gemm(a, weights, out=c, epilogue=epilogue, threads=threads),
        "oneDNN": lambda: torch.ops.onednn.qlinear_pointwise(
            a, 1.0, 0, theirs, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
        ),
    }


KINDS: dict[str, Callable[[int, int, int, int], Arms]] = {
    "f32": _f32, "bf16": _bf16, "s16": _s16, "s8s8": _s8, "u8s8 to f32": _u8_to_f32, "u8s8 to u8": _u8,
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


def _weights(rows: int, columns: int) -> Tensor:
    """int8, of 7 bits on a rung that adds pairs of products in 16 bits."""
    numbers = _integers(rows, columns, torch.int8)
    return numbers >> 1 if ouigemm.adds_pairs() else numbers


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
