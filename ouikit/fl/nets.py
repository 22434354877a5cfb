"""Networks that clients train: those of `ouikit.nn.models`, and the small CNN of the FedOUI experiments."""

from torch import nn

from ouikit.nn import models


def build(name: str, classes: int, in_channels: int) -> nn.Module:
    """The network called `name`: "small_cnn" or a name of `ouikit.nn.models`. Raises as `models.build`."""
    if name == "small_cnn":
        return small_cnn(classes, in_channels)
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
