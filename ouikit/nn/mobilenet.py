"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen, CVPR 2018, arXiv 1801.04381, table 2)."""

from torch import Tensor, nn

from ouikit.nn.weights import he_normal_

# expansion, channels out, blocks, first stride
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, HEAD = 32, 1280
DROPOUT = 0.2


def mobilenet_v2(classes: int, in_channels: int) -> nn.Sequential:
    """35 ReLU6 gates; 3,504,872 parameters for 1,000 classes of RGB images."""
    return _mobilenet(classes, in_channels, stem_stride=2)


def mobilenet_v2_cifar(classes: int, in_channels: int) -> nn.Sequential:
    """`mobilenet_v2` whose first convolution keeps the size, for 32 × 32 images (arXiv 2605.10161)."""
    return _mobilenet(classes, in_channels, stem_stride=1)


class InvertedResidual(nn.Module):
    """Expand by a 1 × 1, convolve each channel by a 3 × 3, project by a 1 × 1 without a gate; x is added
    where shapes allow it."""

    def __init__(self, channels: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        layers = _convolution(channels, inner, kernel=1) if expansion > 1 else []
        layers += _convolution(inner, inner, kernel=3, stride=stride, groups=inner)
        layers += [nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)]
        self.residual = nn.Sequential(*layers)
        self.skips = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x) if self.skips else self.residual(x)


def _mobilenet(classes: int, in_channels: int, stem_stride: int) -> nn.Sequential:
    layers = _convolution(in_channels, STEM, kernel=3, stride=stem_stride)
    channels = STEM
    for expansion, width, count, first_stride in STAGES:
        for position in range(count):
            layers.append(InvertedResidual(channels, width, expansion, 1 if position else first_stride))
            channels = width
    layers += _convolution(channels, HEAD, kernel=1)
    classifier = nn.Linear(HEAD, classes)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(DROPOUT), classifier]
    return he_normal_(nn.Sequential(*layers))


def _convolution(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU6(inplace=True)]
