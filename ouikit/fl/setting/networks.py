"""Networks that clients train: those of `ouikit.nn.models`, and the small CNN of the FedOUI experiments."""

from torch import nn

from ouikit.nn import models
from ouikit.nn.resnet import BasicBlock


def build(name: str, classes: int, in_channels: int) -> nn.Module:
    """The network called `name`: "small_cnn", "narrow_mlp", "residual_cnn" or one of `ouikit.nn.models`.

    Raises as `models.build`.
    """
    if name == "small_cnn":
        return small_cnn(classes, in_channels)
    if name == "narrow_mlp":
        return narrow_mlp(classes, in_channels)
    if name == "residual_cnn":
        return residual_cnn(classes, in_channels)
    return models.build(name, classes, in_channels)


def small_cnn(classes: int, in_channels: int) -> nn.Sequential:
    """Two 3 × 3 convolutions (32, 64 channels) with pooling, 128 hidden units; 32 × 32 images; 3 gates.

    Source: arXiv 2605.11571 (authors' code); its probe layer is the 128 units.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def narrow_mlp(classes: int, in_channels: int) -> nn.Sequential:
    """Linear layers of 128, 64 and `classes` units on 8 × 8 pixels, ReLU between them; 2 gates.

    Sizes: inferred for arXiv 2605.22266.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels * 64, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )


def residual_cnn(classes: int, in_channels: int) -> nn.Sequential:
    """A small residual network for images of 8 × 8 pixels or more: all that a frozen gate may meet; 3 gates.

    Convolution (16) with batch normalisation, gate and max-pooling, one residual block (32), average, linear;
    17,754 parameters for ten classes of grey images. Ours.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        BasicBlock(16, 32, stride=1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4, classes),
    )
