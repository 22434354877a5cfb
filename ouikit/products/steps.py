"""A network of torch's layers as a chain of matrix products and what lies between them.

What is not known to be computed right is refused by name: other modules, other options, hooks.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

PADDING = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""Conv2d's padding modes, as NumPy calls them."""

HEEDED = {
    nn.Conv2d: {
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "padding_mode",
    },
    nn.MaxPool2d: {"kernel_size", "stride", "padding", "dilation"},
    nn.Linear: {"in_features", "out_features"},
    nn.ReLU: {"inplace"},
    nn.AdaptiveAvgPool2d: set(),
    nn.Flatten: set(),
}
"""The layers that can be run, and those of their options that may have any value."""

FIXED: dict[str, tuple[Any, ...]] = {
    "groups": (1,),
    "output_padding": ((0, 0),),
    "ceil_mode": (False,),
    "return_indices": (False,),
    "output_size": (1, (1, 1)),
    "start_dim": (1,),
    "end_dim": (-1,),
}
"""The values that other options may have. One that is not listed, of a later torch, is refused."""


@dataclass(frozen=True)
class Windows:
    """Where a convolution or a pool looks, as (rows, columns); pads as ((top, bottom), (left, right)).

    mode: what lies outside, as `numpy.pad` calls it.
    """

    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    mode: str = "constant"

    @property
    def span(self) -> tuple[int, int]:
        """Rows and columns of the image under one window."""
        return self.dilation[0] * (self.size[0] - 1) + 1, self.dilation[1] * (self.size[1] - 1) + 1

    def over(self, x: np.ndarray, outside: Any = 0) -> np.ndarray:
        """Images [B, H, W, C] as [B, H', W', C, rows, columns], without a copy but for padding."""
        if any(map(any, self.pads)):
            filling = {"constant_values": outside} if self.mode == "constant" else {}
            x = np.pad(x, ((0, 0), *self.pads, (0, 0)), self.mode, **filling)  # type: ignore[call-overload]
        (down, right), (rows, columns) = self.stride, self.dilation
        return sliding_window_view(x, self.span, axis=(1, 2))[:, ::down, ::right, :, ::rows, ::columns]

    def places(self, height: int, width: int) -> tuple[int, int]:
        """How many windows lie on an image of this size: H', W'."""
        found = [
            (side + sum(pads) - span) // stride + 1
            for side, pads, span, stride in zip(
                (height, width), self.pads, self.span, self.stride, strict=True
            )
        ]
        return found[0], found[1]


@dataclass(frozen=True)
class Product:
    """A convolution, or a linear layer: weight [k, n] with k = rows · columns · channels, bias [n].

    windows: of a convolution. relu: whether one follows.
    """

    name: str
    weight: np.ndarray
    bias: np.ndarray
    windows: Windows | None = None
    relu: bool = False


Step = Product | Windows | str


def layers(model: nn.Sequential) -> list[Step]:
    """The products of a network and, between them, `Windows` to pool, "mean" (over positions) and "flatten".

    Takes Conv2d without groups, Linear, ReLU behind either, MaxPool2d, AdaptiveAvgPool2d(1) and Flatten(), in
    f32, from images to rows of numbers.

    Raises ValueError naming any other module or option, a hook, or a layer that takes rows and is given
    images, or the reverse.
    """
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        raise ValueError(f"the model is a {type(model).__name__}: pass a plain nn.Sequential")
    _refuse_hooks("the model", model)
    found: list[Step] = []
    given = "images"  # what the layers so far give
    for name, module in model._modules.items():  # named_children() passes over a layer that comes again
        if module is None or type(module) not in HEEDED:
            raise ValueError(f"{name}: {module} cannot be run as a product; see ouikit.products.steps.layers")
        _refuse_options(name, module)
        _refuse_hooks(name, module)
        if not isinstance(module, nn.ReLU | nn.Flatten):
            wanted = "rows" if isinstance(module, nn.Linear) else "images"
            if given != wanted:
                raise ValueError(f"{name}: {module} takes {wanted}, and is given {given}")
        if isinstance(module, nn.Conv2d):
            weight = _numbers(name, module.weight).transpose(2, 3, 1, 0).reshape(-1, module.out_channels)
            found.append(Product(name, weight.copy(), _bias(name, module), _windows(module)))
        elif isinstance(module, nn.Linear):
            found.append(Product(name, _numbers(name, module.weight).T.copy(), _bias(name, module)))
        elif isinstance(module, nn.MaxPool2d):
            found.append(_windows(module))
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            found.append("mean")
            given = "means"
        elif isinstance(module, nn.Flatten):
            found += ["flatten"] if given == "images" else []
            given = "rows"
        elif found and isinstance(found[-1], Product):
            found[-1] = replace(found[-1], relu=True)
        else:
            raise ValueError(f"{name}: {module} cannot be run as a product, since it follows none")
    if given != "rows":
        raise ValueError(f"the model gives {given}: end it with nn.Flatten()")
    if not any(isinstance(step, Product) for step in found):
        raise ValueError("the model has no layer with weights")
    return found


def _refuse_options(name: str, module: nn.Module) -> None:
    options: Any = module.__constants__
    for option in set(options) - HEEDED[type(module)]:
        value = getattr(module, option)
        if value not in FIXED.get(option, ()):
            raise ValueError(f"{name}: {module} cannot be run as a product with {option}={value!r}")


def _refuse_hooks(name: str, module: nn.Module) -> None:
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(f"{name} has forward hooks, which may change what it computes: take them off first")


def _numbers(name: str, weight: Tensor) -> np.ndarray:
    if type(weight) not in (Tensor, nn.Parameter) or weight.layout != torch.strided:
        raise ValueError(
            f"{name}: weights must be a plain tensor, not {weight.layout} {type(weight).__name__}"
        )
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ValueError(
            f"{name}: weights must be float32 on the CPU, not {weight.dtype} on {weight.device}: "
            "pass model.float().cpu()"
        )
    return weight.detach().numpy()


def _bias(name: str, module: nn.Conv2d | nn.Linear) -> np.ndarray:
    if module.bias is None:
        return np.zeros(len(module.weight), np.float32)
    return _numbers(name, module.bias).copy()


def _windows(module: nn.Conv2d | nn.MaxPool2d) -> Windows:
    size, stride, dilation = map(_pair, (module.kernel_size, module.stride, module.dilation))
    plain = Windows(size, stride, dilation)
    if module.padding == "same":  # of an odd number the larger half comes behind
        pads = [((span - 1) // 2, span // 2) for span in plain.span]
    else:
        pads = [(pad, pad) for pad in _pair(0 if module.padding == "valid" else module.padding)]
    mode = PADDING[module.padding_mode] if isinstance(module, nn.Conv2d) else "constant"
    return replace(plain, pads=(pads[0], pads[1]), mode=mode)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def im2row(x: np.ndarray, windows: Windows) -> tuple[np.ndarray, tuple[int, ...]]:
    """Rows of a product from images [B, H, W, C]: one row per window, and the shape [B, H', W'].

    A row holds the pixels of a window with their channels, the order of `Product.weight`.
    """
    pixels = windows.over(x).transpose(0, 1, 2, 4, 5, 3)
    return np.ascontiguousarray(pixels).reshape(
        math.prod(pixels.shape[:3]), math.prod(pixels.shape[3:])
    ), pixels.shape[:3]
