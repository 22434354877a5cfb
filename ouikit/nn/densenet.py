"""DenseNet-BC for 32 × 32 images (Huang, Liu, van der Maaten, Weinberger, CVPR 2017, arXiv 1608.06993)."""

import torch
from torch import Tensor, nn

from ouikit.nn.weights import he_normal_

GROWTH = 12
STEM = 2 * GROWTH
LAYERS_PER_BLOCK = 16  # (100 − 4 layers outside) / (3 blocks · 2 convolutions)


def densenet_bc_100(classes: int, in_channels: int) -> nn.Sequential:
    """Depth 100, growth 12, compression 0.5; 99 gates; 769,162 parameters for 10 classes of RGB images."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, STEM, 3, padding=1, bias=False)]
    channels = STEM
    for block in range(3):
        if block:
            layers.append(_transition(channels, channels // 2))
            channels //= 2
        for _ in range(LAYERS_PER_BLOCK):
            layers.append(DenseLayer(channels))
            channels += GROWTH
    head = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return he_normal_(nn.Sequential(*layers, *head, nn.Linear(channels, classes)))


class DenseLayer(nn.Module):
    """x ↦ [x, f(x)] along channels, f = BN-ReLU-1×1-BN-ReLU-3×3 with a bottleneck of 4 · growth channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.growth = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 4 * GROWTH, 1, bias=False),
            nn.BatchNorm2d(4 * GROWTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False),
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
