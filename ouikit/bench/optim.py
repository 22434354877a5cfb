"""What sweeps in lockstep, StableGrad and sinusoidal weights cost: `ouikit bench optim`.

Times are ratios of CPU times, measured as `ouikit.bench.timing` describes. Memory is the resident peak of a
fresh process above what it held before, as Linux counts it.
"""

import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from statistics import median

import torch
from torch import nn
from torch.nn import functional

from ouikit import data
from ouikit.bench.memory import peak
from ouikit.bench.timing import Arm, Row, in_turns, ratio_row, read_bandwidth
from ouikit.nn.init import sinusoidal_
from ouikit.nn.lockstep import Stack, cross_entropy
from ouikit.nn.models import resnet18
from ouikit.optim import StableGrad
from ouikit.optim.lockstep import Adam
from ouikit.train import one_thread

THREADS = 1
MEMORIES = (0.9, 0.99, 0.999)
BETAS = [*product(MEMORIES, MEMORIES)] * 3  # a grid of both memories at three seeds: 27 networks
STEPS = 20  # of every network in a round
SQUARE = (4096, 4096)
LARGE = (4096, 11008)  # the largest layer of a model of 7 billion weights
MODEL = 7_000_000_000


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure everything, in about three minutes. Returns rows as `ouikit.bench.timing.ratio_row`.

    progress: called with the name of each part before it starts.
    """
    say = progress or (lambda part: None)
    with one_thread():
        say(f"{len(BETAS)} networks in lockstep and one after another")
        rows = [_lockstep(batch, rounds) for batch, rounds in ((64, 15), (16, 15))]
        say("a training step with StableGrad")
        rows.append(_stablegrad(rounds=16))
        say("sinusoidal and orthogonal weights")
        rows.append(_initialisers(rounds=3))
        say("memory, in processes of their own")
        return [*rows, *_memory()]


def _lockstep(batch: int, rounds: int) -> Row:
    """Digits, 64-64-32-10: all networks in lockstep against a loop over them with torch's own parts."""
    digits = data.load("digits").train
    images, y = next(iter(digits.batches(len(digits))))
    x = images.flatten(1)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    batches = [order.roll(-step * batch)[:batch] for step in range(STEPS)]
    torch.manual_seed(0)
    networks = [_perceptron() for _ in BETAS]
    stack = Stack.of(networks)
    adam = Adam(stack, 1e-3, ([first for first, _ in BETAS], [second for _, second in BETAS]))
    adams = [
        torch.optim.Adam(network.parameters(), lr=1e-3, betas=betas, foreach=False)
        for network, betas in zip(networks, BETAS, strict=True)
    ]

    def together() -> None:
        for index in batches:
            outputs = stack.outputs(x[index])
            stack.backward(outputs, cross_entropy(outputs[-1], y[index])[1])
            adam.step()

    def updates() -> None:
        for _ in batches:
            adam.step()

    def alone() -> None:
        for network, optimiser in zip(networks, adams, strict=True):
            for index in batches:
                optimiser.zero_grad()
                functional.cross_entropy(network(x[index]), y[index]).backward()
                optimiser.step()

    outputs = stack.outputs(x[batches[0]])
    slope = cross_entropy(outputs[-1], y[batches[0]])[1]
    quick, slow, back, move = in_turns(
        rounds,
        together,
        alone,
        lambda: [stack.backward(outputs, slope) for _ in batches],
        updates,
    )
    step, backward, moved = (median(times) / STEPS * 1e3 for times in (quick, back, move))
    note = (
        f"a step of all {len(BETAS)} takes {step:.2f} ms; alone its backward pass takes {backward:.2f}, its "
        f"update {moved:.2f}. A step of one network takes {median(slow) / STEPS / len(BETAS) * 1e3:.2f} ms, "
        "with torch's for-loop Adam"
    )
    ratios = [a / b for a, b in zip(slow, quick, strict=True)]
    name = f"{len(BETAS)} digits networks, batch {batch}: one after another / in lockstep"
    return ratio_row(name, ratios, ">= 15", note)


def _perceptron() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )  # that of the chapter on Adam's two memories


def _stablegrad(rounds: int, batch: int = 32, side: int = 64) -> Row:
    """A training step of ResNet-18 with AdamW, and with StableGrad around it."""
    x = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    plain, scaled = in_turns(rounds, *(_training(x, wrapped) for wrapped in (False, True)))
    weights = sum(p.numel() for p in resnet18(10, 3).parameters() if p.ndim > 1)
    floor = 3 * 4 * weights / read_bandwidth() / median(plain)
    note = (
        f"a step of {batch} images of {side} × {side} takes {median(plain):.2f} s. Limit: reading the "
        f"gradients of {weights:,} weights twice and writing them once is {floor:.1%} of it"
    )
    ratios = [a / b for a, b in zip(scaled, plain, strict=True)]
    return ratio_row("ResNet-18: step with StableGrad / step", ratios, "<= 1.05", note)


def _training(x: torch.Tensor, wrapped: bool) -> Arm:
    torch.manual_seed(0)
    model = resnet18(10, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    if wrapped:
        optimiser = StableGrad(optimiser, reference=model)
    labels = torch.arange(len(x)) % 10

    def train() -> None:
        optimiser.zero_grad()
        functional.cross_entropy(model(x), labels).backward()
        optimiser.step()

    return train


def _initialisers(rounds: int) -> Row:
    weight = torch.empty(SQUARE)
    slow, quick = in_turns(rounds, lambda: nn.init.orthogonal_(weight), lambda: _sinusoidal(weight))
    each = median(quick) / weight.numel()
    note = (
        f"orthogonal_ {median(slow):.1f} s, sinusoidal_ {median(quick):.2f} s, {each * 1e9:.1f} ns a weight: "
        f"all of a model of 7 billion would take {each * MODEL:.0f} s"
    )
    ratios = [a / b for a, b in zip(slow, quick, strict=True)]
    return ratio_row(f"{SQUARE[0]} × {SQUARE[1]}: orthogonal_ / sinusoidal_", ratios, ">= 20", note)


def _sinusoidal(weight: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a square layer loses half its rank; here only the time counts
        sinusoidal_(weight)


def _memory() -> list[Row]:
    fresh = ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1)
    with fresh as process:
        rows = []
        for shape in (SQUARE, LARGE):
            held, weight = process.submit(_peak_of_sinusoidal, shape).result()
            note = f"a weight of {weight / 2**20:.0f} MiB in float32, written in blocks of rows"
            name = f"{shape[0]} × {shape[1]}: bytes at the peak of sinusoidal_ / of the weight"
            rows.append(ratio_row(name, [held / weight], "<= 1.1", note))
        held, gradients = process.submit(_peak_of_stablegrad).result()
    note = (
        f"beyond what is there before the step: {held / 2**20:.1f} MiB; gradients {gradients / 2**20:.0f} MiB"
    )
    return [
        *rows,
        ratio_row("bytes at the peak of StableGrad / of the gradients", [held / gradients], "<= 0.1", note),
    ]


def _peak_of_sinusoidal(shape: tuple[int, int]) -> tuple[int, int]:
    _sinusoidal(torch.empty(64, 128))
    return peak(lambda: _sinusoidal(torch.empty(shape))), 4 * shape[0] * shape[1]


def _peak_of_stablegrad() -> tuple[int, int]:
    model, steps = resnet18(10, 3), []
    for part in (model[-1], model):  # the first, a small one, loads the code
        sgd = torch.optim.SGD(part.parameters(), lr=0.1, foreach=False)
        steps.append(StableGrad(sgd, reference="last_layer").step)
        for parameter in part.parameters():
            parameter.grad = torch.randn_like(parameter)
    steps[0]()
    return peak(steps[1]), sum(4 * p.numel() for p in model.parameters())
