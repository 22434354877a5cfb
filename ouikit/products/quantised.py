"""Inference of a small network as a chain of matrix products, in f32 or in 8 bits (arXiv 2506.11728).

Quantisation is the paper's: one scale per tensor, symmetric, A ≈ s_A·Â and B ≈ s_B·B̂, sums in 32 bits. Scales
come from the largest magnitude in some calibration images. *Ours*: what comes out of a ReLU has no sign and
is u8, with twice the resolution of s8, and bias, ReLU and the next layer's scale are part of the product's
epilogue. Needs `pip install ./kernels`.
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import numpy as np
import ouigemm
import torch
from torch import Tensor, nn

from ouikit.products.steps import Product, Step, Windows, im2row, layers

STAGES = ("quantise", "im2row", "product", "rest")
"""The stages that `ProductNet.seconds` times one by one."""


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
        """Logits, float32 [B, classes], of images float32 [B, C, H, W] on the CPU; else ValueError."""
        x = _pixels(images)
        if self._scales:
            first = self._products()[0].name
            with self._timed(first, "quantise"):
                x = _round(x / self._scales[first], np.int8)
        at = "input"
        for step in self.steps:
            at = step.name if isinstance(step, Product) else at
            x = self._run(step, x, at)
        return x

    def _run(self, step: Step, x: np.ndarray, at: str) -> np.ndarray:
        if not isinstance(step, Product):
            with self._timed(at, "rest"):
                return _between(step, x)
        with self._timed(at, "im2row"):
            rows, shape = im2row(x, step.windows) if step.windows else (x, x.shape[:1])
        weights, epilogue = self._ready[at]
        with self._timed(at, "product"):
            out: np.ndarray = ouigemm.gemm(rows, weights, epilogue=epilogue, threads=1)
        return out.reshape(*shape, out.shape[1])

    def shapes(self, images: Tensor) -> dict[str, tuple[int, int, int]]:
        """(m, n, k) of each product for such a batch."""
        batch, _, height, width = images.shape
        found = {}
        for step in self.steps:
            windows = step.windows if isinstance(step, Product) else step
            height, width = windows.places(height, width) if isinstance(windows, Windows) else (1, 1)
            if isinstance(step, Product):
                k, n = step.weight.shape
                found[step.name] = batch * height * width, n, k
        return found

    def _products(self) -> list[Product]:
        return [step for step in self.steps if isinstance(step, Product)]

    def _calibrate(self, images: Tensor) -> None:
        """Scales of what enters each product, from a pass in f32; then weights and epilogues in 8 bits."""
        largest: dict[str, float] = {}
        x = _pixels(images)
        for step in self.steps:
            if isinstance(step, Product):
                largest[step.name] = float(np.abs(x).max())
            x = self._run(step, x, step.name if isinstance(step, Product) else "")
        self.seconds.clear()
        if not all(largest.values()):
            raise ValueError(f"calibration images leave a layer without a scale: {largest}")
        products = self._products()
        signed = [True, *(not product.relu for product in products)]  # what enters each, and what comes out
        self._scales = {
            product.name: largest[product.name] / (127 if sign else 255)
            for product, sign in zip(products, signed, strict=False)
        }
        for product, sign, after in zip(products, signed[1:], [*products[1:], None], strict=True):
            unit = float(np.abs(product.weight).max()) / 127
            quantised = _round(product.weight / unit, np.int8)
            sums = self._scales[product.name] * unit  # what one unit of a sum is worth
            epilogue = ouigemm.Scaled(sums, product.bias, product.relu)
            if after:
                scale, dtype = self._scales[after.name], np.int8 if sign else np.uint8
                epilogue = ouigemm.Requantised(sums / scale, product.bias / scale, product.relu, dtype=dtype)
            self._ready[product.name] = ouigemm.pack(quantised, self.isa), epilogue

    @contextmanager
    def _timed(self, layer: str, stage: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[layer, stage] += time.process_time() - start


def _pixels(images: Tensor) -> np.ndarray:
    """Images [B, H, W, C], contiguous."""
    if images.ndim != 4 or images.dtype != torch.float32 or images.device.type != "cpu":
        raise ValueError(
            f"images must be float32 [B, C, H, W] on the CPU, not {images.dtype} {tuple(images.shape)} "
            f"on {images.device}"
        )
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def _float_epilogue(product: Product) -> ouigemm.Scaled:
    return ouigemm.Scaled(1.0, product.bias, product.relu)


def _between(step: Windows | str, x: np.ndarray) -> np.ndarray:
    if isinstance(step, Windows):
        lowest = -np.inf if x.dtype == np.float32 else np.iinfo(x.dtype).min
        looks = step.over(x, lowest)  # a pixel of every window at a time: four times as fast as .max
        return reduce(np.maximum, (looks[..., row, column] for row, column in np.ndindex(step.size)))
    if step == "mean":
        return _mean(x)
    return x.transpose(0, 3, 1, 2).reshape(len(x), math.prod(x.shape[1:]))


def _mean(x: np.ndarray) -> np.ndarray:
    """Over positions; of 8-bit numbers rounded to one, with the same scale."""
    mean = x.mean(axis=(1, 2), dtype=np.float32)
    return mean if x.dtype == np.float32 else _round(mean, x.dtype)


def _round(x: np.ndarray, dtype: Any) -> np.ndarray:
    """To the nearest whole number, ties to even, within ±127 or 0 to 255."""
    low, high = (0, 255) if dtype == np.uint8 else (-127, 127)
    return np.clip(np.rint(x), low, high).astype(dtype)
