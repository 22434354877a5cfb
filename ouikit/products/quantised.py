"""Inference of a network as a chain of matrix products, in f32 or in 8 bits (arXiv 2506.11728).

Quantisation is the paper's: one scale per tensor, symmetric, A ≈ s_A·Â and B ≈ s_B·B̂, sums in 32 bits. Scales
come from the largest magnitude in some calibration images. *Ours*: what comes out of a ReLU has no sign and
is u8, with twice the resolution of s8; bias, ReLU, the next layer's scale and the input that a residual block
adds are part of the product's epilogue; and weights may have one scale per channel. Needs
`pip install ./kernels`.
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import reduce

import numpy as np
import ouigemm
import torch
from torch import Tensor, nn

from ouikit.products.layer_shapes import Shape
from ouikit.products.scales import Grid, Quantiser, Ready, round_to
from ouikit.products.steps import Mean, Product, Residual, Step, Windows, layers, products

STAGES = ("quantise", "pad", "product", "rest")
"""The stages that `ProductNet.seconds` times one by one."""

# Bytes of images that pass through all layers together: what has just been written is then read from a cache,
# and memory does not grow with the batch.
IMAGES_AT_ONCE = 2**22


class ProductNet:
    """A trained network on `ouigemm`, with packed weights and one thread.

        net = ProductNet(model, calibration=images)
        logits = net(images)          # float32 [B, classes]
        net.seconds["0", "product"]   # what the layers cost so far, stage by stage (see STAGES)

    Args:
        model: as `layers` reads it, in evaluation mode; `resnet18` to `resnet50` of `ouikit.nn`, for example.
        calibration: float32 images [N, C, H, W] that fix the scales; None leaves everything in f32.
        isa: a rung of `ouigemm` for the products.
        per_channel: one scale of the weights for every output channel, instead of one in all.
        reduce_range: weights so small that pairs of products fit 16 bits, which is what CPUs with AVX2 and
            without VNNI are quickest at; None: on those. It costs up to a bit of their resolution, and about
            0.4 in ResNet-18.

    Raises ValueError for a model that `layers` does not take, or calibration images that are all zero.
    """

    def __init__(
        self,
        model: nn.Sequential,
        calibration: Tensor | None = None,
        isa: str = "auto",
        per_channel: bool = False,
        reduce_range: bool | None = None,
    ) -> None:
        self.steps = layers(model)
        self.isa = isa
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._entering: Grid | None = None  # what the images become
        self._largest: dict[str, float] | None = None  # magnitude of what enters each step, in `_calibrate`
        self._ready: dict[str, Ready] = {}
        self._means: dict[str, float] = {}
        for product in products(self.steps):
            epilogue = ouigemm.Scaled(1.0, product.bias, product.relu)
            self._ready[product.name] = Ready(
                ouigemm.pack(product.weight, isa), epilogue, float(product.adds)
            )
        if calibration is not None:
            self._calibrate(calibration, per_channel, reduce_range)

    def __call__(self, images: Tensor) -> np.ndarray:
        """Logits, float32 [B, classes], of images float32 [B, C, H, W] on the CPU; else ValueError."""
        pixels = _pixels(images)
        some = max(1, IMAGES_AT_ONCE // max(1, math.prod(pixels.shape[1:]) * pixels.itemsize))
        parts = [self._logits(pixels[first : first + some]) for first in range(0, max(1, len(pixels)), some)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _logits(self, x: np.ndarray) -> np.ndarray:
        if self._entering:
            with self._timed(products(self.steps)[0].name, "quantise"):
                x = round_to(self._entering.dtype, x / self._entering.step)
        return self._chain(self.steps, x, "input")

    def _chain(self, steps: Iterable[Step], x: np.ndarray, at: str) -> np.ndarray:
        """at: the product to which the time of what follows it is counted."""
        for step in steps:
            if isinstance(step, Product):
                x, at = self._product(step, x), step.name
            elif isinstance(step, Residual):
                x, at = self._residual(step, x, at), step.last.name
            else:
                with self._timed(at, "rest"):
                    x = self._mean(step, x) if isinstance(step, Mean) else _between(step, x)
        return x

    def _look(self, name: str, x: np.ndarray) -> None:
        if self._largest is not None:
            self._largest[name] = max(float(np.abs(x).max()), self._largest.get(name, 0))

    def _mean(self, step: Mean, x: np.ndarray) -> np.ndarray:
        """Of 8-bit numbers rounded to such, of the scale that the mean needs."""
        self._look(step.name, x)
        mean = x.mean(axis=(1, 2), dtype=np.float32)
        return mean if x.dtype == np.float32 else round_to(x.dtype, mean * np.float32(self._means[step.name]))

    def _product(self, product: Product, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Into `out`, which it adds to, or into a new array."""
        self._look(product.name, x)
        windows, ready = product.windows, self._ready[product.name]
        if out is None:
            places = windows.places(*x.shape[1:3]) if windows else ()
            out = np.empty((len(x), *places, len(product.bias)), ready.result)
        with self._timed(product.name, "pad"):
            rows = windows.rows(x) if windows else x
        with self._timed(product.name, "product"):
            c = out.reshape(-1, len(product.bias))
            ouigemm.gemm(rows, ready.weights, c, beta=ready.beta, epilogue=ready.epilogue, threads=1)
        return out

    def _residual(self, block: Residual, x: np.ndarray, at: str) -> np.ndarray:
        ready, name = self._ready[block.last.name], block.last.name
        y = self._chain(block.steps[:-1], x, at)
        if block.shortcut:
            out = self._product(block.shortcut, x)
        else:
            with self._timed(name, "rest"):
                out = x.astype(ready.result)
        self._product(block.last, y, out)
        if ready.rounds:
            with self._timed(name, "rest"):
                out = round_to(ready.rounds, out)
        return out

    def shapes(self, images: Tensor) -> dict[str, Shape]:
        """(m, n, k) of each product for such a batch."""
        batch, _, height, width = images.shape
        found: dict[str, Shape] = {}
        _shapes(self.steps, batch, (height, width), found)
        return found

    def _calibrate(self, images: Tensor, per_channel: bool, reduce_range: bool | None) -> None:
        """Scales of what enters each product, from a pass in f32; then weights and epilogues in 8 bits."""
        self._largest = {}
        self(images)
        largest, self._largest = self._largest, None
        self.seconds.clear()
        if not all(largest.values()):
            raise ValueError(f"calibration images leave a layer without a scale: {largest}")
        quantiser = Quantiser(largest, self.isa, per_channel, reduce_range)
        self._entering = quantiser.entering(self.steps)
        self._ready, self._means = quantiser.ready(self.steps, self._entering)

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


def _between(step: Windows | str, x: np.ndarray) -> np.ndarray:
    if isinstance(step, Windows):
        step.places(*x.shape[1:3])  # which refuses images that are too small
        lowest = -np.inf if x.dtype == np.float32 else np.iinfo(x.dtype).min
        for windows in step.by_axis():
            looks = windows.over(x, lowest)  # a pixel of every window at a time: four times as fast as .max
            x = reduce(np.maximum, (looks[..., row, column] for row, column in np.ndindex(windows.size)))
        return x
    return x.transpose(0, 3, 1, 2).reshape(len(x), math.prod(x.shape[1:]))


def _shapes(
    steps: Iterable[Step], batch: int, image: tuple[int, int], found: dict[str, Shape]
) -> tuple[int, int]:
    """Adds the shape of each product to `found`; returns the (height, width) of what the last step gives."""
    for step in steps:
        if isinstance(step, Residual):
            _shapes([step.shortcut] if step.shortcut else [], batch, image, found)
            image = _shapes(step.steps, batch, image, found)
            continue
        windows = step.windows if isinstance(step, Product) else step
        image = windows.places(*image) if isinstance(windows, Windows) else (1, 1)
        if isinstance(step, Product):
            k, n = step.weight.shape
            found[step.name] = batch * math.prod(image), n, k
    return image
