"""What can be wrong with a client's data: six anomalies, from wrong labels to another domain.

Each is drawn once, by its seed, and stays the same in every round. The kinds and their strengths are ours:
the abstract of arXiv 2605.22266, for which they stand, names none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ouikit.data import glyphs
from ouikit.data.dataset import Images, randomise_labels

SIGMA = 0.6  # of the noise; pixels lie in [0, 1]


@dataclass(frozen=True)
class Anomaly:
    """What goes wrong with the data of some clients, and when. Default: nothing.

    Attributes:
        kind: "none" or a name of `ANOMALIES`.
        clients: how many have it, drawn by the federation's seed, the same ones for every kind.
        onset: rounds in which these clients still have their own data.

    Raises ValueError for an unknown kind, and for negative numbers.
    """

    kind: str = "none"
    clients: int = 4
    onset: int = 0

    def __post_init__(self) -> None:
        if self.kind != "none" and self.kind not in ANOMALIES:
            raise ValueError(
                f"the kind of an anomaly must be one of none, {', '.join(ANOMALIES)}: got {self.kind!r}"
            )
        if min(self.clients, self.onset) < 0:
            raise ValueError(
                f"clients and onset of an anomaly must be ≥ 0: got {self.clients} and {self.onset}"
            )


def altered(split: Images, anomaly: str, *, classes: int, seed: int) -> Images:
    """A client's samples with something wrong; as many as there were, float32 pixels in [0, 1].

    Args:
        split: images [N, C, H, W] and labels.
        anomaly: a name of `ANOMALIES`.
        classes: how many there are.
        seed: of everything random, alike for every anomaly.

    Raises:
        KeyError: no anomaly has that name.
    """
    if anomaly not in ANOMALIES:
        raise KeyError(f"no anomaly {anomaly!r}; there are {', '.join(ANOMALIES)}")
    images = split.images.float().div(255) if split.images.dtype == torch.uint8 else split.images
    return ANOMALIES[anomaly](replace(split, images=images), classes, seed)


def random_labels(split: Images, classes: int, seed: int) -> Images:
    """Every label drawn anew, uniformly."""
    return split.with_labels(randomise_labels(split.labels, classes, 1.0, seed))


def half_random_labels(split: Images, classes: int, seed: int) -> Images:
    """Half of the labels drawn anew, uniformly."""
    return split.with_labels(randomise_labels(split.labels, classes, 0.5, seed))


def noise(split: Images, classes: int, seed: int) -> Images:
    """Normal noise of standard deviation 0.6 on every pixel, cut to [0, 1]."""
    drawn = torch.randn(split.images.shape, generator=torch.Generator().manual_seed(seed))
    return replace(split, images=(split.images + SIGMA * drawn).clamp(0, 1))


def permuted(split: Images, classes: int, seed: int) -> Images:
    """The pixels of every image in one other order, the same for all images and channels."""
    pixels = split.images.flatten(2)
    order = torch.randperm(pixels.shape[2], generator=torch.Generator().manual_seed(seed))
    return replace(split, images=pixels[:, :, order].view_as(split.images))


def inverted(split: Images, classes: int, seed: int) -> Images:
    """Every pixel p as 1 − p."""
    return replace(split, images=1 - split.images)


def letters(split: Images, classes: int, seed: int) -> Images:
    """Another domain: letters of `ouikit.data.glyphs`, bright on dark, grey, under the labels 0, 1, …

    As large as the images that they replace. Raises ValueError for more classes than there are letters.
    """
    strange = glyphs.render(len(split), 1, classes, difficulty=0.0, seed=seed).train
    assert isinstance(strange, Images)
    grey: Tensor = 1 - strange.images.float().div(255).mean(1, keepdim=True)
    small = functional.interpolate(grey, size=split.images.shape[2:], mode="bilinear", antialias=True)
    return replace(split, images=small.expand_as(split.images).contiguous(), labels=strange.labels)


ANOMALIES: Mapping[str, Callable[[Images, int, int], Images]] = {
    "labels": random_labels,
    "half_labels": half_random_labels,
    "noise": noise,
    "permuted": permuted,
    "inverted": inverted,
    "letters": letters,
}
"""The anomalies by name: (split, number of classes, seed) → split."""
