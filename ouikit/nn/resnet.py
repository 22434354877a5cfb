"""ResNet with basic blocks, in its ImageNet form (He, Zhang, Ren, Sun, CVPR 2016, arXiv 1512.03385)."""

from collections.abc import Sequence

from torch import Tensor, nn

from ouikit.nn.weights import he_normal_


def resnet18(classes: int, in_channels: int) -> nn.Sequential:
    """2, 2, 2, 2 blocks; 17 gates; 11,689,512 parameters for 1,000 classes of RGB images."""
    return _resnet(classes, in_channels, blocks=(2, 2, 2, 2))


def resnet34(classes: int, in_channels: int) -> nn.Sequential:
    """3, 4, 6, 3 blocks; 33 gates; 21,797,672 parameters for 1,000 classes of RGB images."""
    return _resnet(classes, in_channels, blocks=(3, 4, 6, 3))


class BasicBlock(nn.Module):
    """ReLU(f(x) + shortcut(x)), f = 3×3-BN-ReLU-3×3-BN; the shortcut is the identity where shapes allow it,
    else a strided 1 × 1 convolution (option B of the paper)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            projection = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))
        self.gate = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.residual(x) + self.shortcut(x))


def _resnet(classes: int, in_channels: int, blocks: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            layers.append(BasicBlock(channels, width, stride=2 if stage and not block else 1))
            channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return he_normal_(nn.Sequential(*layers))
