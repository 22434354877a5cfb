"""EfficientNet-B0 (Tan and Le, ICML 2019, arXiv 1905.11946, table 1)."""

import math

import torch
from torch import Tensor, nn

from ouikit.nn.weights import he_normal_

# expansion, kernel, stride, channels out, blocks
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM, HEAD = 32, 1280
DROP_PATH = DROPOUT = 0.2


def efficientnet_b0(classes: int, in_channels: int) -> nn.Sequential:
    """49 SiLU gates, those of squeeze-and-excitation included; 5,288,548 parameters for 1,000 classes of RGB.

    Stochastic depth grows linearly from 0 at the first block towards 0.2; dropout of 0.2 before the
    classifier.
    """
    layers = _convolution(in_channels, STEM, kernel=3, stride=2)
    channels, total, block = STEM, sum(stage[-1] for stage in STAGES), 0
    for expansion, kernel, first_stride, width, count in STAGES:
        for position in range(count):
            stride = 1 if position else first_stride
            layers.append(MBConv(channels, width, expansion, kernel, stride, DROP_PATH * block / total))
            channels, block = width, block + 1
    layers += _convolution(channels, HEAD, kernel=1)
    classifier = nn.Linear(HEAD, classes)
    nn.init.uniform_(classifier.weight, -1 / math.sqrt(classes), 1 / math.sqrt(classes))
    nn.init.zeros_(classifier.bias)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(DROPOUT, inplace=True), classifier]
    return he_normal_(nn.Sequential(*layers))


class MBConv(nn.Module):
    """Inverted bottleneck: expand, depthwise convolution, squeeze-and-excitation, project.

    Where shapes allow it x is added, and the branch is dropped for whole samples with probability `drop`.
    """

    def __init__(
        self, channels: int, width: int, expansion: int, kernel: int, stride: int, drop: float
    ) -> None:
        super().__init__()
        inner = channels * expansion
        layers = _convolution(channels, inner, kernel=1) if expansion > 1 else []
        layers += _convolution(inner, inner, kernel, stride, groups=inner)
        layers.append(SqueezeExcitation(inner, channels // 4))
        layers += [nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)]
        self.residual = nn.Sequential(*layers)
        self.skips = stride == 1 and channels == width
        self.drop_path = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.residual(x)) if self.skips else self.residual(x)


class SqueezeExcitation(nn.Module):
    """Channels rescaled by a sigmoid of their means, squeezed through SiLU (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.SiLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(x)


class StochasticDepth(nn.Module):
    """In training, zero whole samples with probability `drop`, scaling up the rest (Huang et al.,
    arXiv 1603.09382)."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.drop:
            return x
        kept = torch.empty(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1 - self.drop)
        return x * kept / (1 - self.drop)


def _convolution(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.SiLU(inplace=True)]
