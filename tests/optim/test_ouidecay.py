"""OUIDecay: map, groups, timing of readings and updates, resuming; AdaDecay against its formula."""

import copy
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ouikit import balance_oui
from ouikit.bench import ouidecay as bench
from ouikit.nn import models
from ouikit.optim import (
    OUIDecay,
    adadecay_,
    decay_groups,
    dynamic_layers,
    ouidecay_scales,
    permuted_scales,
    reversed_scales,
)

MAPS = [ouidecay_scales, reversed_scales, permuted_scales]
readings = st.lists(st.integers(0, 1000).map(lambda k: k / 1000), min_size=1, max_size=9)


def mlp(layers: int = 4) -> nn.Sequential:
    """Linear layers of 6 units, with batch normalisation and ReLU between them."""
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()]
    return nn.Sequential(*parts[:-2])


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(inplace=True),
        nn.Conv2d(5, 3, 3, padding=1), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(3 * 16, 2),
    )  # fmt: skip


def steered(
    model: nn.Module, weight_decay: float = 0.5, **settings
) -> tuple[OUIDecay, torch.optim.Optimizer]:
    optimiser = torch.optim.AdamW(decay_groups(model, weight_decay), lr=1e-2)
    return OUIDecay(model, optimiser, **settings), optimiser


def train_step(model: nn.Module, optimiser: torch.optim.Optimizer, control: OUIDecay, x: Tensor) -> bool:
    optimiser.zero_grad()
    model(x).square().mean().backward()
    optimiser.step()
    return control.step()


def decays(optimiser: torch.optim.Optimizer) -> list[float]:
    return [group["weight_decay"] for group in optimiser.param_groups]


# --- The map --------------------------------------------------------------------------------------


def test_the_map_by_hand() -> None:
    assert ouidecay_scales([0, 0.5, 1]) == pytest.approx([2 / 3, 17 / 6, 5], abs=1e-6)
    assert ouidecay_scales([0.3, 0.1], window=(0.5, 2)) == pytest.approx([2, 0.5], abs=1e-6)
    assert ouidecay_scales([0.4, 0.4, 0.4]) == [2 / 3] * 3
    assert ouidecay_scales([0.9]) == [2 / 3]
    assert reversed_scales([0, 0.25, 1]) == pytest.approx([5, 47 / 12, 2 / 3], abs=1e-6)


@given(readings, st.floats(0.1, 10), st.floats(-5, 5))
def test_the_map_sees_neither_shift_nor_unit(oui: list[float], unit: float, shift: float) -> None:
    moved = [unit * value + shift for value in oui]
    assert ouidecay_scales(moved) == pytest.approx(ouidecay_scales(oui), abs=1e-3)


@given(readings)
def test_the_map_keeps_the_order_and_fills_the_window(oui: list[float]) -> None:
    scales = np.array(ouidecay_scales(oui))
    order = np.argsort(oui, kind="stable")
    assert (np.diff(scales[order]) >= 0).all()
    assert (np.diff(scales[order]) > 0).tolist() == (np.diff(np.array(oui)[order]) > 0).tolist()
    assert scales.min() == 2 / 3
    if max(oui) > min(oui):
        assert scales.max() == pytest.approx(5, abs=1e-4)


@given(readings, st.integers(0, 5))
def test_the_permuted_control_moves_the_same_multipliers(oui: list[float], seed: int) -> None:
    permuted = permuted_scales(oui, (0.5, 2), seed)
    assert sorted(permuted) == sorted(ouidecay_scales(oui, (0.5, 2)))
    assert permuted == permuted_scales(oui, (0.5, 2), seed)


def test_the_permuted_control_forgets_which_layer_was_high() -> None:
    rng = np.random.default_rng(0)
    top = [np.argmax(permuted_scales([0.0, 0.3, 0.6, 1 + rng.random()])) for _ in range(400)]
    counts = np.bincount(top, minlength=4)
    assert (np.abs(counts - 100) < 4 * math.sqrt(400 * 0.25 * 0.75)).all()
    draws = {tuple(permuted_scales([0.0, 0.3, 0.6, 1.0], seed=seed)) for seed in range(50)}
    assert len(draws) > 10


@pytest.mark.parametrize("scales", MAPS)
@pytest.mark.parametrize(
    ("oui", "window", "message"),
    [
        ([], (0.5, 2), "empty"),
        ([0.1, math.nan], (0.5, 2), "finite"),
        ([0.1, math.inf], (0.5, 2), "finite"),
        ([0.1], (2, 0.5), "window"),
        ([0.1], (-1, 0.5), "window"),
        ([0.1], (0.5, math.inf), "window"),
    ],
)
def test_the_map_says_what_is_wrong(scales: Callable, oui, window, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scales(oui, window)


# --- Layers and groups ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [("efficientnet_b0", 80), ("resnet50", 52), ("densenet121", 119), ("mobilenet_v2", 51)],
)
def test_the_papers_layer_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        model = models.build(name, 10, 3)
    assert len(dynamic_layers(model)) == count
    assert len(dynamic_layers(model, ends=True)) == count + 2


@pytest.mark.parametrize("name", ["convnet12", "resnet18"])
def test_every_parameter_is_in_one_group_with_the_decay_of_its_kind(name: str) -> None:
    with torch.device("meta"):
        model = models.build(name, 10, 3)
    groups = decay_groups(model, 0.25)
    steered = [group for group in groups if "layer" in group]
    assert [group["layer"] for group in steered] == list(dynamic_layers(model))
    for group in steered:
        assert group["params"] == [model.get_submodule(group["layer"]).weight]
    grouped = [p for group in groups for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))
    assert {p.ndim >= 2: g["weight_decay"] for g in groups for p in g["params"]} == {True: 0.25, False: 0.0}
    first, last = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)][:: len(steered) + 1]
    (other,) = [g for g in groups if "layer" not in g and g["weight_decay"] > 0]
    assert {id(p) for p in other["params"]} == {id(first.weight), id(last.weight)}


def test_frozen_and_shared_weights() -> None:
    model = mlp(5)
    layers = [module for module in model if isinstance(module, nn.Linear)]
    layers[2].weight.requires_grad_(False)
    layers[3].weight = layers[1].weight
    assert list(dynamic_layers(model, ends=True)) == ["0", "3", "12"]
    grouped = [id(p) for group in decay_groups(model, 1.0) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert id(layers[2].weight) not in grouped


def test_groups_say_what_is_wrong() -> None:
    model = mlp()
    with pytest.raises(ValueError, match="ends=True"):
        dynamic_layers(mlp(2))
    with pytest.raises(ValueError, match="-1"):
        decay_groups(model, -1)
    with pytest.raises(KeyError, match="'nine'"):
        decay_groups(model, 0.1, layers=["nine"])
    with pytest.raises(ValueError, match="BatchNorm1d"):
        decay_groups(model, 0.1, layers=["1"])
    with pytest.raises(ValueError, match="decay_groups"):
        OUIDecay(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="same model"):
        OUIDecay(mlp(), torch.optim.SGD(decay_groups(model, 0.1), lr=0.1))
    merged = [{"params": list(model.parameters()), "weight_decay": 0.1, "layer": "3"}]
    with pytest.raises(ValueError, match="same model"):
        OUIDecay(model, torch.optim.SGD(merged, lr=0.1))
    groups = [{k: v for k, v in group.items() if k != "weight_decay"} for group in decay_groups(model, 0.1)]
    with pytest.raises(ValueError, match="Rprop has no weight decay"):
        OUIDecay(model, torch.optim.Rprop(groups, lr=0.1))
    for wrong in ({"gap": 0}, {"memory": 0}, {"window": (3, 1)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            steered(model, **wrong)


# --- Reading and updating -------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "memory"), [(7, 3), (7, 5), (2, 5), (1, 3), (5, 5)])
def test_the_decay_against_a_loop_that_reads_every_step(gap: int, memory: int) -> None:
    """The page's algorithm word for word, on outputs without positions, where nothing is drawn."""
    model = mlp(5)
    control, optimiser = steered(model, 0.5, gap=gap, memory=memory)
    raw: dict[str, Tensor] = {}
    for name in dynamic_layers(model):
        model.get_submodule(name).register_forward_hook(lambda m, i, z, name=name: raw.update({name: z}))
    history: list[list[float]] = []
    expected, total, base = [0.5] * 3, 0.0, 0.0
    for step in range(1, 22):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 / step  # a scheduler that touches the same groups
        updated = train_step(model, optimiser, control, torch.randn(9, 6))
        total, base = total + sum(expected) / 3 / 0.5 * 0.01 / step, base + 0.01 / step
        history.append([balance_oui(z > 0) for z in raw.values()])
        assert updated == (step % gap == 0)
        if updated:
            seen = np.mean(history[-memory:], axis=0)
            expected = [0.5 * scale for scale in ouidecay_scales(seen.tolist())]
            assert control.log[-1].step == step
            assert list(control.log[-1].oui.values()) == pytest.approx(seen)
            assert list(control.log[-1].weight_decay.values()) == decays(optimiser)[:3]
        assert decays(optimiser) == pytest.approx([*expected, 0.5, 0.0])
    assert len(control.log) == 21 // gap
    assert control.mean_multiplier == pytest.approx(total / base)


def test_the_raw_output_is_read_before_normalisation_and_an_in_place_gate() -> None:
    model = nn.Sequential(
        nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Linear(2, 2), nn.Linear(2, 2)
    )
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight.copy_(torch.eye(2))
                layer.bias.zero_()
        model[1].bias[0] = 9.0  # always on; the other unit splits the batch
        model[3].bias.fill_(-99.0)  # never on
    control, optimiser = steered(model, gap=1)
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 2.0], [-1.0, -2.0]])
    train_step(model, optimiser, control, x)
    assert control.log[0].oui == {"1": 0.5, "3": 0.0}


def test_one_position_per_sample_with_all_its_channels() -> None:
    model = convolutional()
    control, _ = steered(model, gap=1, memory=1)
    where = torch.arange(4 * 5 * 16.0).view(4, 5, 4, 4)  # sample, channel, row, column
    samples = []
    for layout in (torch.contiguous_format, torch.channels_last):
        for _ in range(200):
            sampled = control._reader._one_position(where.contiguous(memory_format=layout), True)
            assert sampled.shape == (4, 5)
            spots = sampled - torch.arange(4).view(4, 1) * 80 - torch.arange(5) * 16
            assert (spots == spots[:, :1]).all()
            samples.append(spots[:, 0])
    drawn = torch.stack(samples).long()
    counts = torch.bincount(drawn.flatten(), minlength=16)
    assert (counts - 100).abs().max() < 5 * math.sqrt(100)
    assert (drawn[:, 0] == drawn[:, 1]).float().mean() < 0.2  # drawn for every sample
    tokens = torch.arange(4 * 3 * 7 * 5.0).view(4, 3, 7, 5)
    token = control._reader._one_position(tokens, False)
    assert token.shape == (4, 5)
    assert (token[:, 1:] - token[:, :-1] == 1).all()


def test_each_layer_draws_positions_of_its_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left, self.right = (nn.Conv2d(1, 1, 1, bias=False) for _ in range(3))
            self.head = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head((self.left(x) + self.right(x)).mean((2, 3)))

    model = Twice()
    with torch.no_grad():
        for layer in (model.stem, model.left, model.right):
            layer.weight.fill_(1.0)
    control, _ = steered(model, gap=1)
    model(torch.randn(64, 1, 5, 5))
    latest = control._reader.take()
    assert not torch.equal(latest["left"][0], latest["right"][0])


def test_only_training_passes_that_an_update_will_use_are_read() -> None:
    model = mlp()
    control, optimiser = steered(model, gap=6, memory=2)
    read = []
    for _ in range(12):
        model.train()
        model(torch.randn(8, 6))
        read.append(len(control._reader._latest))
        model.eval()
        model(torch.randn(8, 6))
        optimiser.step()
        control.step()
    assert read == [0, 0, 0, 0, 2, 2] * 2
    control.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_batches_of_one_sample_are_passed_over_and_the_last_pass_counts() -> None:
    model = mlp()
    for module in model:
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    control, optimiser = steered(model, gap=3, memory=3)
    batches = [torch.randn(8, 6), torch.randn(1, 6), torch.randn(8, 6)]
    values = []
    for x in batches:
        model.train(len(x) > 1)
        model.training = True
        model(torch.randn(8, 6)) if len(x) > 1 else None  # a first pass of accumulated gradients
        hidden = model[0](x)
        model(x)
        if len(x) > 1:
            with torch.no_grad():
                values.append(balance_oui(model[3](model[2](model[1](hidden))) > 0))
        optimiser.step()
        control.step()
    assert control.log[0].oui["3"] == pytest.approx(np.mean(values))


def test_training_goes_on_as_if_nobody_watched() -> None:
    weights = []
    for gap in (1, 10**6):
        model = convolutional()
        control, optimiser = steered(model, 0.0, gap=gap)
        torch.manual_seed(1)
        for _ in range(5):
            train_step(model, optimiser, control, torch.randn(8, 1, 4, 4))
        weights.append([p.detach().clone() for p in model.parameters()] + [torch.rand(3)])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "NAdam", "Adagrad"])
def test_any_optimiser_with_weight_decay_and_an_lr_scheduler(kind: str) -> None:
    model = convolutional()
    optimiser = getattr(torch.optim, kind)(decay_groups(model, 0.1), lr=0.01)
    control = OUIDecay(model, optimiser, gap=2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + step))
    for _ in range(4):
        train_step(model, optimiser, control, torch.randn(16, 1, 4, 4))
        schedule.step()
    assert sorted(decays(optimiser)[:2]) == pytest.approx([0.1 * 2 / 3, 0.5])
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.002] * 4)


def test_other_maps() -> None:
    logs = []
    for mapping in (ouidecay_scales, reversed_scales, partial(permuted_scales, seed=3)):
        model = mlp(5)
        control, optimiser = steered(model, gap=2, mapping=mapping, window=(0.5, 2))
        torch.manual_seed(0)
        for _ in range(2):
            train_step(model, optimiser, control, torch.randn(9, 6))
        logs.append(control.log[0])
        oui = list(logs[-1].oui.values())
        assert decays(optimiser)[:3] == pytest.approx([0.5 * s for s in mapping(oui, (0.5, 2))])
    assert logs[0].oui == logs[1].oui == logs[2].oui
    model = mlp(5)
    for bad in (
        lambda oui, window: [1.0],
        lambda oui, window: [math.nan] * 3,
        lambda oui, window: [-1.0] * 3,
    ):
        control, optimiser = steered(model, gap=1, mapping=bad)
        with pytest.raises(ValueError, match="mapping must give 3"):
            train_step(model, optimiser, control, torch.randn(9, 6))
        control.close()


def test_what_cannot_be_read_is_said() -> None:
    model = mlp()
    control, optimiser = steered(model, gap=2)
    with pytest.raises(RuntimeError, match="learning rate"):
        _ = control.mean_multiplier
    optimiser.step()
    control.step()
    optimiser.step()
    with pytest.raises(RuntimeError, match="no reading of any steered layer at step 2"):
        control.step()


def test_a_diverged_training_keeps_its_decay_and_goes_on() -> None:
    model = mlp()
    control, optimiser = steered(model, gap=1)
    train_step(model, optimiser, control, torch.randn(9, 6))
    before, log = dict(control.scales), list(control.log)
    with torch.no_grad():
        model[6].bias[1] = math.nan
    assert not train_step(model, optimiser, control, torch.randn(9, 6))
    assert control.scales == before
    assert control.log == log


# --- Where λ₀ is ---


def used_decays(optimiser: torch.optim.Optimizer) -> list[list[float]]:
    """What the steps that follow decay by."""
    used: list[list[float]] = []
    optimiser.register_step_pre_hook(lambda *_: used.append(decays(optimiser)[:2]))
    return used


def test_a_second_control_and_a_resume_without_state_start_from_the_first_decay() -> None:
    model = mlp()
    optimiser = torch.optim.AdamW(decay_groups(model, 0.5), lr=1e-2)
    for close in (True, False, True):  # also beside one that was forgotten
        control = OUIDecay(model, optimiser, gap=2)
        assert decays(optimiser) == [0.5, 0.5, 0.5, 0.0]
        for _ in range(4):
            train_step(model, optimiser, control, torch.randn(9, 6))
        assert max(decays(optimiser)) == pytest.approx(2.5)
        if close:
            control.close()
    for first in (True, False):
        again = mlp()
        resumed = torch.optim.AdamW(decay_groups(again, 0.7), lr=1e-2)
        control = None if first else OUIDecay(again, resumed, gap=2)
        resumed.load_state_dict(optimiser.state_dict())
        control = control or OUIDecay(again, resumed, gap=2)
        used = used_decays(resumed)
        for _ in range(3):
            train_step(again, resumed, control, torch.randn(9, 6))
        assert used[:2] == [[0.5, 0.5]] * 2
        assert sorted(used[2]) == pytest.approx([0.5 * 2 / 3, 2.5])


def test_a_schedule_of_weight_decay_is_multiplied_and_the_log_says_what_was_used() -> None:
    model = mlp()
    control, optimiser = steered(model, gap=2)
    used, written = used_decays(optimiser), [0.1, 0.2, 0.3, 0.3, 0.4, 0.5]
    for value in written:
        for group in optimiser.param_groups[:2]:
            group["weight_decay"] = value
        train_step(model, optimiser, control, torch.randn(9, 6))
    assert used[:2] == [[0.1, 0.1], [0.2, 0.2]]
    for step in range(2, 6):
        update = control.log[step // 2 - 1]
        scales = [decay / written[2 * (step // 2) - 1] for decay in update.weight_decay.values()]
        assert sorted(scales) == pytest.approx([2 / 3, 5])
        assert used[step] == pytest.approx([written[step] * scale for scale in scales])
    assert control.mean_multiplier == pytest.approx((2 * 2 + 4 * (2 / 3 + 5)) / 12)


class Accumulating(torch.optim.Optimizer):
    """Stands in for Accelerate's: steps once in `every` calls."""

    def __init__(self, optimizer: torch.optim.Optimizer, every: int) -> None:
        self.optimizer, self.every, self.calls = optimizer, every, 0

    @property
    def param_groups(self) -> list:
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: object = None) -> None:
        self.calls += 1
        if self.calls % self.every == 0:
            self.optimizer.step()


def test_only_steps_that_happened_count() -> None:
    model = mlp()
    inner = torch.optim.AdamW(decay_groups(model, 0.5), lr=1e-2)
    optimiser = Accumulating(inner, 4)
    control = OUIDecay(model, optimiser, gap=2, memory=1)
    changed = [train_step(model, optimiser, control, torch.randn(9, 6)) for _ in range(16)]
    assert control.steps == 4
    assert [call for call, now in enumerate(changed, 1) if now] == [8, 16]
    assert [update.step for update in control.log] == [2, 4]
    assert control.mean_multiplier == pytest.approx((2 + (2 / 3 + 5) / 2 * 2) / 4)


def test_layers_that_are_registered_and_never_called_keep_their_decay() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 2)
    )
    control, optimiser = steered(model, gap=3)
    idle = {f"1.layers.{i}.self_attn.out_proj" for i in range(2)}
    with pytest.warns(
        UserWarning, match=r"did not run 1\.layers\.0.*out_proj, 1\.layers\.1.*out_proj:"
    ) as caught:
        train_step(model, optimiser, control, torch.randn(8, 5, 6))
    assert caught[0].filename == __file__
    for _ in range(2):
        train_step(model, optimiser, control, torch.randn(8, 5, 6))
    (update,) = control.log
    assert idle == update.weight_decay.keys() - update.oui.keys()
    assert {update.weight_decay[name] for name in idle} == {0.5}
    assert max(update.weight_decay.values()) == pytest.approx(2.5)


@pytest.mark.parametrize("inplace", [False, True])
def test_what_is_done_to_an_output_in_place_is_not_read(inplace: bool) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                out = layer(x)
                if inplace:
                    out += 100
                x = x + out
            return x

    torch.manual_seed(0)
    model, x = Residual(), torch.randn(9, 6)
    control, optimiser = steered(model, gap=1)
    seen: list[Tensor] = []
    model.layers[1].register_forward_hook(lambda m, i, z: seen.append(z > 0))
    train_step(model, optimiser, control, x)
    assert control.log[0].oui == {"layers.1": balance_oui(seen[0])}


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Sequential(*[nn.Linear(6, 6) for _ in range(3)]), torch.randn(6)),
        (nn.Sequential(*[nn.Conv2d(3, 3, 3) for _ in range(3)]), torch.randn(3, 12, 12)),
    ],
)
def test_one_sample_without_a_batch_dimension_is_passed_over(model: nn.Module, x: Tensor) -> None:
    control, optimiser = steered(model, gap=1)
    model(x)
    optimiser.step()
    with pytest.raises(RuntimeError, match="passed over: 1: no batch dimension"):
        control.step()


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel])
def test_a_state_goes_from_a_wrapped_model_to_the_plain_one_and_back(wrap: Callable) -> None:
    states = []
    for outside in (lambda m: m, wrap):
        model = outside(mlp())
        control, optimiser = steered(model, gap=1)
        torch.manual_seed(1)
        train_step(model, optimiser, control, torch.randn(9, 6))
        states.append(control.state_dict())
        assert list(control.log[0].oui) == ["3", "6"]
    for state, model in zip(states, (wrap(mlp()), mlp()), strict=True):
        control, optimiser = steered(model, gap=1)
        control.load_state_dict(state)
        assert decays(optimiser)[:2] == [0.5 * scale for scale in state["scales"].values()]


def test_positions_are_drawn_on_the_cpu_whatever_the_default_device() -> None:
    model, x = convolutional(), torch.randn(8, 1, 4, 4)
    control, _ = steered(model, gap=1)
    with torch.device("meta"):
        model(x)
    assert control._reader.passed_over == {}
    assert len(control._reader.take()) == 2


# --- Resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser_first", [True, False])
@pytest.mark.parametrize("stop", [3, 4, 6])
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(stop: int, optimiser_first: bool, tmp_path) -> None:
    batches = [torch.randn(12, 1, 4, 4) for _ in range(11)]
    model = convolutional()
    control, optimiser = steered(model, 0.3, gap=4, memory=3, mapping=permuted_scales, seed=5)
    for step, x in enumerate(batches):
        if step == stop:
            state = {"model": model, "optimiser": optimiser, "control": control}
            torch.save({name: part.state_dict() for name, part in state.items()}, tmp_path / "state.pt")
        train_step(model, optimiser, control, x)

    again = convolutional()
    resumed, its_optimiser = steered(again, 0.7, gap=4, memory=3, mapping=permuted_scales, seed=6)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again.load_state_dict(state["model"])
    parts = [(its_optimiser, "optimiser"), (resumed, "control")]
    for part, name in parts if optimiser_first else parts[::-1]:
        part.load_state_dict(state[name])
    for x in batches[stop:]:
        train_step(again, its_optimiser, resumed, x)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert decays(its_optimiser) == decays(optimiser)
    assert resumed.log == control.log[-len(resumed.log) :]
    assert resumed.mean_multiplier == control.mean_multiplier


def test_a_state_of_other_settings_is_refused() -> None:
    control, _ = steered(mlp(), gap=4)
    for other in (
        steered(mlp(), gap=5)[0],
        steered(mlp(5), gap=4)[0],
        steered(mlp(), gap=4, window=(1, 2))[0],
    ):
        with pytest.raises(ValueError, match="made with"):
            other.load_state_dict(control.state_dict())


def test_a_watched_model_can_be_copied() -> None:
    model = mlp()
    control, optimiser = steered(model, gap=1)
    twin = copy.deepcopy(model)
    twin(torch.randn(8, 6))
    assert not control._reader._latest
    train_step(model, optimiser, control, torch.randn(8, 6))
    assert len(control.log) == 1


# --- AdaDecay -------------------------------------------------------------------------------------


def test_adadecay_against_its_formula() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -1.0]]))
    model.weight.grad = torch.tensor([[3.0, -1.0]])  # |g| − mean = ±1, population standard deviation 1
    model.bias.grad = torch.tensor([0.5])
    adadecay_(model, 0.1, alpha=4.0)
    high, low = 2 / (1 + math.exp(-4)), 2 / (1 + math.exp(4))
    expected = [3 + 0.1 * high * 2, -1 - 0.1 * low]
    assert model.weight.grad.flatten().tolist() == pytest.approx(expected)
    assert model.bias.grad.item() == 0.5


def test_adadecay_of_equal_gradients_is_coupled_decay() -> None:
    model = nn.Linear(3, 2)
    model.weight.grad = torch.full((2, 3), -0.25)
    adadecay_(model, 0.1)
    assert torch.allclose(model.weight.grad, -0.25 + 0.1 * model.weight.detach())
    model.weight.grad = None
    adadecay_(model, 0.1)
    assert model.weight.grad is None


def test_adadecay_before_and_after_clipping() -> None:
    results = []
    for clip, after in ((None, False), (None, True), (1e-3, False), (1e-3, True)):
        model = mlp()
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        if after:
            optimiser.register_step_pre_hook(lambda *_, model=model: adadecay_(model, 0.1))
        torch.manual_seed(2)
        model(torch.randn(8, 6)).square().mean().backward()
        if not after:
            adadecay_(model, 0.1)
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(results[0], results[1])
    assert not torch.allclose(results[2], results[3], atol=1e-3)


# --- The benchmark --------------------------------------------------------------------------------


def test_the_benchmark_puts_a_gap_together_from_its_parts(monkeypatch) -> None:
    def by_hand(rounds: int, *arms: Callable[[], None]) -> list[list[float]]:
        for arm in arms:
            arm()
        return [[2.0, 4.0], [2.02, 4.04], [2.04, 4.08], [3.0, 6.0]]

    monkeypatch.setattr(bench, "in_turns", by_hand)
    rows = bench._case(models.convnet12, torch.randn(4, 3, 8, 8), rounds=2)
    assert [row["value"] for row in rows] == pytest.approx(
        [1.01, 1.5, (495 * 1.02 + 5 * 1.5) / 500, (15 * 1.02 + 5 * 1.5) / 20]
    )
    assert [row["met"] for row in rows] == [True, False, False, False]
    assert "11 layers" in rows[0]["note"]
