"""The matrix products inside known networks, as (m, n, k): C of m × n sums k products each.

Convolutions as one product after im2row, batch 1: m output pixels, n filters, k inputs of a filter.

Source: ResNet-50 v1.5 and VGG16 from the authors' public drivers; BERT-Large's projections are its standard
sizes for a sequence of 512, ViT-Base's and MobileNetV2's those of their papers at 224 pixels (inferred).
"""

Shape = tuple[int, int, int]

RESNET50: tuple[Shape, ...] = (
    (12544, 64, 147),
    (3136, 64, 64),
    (3136, 64, 576),
    (3136, 256, 64),
    (3136, 64, 256),
    (3136, 128, 256),
    (784, 128, 1152),
    (784, 512, 128),
    (784, 512, 256),
    (784, 128, 512),
    (784, 256, 512),
    (196, 256, 2304),
    (196, 1024, 256),
    (196, 1024, 512),
    (196, 256, 1024),
    (196, 512, 1024),
    (49, 512, 4608),
    (49, 2048, 512),
    (49, 2048, 1024),
    (49, 512, 2048),
)
"""The twenty different products of ResNet-50 v1.5, in the order of their first layers."""

VGG16: tuple[Shape, ...] = (
    (50176, 64, 27),
    (50176, 64, 576),
    (12544, 128, 576),
    (12544, 128, 1152),
    (3136, 256, 1152),
    (3136, 256, 2304),
    (784, 512, 2304),
    (784, 512, 4608),
    (196, 512, 4608),
)
"""The nine different convolutions of VGG16."""

BERT_LARGE: tuple[Shape, ...] = ((512, 1024, 1024), (512, 4096, 1024), (512, 1024, 4096))
"""Attention's projections and the two layers of the feed-forward part."""

VIT_BASE: tuple[Shape, ...] = ((197, 2304, 768), (197, 768, 768), (197, 3072, 768), (197, 768, 3072))
"""A layer of ViT-Base for 196 patches of an image and the class token."""

MOBILENET_V2: tuple[Shape, ...] = (
    (12544, 32, 27),
    (12544, 16, 32),
    (12544, 96, 16),
    (3136, 24, 96),
    (3136, 144, 24),
    (3136, 24, 144),
    (784, 32, 144),
    (784, 192, 32),
    (784, 32, 192),
    (196, 64, 192),
    (196, 384, 64),
    (196, 64, 384),
    (196, 96, 384),
    (196, 576, 96),
    (196, 96, 576),
    (49, 160, 576),
    (49, 960, 160),
    (49, 160, 960),
    (49, 320, 960),
    (49, 1280, 320),
)
"""The twenty different products of MobileNetV2; its depthwise convolutions are none."""

SQUARES: tuple[Shape, ...] = tuple((size, size, size) for size in (256, 512, 1024, 2048))
"""Sides as in most benchmarks; the authors' drivers take 1000 to 5000."""

NETWORKS = {"resnet50": RESNET50, "vgg16": VGG16, "bert_large": BERT_LARGE, "squares": SQUARES}
"""All sets by name."""


def operations(shape: Shape) -> int:
    """2mnk: multiplications and additions."""
    m, n, k = shape
    return 2 * m * n * k
