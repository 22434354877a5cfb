"""The ladder of instruction sets (its rungs): which are present, what `auto` picks, and why.

The environment variable OUIGEMM_ISA names a rung for every call that does not: `OUIGEMM_ISA=portable`.
OUIGEMM_THREADS sets the number of threads in the same way.
"""

import os
import time
from typing import Any

import numpy as np

from ouigemm import _core

AUTO = -1
TYPES = ("f32", "bf16", "s16", "s32", "u8s8", "s8s8")
"""Types of A and B, in the order of the C interface; the accumulator is f32 or s32."""

RUNGS = tuple(name for name, _, _ in _core.rungs())
"""Rungs of this build, best first."""


def capabilities() -> dict[str, Any]:
    """What the CPU, the operating system and this build offer, and what `isa="auto"` picks.

    Keys: `cpu` (feature -> bool), `rungs` (name -> why it is absent, or None, and its micro-kernels by
    type), `auto` (type -> the rung that large products run on), `why`, `caches` (bytes that the blocking
    model assumes), `threads`, and `tile_model`: True in a test build that runs AMX on a model.
    """
    rungs = {
        name: {"absent": absent, "kernels": {t: k for t, k in zip(TYPES, families, strict=True) if k}}
        for name, absent, families in _core.rungs()
    }
    auto = {t: kernel_name(t, 1024, 1024).split("/")[0] for t in TYPES}
    forced = os.environ.get("OUIGEMM_ISA", "auto")
    return {
        "cpu": _core.cpu(),
        "rungs": rungs,
        "auto": auto | {"hamming": _core.hamming_rung(rung_number("auto"))},
        "why": "the best rung that is present and has kernels for the type"
        if forced == "auto"
        else f"OUIGEMM_ISA={forced}, and lower rungs for types that it does nothing for",
        "caches": {f"L{level}": _core.cache_bytes(level) for level in (1, 2)},
        "threads": default_threads(),
        "tile_model": _core.tiles_are_modelled(),
    }


def kernel_name(dtype: str, m: int, n: int, isa: str = "auto") -> str:
    """The micro-kernel that an m × n product runs on. dtype: one of `ouigemm.ladder.TYPES`.

    Packed 8-bit weights may have a quicker one, by what they hold: `Weights.kernel`.

    Where b is a transposed matrix and m at most 16, it may be that of the transposed product, n × m.
    """
    name = _core.kernel(_type_number(dtype), rung_number(isa), m, n)
    assert name is not None  # for rung_number refuses what is absent
    return name


def adds_pairs(isa: str = "auto") -> bool:
    """Whether 8-bit weights run faster on this rung where neighbours in a column are small enough.

    Then `pack` looks for two rows, an even one and the next, that add up to more than 128 or less than −128
    anywhere. If there are none, pairs of products may be added in 16 bits (vpmaddubsw), which is exact then,
    and takes three quarters of the time. `ouikit.products.scales` quantises so.
    """
    return _core.adds_pairs(rung_number(isa))


def block_sizes(
    dtype: str, m: int, n: int, k: int, isa: str = "auto", l2: int | None = None
) -> tuple[int, int, int]:
    """(mc, nc, kc) of the loops, from the model of `src/blocking.c`, for one thread.

    l2: bytes of the level-2 cache; None takes what `capabilities()` says of this machine.

    >>> block_sizes("f32", 4096, 4096, 4096, isa="portable", l2=512 * 1024)
    (64, 512, 2048)
    """
    size = _core.cache_bytes(2) if l2 is None else l2
    return _core.blocks(_type_number(dtype), rung_number(isa), m, n, k, size)


def peak(dtype: str, isa: str = "auto", seconds: float = 5e-3, tries: int = 5) -> tuple[str, float] | None:
    """The most that one core can do: (instruction, multiplications and additions per CPU second).

    Runs the instruction of the rung's quickest micro-kernels for this type on registers alone, for about
    `seconds`, and returns the best of some tries, since another process or a slow clock can only lower the
    rate. No product is quicker. None where the rung has no such loop (`portable`, and all rungs but those of
    x86).
    """
    number, rung = _type_number(dtype), rung_number(isa)
    instruction, each = _core.run_stream(number, rung, 1)
    if instruction is None:
        return None
    rates: list[float] = []
    rounds = 1000
    while len(rates) < tries:
        start = time.thread_time()
        _core.run_stream(number, rung, rounds)
        elapsed = time.thread_time() - start
        if elapsed < seconds:
            rounds *= 2
        else:
            rates.append(each * rounds / elapsed)
    return instruction, max(rates)


def rung_number(isa: str) -> int:
    """Index of a rung that can be used here; `auto` is the one that OUIGEMM_ISA names, if it is set."""
    if not isinstance(isa, str):
        raise TypeError(f"isa must be a name of a rung, not {isa!r}; there are: auto, {', '.join(RUNGS)}")
    forced = _core.environment("OUIGEMM_ISA") or "auto" if isa == "auto" else isa  # os.environ takes longer
    if forced == "auto":
        return AUTO
    origin = "isa" if isa != "auto" else "the environment variable OUIGEMM_ISA"
    if forced not in RUNGS:
        raise ValueError(f"{origin} names {forced!r}; this build has: auto, {', '.join(RUNGS)}")
    name, absent, _ = _core.rungs()[RUNGS.index(forced)]
    if absent is not None:
        raise ValueError(f"{origin} asks for {name!r}, which this machine lacks: {absent}")
    return RUNGS.index(forced)


def default_threads() -> int:
    """OUIGEMM_THREADS, or the CPUs that this process may run on."""
    text = _core.environment("OUIGEMM_THREADS")
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"the environment variable OUIGEMM_THREADS must be a number from 1 on, not {text!r}")
    return int(text)


def thread_count(threads: int | None) -> int:
    """`threads` of a call: checked, or the default."""
    if threads is None:
        return default_threads()
    if not isinstance(threads, int | np.integer) or isinstance(threads, bool):
        raise TypeError(f"threads must be an int or None, not {threads!r}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    return min(int(threads), 256)


def _type_number(dtype: str) -> int:
    if dtype not in TYPES:
        raise ValueError(f"dtype must be one of {', '.join(TYPES)}, not {dtype!r}")
    return TYPES.index(dtype)
