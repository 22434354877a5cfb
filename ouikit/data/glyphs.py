"""Small colour images without a download: letters and numerals from the fonts that ship with matplotlib.

A stand-in for CIFAR-sized sets: 32 × 32 RGB, as many images as wanted, with the number of classes and the
difficulty as parameters. Equal arguments give equal pixels on every machine with the same font renderer:
random numbers come from numpy's PCG64, and pixels from single additions and multiplications, which every
machine rounds alike (no sine, no matrix product).
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ouikit.data.dataset import Dataset, Images, channel_moments, fingerprint

# Letters and numerals that stay apart in capitals and small letters, turned or blurred: no O, l, 6 or 9.
CHARACTERS = "ABDEGHKMNPRSTWXZ" + "aefghjmnrtuy" + "23457&?#%@"
FONTS = (
    *(f"DejaVu{family}{style}" for family in ("Sans", "SansMono") for style in ("", "-Bold", "-Oblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "BolIta", "Italic")),
    *("cmr10", "cmb10", "cmss10", "cmtt10", "cmti10"),
)
SIDE, CANVAS, POINTS, BASE_LINE = 32, 48, 30, 32
Pixels = NDArray[np.float64]
Numbers = NDArray[np.int64]


def render(
    train_size: int = 2000,
    validation_size: int = 1000,
    classes: int = 10,
    difficulty: float = 0.5,
    seed: int = 0,
) -> Dataset:
    """uint8 images [N, 3, 32, 32] of the first `classes` characters, as many of each.

    Args:
        train_size, validation_size: number of images.
        classes: 2 to `len(CHARACTERS)`.
        difficulty: 0 is a black character in the middle of a white image; up to 1 it is turned (to ±53°),
            scaled (by 0.7 to 1.3), moved (by ±6 pixels), coloured with less and less contrast, crossed by
            up to three other characters, and buried in noise.
        seed: of everything random. Validation images do not depend on the number of training images.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 2 <= classes <= len(CHARACTERS):
        raise ValueError(f"glyphs has 2 to {len(CHARACTERS)} classes: got {classes}")
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty goes from 0 to 1: got {difficulty}")
    if train_size < 1 or validation_size < 1:
        raise ValueError(
            f"both splits need an image: got train_size={train_size}, validation_size={validation_size}"
        )
    splits = [
        _split(count, classes, difficulty, np.random.default_rng([seed, stream]))
        for stream, count in enumerate((train_size, validation_size))
    ]
    mean, std = channel_moments(splits[0].images)
    return Dataset(
        name="glyphs",
        classes=tuple(CHARACTERS[:classes]),
        train=splits[0],
        validation=splits[1],
        mean=mean,
        std=std,
        checksum=fingerprint([tensor for split in splits for tensor in (split.images, split.labels)]),
    )


def _split(count: int, classes: int, difficulty: float, draw: np.random.Generator) -> Images:
    labels = np.arange(count) % classes
    paper, ink, other = _colours(count, difficulty, draw)
    picture = np.broadcast_to(paper[:, :, None, None], (count, 3, SIDE, SIDE))
    for _ in range(round(3 * difficulty)):
        strangers = draw.integers(len(CHARACTERS), size=count)
        clutter = _strokes(strangers, difficulty, _at_the_edge(count, draw), draw)
        seen = draw.random((count, 1, 1)) < difficulty
        picture = _painted(picture, clutter * seen, other)
    middle = difficulty * 6 * _symmetric((2, count), draw)
    picture = _painted(picture, _strokes(labels, difficulty, middle, draw), ink)
    noisy = picture + 0.25 * difficulty * _symmetric(picture.shape, draw)
    images = (np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Images(torch.from_numpy(images), torch.from_numpy(labels))


def _symmetric(shape: tuple[int, ...], draw: np.random.Generator) -> Pixels:
    """Uniform in [−1, 1)."""
    return 2 * draw.random(shape) - 1


def _colours(count: int, difficulty: float, draw: np.random.Generator) -> tuple[Pixels, Pixels, Pixels]:
    """Colours [N, 3] of paper, character and clutter, in [0, 1].

    Contrast falls to 0.3 and hues spread by ±0.3 at difficulty 1, where half of the images are inverted.
    """
    contrast = 1 - 0.7 * difficulty * draw.random((count, 1))
    side = np.where(draw.random((count, 1)) < difficulty / 2, -0.5, 0.5)
    tints = 0.3 * difficulty * _symmetric((3, count, 3), draw)
    paper, ink = 0.5 + side * contrast, 0.5 - side * contrast
    other = 0.5 * (paper + ink)
    return np.clip(paper + tints[0], 0, 1), np.clip(ink + tints[1], 0, 1), np.clip(other + tints[2], 0, 1)


def _at_the_edge(count: int, draw: np.random.Generator) -> Pixels:
    """Places [2, N] 11 to 16 pixels off the middle along one axis, anywhere along the other."""
    far = (11 + 5 * draw.random(count)) * np.where(draw.random(count) < 0.5, -1, 1)
    near = 16 * _symmetric((count,), draw)
    return np.where(draw.random(count) < 0.5, (far, near), (near, far))


def _painted(picture: Pixels, strokes: Pixels, colour: Pixels) -> Pixels:
    """`picture` [N, 3, 32, 32] with strokes [N, 32, 32] drawn on it in `colour` [N, 3]."""
    return picture + strokes[:, None] * (colour[:, :, None, None] - picture)


def _strokes(characters: Numbers, difficulty: float, place: Pixels, draw: np.random.Generator) -> Pixels:
    """Ink, 0 to 1, [N, 32, 32], of one character each in a random font, turned, scaled, moved to `place`."""
    count = len(characters)
    masks = _masks()[draw.integers(len(FONTS), size=count), characters]
    half = 0.5 * difficulty * _symmetric((count, 1, 1), draw)  # tangent of half the angle
    cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    scale = 1 + 0.3 * difficulty * _symmetric((count, 1, 1), draw)
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    y = (axis[None, :, None] - place[0][:, None, None]) / scale
    x = (axis[None, None, :] - place[1][:, None, None]) / scale
    middle = (CANVAS - 1) / 2
    return _interpolated(masks, cosine * y - sine * x + middle, sine * y + cosine * x + middle)


def _interpolated(masks: Pixels, y: Pixels, x: Pixels) -> Pixels:
    """Bilinear values of masks [N, CANVAS, CANVAS] at places y, x [N, 32, 32]; outside is no ink."""
    y, x = np.clip(y, 0, CANVAS - 1.001), np.clip(x, 0, CANVAS - 1.001)  # the outermost pixels are empty
    top, left = y.astype(np.int64), x.astype(np.int64)
    down, right = y - top, x - left
    number = np.arange(len(masks))[:, None, None]
    upper = masks[number, top, left] * (1 - right) + masks[number, top, left + 1] * right
    lower = masks[number, top + 1, left] * (1 - right) + masks[number, top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


@cache
def _masks() -> Pixels:
    """Ink, 0 to 1, [fonts, characters, CANVAS, CANVAS]; every font on one base line, centred across."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    masks = np.zeros((len(FONTS), len(CHARACTERS), CANVAS, CANVAS))
    for mask, name in zip(masks, FONTS, strict=True):
        font = ImageFont.truetype(folder / f"{name}.ttf", POINTS, layout_engine=ImageFont.Layout.BASIC)
        for ink, character in zip(mask, CHARACTERS, strict=True):
            canvas = Image.new("L", (CANVAS, CANVAS))
            ImageDraw.Draw(canvas).text((CANVAS / 2, BASE_LINE), character, fill=255, font=font, anchor="ms")
            ink[:] = np.asarray(canvas) / 255
    return masks
