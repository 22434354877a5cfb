"""What every reader returns: a named, fingerprinted set with a training and a validation split."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

Batch = tuple[Tensor, Tensor]
Rates = tuple[float, ...]
_SMALL = 4 * 2**20  # bytes of a split that may lie in memory twice


class Split(Protocol):
    """Labelled images that can be read batch after batch."""

    @property
    def labels(self) -> Tensor:
        """int64 [N], on the CPU or where `to` put them."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> "Split":
        """The split with whatever it keeps in memory moved to `device`."""

    def with_labels(self, labels: Tensor) -> "Split":
        """The same images under other labels, int64 [N]."""

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[Batch]:
        """One pass: float32 images [B, C, H, W] in [0, 1] and labels int64 [B].

        The order is drawn from `generator`, a CPU generator; without one it is the stored order.
        """


@dataclass(frozen=True)
class Images:
    """A split held in memory: images [N, C, H, W], uint8 or float32 in [0, 1]; labels int64 [N].

    With `size` every batch is resized to size × size pixels (bilinear, antialiased).
    """

    images: Tensor
    labels: Tensor
    size: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Images":
        if self.images.device == self.labels.device == device:
            return self
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def with_labels(self, labels: Tensor) -> "Images":
        return replace(self, labels=labels)

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[Batch]:
        batches = index_batches(len(self), batch_size, generator, drop_last)
        if generator is None:
            end = sum(map(len, batches))
            images, labels = self.images[:end].split(batch_size), self.labels[:end].split(batch_size)
            yield from zip((self._decoded(some.clone()) for some in images), labels, strict=True)
            return
        if self.images.nbytes <= _SMALL:
            yield from self.taken(torch.cat(batches), batch_size)
            return
        for index in batches:
            yield from self.taken(index, batch_size)

    def taken(self, index: Tensor, batch_size: int) -> Iterator[Batch]:
        """The images at these positions as batches, gathered all at once."""
        index = index.to(self.labels.device)
        images, labels = self.images.index_select(0, index), self.labels.index_select(0, index)
        for some, their in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            yield self._decoded(some), their

    def _decoded(self, images: Tensor) -> Tensor:
        pixels = images.float().div_(255) if images.dtype == torch.uint8 else images
        if self.size is None:
            return pixels
        return functional.interpolate(pixels, size=(self.size, self.size), mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Dataset:
    """A set of labelled images.

    Attributes:
        name: as given to `load`.
        classes: names of the classes, in the order of the labels.
        train, validation: the two splits.
        mean, std: per channel, of the training pixels in [0, 1]; subtracting and dividing is the training
            loop's work, because augmentation comes first.
        checksum: sha256 (hex) of the set as read or rendered, before it is split and before label noise.
        files: the files that it was read from, or their folder; none for a set that ships with a library.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    mean: Rates
    std: Rates
    checksum: str
    files: tuple[Path, ...] = ()

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return len(self.mean)

    def normalised(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] as networks take them: less `mean`, over `std`, channels last."""
        mean, std = (torch.tensor(m, device=images.device).view(-1, 1, 1) for m in (self.mean, self.std))
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    @cached_property
    def standardised(self) -> "Dataset":
        """The set with images as `normalised` gives them and nothing left to subtract, kept: for many passes.

        The set itself where a split is not held in memory as it is to be read.
        """
        train, validation = self.train, self.validation
        if not all(isinstance(split, Images) and split.size is None for split in (train, validation)):
            return self
        ready = self._standardised(train)
        other = ready if validation is train else self._standardised(validation)
        mean, std = (0.0,) * self.channels, (1.0,) * self.channels
        return replace(self, train=ready, validation=other, mean=mean, std=std)

    def _standardised(self, split: Split) -> Images:
        images, labels = next(iter(split.batches(len(split))))
        return Images(self.normalised(images), labels)

    def probe(self, count: int) -> Tensor:
        """The first `count` validation images, normalised: fixed inputs to watch a network on."""
        images, _ = next(iter(self.validation.batches(count)))
        return self.normalised(images)


def index_batches(
    count: int, batch_size: int, generator: torch.Generator | None, drop_last: bool
) -> tuple[Tensor, ...]:
    """Positions 0 … count − 1 cut into batches, in an order drawn from `generator` if there is one.

    Raises:
        ValueError: batch_size < 1, or drop_last leaves no batch at all.
    """
    if batch_size < 1 or (drop_last and batch_size > count):
        raise ValueError(f"batch_size must be 1 to {count}, the images of the split: got {batch_size}")
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    return (order[: count - count % batch_size] if drop_last else order).split(batch_size)


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """sha256 (hex) over the dtypes, shapes and values of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def channel_moments(images: Tensor) -> tuple[Rates, Rates]:
    """Mean and standard deviation per channel of pixels in [0, 1]; a constant channel counts as std 1."""
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    means, stds = [], []
    for channel in images.unbind(1):
        pixels = channel.double() / scale
        means.append(float(pixels.mean()))
        stds.append(float(pixels.std(correction=0)) or 1.0)
    return tuple(means), tuple(stds)


def randomise_labels(labels: Tensor, classes: int, fraction: float, seed: int) -> Tensor:
    """A copy of `labels` in which round(fraction · N) of them are drawn anew, uniformly from all classes.

    A new draw may repeat the old label, so that about fraction · (1 − 1/classes) of the labels are wrong
    (the "random labels" of Zhang et al., "Understanding deep learning requires rethinking
    generalization", ICLR 2017).

    Raises:
        ValueError: fraction is not within [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"label noise is a fraction of the training labels, 0 to 1: got {fraction}")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(labels), generator=generator)[: round(fraction * len(labels))]
    noisy = labels.clone()
    noisy[chosen] = torch.randint(classes, (len(chosen),), generator=generator)
    return noisy
