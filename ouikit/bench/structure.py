"""Frozen gates in time: `ouikit bench structure`.

Training steps of a path model and of the MLP that it stands for, the exact fit against forming path
features, the Gram matrix of gates on packed bits, and a step of `DualCopy`, as ratios of one process.
"""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from ouikit.bench.memory import peak
from ouikit.bench.timing import Arm, Row, in_turns, ratio_row, seconds_each
from ouikit.nn.chain import chain_of
from ouikit.nn.gated import DualCopy
from ouikit.nn.glai import GLAI
from ouikit.nn.heads import FusedAdam, PathSteps
from ouikit.nn.path_ridge import fit_ridge, gate_gram, path_kernel
from ouikit.nn.paths import PathModel, with_one
from ouikit.train import one_thread

THREADS = 1
FEATURES, CLASSES, BATCH = 256, 10, 128
WIDTHS = (256, 1024)  # units of the MLP
ROUNDS = 100


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure everything, in about three minutes. Returns rows as `ouikit.bench.timing.ratio_row`.

    progress: called with the name of each part before it starts.
    """
    say = progress or (lambda part: None)
    rows = list[Row]()
    with one_thread():
        say("exact fits")
        rows += _fit()
        for hidden in WIDTHS:
            say(f"steps of GLAI and of an MLP with {hidden} units")
            rows += _steps(hidden)
        say("steps of frozen gates")
        rows += _dual_copy()
        say("Gram matrix of gates")
        rows.append(_gram())
    return rows


def _steps(hidden: int) -> list[Row]:
    """One training step on the same batch, all with fused Adam."""
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, FEATURES), torch.arange(BATCH) % CLASSES
    blocks = [GLAI(FEATURES, hidden, CLASSES).switch(x) for _ in range(3)]
    x1, kept = with_one(x), blocks[0].gates(x)
    gates, steps = kept.float(), PathSteps(blocks[0]._paths, 1e-5)
    times = seconds_each(
        {
            "mlp": _by_tape(_mlp(hidden), x, y),
            "mlp by hand": _by_hand(_mlp(hidden), x, y),
            "paths by hand": lambda: steps(x1, gates, y),
            "kept": _by_tape(blocks[1], x, y, lambda: blocks[1](x, kept)),
            "block": _by_tape(blocks[2], x, y),
        },
        ROUNDS,
    )
    case = f"GLAI step, {hidden} units: "
    width = blocks[0].width
    note = f"batch {BATCH}, {FEATURES} features, {CLASSES} classes, {width} gates; equal parameters"

    pairs = {
        "gates kept, by hand / MLP": ("paths by hand", "mlp"),
        "by hand / MLP by hand": ("paths by hand", "mlp by hand"),
        "gates kept, own loop / MLP": ("kept", "mlp"),
        "own loop / MLP": ("block", "mlp"),
    }
    return _over(times, {case + name: pair for name, pair in pairs.items()}, "<= 0.75", note)


def _mlp(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


def _by_tape(model: nn.Module, x: Tensor, y: Tensor, forward: Callable[[], Tensor] | None = None) -> Arm:
    """A step as one writes it with torch."""
    trained = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.Adam(trained, 1e-5, fused=True)

    def step() -> None:
        adam.zero_grad()
        functional.cross_entropy(forward() if forward else model(x), y).backward()
        adam.step()

    return step


def _by_hand(model: nn.Module, x: Tensor, y: Tensor) -> Arm:
    """The same without a tape."""
    chain = chain_of(model)
    assert chain is not None
    adam = FusedAdam(chain.values, 1e-5)

    def step() -> None:
        chain.backward(x, y)
        adam.step(chain.gradients)

    return step


def _dual_copy(batch: int = 256) -> list[Row]:
    """The network of FedSQ's chapter, 64-128-128-10."""
    torch.manual_seed(0)
    x, y = torch.randn(batch, 64), torch.arange(batch) % CLASSES
    sizes = ((64, 128), (128, 128), (128, CLASSES))
    layers = [m for n, k in sizes for m in (nn.Linear(n, k), nn.ReLU())][:-1]
    net = nn.Sequential(nn.Flatten(), *layers)
    duals = [DualCopy(net, x[:2]) for _ in range(3)]
    regime = duals[1].regime(x)
    times = seconds_each(
        {
            "plain": _by_tape(deepcopy(net), x, y),
            "plain by hand": _by_hand(deepcopy(net), x, y),
            "dual by hand": _by_hand(duals[0], x, y),
            "kept": _by_tape(duals[1], x, y, lambda: duals[1](x, regime)),
            "dual": _by_tape(duals[2], x, y),
        },
        ROUNDS,
    )
    note = f"batch {batch}, layers 64-128-128-10; by hand is what ouikit.train.fit does"

    pairs = {
        "by hand / step": ("dual by hand", "plain"),
        "by hand / step by hand": ("dual by hand", "plain by hand"),
        "tape, regime kept / step": ("kept", "plain"),
        "tape / step": ("dual", "plain"),
    }
    return _over(times, {f"frozen gates: {name}": pair for name, pair in pairs.items()}, "<= 1.1", note)


def _over(
    times: Mapping[str, list[float]], pairs: Mapping[str, tuple[str, str]], target: str, note: str
) -> list[Row]:
    """A row for each pair of arms: the first over the second, round by round."""
    return [
        ratio_row(name, [a / b for a, b in zip(times[arm], times[base], strict=True)], target, note)
        for name, (arm, base) in pairs.items()
    ]


def _gram(samples: int = 5000, units: int = 256) -> Row:
    torch.manual_seed(0)
    gates = torch.rand(samples, units) > 0.5

    def product() -> Tensor:
        floats = gates.float()
        return floats @ floats.T

    packed, floats = in_turns(7, lambda: gate_gram(gates), product)
    ratios = [b / a for a, b in zip(packed, floats, strict=True)]
    note = f"{samples:,} samples, {units} units; whole numbers as int64 against a float32 product"
    return ratio_row("gates' Gram matrix: float product / packed bits", ratios, ">= 8", note)


def _fit(samples: int = 10_000, units: int = 64, part: int = 20) -> list[Row]:
    """The kernel by a product of path features in float64, against the one without; the solve is the same."""
    torch.manual_seed(0)
    x, y = torch.randn(samples, FEATURES), torch.arange(samples) % CLASSES
    model = PathModel(torch.randn(units, FEATURES), torch.randn(units), CLASSES)
    taken: list[float] = []
    gigabytes = peak(lambda: taken.append(_seconds(lambda: fit_ridge(model, x, y, 10.0, by="dual")))) / 1e9
    (dual,) = taken
    kernel = _seconds(lambda: path_kernel(x, model.gates(x)))
    x1, gates = with_one(x).double(), model.gates(x).double()

    def formed() -> None:
        phi = (gates[:, :, None] * x1[:, None]).flatten(1)
        torch.mm(phi[: samples // part], phi.T)

    ratio = (dual - kernel + part * _seconds(formed)) / dual
    columns = units * (FEATURES + 1)
    note = (
        f"{samples:,} samples, {units} gates, {FEATURES} features, {columns:,} paths; dual {dual:.0f} s, "
        f"kernel {kernel:.0f} s of it; the product of features is timed for one row in {part}; measured once"
    )
    return [
        ratio_row("exact fit: path features / dual", [ratio], ">= 5", note),
        ratio_row("exact fit: memory / 1 GB", [gigabytes], "<= 2", "what the peak of the process grew by"),
    ]


def _seconds(arm: Arm) -> float:
    start = time.process_time()
    arm()
    return time.process_time() - start
