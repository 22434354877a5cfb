"""A network of torch's layers as a chain of matrix products and what lies between them.

What is not known to be computed right is refused by name: other modules, other options, hooks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor, nn

from ouikit.nn.resnet import BasicBlock, Bottleneck

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
    nn.BatchNorm2d: {"num_features", "eps", "momentum", "affine"},
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
    "track_running_stats": (True,),
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
        places = self.places(*x.shape[1:3])
        if any(map(any, self.pads)):
            x = self._padded(x, outside)
        image, line, pixel, channel = x.strides
        (down, right), (below, beside) = self.stride, self.dilation
        return as_strided(  # in a third of the time that sliding_window_view takes
            x,
            (len(x), *places, x.shape[3], *self.size),
            (image, down * line, right * pixel, channel, below * line, beside * pixel),
            writeable=False,
        )

    def rows(self, x: np.ndarray) -> np.ndarray:
        """The windows as `ouigemm.gemm` takes them for the rows of a product. Only padding makes a copy.

        Images [B, H, W, C] as [B, H', W', rows, columns, C]; or as a matrix, [B·H·W, C], where windows are
        single pixels, side by side.
        """
        if self == Windows((1, 1)):
            return x.reshape(-1, x.shape[-1])
        return self.over(x).transpose(0, 1, 2, 4, 5, 3)

    def by_axis(self) -> tuple["Windows", "Windows"]:
        """Windows of one column, and of one row: maxima of the one, then the other, are those of these."""
        (rows, columns), (down, right), (below, beside) = self.size, self.stride, self.dilation
        upright = Windows((rows, 1), (down, 1), (below, 1), (self.pads[0], (0, 0)), self.mode)
        return upright, Windows((1, columns), (1, right), (1, beside), ((0, 0), self.pads[1]), self.mode)

    def _padded(self, x: np.ndarray, outside: Any) -> np.ndarray:
        pads = ((0, 0), *self.pads, (0, 0))
        if self.mode != "constant":
            return np.pad(x, pads, self.mode)  # type: ignore[call-overload]
        size = [side + sum(pad) for side, pad in zip(x.shape, pads, strict=True)]
        padded = np.full(size, outside, x.dtype)  # a fifth of the time that np.pad takes for a small image
        padded[tuple(slice(low, low + side) for side, (low, _) in zip(x.shape, pads, strict=True))] = x
        return padded

    def places(self, height: int, width: int) -> tuple[int, int]:
        """How many windows lie on an image of this size: H', W'. ValueError for one that holds none."""
        found = [
            (side + sum(pads) - span) // stride + 1
            for side, pads, span, stride in zip(
                (height, width), self.pads, self.span, self.stride, strict=True
            )
        ]
        if min(found) < 1:
            raise ValueError(f"images of {height} x {width} pixels are smaller than {self}")
        return found[0], found[1]


@dataclass(frozen=True)
class Product:
    """A convolution, or a linear layer: weight [k, n] with k = rows · columns · channels, bias [n].

    windows: of a convolution. relu: whether one follows. adds: whether it is added to what a shortcut gives,
    before its ReLU.
    """

    name: str
    weight: np.ndarray
    bias: np.ndarray
    windows: Windows | None = None
    relu: bool = False
    adds: bool = False


@dataclass(frozen=True)
class Residual:
    """ReLU(f(x) + shortcut(x)). The last step of f is the product that adds: to x, without a shortcut."""

    steps: tuple["Step", ...]
    shortcut: Product | None

    @property
    def last(self) -> Product:
        """The product that adds."""
        assert isinstance(self.steps[-1], Product)
        return self.steps[-1]


@dataclass(frozen=True)
class Mean:
    """Over the positions of an image."""

    name: str


Step = Product | Residual | Mean | Windows | str


def layers(model: nn.Sequential) -> list[Step]:
    """The products of a network and, between them, `Windows` to pool, `Mean` and "flatten".

    Takes Conv2d without groups, BatchNorm2d behind one (it becomes part of the weights), Linear, ReLU behind
    either, MaxPool2d, AdaptiveAvgPool2d(1), Flatten() and the blocks of `ouikit.nn.resnet`, in f32 and in
    evaluation mode, from images to rows of numbers.

    Raises ValueError naming any other module or option, a hook, or a layer that takes rows and is given
    images, or the reverse.
    """
    found, given = _chain("", _plain("the model", model), "images")
    if given != "rows":
        raise ValueError(f"the model gives {given}: end it with nn.Flatten()")
    if not products(found):
        raise ValueError("the model has no layer with weights")
    return found


def products(steps: Iterable[Step]) -> list[Product]:
    """All products, in the order in which they run."""
    found: list[Product] = []
    for step in steps:
        if isinstance(step, Product):
            found.append(step)
        elif isinstance(step, Residual):
            found += [*([step.shortcut] if step.shortcut else []), *products(step.steps)]
    return found


def _plain(name: str, model: Any) -> nn.Sequential:
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        raise ValueError(f"{name} is a {type(model).__name__}: pass a plain nn.Sequential")
    _refuse_hooks(name, model)
    return model


def _chain(within: str, model: nn.Sequential, given: str) -> tuple[list[Step], str]:
    """The steps of some layers that are given images, rows or means, and what they give."""
    found: list[Step] = []
    for child, module in model._modules.items():  # named_children() passes over a layer that comes again
        name = within + child
        if type(module) in (BasicBlock, Bottleneck) and given == "images":
            found.append(_residual(name, module))
            continue
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
            found.append(Mean(name))
            given = "means"
        elif isinstance(module, nn.Flatten):
            found += ["flatten"] if given == "images" else []
            given = "rows"
        elif not found or not isinstance(found[-1], Product):
            raise ValueError(f"{name}: {module} cannot be run as a product, since it follows none")
        else:
            found[-1] = _followed(name, found[-1], module)
    return found, given


def _followed(name: str, product: Product, module: nn.Module) -> Product:
    """A product with the ReLU, or the batch normalisation, that follows it."""
    if isinstance(module, nn.ReLU):
        return replace(product, relu=True)
    assert isinstance(module, nn.BatchNorm2d)
    if module.training:
        raise ValueError(f"{name}: {module} is in training mode: call model.eval()")
    if product.relu:
        raise ValueError(f"{name}: {module} cannot be run as a product behind a ReLU")
    if module.num_features != len(product.bias):
        raise ValueError(f"{name}: {module} does not fit {len(product.bias)} channels")
    spread = np.sqrt(_numbers(name, module.running_var) + np.float32(module.eps))
    factor = (_numbers(name, module.weight) if module.affine else 1) / spread
    bias = (product.bias - _numbers(name, module.running_mean)) * factor
    bias = bias + _numbers(name, module.bias) if module.affine else bias
    return replace(product, weight=product.weight * factor, bias=bias)


def _residual(name: str, block: Any) -> Residual:
    _refuse_hooks(name, block)
    _refuse_hooks(f"{name}.gate", block.gate)
    if type(block.gate) is not nn.ReLU:
        raise ValueError(f"{name}.gate: {block.gate} cannot be run as a product")
    *inner, last = _branch(f"{name}.residual", block.residual)
    steps = (*inner, replace(last, relu=True, adds=True))
    if type(block.shortcut) is nn.Identity:
        _refuse_hooks(f"{name}.shortcut", block.shortcut)
        return Residual(steps, None)
    *inner, last = _branch(f"{name}.shortcut", block.shortcut)
    if inner:
        raise ValueError(f"{name}.shortcut: {block.shortcut} cannot be run as one product")
    return Residual(steps, last)


def _branch(name: str, model: Any) -> tuple[*tuple[Step, ...], Product]:
    """The steps of one side of a sum, which ends with a product."""
    steps, given = _chain(f"{name}.", _plain(name, model), "images")
    last = steps[-1] if steps else None
    if given != "images" or not isinstance(last, Product) or last.relu:
        raise ValueError(f"{name}: {model} cannot be run as a product: it must end with one, without a ReLU")
    return (*steps[:-1], last)


def _refuse_options(name: str, module: nn.Module) -> None:
    options: Any = module.__constants__
    for option in set(options) - HEEDED[type(module)]:
        value = getattr(module, option)
        if value not in FIXED.get(option, ()):
            raise ValueError(f"{name}: {module} cannot be run as a product with {option}={value!r}")


def _refuse_hooks(name: str, module: nn.Module) -> None:
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(f"{name} has forward hooks, which may change what it computes: take them off first")


def _numbers(name: str, weight: Any) -> np.ndarray:
    if type(weight) not in (Tensor, nn.Parameter) or weight.layout != torch.strided:
        raise ValueError(
            f"{name}: weights must be a plain tensor, not {weight.layout} {type(weight).__name__}"
        )
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ValueError(
            f"{name}: weights must be float32 on the CPU, not {weight.dtype} on {weight.device}: "
            "pass model.float().cpu()"
        )
    numbers: np.ndarray = weight.detach().numpy()
    return numbers


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
