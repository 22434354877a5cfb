"""A clip to encode: a camera that moves over the photographs that ship with scikit-learn."""

import numpy as np


def moving_crop(
    name: str = "china.jpg",
    width: int = 416,
    height: int = 240,
    frames: int = 16,
    noise: float = 2.0,
    seed: int = 0,
) -> np.ndarray:
    """Pictures uint8 `[frames, height, width, 3]`: a window that moves and zooms over a photograph.

    name: `china.jpg` or `flower.jpg`, 640 × 427 pixels; larger windows show it enlarged. noise: standard
    deviation of independent noise in each picture, in steps of 256. A panned photograph is no test sequence:
    nothing in it moves against anything else.

    >>> moving_crop(width=64, height=48, frames=2).shape
    (2, 48, 64, 3)
    """
    from PIL import Image
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image(name))
    rng = np.random.default_rng(seed)
    found = np.empty((frames, height, width, 3), np.uint8)
    for i, t in enumerate(np.linspace(0, 1, frames)):
        across = 400 + 120 * t
        down = across * height / width
        left, top = (photo.width - across) * t, (photo.height - min(down, photo.height)) * (1 - t)
        box = (left, top, left + across, top + min(down, photo.height))
        picture = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC, box), float)
        found[i] = (picture + rng.normal(0, noise, picture.shape)).round().clip(0, 255)
    return found
