"""The training loop: its update against hand-computed steps, its schedules against torch's, its seeds bit for
bit, and what it reports when a run diverges."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ouikit import data
from ouikit.data.augment import policy
from ouikit.nn.models import build
from ouikit.train import Recipe, evaluate, fit, long_rows, seed_everything


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def toy(images: Tensor, labels: Tensor, classes: int = 2) -> data.Dataset:
    """A set whose two splits are the same and whose normalisation changes nothing."""
    split = data.Images(images, labels)
    names, channels = tuple(map(str, range(classes))), images.shape[1]
    return data.Dataset("toy", names, split, split, (0.0,) * channels, (1.0,) * channels, "none")


def numbered(count: int) -> data.Dataset:
    """Image i is one pixel of value i / count; its label is i mod 2."""
    values = torch.arange(count) / count
    return toy(values.view(-1, 1, 1, 1), torch.arange(count) % 2)


def small_net(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(4, 10)]
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *head)


# Schedules and updates


@pytest.mark.parametrize(
    ("epochs", "warmup", "start"), [(200, 0, 0.1), (150, 15, 0.1), (90, 5, 0.01), (3, 2, 0.5)]
)
def test_learning_rates_are_those_of_torch(epochs: int, warmup: int, start: float) -> None:
    """The three schedules of arXiv 2504.17160 (and a short one)."""
    recipe = Recipe(epochs=epochs, batch_size=1, lr=0.3, warmup_epochs=warmup, warmup_start=start)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule: Any = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs - warmup)
    if warmup:
        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
        linear = torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=start, total_iters=warmup)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs - warmup)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [linear, cosine], milestones=[warmup])
    expected = []
    for _ in range(epochs):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert [recipe.learning_rate(epoch) for epoch in range(epochs)] == pytest.approx(expected, abs=1e-12)


def test_constant_rate() -> None:
    recipe = Recipe(epochs=4, batch_size=1, lr=0.3, schedule="constant", warmup_epochs=2)
    assert [recipe.learning_rate(epoch) for epoch in range(4)] == pytest.approx([0.03, 0.165, 0.3, 0.3])


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_two_steps_by_hand(decay: str) -> None:
    """v ← μ v + g + λ w, w ← w − η v, on weight and bias of one logit pair; one image per epoch."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    linear = model[1]
    assert isinstance(linear, nn.Linear)
    nn.init.constant_(linear.weight, 1.0)
    nn.init.constant_(linear.bias, 2.0)
    one = toy(torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]))
    recipe = Recipe(2, 1, lr=0.1, momentum=0.9, weight_decay=0.3, decay=decay, schedule="constant")
    list(fit(model, one, recipe))

    weight, bias = np.ones(2), np.full(2, 2.0)
    velocity_w, velocity_b = np.zeros(2), np.zeros(2)
    for _ in range(2):
        logits = weight * 0.5 + bias
        error = np.exp(logits) / np.exp(logits).sum() - [1, 0]
        velocity_w = 0.9 * velocity_w + 0.5 * error + 0.3 * weight
        velocity_b = 0.9 * velocity_b + error + (0.3 * bias if decay == "all" else 0)
        weight, bias = weight - 0.1 * velocity_w, bias - 0.1 * velocity_b
    assert linear.weight.flatten().tolist() == pytest.approx(weight)
    assert linear.bias.tolist() == pytest.approx(bias)


def test_decay_reaches_normalisation_layers_only_when_all_are_decayed() -> None:
    model = build("convnet6", 10, 1)
    decays = {}
    for decay in ("all", "weights"):
        groups = Recipe(1, 1, lr=0.1, weight_decay=0.5, decay=decay).optimiser_of(model).param_groups
        decays[decay] = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        assert set(decays[decay]) == {id(p) for p in model.parameters()}
    for parameter in model.parameters():
        assert decays["all"][id(parameter)] == 0.5
        assert decays["weights"][id(parameter)] == (0.5 if parameter.ndim > 1 else 0)


def test_adam_couples_weight_decay_and_adamw_does_not() -> None:
    """One step from zero gradients: only the decay moves the weights, by lr (Adam) or lr·λ·w (AdamW)."""
    moved = {}
    for kind in ("adam", "adamw"):
        weight = nn.Parameter(torch.full((2, 2), 2.0))
        model = nn.Module()
        model.weight = weight
        optimiser = Recipe(1, 1, lr=0.1, weight_decay=0.3, optimiser=kind, betas=(0.95, 0.9)).optimiser_of(
            model
        )
        assert all(group["betas"] == (0.95, 0.9) for group in optimiser.param_groups)
        weight.grad = torch.zeros_like(weight)
        optimiser.step()
        moved[kind] = 2.0 - weight.detach()[0, 0].item()
    assert moved["adam"] == pytest.approx(0.1, rel=1e-5)  # sign(λ w) times the rate
    assert moved["adamw"] == pytest.approx(0.1 * 0.3 * 2.0, rel=1e-5)


def test_the_rate_follows_the_steps_from_warm_up_to_its_floor() -> None:
    rates: list[float] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    recipe = Recipe(4, 5, lr=1.0, warmup_epochs=1, warmup_start=0.5, min_lr=0.2, per_step=True)
    optimiser = recipe.optimiser_of(model)
    rows = list(
        fit(
            model,
            numbered(10),
            recipe,
            optimiser=optimiser,
            on_batch=lambda: rates.append(optimiser.param_groups[0]["lr"]),
        )
    )
    cosine = [0.2 + 0.8 * (1 + np.cos(np.pi * k / 6)) / 2 for k in range(6)]
    assert rates == pytest.approx([0.5, 0.75, *cosine])
    assert [row["lr"] for row in rows] == pytest.approx(rates[::2])


def test_clipping_comes_after_the_backward_hook_and_bounds_the_whole_gradient() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    sgd = torch.optim.SGD(model.parameters(), lr=1e-9)
    norms: dict[str, list[float]] = {"before": [], "after": []}

    def norm() -> float:
        return float(nn.utils.get_total_norm(p.grad for p in model.parameters()))

    def enlarge() -> None:
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad += 10
        norms["before"].append(norm())

    recipe = Recipe(1, 5, lr=1e-9, clip=0.5)
    watch = {"on_backward": enlarge, "on_batch": lambda: norms["after"].append(norm())}
    list(fit(model, numbered(10), recipe, optimiser=sgd, **watch))
    assert min(norms["before"]) > 10
    assert norms["after"] == pytest.approx([0.5, 0.5], rel=1e-4)


def test_label_smoothing_changes_the_training_loss_alone() -> None:
    losses = {}
    for smoothing in (0.0, 0.2):
        model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
        nn.init.constant_(model[1].weight, 0.0)
        nn.init.constant_(model[1].bias, 0.0)
        with torch.no_grad():
            model[1].bias[0] = np.log(3.0)  # probabilities 3/4 and 1/4 for every image
        one = toy(torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]))
        (row,) = fit(model, one, Recipe(1, 1, lr=0.0, label_smoothing=smoothing))
        losses[smoothing] = (row["train_loss"], row["val_loss"])
    plain, other = -np.log(0.75), -np.log(0.25)
    assert losses[0.0] == pytest.approx((plain, plain), rel=1e-5)
    assert losses[0.2] == pytest.approx((0.9 * plain + 0.1 * other, plain), rel=1e-5)


# What a pass sees and reports


def test_every_image_once_per_epoch_in_a_new_order() -> None:
    seen: list[float] = []

    def watch(images: Tensor, generator: torch.Generator) -> Tensor:
        seen.extend(images.flatten().tolist())
        return images

    steps: list[None] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    recipe = Recipe(3, 4, lr=0.1, drop_last=False)
    list(fit(model, numbered(10), recipe, augment=watch, on_batch=lambda: steps.append(None)))
    epochs = [tuple(seen[start : start + 10]) for start in (0, 10, 20)]
    assert len(seen) == 30
    assert len(steps) == 9
    assert len(set(epochs)) == 3
    assert all(sorted(epoch) == pytest.approx([i / 10 for i in range(10)]) for epoch in epochs)
    seen.clear()
    list(fit(model, numbered(10), Recipe(1, 4, lr=0.1), augment=watch))
    assert len(seen) == 8


def test_normalisation_comes_after_augmentation_and_validation_is_not_augmented() -> None:
    shifted = toy(torch.full((4, 1, 2, 2), 0.5), torch.tensor([0, 1, 0, 1]))
    shifted = data.Dataset("toy", ("a", "b"), shifted.train, shifted.validation, (0.25,), (0.5,), "none")
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    inputs: dict[bool, set[float]] = {True: set(), False: set()}
    model.register_forward_pre_hook(
        lambda module, args: inputs[module.training].update(args[0].unique().tolist())
    )
    list(fit(model, shifted, Recipe(1, 2, lr=0.1), augment=lambda images, generator: images + 0.25))
    assert inputs == {True: {1.0}, False: {0.5}}


def test_reported_numbers_by_hand() -> None:
    """A model that nothing can change: logits (0, log 3) for every image, two images of four of class 1."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Parameter(torch.zeros(1))

        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([0.0, math.log(3)]).expand(len(images), 2) + 0 * self.idle

    rows = list(fit(Fixed(), numbered(4), Recipe(2, 3, lr=0.1, drop_last=False)))
    loss = (math.log(4) + math.log(4 / 3)) / 2
    for number, row in enumerate(rows, start=1):
        assert row == pytest.approx(
            {
                "epoch": number,
                "lr": 0.1 if number == 1 else 0.05,
                "train_loss": loss,
                "val_loss": loss,
                "val_accuracy": 0.5,
                "diverged": 0,
            }
        )
    assert evaluate(Fixed(), numbered(4)) == pytest.approx((loss, 0.5))


def test_modes_and_the_observer() -> None:
    digits = data.load("digits", train_size=100)
    model = small_net()
    modes: list[bool] = []

    def watch() -> dict[str, float]:
        modes.append(model.training)
        return {"watched": float(len(modes))}

    rows = fit(model, digits, Recipe(2, 50, lr=0.1), on_epoch=watch)
    first = next(rows)
    assert first["watched"] == 1
    assert not model.training, "validation comes last, in evaluation mode"
    again = evaluate(model, digits)
    assert again == (first["val_loss"], first["val_accuracy"])
    assert next(rows)["watched"] == 2
    assert modes == [True, True]


def test_it_learns_real_digits() -> None:
    seed_everything(0)
    model = build("convnet6", 10, 1)
    rows = list(fit(model, data.load("digits"), Recipe(4, 50, lr=0.05), augment=policy("shift")))
    assert rows[-1]["val_accuracy"] > 0.8
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] / 2


def test_long_rows() -> None:
    history = [{"epoch": 1, "lr": 0.1, "oui": 0.7}, {"epoch": 2, "lr": 0.05, "oui": 0.6}]
    assert list(long_rows(history))[1:3] == [
        {"step": 1, "metric": "oui", "value": 0.7},
        {"step": 2, "metric": "lr", "value": 0.05},
    ]


# Seeds


def run(seed: int, disturb: bool = False) -> tuple[list[dict[str, float]], list[Tensor]]:
    model = small_net(dropout=0.3)
    if disturb:
        seed_everything(12345)
    rows = []
    for row in fit(
        model, data.load("digits", train_size=100), Recipe(3, 20, lr=0.1), seed=seed, augment=policy("shift")
    ):
        rows.append(row)
        if disturb:
            torch.rand(7)
            np.random.rand(7)
    return rows, [parameter.detach().clone() for parameter in model.parameters()]


def test_same_seed_same_bits_whatever_the_global_generators_do() -> None:
    rows, weights = run(seed=0)
    again, same = run(seed=0, disturb=True)
    assert rows == again
    assert all(map(torch.equal, weights, same))
    other, different = run(seed=1)
    assert rows != other
    assert not any(map(torch.equal, weights, different))


def test_global_generators_are_left_alone() -> None:
    model = small_net(dropout=0.3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    for _ in fit(model, data.load("digits", train_size=100), Recipe(2, 20, lr=0.1), augment=policy("shift")):
        assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    assert random.getstate() == states[2]


def test_seed_everything() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(3)
    first = draws()
    assert draws() != first
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


# Faults


def test_a_diverged_run_keeps_its_rows_and_stops_its_work() -> None:
    model, steps = small_net(), []
    rows = list(
        fit(
            model,
            data.load("digits", train_size=100),
            Recipe(5, 50, lr=1e10, weight_decay=1.0),
            on_batch=lambda: steps.append(1),
            on_epoch=lambda: {"oui": 0.5},
        )
    )
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["diverged"] for row in rows][-1] == 1
    start = [row["diverged"] for row in rows].index(1)
    assert len(steps) == 2 * (start + 1)
    for row in rows[start:]:
        assert math.isfinite(row["lr"])
        assert all(math.isnan(row[key]) for key in ("train_loss", "val_loss", "val_accuracy", "oui"))
    assert len({tuple(row) for row in rows}) == 1, "the keys change on the way"


def test_a_validation_loss_that_is_not_finite_counts_as_divergence() -> None:
    class FailsInEvaluation(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input.flatten(1)) * (1.0 if self.training else math.nan)

    rows = list(fit(FailsInEvaluation(1, 2), numbered(4), Recipe(2, 2, lr=0.1)))
    assert [row["diverged"] for row in rows] == [1, 1]
    assert all(math.isnan(row["val_accuracy"]) and math.isnan(row["train_loss"]) for row in rows)


@pytest.mark.parametrize("rate", [0.1, 1e10])
def test_validation_after_the_last_epoch_alone_changes_nothing_else(rate: float) -> None:
    ends, rows = [], []
    for every in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        digits = data.load("digits", train_size=100)
        rows.append(list(fit(model, digits, Recipe(3, 50, lr=rate), validate_all=every)))
        ends.append([*model.parameters()])
    for row, sparse in zip(*rows, strict=True):
        assert sparse.keys() == row.keys()
        measured = {"epoch", "lr", "train_loss", "diverged"} if row["epoch"] < 3 else {*row}
        assert all(sparse[name] == row[name] for name in measured), sparse
        assert all(math.isnan(sparse[name]) for name in row.keys() - measured)
    assert all(map(torch.equal, *ends))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"schedule": "cosin"}, "cosine, constant: got 'cosin'"),
        ({"decay": "some"}, "all, weights: got 'some'"),
        ({"warmup_epochs": 5}, "got 5 of 5"),
        ({"warmup_epochs": -1}, "got -1"),
        ({"epochs": 0}, "got 0 of 0"),
    ],
)
def test_recipes_are_checked(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{"epochs": 5, "batch_size": 2, "lr": 0.1, **option})


def test_wrong_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with pytest.raises(ValueError, match="got 11"):
        next(fit(model, numbered(10), Recipe(1, 11, lr=0.1)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device='cpu'"):
        fit(model, numbered(10), Recipe(1, 2, lr=0.1), device="cuda")
