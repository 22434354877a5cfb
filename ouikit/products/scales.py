"""From floats to whole numbers: the scales of a network in 8 bits, and its products as they then run.

One step is worth the largest magnitude that calibration saw, over 127, or over 255 where there is no sign.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ouigemm

from ouikit.products.steps import Mean, Product, Residual, Step, products


@dataclass(frozen=True)
class Grid:
    """Numbers in steps: q stands for step·q. dtype: int8 (to ±127), uint8, or float32 (not rounded)."""

    step: float
    dtype: type


FLOATS = Grid(1.0, np.float32)


@dataclass(frozen=True)
class Ready:
    """A product that can run. beta: of what it adds to; rounds: the type that its f32 sum is rounded to."""

    weights: ouigemm.Weights
    epilogue: ouigemm.Scaled
    beta: float = 0.0
    rounds: type | None = None

    @property
    def result(self) -> type:
        """The type of what the product writes."""
        return self.epilogue.dtype if isinstance(self.epilogue, ouigemm.Requantised) else np.float32


Products = dict[str, Ready]
Means = dict[str, float]
"""What a mean is multiplied with before it is rounded, by name."""


@dataclass(frozen=True)
class Quantiser:
    """largest: magnitude of what enters each product and mean. per_channel: a scale per column of weights.

    reduce_range: larger steps of the weights, by as much as it takes for pairs of products to fit 16 bits
    (`ouigemm.adds_pairs`); None: where the rung gains by it. The option of this name in torch and ONNX
    Runtime gives a whole bit for the same.
    """

    largest: Mapping[str, float]
    isa: str = "auto"
    per_channel: bool = False
    reduce_range: bool | None = None

    def entering(self, steps: Sequence[Step]) -> Grid:
        """The grid of the images."""
        return self._before(steps, signed=True)

    def ready(self, steps: Sequence[Step], before: Grid, end: Grid = FLOATS) -> tuple[Products, Means]:
        """The products of some steps between two grids, and the means, by name."""
        found: Products = {}
        means: Means = {}
        for i, step in enumerate(steps):
            if not isinstance(step, Product | Residual | Mean):
                continue
            after = self._after(step, steps[i + 1 :], before, end)
            if isinstance(step, Product):
                found[step.name] = self._product(step, before, after)
            elif isinstance(step, Residual):
                found |= self._residual(step, before, after)
            else:
                means[step.name] = before.step / after.step
            before = after
        return found, means

    def _after(self, step: Step, rest: Sequence[Step], before: Grid, end: Grid) -> Grid:
        """The grid of a result. What no product takes stays in f32."""
        if not products(rest):
            return end
        last = step.last if isinstance(step, Residual) else step
        return self._before(rest, not last.relu if isinstance(last, Product) else before.dtype is np.int8)

    def _before(self, steps: Sequence[Step], signed: bool) -> Grid:
        """The grid of what enters the first product or mean."""
        first = next(step for step in steps if isinstance(step, Product | Residual | Mean))
        largest = self.largest[first.name if isinstance(first, Mean) else products(steps)[0].name]
        return Grid(largest / 127, np.int8) if signed else Grid(largest / 255, np.uint8)

    def _product(self, product: Product, before: Grid, after: Grid) -> Ready:
        pairs = ouigemm.adds_pairs(self.isa) if self.reduce_range is None else self.reduce_range
        magnitude = largest_pairs if pairs else np.abs
        largest = magnitude(product.weight).max(axis=0 if self.per_channel else None)
        unit = np.where(largest > 0, largest, 1) / 127
        scale = before.step * unit.astype(np.float64) / after.step  # what one unit of a sum is worth
        weights = ouigemm.pack(round_to(np.int8, product.weight / unit), self.isa)
        bias = product.bias / after.step
        if after.dtype is np.float32:
            return Ready(weights, ouigemm.Scaled(scale, bias, product.relu))
        return Ready(weights, ouigemm.Requantised(scale, bias, product.relu, dtype=after.dtype))

    def _residual(self, block: Residual, before: Grid, after: Grid) -> dict[str, Ready]:
        """Bytes are added to bytes of one type where no product comes between; else the sum is f32."""
        in_bytes = block.shortcut is None and before.dtype is after.dtype
        sums = after if in_bytes else replace(after, dtype=np.float32)
        found, _ = self.ready(block.steps, before, sums)
        beta = before.step / after.step
        if block.shortcut:
            found[block.shortcut.name] = self._product(block.shortcut, before, sums)
            beta = 1.0
        name, rounds = block.last.name, None if sums == after else after.dtype
        found[name] = replace(found[name], beta=beta, rounds=rounds)
        return found


def largest_pairs(weight: np.ndarray) -> np.ndarray:
    """|x + y| of the rows 2i and 2i + 1, or the larger of |x| and |y|: floats [k, n] to floats [⌈k/2⌉, n].

    In steps of 1/127 of the largest, both rounded up, they add up to 128 at most.

    >>> largest_pairs(np.array([[3.0, 3.0], [2.0, -4.0], [-1.0, 0.5]])).tolist()
    [[5.0, 4.0], [1.0, 0.5]]
    """
    even, odd = weight[::2], np.zeros_like(weight[::2])
    odd[: len(weight) // 2] = weight[1::2]
    return np.maximum(np.abs(even + odd), np.maximum(np.abs(even), np.abs(odd)))


def round_to(dtype: Any, x: np.ndarray) -> np.ndarray:
    """To the nearest whole number, ties to even, within ±127 or 0 to 255."""
    low, high = (0, 255) if dtype == np.uint8 else (-127, 127)
    whole = np.rint(x)
    return np.clip(whole, low, high, out=whole).astype(dtype)
