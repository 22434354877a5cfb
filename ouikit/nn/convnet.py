"""The small networks of the reduced and the extended scale."""

from collections.abc import Sequence

from torch import nn


def convnet6(classes: int, in_channels: int) -> nn.Sequential:
    """Six 3 × 3 convolutions of 16, 16, 32, 32, 64, 64 channels; 6 gates; images of 4 × 4 pixels or more."""
    return _convnet(classes, in_channels, stages=([16, 16], [32, 32], [64, 64]))


def convnet12(classes: int, in_channels: int) -> nn.Sequential:
    """`convnet6` with twice the layers per stage; 12 gates."""
    return _convnet(classes, in_channels, stages=([16] * 4, [32] * 4, [64] * 4))


def convnet24(classes: int, in_channels: int) -> nn.Sequential:
    """`convnet6` with four times the layers per stage; 24 gates."""
    return _convnet(classes, in_channels, stages=([16] * 8, [32] * 8, [64] * 8))


def _convnet(classes: int, in_channels: int, stages: Sequence[Sequence[int]]) -> nn.Sequential:
    """Convolution-BN-ReLU layers, each stage but the last halving the image, then the mean over positions.

    Down-sampling is our choice: pooling after the first two
    stages keeps four positions or more of an 8 × 8 image in every layer.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for stage in stages:
        if layers:
            layers.append(nn.MaxPool2d(2))
        for width in stage:
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
