"""What the benchmarks share: rows that judge a ratio of times taken in turns.

Every figure is a ratio of CPU times, measured in turns with one thread, so that a busy machine slows all
arms alike. Nothing here is asserted by a test.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import comb
from statistics import median
from typing import Any

import numpy as np
import torch

from ouikit.bench.timing import in_turns

Row = dict[str, Any]


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch works with one thread inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ratio_row(name: str, ratios: list[float], target: str, note: str) -> Row:
    """One figure: the median of some ratios, its interval, and whether it meets "<= x" or ">= x"."""
    value, (low, high), (sign, bound) = median(ratios), enclosing(ratios), target.split()
    met = value <= float(bound) if sign == "<=" else value >= float(bound)
    row: Row = {"name": name, "value": value, "low": low, "high": high, "n": len(ratios)}
    return row | {"unit": "ratio", "target": target, "met": met, "note": note}


def enclosing(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The innermost k-th lowest and k-th highest of n values that enclose the median with this confidence.

    The true median lies outside with probability 2 P(Bin(n, ½) < k). Of 5 values or fewer, the range.
    """
    ordered, n, k, outside = sorted(values), len(values), 0, 2 * 0.5 ** len(values)
    while k + 1 < n / 2 and outside + 2 * comb(n, k + 1) * 0.5**n <= 1 - confidence:
        k += 1
        outside += 2 * comb(n, k) * 0.5**n
    return ordered[k], ordered[n - 1 - k]


def read_bandwidth() -> float:
    """Bytes per CPU second at which one thread reads 256 MiB from memory."""
    words = np.ones(2**25, np.uint64)
    (times,) = in_turns(5, lambda: np.bitwise_or.reduce(words))
    return words.nbytes / median(times)
