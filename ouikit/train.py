"""One training, as the papers run it: SGD with momentum, coupled weight decay, a schedule per epoch.

    for row in fit(model, data, Recipe(epochs=60, batch_size=50, lr=0.05, weight_decay=1e-3), seed=0):
        print(row["epoch"], row["val_accuracy"])

The loop knows nothing of what watches it: `on_epoch` returns numbers of its own and they join the row.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ouikit.data.dataset import Dataset

Row = dict[str, float]
Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to train; defaults are those that the three experiments of arXiv 2504.17160 share.

    Attributes:
        epochs, batch_size: passes over the training split, images per step.
        lr: the peak learning rate.
        momentum: of SGD, without Nesterov.
        weight_decay: coupled L2, added to the gradient.
        decay: "all" parameters, normalisation and biases included (as in the paper), or "weights" alone.
        schedule: "cosine" to 0 at the end, or "constant"; the rate changes once per epoch.
        warmup_epochs, warmup_start: linear warm-up from warmup_start · lr before the schedule starts.
        drop_last: leave out an incomplete last training batch.
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay: str = "all"
    schedule: str = "cosine"
    warmup_epochs: int = 0
    warmup_start: float = 0.1
    drop_last: bool = True

    def __post_init__(self) -> None:
        for name, known in (("decay", ("all", "weights")), ("schedule", ("cosine", "constant"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}: got {getattr(self, name)!r}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs must be ≥ 0 and fewer than epochs: got {self.warmup_epochs} of {self.epochs}"
            )

    def learning_rate(self, epoch: int) -> float:
        """The rate of epoch 0 … epochs − 1 (torch's LinearLR followed by CosineAnnealingLR)."""
        if epoch < self.warmup_epochs:
            return self.lr * (self.warmup_start + (1 - self.warmup_start) * epoch / self.warmup_epochs)
        if self.schedule == "constant":
            return self.lr
        progress = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress))

    def optimiser(self, model: nn.Module) -> torch.optim.SGD:
        """SGD over the model's parameters, those that `decay` spares in a group of their own."""
        trained = [p for p in model.parameters() if p.requires_grad]
        spared = [p for p in trained if self.decay == "weights" and p.ndim < 2]
        decayed = [p for p in trained if self.decay == "all" or p.ndim >= 2]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=True)


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (all devices).

    Call it before a model is built, so that its initial weights are those of the seed; `fit` then draws
    from a generator of its own. Same seed, machine and number of threads: same bits.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str = "cpu",
    augment: Augment | None = None,
    on_batch: Callable[[], object] | None = None,
    on_epoch: Callable[[], Mapping[str, float]] | None = None,
) -> Iterator[Row]:
    """Train `model` in place, one row of numbers per epoch.

    Args:
        model: maps float32 [B, C, H, W] to logits [B, classes]; moved to `device`.
        data: its training split is shuffled anew each epoch.
        recipe: optimiser, schedule, epochs.
        seed: of order, augmentation and dropout. torch's global generator is left as it was found.
        device: as torch names it.
        augment: from training images in [0, 1], [B, C, H, W], and a CPU generator to such images.
        on_batch: called after every optimiser step.
        on_epoch: called after the last step of an epoch and before validation, with the model in training
            mode; what it returns joins the row.

    Yields:
        epoch (1, 2, …), lr, train_loss (mean over the steps' images, while the weights move), val_loss,
        val_accuracy (evaluation mode), diverged (0 or 1), and the values of `on_epoch`.

        A training or validation loss that is not finite ends the training: the row of that epoch and of
        every later one holds diverged = 1 and nan, so that each run has one row per epoch and an average
        over runs cannot silently become one over the survivors.

    Raises:
        ValueError: torch has no such device, or the batch is larger than the training split.
    """
    place = _device(device)
    model.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    stream = _Stream(data, place, torch.Generator().manual_seed(seed), augment)
    return _epochs(model, recipe, stream, on_batch or (lambda: None), on_epoch or dict)


def evaluate(model: nn.Module, data: Dataset, device: str = "cpu") -> tuple[float, float]:
    """Mean cross-entropy and accuracy of `model` on the validation split, in evaluation mode."""
    place = _device(device)
    return _evaluate(model.to(place), _Stream(data, place, torch.Generator(), None))


def long_rows(history: Iterable[Row], step: str = "epoch") -> Iterator[dict[str, float | str]]:
    """Rows of `fit` as a long table: one {step, metric, value} per number."""
    for row in history:
        for metric, value in row.items():
            if metric != step:
                yield {"step": row[step], "metric": metric, "value": value}


class _Stream:
    """Batches of a data set as the network wants them: augmented, normalised, on the device."""

    def __init__(
        self, data: Dataset, device: torch.device, generator: torch.Generator, augment: Augment | None
    ) -> None:
        self.train, self.validation = data.train.to(device), data.validation.to(device)
        self.device, self.generator, self.augment = device, generator, augment
        self.mean = torch.tensor(data.mean, device=device).view(-1, 1, 1)
        self.std = torch.tensor(data.std, device=device).view(-1, 1, 1)

    def training(self, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.train.batches(recipe.batch_size, self.generator, recipe.drop_last):
            images = images.to(self.device, non_blocking=True)
            if self.augment is not None:
                images = self.augment(images, self.generator)
            yield self._normalised(images), labels.to(self.device, non_blocking=True)

    def validating(self, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.validation.batches(batch_size):
            yield self._normalised(images.to(self.device)), labels.to(self.device)

    def _normalised(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def _epochs(
    model: nn.Module,
    recipe: Recipe,
    stream: _Stream,
    on_batch: Callable[[], object],
    on_epoch: Callable[[], Mapping[str, float]],
) -> Iterator[Row]:
    optimiser = recipe.optimiser(model)
    measured: Row = {}
    diverged = False
    for epoch in range(recipe.epochs):
        rate = recipe.learning_rate(epoch)
        if not diverged:
            train_loss = _train_epoch(model, optimiser, rate, recipe, stream, on_batch)
            watched = dict(on_epoch())
            val_loss, accuracy = _evaluate(model, stream)
            measured = {"train_loss": train_loss, "val_loss": val_loss, "val_accuracy": accuracy, **watched}
            diverged = not math.isfinite(train_loss + val_loss)
        if diverged:
            measured = dict.fromkeys(measured, math.nan)
        yield {"epoch": epoch + 1, "lr": rate, **measured, "diverged": float(diverged)}


def _train_epoch(
    model: nn.Module,
    optimiser: torch.optim.SGD,
    rate: float,
    recipe: Recipe,
    stream: _Stream,
    on_batch: Callable[[], object],
) -> float:
    for group in optimiser.param_groups:
        group["lr"] = rate
    model.train()
    total, seen = torch.zeros((), device=stream.device), 0
    with _own_randomness(stream.generator):
        for images, labels in stream.training(recipe):
            loss = functional.cross_entropy(model(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            on_batch()
            total += loss.detach() * len(labels)
            seen += len(labels)
    return float(total) / seen


@torch.no_grad()
def _evaluate(model: nn.Module, stream: _Stream) -> tuple[float, float]:
    model.eval()
    loss, correct = torch.zeros((), device=stream.device), torch.zeros((), device=stream.device)
    for images, labels in stream.validating():
        logits = model(images)
        loss += functional.cross_entropy(logits, labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    count = len(stream.validation)
    return float(loss) / count, float(correct) / count


@contextmanager
def _own_randomness(generator: torch.Generator) -> Iterator[None]:
    """Dropout and stochastic depth draw from torch's global generators: seed them, then put them back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"torch sees no CUDA device here for device={name!r}; use device='cpu'")
    return device
