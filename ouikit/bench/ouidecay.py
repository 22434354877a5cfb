"""What OUIDecay costs a training step: `ouikit bench ouidecay`.

Three parts of the cost are measured apart: one parameter group per layer (no hooks yet), hooks that wait, and
a step whose readings are taken and at once used for an update. An update every g steps reads the last five of
them: its cost is computed from those parts. A round times one step of every arm, so that the arms of a ratio
are at most half a second apart and a change in the machine's pace affects all of them.
"""

from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from ouikit.bench.timing import Row, in_turns, ratio_row, read_bandwidth
from ouikit.nn.models import convnet12, resnet50
from ouikit.optim import OUIDecay, decay_groups, dynamic_layers
from ouikit.train import one_thread

MEMORY = 5
THREADS = 1
CLASSES = 10
# network, batch (from the paper's), side of the images, rounds
CASES = ((convnet12, 64, 32, 200), (convnet12, 256, 32, 80), (resnet50, 64, 64, 30))


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure every case, in about three minutes. Returns rows as `ouikit.bench.timing.ratio_row`.

    progress: called with the name of each part before it starts.
    """
    say = progress or (lambda part: None)
    rows = []
    with one_thread():
        for builder, batch, side, rounds in CASES:
            say(f"{builder.__name__}, batch {batch}, {side} × {side}")
            torch.manual_seed(0)
            x = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
            rows += _case(builder, x, rounds)
    return rows


def _case(builder: Callable[[int, int], nn.Module], x: Tensor, rounds: int) -> list[Row]:
    """The four arms of one network, each with a network and an optimiser of its own."""
    arms = [_arm(builder, x, kind) for kind in ("two groups", "groups", "waiting", "reading")]
    plain, groups, waiting, reading = in_turns(rounds, *arms)
    steered = [group for group in decay_groups(builder(CLASSES, 3), 0.0) if "layer" in group]
    values = len(x) * sum(len(group["params"][0]) for group in steered)
    floor = 4 * values / read_bandwidth() / median(plain)
    note = (
        f"a step takes {median(plain) * 1e3:.0f} ms; {len(steered)} layers are steered. Limit: "
        f"reading the {values:,} values once is {floor:.4%} of it"
    )
    case = f"{builder.__name__}, batch {len(x)}: "

    def row(name: str, times: list[float], target: str) -> Row:
        return ratio_row(case + name, [a / b for a, b in zip(times, plain, strict=True)], target, note)

    rows = [row("without hooks / step", groups, "<= 1.02"), row("read and updated / step", reading, "<= 1.1")]
    for gap in (500, 20):
        mixed = [
            ((gap - MEMORY) * idle + MEMORY * read) / gap for idle, read in zip(waiting, reading, strict=True)
        ]
        rows.append(row(f"update every {gap} / step", mixed, "<= 1.02"))
    return rows


def _arm(builder: Callable[[int, int], nn.Module], x: Tensor, kind: str) -> Callable[[], None]:
    """A training step with fixed decay (two groups, or one per layer) or with OUIDecay."""
    torch.manual_seed(0)
    model = builder(CLASSES, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layers = [] if kind == "two groups" else dynamic_layers(model)
    optimiser = torch.optim.AdamW(decay_groups(model, 1e-2, layers), lr=1e-5, fused=True)
    control = None
    if kind in ("waiting", "reading"):
        control = OUIDecay(model, optimiser, gap=1 if kind == "reading" else 10**9, memory=MEMORY)
    labels = torch.arange(len(x)) % CLASSES

    def train() -> None:
        optimiser.zero_grad()
        functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
        if control is not None:
            control.step()

    return train
