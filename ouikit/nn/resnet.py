"""ResNet in its ImageNet form (He, Zhang, Ren, Sun, CVPR 2016, arXiv 1512.03385)."""

from collections.abc import Sequence

from torch import Tensor, nn

from ouikit.nn.weights import he_normal_


def resnet18(classes: int, in_channels: int) -> nn.Sequential:
    """2, 2, 2, 2 blocks; 17 gates; 11,689,512 parameters for 1,000 classes of RGB images."""
    return _resnet(classes, in_channels, blocks=(2, 2, 2, 2))


def resnet34(classes: int, in_channels: int) -> nn.Sequential:
    """3, 4, 6, 3 blocks; 33 gates; 21,797,672 parameters for 1,000 classes of RGB images."""
    return _resnet(classes, in_channels, blocks=(3, 4, 6, 3))


def resnet50(classes: int, in_channels: int) -> nn.Sequential:
    """3, 4, 6, 3 bottlenecks; 49 gates; 25,557,032 parameters for 1,000 classes of RGB images."""
    return _resnet(classes, in_channels, blocks=(3, 4, 6, 3), block=Bottleneck)


class BasicBlock(nn.Module):
    """ReLU(f(x) + shortcut(x)), f = 3×3-BN-ReLU-3×3-BN; the shortcut is the identity where shapes allow it,
    else a strided 1 × 1 convolution (option B of the paper)."""

    growth = 1  # channels out per unit of width

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = _shortcut(channels, width, stride)
        self.gate = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.residual(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """ReLU(f(x) + shortcut(x)), f = 1×1-BN-ReLU-3×3-BN-ReLU-1×1-BN with 4 · width channels out.

    The 3 × 3 carries the stride, as in today's implementations; in the paper the first 1 × 1 does.
    """

    growth = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, self.growth * width, 1, bias=False),
            nn.BatchNorm2d(self.growth * width),
        )
        self.shortcut = _shortcut(channels, self.growth * width, stride)
        self.gate = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.residual(x) + self.shortcut(x))


def _shortcut(channels: int, width: int, stride: int) -> nn.Module:
    if stride == 1 and channels == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


def _resnet(
    classes: int,
    in_channels: int,
    blocks: Sequence[int],
    block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for position in range(count):
            layers.append(block(channels, width, stride=2 if stage and not position else 1))
            channels = block.growth * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return he_normal_(nn.Sequential(*layers))
