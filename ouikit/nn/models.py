"""Networks by name: `build("densenet_bc_100", classes=100, in_channels=3)`.

Each gate is a module of its own that runs once per forward pass. The activation-pattern papers rely on
that: a gate that is shared, or called as a function, cannot be watched as one layer. All are written from
the papers; parameter counts and numbers of gates are tested against the published ones.
"""

from collections.abc import Callable
from difflib import get_close_matches

from torch import nn

from ouikit.nn.convnet import convnet6, convnet12, convnet24
from ouikit.nn.densenet import densenet121, densenet_bc_100
from ouikit.nn.efficientnet import efficientnet_b0
from ouikit.nn.mobilenet import mobilenet_v2, mobilenet_v2_cifar
from ouikit.nn.plain import convnet3, mlp
from ouikit.nn.resnet import resnet18, resnet34, resnet50
from ouikit.nn.transformer import row_transformer

__all__ = [
    "build",
    "convnet3",
    "convnet6",
    "convnet12",
    "convnet24",
    "densenet121",
    "densenet_bc_100",
    "efficientnet_b0",
    "mlp",
    "mobilenet_v2",
    "mobilenet_v2_cifar",
    "names",
    "resnet18",
    "resnet34",
    "resnet50",
    "row_transformer",
]

_BUILDERS: dict[str, Callable[[int, int], nn.Module]] = {
    builder.__name__: builder
    for builder in (
        mlp,
        convnet3,
        row_transformer,
        convnet6,
        convnet12,
        convnet24,
        densenet_bc_100,
        densenet121,
        efficientnet_b0,
        mobilenet_v2,
        mobilenet_v2_cifar,
        resnet18,
        resnet34,
        resnet50,
    )
}


def names() -> list[str]:
    """The names that `build` knows."""
    return list(_BUILDERS)


def build(name: str, classes: int, in_channels: int) -> nn.Module:
    """The network called `name`: float32 [B, in_channels, H, W] → logits [B, classes].

    Initial weights come from torch's global generator (see `ouikit.train.seed_everything`).

    Raises:
        KeyError: no network has that name.
        ValueError: there are fewer than one class or channel.
    """
    if name not in _BUILDERS:
        near = get_close_matches(name, _BUILDERS, n=2) or names()
        raise KeyError(f"no network {name!r}; did you mean {' or '.join(near)}?")
    if classes < 1 or in_channels < 1:
        raise ValueError(
            f"a network needs a class and a channel: got {classes} classes, {in_channels} channels"
        )
    return _BUILDERS[name](classes, in_channels)
