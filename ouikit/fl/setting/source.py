"""Transfer without a download: pretrain on one domain of a data set, keep another for the federation.

In use::

    source, target = set_aside(whole, "rotated", size=700, seed=0)
    backbone = pretrained(build("mlp", 10, 1), source, epochs=40, seed=0)

A stand-in for a backbone that was pretrained elsewhere, for FedSQ (arXiv 2604.02990). Domains, sizes and
schedule are ours.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ouikit.data.dataset import Dataset, Images
from ouikit.train import Recipe, fit, seed_everything

DOMAINS = ("none", "rotated", "first_half")
LEARNING_RATE, BATCH = 0.05, 32
_STREAM = 70_001  # the pretrained network is not the seed's own network trained further


@dataclass(frozen=True)
class Source:
    """The domain on which the network is pretrained. Default: none.

    Attributes:
        domain: "none", "rotated", or "first_half" of the classes (`set_aside`). Its images are not dealt out.
        size: training images that it takes.
        epochs: passes over them.

    Raises ValueError for an unknown domain.
    """

    domain: str = "none"
    size: int = 700
    epochs: int = 40

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise ValueError(f"a source domain is one of {', '.join(DOMAINS)}: got {self.domain!r}")


def set_aside(whole: Dataset, domain: str, size: int, seed: int) -> tuple[Dataset, Dataset]:
    """The source domain, and what is left of `whole` for the target.

    `size` training images, drawn by the seed, go to the source: "rotated" by 90° against the clock, or those
    of the "first_half" of the classes, upright, with the others left out. The target keeps the rest of the
    training split, in its order, and the validation split. No image is in both.

    Raises:
        ValueError: the domain is unknown, images are not held in memory, or none are left for one of the two.
    """
    if domain not in DOMAINS[1:]:
        raise ValueError(f"a source domain is one of {', '.join(DOMAINS[1:])}: got {domain!r}")
    train = whole.train
    if not isinstance(train, Images):
        raise ValueError(
            "a source domain is cut from a set that is held in memory, such as digits or cifar10"
        )
    if not 0 < size < len(train):
        raise ValueError(f"the source takes 1 to {len(train) - 1} of the training images: got {size}")
    order = torch.from_numpy(np.random.default_rng([seed, _STREAM]).permutation(len(train)))
    first, rest = order[:size].sort().values, order[size:].sort().values
    if domain == "first_half":
        first = first[train.labels[first] < len(whole.classes) // 2]
    source = Images(train.images[first], train.labels[first], train.size)
    if domain == "rotated":
        source = replace(source, images=torch.rot90(source.images, 1, (2, 3)).contiguous())
    target = Images(train.images[rest], train.labels[rest], train.size)
    return replace(whole, train=source, validation=source), replace(whole, train=target)


def pretrained(network: nn.Module, source: Dataset, epochs: int, seed: int) -> dict[str, Tensor]:
    """Train the network on the source domain (in place); its state dict, the batch counters included.

    SGD with momentum 0.9, rate 0.05 falling to 0 along a cosine, batches of 32. Same seed, same bits.
    """
    recipe = Recipe(epochs, min(BATCH, len(source.train)), LEARNING_RATE)
    for row in fit(network, source, recipe, seed=seed + _STREAM, validate_all=False):
        if row["diverged"]:
            raise FloatingPointError(f"pretraining with seed {seed} diverged in epoch {row['epoch']:.0f}")
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def fresh_head(backbone: dict[str, Tensor], network: nn.Module) -> nn.Module:
    """The network with the backbone's weights, but for its last linear layer, which it keeps as drawn.

    Raises:
        ValueError: it has no linear layer. RuntimeError: the weights are another network's.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(network).__name__} has no linear layer that could be its head")
    own = {name: t for name, t in network.state_dict().items() if name.startswith(f"{linear[-1]}.")}
    network.load_state_dict({**backbone, **own})
    return network


def seeded(seed: int) -> None:
    """Seed the initial weights of a network that will be pretrained, apart from those of its fresh head."""
    seed_everything(seed + _STREAM)
