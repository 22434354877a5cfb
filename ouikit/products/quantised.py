"""Inference of a small network as a chain of matrix products, in f32 or in 8 bits (arXiv 2506.11728).

Quantisation is the paper's: one scale per tensor, symmetric, A ≈ s_A·Â and B ≈ s_B·B̂, sums in 32 bits. Scales
come from the largest magnitude in some calibration images. *Ours*: what comes out of a ReLU has no sign and
is u8, with twice the resolution of s8, and bias, ReLU and the next layer's scale are part of the product's
epilogue. Needs `pip install ./kernels`.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import ouigemm
from torch import Tensor, nn

STAGES = ("quantise", "im2row", "product", "rest")
"""The stages that `ProductNet.seconds` times one by one."""


@dataclass(frozen=True)
class Product:
    """A convolution or a linear layer: weight [k, n] with k = rows · columns · channels, bias [n]."""

    name: str
    weight: np.ndarray
    bias: np.ndarray
    size: int = 1
    padding: int = 0
    relu: bool = False


def layers(model: nn.Sequential) -> list[Product | str]:
    """The products of a network and, between them, "pool" (2 × 2 maxima) and "mean" (over positions).

    Takes Conv2d (stride 1, square), Linear, ReLU behind either, MaxPool2d(2), AdaptiveAvgPool2d(1), Flatten.
    Raises ValueError naming any other module.
    """
    found: list[Product | str] = []
    for name, module in model.named_children():
        if (
            isinstance(module, nn.Conv2d)
            and module.stride == (1, 1)
            and module.groups == 1
            and _square(module)
        ):
            weight = module.weight.detach().permute(2, 3, 1, 0).flatten(0, 2)
            size, padding = module.kernel_size[0], int(module.padding[0])
            found.append(Product(name, weight.numpy().copy(), _bias(module), size, padding))
        elif isinstance(module, nn.Linear):
            found.append(Product(name, module.weight.detach().T.numpy().copy(), _bias(module)))
        elif isinstance(module, nn.ReLU) and found and isinstance(found[-1], Product):
            found[-1] = Product(**{**vars(found[-1]), "relu": True})
        elif isinstance(module, nn.MaxPool2d) and module.kernel_size == 2:
            found.append("pool")
        elif isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size == 1:
            found.append("mean")
        elif not isinstance(module, nn.Flatten):
            raise ValueError(
                f"{name}: {module} cannot be run as a product; see ouikit.products.quantised.layers"
            )
    return found


def _square(module: nn.Conv2d) -> bool:
    padding = module.padding
    return (
        module.kernel_size[0] == module.kernel_size[1]
        and isinstance(padding, tuple)
        and len(set(padding)) == 1
    )


def _bias(module: nn.Conv2d | nn.Linear) -> np.ndarray:
    return (
        np.zeros(len(module.weight), np.float32)
        if module.bias is None
        else module.bias.detach().numpy().copy()
    )


class ProductNet:
    """A trained network on `ouigemm`, with packed weights and one thread.

        net = ProductNet(model, calibration=images)
        logits = net(images)          # float32 [B, classes]
        net.seconds["0", "product"]   # what the layers cost so far, stage by stage (see STAGES)

    Args:
        model: as `layers` reads it, in evaluation mode.
        calibration: float32 images [N, C, H, W] that fix the scales; None leaves everything in f32.
        isa: a rung of `ouigemm` for the products.

    Raises ValueError for a model that `layers` does not take, or calibration images that are all zero.
    """

    def __init__(self, model: nn.Sequential, calibration: Tensor | None = None, isa: str = "auto") -> None:
        self.steps = layers(model)
        self.isa = isa
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._scales: dict[str, float] = {}  # of what enters a product
        self._ready: dict[str, tuple[ouigemm.Weights, ouigemm.Scaled]] = {}
        for product in self._products():
            self._ready[product.name] = ouigemm.pack(product.weight, isa), _float_epilogue(product)
        if calibration is not None:
            self._calibrate(calibration)

    def __call__(self, images: Tensor) -> np.ndarray:
        """Logits, float32 [B, classes], of images float32 [B, C, H, W]."""
        x: Any = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        if self._scales:
            first = self._products()[0].name
            with self._timed(first, "quantise"):
                x = _round(x / self._scales[first], np.int8)
        at = "input"
        for step in self.steps:
            if isinstance(step, Product):
                at = step.name
                with self._timed(at, "im2row"):
                    rows, shape = im2row(x, step.size, step.padding) if x.ndim == 4 else (x, x.shape[:1])
                weights, epilogue = self._ready[at]
                with self._timed(at, "product"):
                    x = ouigemm.gemm(rows, weights, epilogue=epilogue, threads=1).reshape(*shape, -1)
            else:
                with self._timed(at, "rest"):
                    x = _pool(x) if step == "pool" else _mean(x)
        return x.reshape(len(x), -1)

    def shapes(self, images: Tensor) -> dict[str, tuple[int, int, int]]:
        """(m, n, k) of each product for such a batch."""
        batch, _, height, width = images.shape
        found = {}
        for step in self.steps:
            if isinstance(step, Product):
                height, width = (side + 2 * step.padding - step.size + 1 for side in (height, width))
                k, n = step.weight.shape
                found[step.name] = batch * height * width, n, k
            else:
                height, width = (height // 2, width // 2) if step == "pool" else (1, 1)
        return found

    def _products(self) -> list[Product]:
        return [step for step in self.steps if isinstance(step, Product)]

    def _calibrate(self, images: Tensor) -> None:
        """Scales of what enters each product, from a pass in f32; then weights and epilogues in 8 bits."""
        largest: dict[str, float] = {}
        x: Any = images.permute(0, 2, 3, 1).numpy()
        for step in self.steps:
            if isinstance(step, Product):
                largest[step.name] = float(np.abs(x).max())
                rows, shape = im2row(x, step.size, step.padding) if x.ndim == 4 else (x, x.shape[:1])
                weights, epilogue = self._ready[step.name]
                x = ouigemm.gemm(rows, weights, epilogue=epilogue, threads=1).reshape(*shape, -1)
            else:
                x = _pool(x) if step == "pool" else _mean(x)
        if not all(largest.values()):
            raise ValueError(f"calibration images leave a layer without a scale: {largest}")
        names = list(largest)
        self._scales = {name: largest[name] / (255 if i else 127) for i, name in enumerate(names)}
        for product, after in zip(self._products(), [*names[1:], None], strict=True):
            unit = float(np.abs(product.weight).max()) / 127
            quantised = _round(product.weight / unit, np.int8)
            sums = self._scales[product.name] * unit  # what one unit of a sum is worth
            self._ready[product.name] = (
                ouigemm.pack(quantised, self.isa),
                (
                    ouigemm.Scaled(sums, product.bias, product.relu)
                    if after is None
                    else ouigemm.Requantised(
                        sums / self._scales[after],
                        product.bias / self._scales[after],
                        product.relu,
                        dtype=np.uint8,
                    )
                ),
            )

    @contextmanager
    def _timed(self, layer: str, stage: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[layer, stage] += time.process_time() - start


def im2row(x: np.ndarray, size: int, padding: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """Rows of a product from images [B, H, W, C]: one row per output pixel, and the shape [B, H', W'].

    A row holds size × size pixels with their channels, the order of `Product.weight`; outside the image is 0.
    """
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    rows = windows.transpose(0, 1, 2, 4, 5, 3)
    return np.ascontiguousarray(rows).reshape(-1, size * size * x.shape[3]), rows.shape[:3]


def _float_epilogue(product: Product) -> ouigemm.Scaled:
    return ouigemm.Scaled(1.0, product.bias, product.relu)


def _pool(x: np.ndarray) -> np.ndarray:
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def _mean(x: np.ndarray) -> np.ndarray:
    """Over positions; of 8-bit numbers rounded to one, with the same scale."""
    mean = x.mean(axis=(1, 2), dtype=np.float32)
    return mean if x.dtype == np.float32 else _round(mean, x.dtype)


def _round(x: np.ndarray, dtype: Any) -> np.ndarray:
    """To the nearest whole number, ties to even, within ±127 or 0 to 255."""
    low, high = (0, 255) if dtype == np.uint8 else (-127, 127)
    return np.clip(np.rint(x), low, high).astype(dtype)
