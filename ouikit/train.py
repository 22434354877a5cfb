"""One training, as the papers run it: a recipe, a data set, one row of numbers per epoch.

    for row in fit(model, data, Recipe(epochs=60, batch_size=50, lr=0.05, weight_decay=1e-3), seed=0):
        print(row["epoch"], row["val_accuracy"])

The loop knows nothing of what watches or steers it: `on_backward` and `on_batch` are called at every step,
and what `on_epoch` returns joins the row. Chains of linear layers are trained without a tape where nothing
needs one (`ouikit.nn.chain`), with the same bits.
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
from ouikit.nn.chain import Chain, chain_of

Row = dict[str, float]
Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to train; defaults are those that the three experiments of arXiv 2504.17160 share.

    Attributes:
        epochs, batch_size: passes over the training split, images per step.
        lr: the peak learning rate.
        momentum: of SGD, without Nesterov; the other optimisers have `betas`.
        weight_decay: decoupled with "adamw", otherwise coupled L2, added to the gradient.
        decay: "all" parameters, normalisation and biases included (as in the paper), or "weights" alone.
        schedule: "cosine" to min_lr at the end, or "constant".
        warmup_epochs, warmup_start: linear warm-up from warmup_start · lr before the schedule starts.
        drop_last: leave out an incomplete last training batch.
        optimiser: "sgd", "adam" or "adamw".
        betas: of Adam and AdamW.
        min_lr: where the cosine ends.
        per_step: the rate changes at every step instead of once per epoch.
        label_smoothing: of the training loss; validation never smooths.
        clip: largest norm of all gradients together; None leaves them as they are.
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay: str = "all"
    schedule: str = "cosine"
    warmup_epochs: float = 0
    warmup_start: float = 0.1
    drop_last: bool = True
    optimiser: str = "sgd"
    betas: tuple[float, float] = (0.9, 0.999)
    min_lr: float = 0.0
    per_step: bool = False
    label_smoothing: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        choices = {
            "decay": ("all", "weights"),
            "schedule": ("cosine", "constant"),
            "optimiser": ("sgd", "adam", "adamw"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}: got {getattr(self, name)!r}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs must be ≥ 0 and fewer than epochs: got {self.warmup_epochs} of {self.epochs}"
            )

    def learning_rate(self, epoch: float) -> float:
        """The rate after so many epochs, 0 ≤ epoch < epochs (torch's LinearLR, then CosineAnnealingLR)."""
        if epoch < self.warmup_epochs:
            return self.lr * (self.warmup_start + (1 - self.warmup_start) * epoch / self.warmup_epochs)
        if self.schedule == "constant":
            return self.lr
        progress = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))

    def optimiser_of(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of the model's parameters, those that `decay` spares in a group of their own."""
        trained = [p for p in model.parameters() if p.requires_grad]
        spared = [p for p in trained if self.decay == "weights" and p.ndim < 2]
        decayed = [p for p in trained if self.decay == "all" or p.ndim >= 2]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        if self.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=True)
        kind = torch.optim.Adam if self.optimiser == "adam" else torch.optim.AdamW
        return kind(groups, lr=self.lr, betas=self.betas, fused=True)


def nothing() -> None:
    """What watches or steers nothing."""


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (all devices).

    Call it before a model is built, so that its initial weights are those of the seed; `fit` then draws
    from a generator of its own. Same seed, machine and number of threads: same bits.
    """
    random.seed(seed)
    np.random.seed(seed)
    _seed_torch(seed)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch with one thread: it then adds in the same order on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str = "cpu",
    augment: Augment | None = None,
    optimiser: torch.optim.Optimizer | None = None,
    on_backward: Callable[[], object] = nothing,
    on_batch: Callable[[], object] = nothing,
    on_epoch: Callable[[], Mapping[str, float]] = dict,
    validate_all: bool = True,
) -> Iterator[Row]:
    """Train `model` in place, one row of numbers per epoch.

    Args:
        model: maps float32 [B, C, H, W] to logits [B, classes]; moved to `device`.
        data: its training split is shuffled anew each epoch.
        recipe: optimiser, schedule, epochs.
        seed: of order, augmentation and dropout. torch's global generator is left as it was found.
        device: as torch names it.
        augment: from training images in [0, 1], [B, C, H, W], and a CPU generator to such images.
        optimiser: one over the model's parameters with groups of its own, such as those of
            `ouikit.optim.OUIDecay`; its rates follow the recipe. None takes `recipe.optimiser_of(model)`.
        on_backward: called when the gradients are there, before they are clipped.
        on_batch: called after every optimiser step.
        on_epoch: called after the last step of an epoch and before validation, with the model in training
            mode; what it returns joins the row.
        validate_all: False validates after the last epoch alone; val_loss and val_accuracy are nan before.

    Yields:
        epoch (1, 2, …), lr, train_loss (mean over the steps' images, while the weights move), val_loss,
        val_accuracy (evaluation mode), diverged (0 or 1), and the values of `on_epoch`.

        A training loss or a measured validation loss that is not finite ends the training: the row of that
        epoch and of every later one holds diverged = 1 and nan, so that each run has one row per epoch and an
        average over runs cannot silently become one over the survivors.

    Raises:
        ValueError: torch has no such device, or the batch is larger than the training split.
    """
    place = _device(device)
    if place.type != "cpu" or not chain_of(model):  # a chain is there, and has no images' memory format
        model.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    stream = _Stream(data, place, torch.Generator().manual_seed(seed), augment)
    return _epochs(_Steps(model, optimiser, recipe, stream, on_backward, on_batch, on_epoch), validate_all)


def evaluate(model: nn.Module, data: Dataset, device: str = "cpu") -> tuple[float, float]:
    """Mean cross-entropy and accuracy of `model` on the validation split, in evaluation mode."""
    place = _device(device)
    chain = chain_of(model) if place.type == "cpu" else None
    stream = _Stream(data, place, torch.Generator(), None)
    return _evaluate(model if chain else model.to(place), stream, chain)


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
        self.standardised = not any(data.mean) and set(data.std) == {1.0}
        if not self.standardised:
            self.mean = torch.tensor(data.mean, device=device).view(-1, 1, 1)
            self.std = torch.tensor(data.std, device=device).view(-1, 1, 1)

    def training(self, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.train.batches(recipe.batch_size, self.generator, recipe.drop_last):
            if images.device != self.device:
                images = images.to(self.device, non_blocking=True)
                labels = labels.to(self.device, non_blocking=True)
            if self.augment is not None:
                images = self.augment(images, self.generator)
            yield self._normalised(images), labels

    def steps(self, recipe: Recipe) -> int:
        """Training batches per epoch."""
        batches = len(self.train) / recipe.batch_size
        return math.floor(batches) if recipe.drop_last else math.ceil(batches)

    def validating(self, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.validation.batches(batch_size):
            yield self._normalised(images.to(self.device)), labels.to(self.device)

    def _normalised(self, images: Tensor) -> Tensor:
        if self.standardised:
            return images.contiguous(memory_format=torch.channels_last)
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class _Steps:
    """What turns batches into new weights: with a tape, or without where the model is a chain."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer | None,
        recipe: Recipe,
        stream: _Stream,
        on_backward: Callable[[], object],
        on_batch: Callable[[], object],
        on_epoch: Callable[[], Mapping[str, float]],
    ) -> None:
        self.model, self.recipe, self.stream = model, recipe, stream
        self.chain: Chain | None = None  # what the model was in the last epoch
        self.on_backward, self.on_batch, self.on_epoch = on_backward, on_batch, on_epoch
        self._optimiser, self._momenta = optimiser, dict[Tensor, Tensor]()
        uniform = recipe.decay == "all" or not recipe.weight_decay
        self._own = optimiser is None and recipe.optimiser == "sgd" and uniform  # one kernel is enough
        hooks = (on_backward, on_batch, on_epoch) != (nothing, nothing, dict)
        self._seen = hooks or not self._own or recipe.clip is not None  # gradients, and the model's mode

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """The one that was given, or the recipe's, made when it is first asked for."""
        if self._optimiser is None:
            self._optimiser, self._seen = self.recipe.optimiser_of(self.model), True
            for parameter, momentum in self._momenta.items():
                self._optimiser.state[parameter]["momentum_buffer"] = momentum
        return self._optimiser

    def epoch(self, epoch: int) -> float:
        """Train for one epoch; the mean loss of its images, while the weights move."""
        chain = self.chain = self._chain()
        if chain and not self._seen and self.stream.augment is None:
            torch.randint(2**62, (), generator=self.stream.generator)  # as `_own_randomness` draws
            return self._mean_loss(epoch, chain)  # no dropout in it
        self.model.train()
        with _own_randomness(self.stream.generator):
            return self._mean_loss(epoch, chain)

    def _mean_loss(self, epoch: int, chain: Chain | None) -> float:
        total, seen = torch.zeros((), device=self.stream.device), 0
        per_epoch = self.stream.steps(self.recipe)
        for step, (images, labels) in enumerate(self.stream.training(self.recipe)):
            rate = self.recipe.learning_rate(epoch + step / per_epoch if self.recipe.per_step else epoch)
            count = labels.shape[0]
            total += self._step(chain, images, labels, rate) * count
            seen += count
        if chain and not self._seen:
            chain.hand_over()
        return float(total) / seen

    def _chain(self) -> Chain | None:
        labels = self.stream.train.labels
        plain = self.stream.device.type == "cpu" and labels.dtype == torch.int64 and labels.ndim == 1
        if not plain or self.recipe.label_smoothing or not torch.is_grad_enabled():
            return None
        return chain_of(self.model)

    def evaluated(self) -> Chain | None:
        """The chain by which to validate; what was called meanwhile may have changed the model."""
        return chain_of(self.model) if self.chain and self._seen else self.chain

    def _step(self, chain: Chain | None, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        if chain:
            loss = chain.backward(images, labels)
            if self._seen:
                chain.hand_over()
        else:
            loss = functional.cross_entropy(
                self.model(images), labels, label_smoothing=self.recipe.label_smoothing
            )
            self.optimiser.zero_grad()
            loss.backward()
        self.on_backward()
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self._descend(chain, rate)
        self.on_batch()
        return loss.detach()

    def _descend(self, chain: Chain | None, rate: float) -> None:
        """The optimiser's step; of SGD on a chain its kernel alone, around which torch spends most time."""
        if chain and self._own and self._optimiser is None:
            given = [p.grad for p in chain.parameters] if self._seen else chain.gradients
            gradients = [gradient for gradient in given if gradient is not None]
            if len(gradients) == len(given):
                self._sgd(chain, gradients, rate)
                return
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()

    def _sgd(self, chain: Chain, gradients: list[Tensor], rate: float) -> None:
        momentum = self.recipe.momentum
        first = momentum != 0 and not self._momenta
        if first:
            self._momenta = {p: torch.empty_like(p, requires_grad=False) for p in chain.parameters}
        torch._fused_sgd_(
            chain.values,
            gradients,
            [*self._momenta.values()],
            weight_decay=self.recipe.weight_decay,
            momentum=momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=first,
        )


def _epochs(steps: _Steps, validate_all: bool) -> Iterator[Row]:
    measured: Row = {}
    diverged = False
    for epoch in range(steps.recipe.epochs):
        if not diverged:
            losses = [train_loss := steps.epoch(epoch)]
            watched = dict(steps.on_epoch())
            val_loss = accuracy = math.nan
            if validate_all or epoch + 1 == steps.recipe.epochs:
                val_loss, accuracy = _evaluate(steps.model, steps.stream, steps.evaluated())
                losses.append(val_loss)
            measured = {"train_loss": train_loss, "val_loss": val_loss, "val_accuracy": accuracy, **watched}
            diverged = not all(map(math.isfinite, losses))
        if diverged:
            measured = dict.fromkeys(measured, math.nan)
        rate = steps.recipe.learning_rate(epoch)
        yield {"epoch": epoch + 1, "lr": rate, **measured, "diverged": float(diverged)}


@torch.no_grad()
def _evaluate(model: nn.Module, stream: _Stream, chain: Chain | None) -> tuple[float, float]:
    if not chain or model.training:  # no module of a chain has two modes
        model.eval()
    logits_of = chain.forward if chain else model
    loss, correct = torch.zeros((), device=stream.device), torch.zeros((), device=stream.device)
    for images, labels in stream.validating():
        logits = logits_of(images)
        loss += functional.cross_entropy(logits, labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    count = len(stream.validation)
    return float(loss) / count, float(correct) / count


@contextmanager
def _own_randomness(generator: torch.Generator) -> Iterator[None]:
    """Dropout and stochastic depth draw from torch's global generators: seed them, then put them back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        _seed_torch(int(torch.randint(2**62, (), generator=generator)))
        yield


def _seed_torch(seed: int) -> None:
    """`torch.manual_seed`, which without an accelerator spends up to 2 ms on seeds that nobody will ask for.

    For each absent device it notes the call for later, with a formatted copy of the whole Python stack.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"torch sees no CUDA device here for device={name!r}; use device='cpu'")
    return device
