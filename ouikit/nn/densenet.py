"""DenseNet-BC (Huang, Liu, van der Maaten, Weinberger, CVPR 2017, arXiv 1608.06993)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ouikit.nn.weights import he_normal_


def densenet_bc_100(classes: int, in_channels: int) -> nn.Sequential:
    """For 32 × 32 images: depth 100, growth 12, compression 0.5; 99 gates; 769,162 parameters for 10 classes
    of RGB images."""
    stem = [nn.Conv2d(in_channels, 24, 3, padding=1, bias=False)]
    blocks = (16, 16, 16)  # (100 − 4 layers outside) / (3 blocks · 2 convolutions)
    return _densenet(classes, stem, 24, growth=12, blocks=blocks)


def densenet121(classes: int, in_channels: int) -> nn.Sequential:
    """The ImageNet form: growth 32, blocks of 6, 12, 24, 16 layers; 121 gates; 7,978,856 parameters for 1,000
    classes of RGB images."""
    stem = [
        nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    return _densenet(classes, stem, 64, growth=32, blocks=(6, 12, 24, 16))


def _densenet(
    classes: int, stem: Sequence[nn.Module], channels: int, growth: int, blocks: Sequence[int]
) -> nn.Sequential:
    layers = list(stem)
    for block, count in enumerate(blocks):
        if block:
            layers.append(_transition(channels, channels // 2))
            channels //= 2
        for _ in range(count):
            layers.append(DenseLayer(channels, growth))
            channels += growth
    head = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return he_normal_(nn.Sequential(*layers, *head, nn.Linear(channels, classes)))


class DenseLayer(nn.Module):
    """x ↦ [x, f(x)] along channels, f = BN-ReLU-1×1-BN-ReLU-3×3 with a bottleneck of 4 · growth channels."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.growth = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.growth(x)], dim=1)


def _transition(channels: int, compressed: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, compressed, 1, bias=False),
        nn.AvgPool2d(2),
    )
