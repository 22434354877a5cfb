"""Small residual networks with or without batch normalisation, and starts for those without."""

from typing import Literal

import torch
from torch import Tensor, nn

from ouikit.nn.init import aware_

Start = Literal["default", "he", "zero_branch", "aware"]


class Block(nn.Module):
    """ReLU(x + branch(x)); the shortcut is the identity."""

    def __init__(self, branch: nn.Sequential) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.branch(x))


def residual_mlp(inputs: int, classes: int, *, width: int, blocks: int, norm: bool) -> nn.Sequential:
    """`[B, inputs]` -> `[B, classes]`: a layer of `width` units, blocks of two such layers, a readout.

    >>> residual_mlp(64, 10, width=48, blocks=2, norm=False)(torch.zeros(5, 64)).shape
    torch.Size([5, 10])
    """

    def layer() -> list[nn.Module]:
        return [nn.Linear(width, width), *([nn.BatchNorm1d(width)] if norm else [])]

    stem = [nn.Linear(inputs, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
    trunk = [Block(nn.Sequential(*layer(), nn.ReLU(), *layer())) for _ in range(blocks)]
    return nn.Sequential(*stem, *trunk, nn.Linear(width, classes))


def residual_convnet(channels: int, classes: int, *, width: int, blocks: int, norm: bool) -> nn.Sequential:
    """`[B, channels, h, w]` -> `[B, classes]`: two stages of `blocks` blocks, at `width` and 2 · `width`.

    Stages are joined by a strided convolution that is no block, so that every shortcut is the identity.

    >>> residual_convnet(1, 10, width=8, blocks=1, norm=True)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def layer(n: int, m: int, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(n, m, 3, stride, padding=1, bias=not norm)
        return [convolution, *([nn.BatchNorm2d(m)] if norm else [])]

    layers: list[nn.Module] = []
    for n, m, stride in ((channels, width, 1), (width, 2 * width, 2)):
        layers += [*layer(n, m, stride), nn.ReLU()]
        layers += [Block(nn.Sequential(*layer(m, m), nn.ReLU(), *layer(m, m))) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes))


@torch.no_grad()
def start_(network: nn.Sequential, start: Start, x: Tensor | None = None) -> nn.Sequential:
    """Initialise a network of this module in place, and return it.

    - `default`: as torch made it.
    - `he`: normal weights of variance 2 / n, biases zero. For ReLU this is `aware_`, layer by layer.
    - `zero_branch`: He, and the last weight of every branch is zero: each block starts as the identity.
    - `aware`: He, and the last weight of every branch is scaled by the largest factor in [0, 1], found by
      bisection on the batch `x`, with which the second moment after the addition is at most 1. What arrives
      is not negative and of moment about 1: but for chance correlations every branch adds to it, and the
      factor is 0.

    Raises ValueError for another start, and for `aware` without a batch.
    """
    if start not in ("default", "he", "zero_branch", "aware"):
        raise ValueError(f"a start is default, he, zero_branch or aware: got {start!r}")
    if start == "default":
        return network
    aware_(network, "relu", input_moment=1.0)
    if start == "zero_branch":
        for block in network:
            if isinstance(block, Block):
                _last(block).weight.zero_()
    if start == "aware":
        if x is None:
            raise ValueError("the start 'aware' needs a batch x")
        for module in network:
            if isinstance(module, Block):
                _last(module).weight.mul_(_factor(x, module.branch(x)))
            x = module(x)
    return network


def _last(block: Block) -> nn.Linear | nn.Conv2d:
    return [m for m in block.branch if isinstance(m, nn.Linear | nn.Conv2d)][-1]


def _factor(x: Tensor, branch: Tensor) -> float:
    """The largest s in [0, 1], to 2⁻³⁰, with E[relu(x + s · branch)²] <= 1."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if torch.relu(x + middle * branch).square().mean() <= 1 else (low, middle)
    return low
