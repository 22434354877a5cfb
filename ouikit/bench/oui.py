"""What the indicators cost: `ouikit bench oui`.

Figures are ratios of CPU times, measured as `ouikit.bench.timing` describes.
"""

import itertools
import pickle
import random
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from ouikit.bench.timing import Row, in_turns, ratio_row, read_bandwidth
from ouikit.oui import OUI, balance_oui, pairwise_oui
from ouikit.patterns import _distances_by_popcount, hamming_distances, record_patterns
from ouikit.train import one_thread

BATCH = 256
ROUNDS = 6  # lowest and highest of 6 enclose the median with 97 % confidence
NAIVE_PAIRS = 100
THREADS = 1


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure everything, in about a minute. Returns one row per figure.

    A row has name, value (a ratio; with low and high, the interval of a median of n), n, unit,
    target, met and note. progress: called with the name of each part before it starts.
    """
    say = progress or (lambda part: None)
    with one_thread():
        model, batch = _resnet18(), torch.randn(BATCH, 3, 32, 32)
        say("forward pass, with and without recording")
        rows = _overhead(model, batch)
        with record_patterns(model) as patterns, torch.no_grad():
            model(batch)
        say("indicators against the naive pair loop")
        rows += _speed_up([bits.flatten(1) for bits in patterns.values()])
        say("memory over many batches")
        return [*rows, _memory()]


def _overhead(model: nn.Module, batch: Tensor) -> list[Row]:
    """Forward pass of a ResNet-18 at 32×32: recording + balance_oui, and the streaming object."""

    def plain() -> None:
        model(batch)

    def recorded() -> None:
        with record_patterns(model) as patterns:
            model(batch)
        balance_oui(patterns)

    def streamed() -> None:
        with OUI(model, kind="balance", mode="any") as oui:
            model(batch)
        oui.compute()

    with torch.no_grad():
        times = in_turns(ROUNDS, plain, recorded, streamed)
    bytes_moved = (4 + 1 + 1) * BATCH * _count_units(model, batch)
    floor = bytes_moved / read_bandwidth() / median(times[0])
    note = (
        f"reading z, writing and reading its bits: {bytes_moved / 1e9:.2f} GB; at the bandwidth of this run "
        f"{floor:.1%} of a forward pass of {median(times[0]):.2f} s"
    )
    names = ("forward with record_patterns + balance_oui", "forward with OUI(model)")
    return [
        ratio_row(f"{name} / forward", [a / b for a, b in zip(arm, times[0], strict=True)], "<= 1.05", note)
        for name, arm in zip(names, times[1:], strict=True)
    ]


def _speed_up(layers: list[Tensor]) -> list[Row]:
    """Both indicators against the pair loop, on the same patterns."""
    floats = [bits.float() for bits in layers]
    pairs = list(itertools.combinations(range(BATCH), 2))
    some = random.Random(0).sample(pairs, NAIVE_PAIRS)
    slow, slow_half, slow_bool, quick, all_pairs, read = in_turns(
        ROUNDS,
        lambda: _naive(floats, some),
        lambda: _naive(floats, some[: NAIVE_PAIRS // 2]),
        lambda: _naive(layers, some),
        lambda: balance_oui(layers),
        lambda: pairwise_oui(layers),
        lambda: [np.bitwise_or.reduce(bits.numpy().view(np.uint64), axis=None) for bits in layers],
    )
    scale = len(pairs) / NAIVE_PAIRS
    linear = median(a / b for a, b in zip(slow, slow_half, strict=True))
    rows = []
    for name, arm, target in (("balance_oui", quick, 1000), ("pairwise_oui, all pairs", all_pairs, 150)):
        against_bool = median(scale * a / b for a, b in zip(slow_bool, arm, strict=True))
        note = (
            f"{median(arm) * 1e3:.1f} ms; reading the bits once takes {median(read) * 1e3:.1f} ms. "
            f"Naive: {scale * median(slow):.1f} s over float masks, extrapolated from {NAIVE_PAIRS} of "
            f"{len(pairs)} pairs (twice the pairs took {linear:.2f}× the time); over bool masks the ratio is "
            f"{against_bool:.0f}"
        )
        ratios = [scale * a / b for a, b in zip(slow, arm, strict=True)]
        rows.append(ratio_row(f"naive pair loop / {name}", ratios, f">= {target}", note))
    return [*rows, _compiled(layers)]


def _compiled(layers: list[Tensor]) -> Row:
    """Distances of all pairs by NumPy's count of bits and by `ouigemm.hamming`, on the same bits."""
    slow, quick, packing = in_turns(
        ROUNDS,
        lambda: [_distances_by_popcount(bits) for bits in layers],
        lambda: [hamming_distances(bits) for bits in layers],
        lambda: [np.packbits(bits.numpy(), axis=1) for bits in layers],
    )
    words = sum(-(-bits.shape[1] // 64) for bits in layers) * BATCH * (BATCH + 1) / 2
    note = (
        f"{median(quick) * 1e3:.1f} ms, {words / median(quick) / 1e9:.1f} G words of 64 bits a second; "
        f"{median(packing) * 1e3:.1f} ms of it is the packing of bits, which NumPy does for both"
    )
    ratios = [a / b for a, b in zip(slow, quick, strict=True)]
    return ratio_row("hamming_distances with NumPy / with ouigemm", ratios, ">= 3", note)


def _naive(layers: list[Tensor], pairs: list[tuple[int, int]]) -> float:
    """Definition A.1 word for word: every layer, every pair."""
    total = 0.0
    for layer in layers:
        cap = layer.shape[1] // 2
        for i, j in pairs:
            total += float((layer[i] != layer[j]).sum().clamp(max=cap)) / cap
    return total / len(layers) / len(pairs)


def _memory() -> Row:
    """Everything that two indicators and their small model hold, pickled, after 200 and 10 batches."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 32), nn.GELU())
    held = []
    with OUI(model, kind="balance") as balance, OUI(model, kind="pairwise") as pairwise:
        for batches in (10, 190):
            for _ in range(batches):
                model(torch.randn(16, 3, 5, 5))
            held.append(len(pickle.dumps((balance, pairwise))))
    note = f"{held[0]:,} bytes after 10 batches, {held[1]:,} after 200"
    return ratio_row("bytes held after 200 batches / after 10", [held[1] / held[0]], "<= 1.001", note)


def _count_units(model: nn.Module, batch: Tensor) -> int:
    with record_patterns(model) as patterns, torch.no_grad():
        model(batch[:2])
    return sum(bits[0].numel() for bits in patterns.values())


class _Block(nn.Module):
    """Basic residual block."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.short: nn.Module = nn.Identity()
        if width_in != width:
            self.short = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.short(x))


def _resnet18() -> nn.Module:
    """ResNet-18 with the stem for 32×32 images: 11.2 M parameters, 17 ReLUs, 557,056 units."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    for before, after in itertools.pairwise(widths):
        layers.append(_Block(before, after, 1 if before == after else 2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
