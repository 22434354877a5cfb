"""Augmentation of training batches by name: `policy("shift")`.

A policy is a function (images float32 [B, C, H, W] in [0, 1], CPU generator) → images of the same kind and
size. Each image is changed by draws of its own, all of which descend from the generator.

The first policies are a few lines of tensor indexing; those of the papers' own image sets use kornia
(`pip install "ouikit[paper]"`), whose draws come from torch's global generator: that one is seeded from
the given generator for the call and then put back.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

Policy = Callable[[Tensor, torch.Generator], Tensor]


def policy(name: str) -> Policy:
    """The policy called `name`, one of::

        none               nothing
        shift              ±1 pixel (digits at the reduced scale)
        cifar              padding by 4 and random crop, horizontal flip
        cifar_autoaugment  cifar, then AutoAugment's CIFAR-10 policy (arXiv 1805.09501)
        cifar_randaugment  cifar, RandAugment(2, 9) (arXiv 1909.13719), random erasing (arXiv 1708.04896)
        tiny_imagenet      random resized crop, both flips, rotation by ±15°, colour jitter (.4, .4, .4, .1)
        imagenet           horizontal flip, colour jitter (.4, .4, .4, .1); the random resized crop of the
                           training images happens where they are decoded (`ouikit.data`)

    Raises:
        KeyError: no policy has that name.
        ImportError: the policy needs kornia, which is not installed.
    """
    if name not in _POLICIES:
        near = get_close_matches(name, _POLICIES, n=2) or list(_POLICIES)
        raise KeyError(f"no augmentation {name!r}; did you mean {' or '.join(near)}?")
    if name in _KORNIA:
        import kornia.augmentation  # noqa: F401  (fails here, by its name, rather than in the first batch)
    return _POLICIES[name]


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images themselves."""
    return images


def shift(images: Tensor, generator: torch.Generator, pixels: int = 1) -> Tensor:
    """Each image moved by −pixels … pixels rows and columns, zeros coming in at the edges.

    With pixels = 4 this is the padding by 4 and random crop that is usual for CIFAR.
    """
    batch, _, height, width = images.shape
    offset = torch.randint(2 * pixels + 1, (2, batch, 1, 1), generator=generator).to(images.device)
    rows = offset[0] + torch.arange(height, device=images.device).view(1, height, 1)
    columns = offset[1] + torch.arange(width, device=images.device).view(1, 1, width)
    image = torch.arange(batch, device=images.device).view(batch, 1, 1)
    padded = functional.pad(images, [pixels] * 4)
    return padded.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 3, 1, 2)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability ½."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def cifar(images: Tensor, generator: torch.Generator) -> Tensor:
    """Padding by 4 and random crop, then a random horizontal flip."""
    return flip(shift(images, generator, pixels=4), generator)


def cifar_autoaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """`cifar`, then one of AutoAugment's 25 sub-policies for each image."""
    return _each_by_one(_autoaugment(), cifar(images, generator).contiguous(), generator)


def cifar_randaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """`cifar`, then for each image two of RandAugment's operations at magnitude 9; of one image in five a
    random rectangle of 2 to 15 % is erased (arXiv 2605.10161, authors' code)."""
    images = cifar(images, generator).contiguous()
    for _ in range(2):
        images = _each_by_one(_randaugment(), images, generator)
    return _seeded(_erasing(), images, generator)


def jittered(images: Tensor, generator: torch.Generator, pipeline: str) -> Tensor:
    """Kornia's pipeline for "tiny_imagenet" or "imagenet"."""
    return _seeded(_pipeline(pipeline, images.shape[-1]), images, generator)


def _each_by_one(modules: Sequence[nn.Module], images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image through one of the modules, in place.

    Kornia's own modules draw one operation per batch, the methods one per image: images are grouped by it.
    """
    choice = torch.randint(len(modules), (len(images),), generator=generator)
    for number in choice.unique().tolist():
        group = (choice == number).nonzero().squeeze(1).to(images.device)
        images[group] = _seeded(modules[number], images[group], generator)
    return images


@cache
def _autoaugment() -> list[nn.Module]:
    from kornia.augmentation.auto import AutoAugment

    return list(AutoAugment("cifar10").children())


@cache
def _randaugment() -> list[nn.Module]:
    from kornia.augmentation.auto import RandAugment
    from kornia.augmentation.auto.rand_augment.rand_augment import default_policy

    return [RandAugment(1, 9, policy=[operation]) for operation in default_policy]


@cache
def _erasing() -> nn.Module:
    from kornia.augmentation import RandomErasing

    return RandomErasing(p=0.2, scale=(0.02, 0.15))


@cache
def _pipeline(name: str, size: int) -> nn.Module:
    from kornia import augmentation as k

    jitter = k.ColorJitter(0.4, 0.4, 0.4, 0.1)
    if name == "imagenet":
        return nn.Sequential(k.RandomHorizontalFlip(), jitter)
    crop, turn = k.RandomResizedCrop((size, size)), k.RandomRotation(15.0, p=1.0)
    return nn.Sequential(crop, k.RandomHorizontalFlip(), k.RandomVerticalFlip(), turn, jitter)


def _seeded(module: nn.Module, images: Tensor, generator: torch.Generator) -> Tensor:
    """`module(images)` with torch's global generators seeded from `generator`, then put back."""
    with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return module(images)


_KORNIA = ("cifar_autoaugment", "cifar_randaugment", "tiny_imagenet", "imagenet")
_POLICIES: dict[str, Policy] = {
    "none": unchanged,
    "shift": shift,
    "cifar": cifar,
    "cifar_autoaugment": cifar_autoaugment,
    "cifar_randaugment": cifar_randaugment,
    "tiny_imagenet": partial(jittered, pipeline="tiny_imagenet"),
    "imagenet": partial(jittered, pipeline="imagenet"),
}
