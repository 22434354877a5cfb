"""Small networks without normalisation or skips: an MLP and a plain CNN for 8 × 8 images."""

from torch import nn


def mlp(classes: int, in_channels: int) -> nn.Sequential:
    """Linear layers of 256, 128 and `classes` units on 8 × 8 pixels, ReLU between them; 2 gates.

    Images [B, in_channels, H, W] of another size are averaged to 8 × 8 first. From index 2 on it is a chain
    of linear layers and gates alone, which `ouikit.signals.flip_bounds` reads. Sizes: inferred for
    arXiv 2602.08333.
    """
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(8),
        nn.Flatten(),
        nn.Linear(in_channels * 64, 256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def convnet3(classes: int, in_channels: int) -> nn.Sequential:
    """Three 3 × 3 convolutions of 16, 32, 32 channels, the last two of stride 2, and a classifier; 3 gates.

    Biases and no batch normalisation. On 8 × 8 images the classifier sees 2 × 2 positions; on larger ones
    these are averages. Sizes: inferred for arXiv 2602.08333.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4, classes),
    )
