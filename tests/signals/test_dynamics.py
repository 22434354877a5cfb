"""Weight and pattern change per iteration, by hand; the measures of "earlier"; the networks they watch."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from ouikit import data
from ouikit.nn.models import build
from ouikit.patterns import record_patterns
from ouikit.signals.dynamics import (
    SPEED_UPS,
    Dynamics,
    auc,
    cumulative_time,
    late_over_early,
    moving_average,
    speed_ups,
    summary,
    thinned,
    threshold_time,
)
from ouikit.signals.flip_bounds import margins
from ouikit.train import Recipe, fit, seed_everything

CURVES = hnp.arrays(float, st.integers(25, 80), elements=st.floats(0.01, 100))


class TwoUnits(nn.Module):
    """z = w x for two units, w = (1, 2), and a linear head (2, 0) that no pattern sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([[1.0, 2.0]]))
        self.gate = nn.ReLU()
        self.head = nn.Parameter(torch.tensor([[2.0], [0.0]]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.gate(x @ self.first) @ self.head
        return logits


def test_changes_by_hand() -> None:
    model = TwoUnits()
    watch = Dynamics(model, torch.tensor([[1.0], [-1.0], [0.0], [3.0]]))
    with torch.no_grad():
        model.first[0, 0] = -3.0  # by 4: flips the first unit for three of the four inputs
        model.head[1] = 3.0  # by 3
    watch.step()
    watch.step()  # nothing moved
    curves = watch.curves()
    assert curves["weights"].tolist() == pytest.approx([5, 0])
    assert curves["relative_weights"].tolist() == pytest.approx([5 / 3, 0])  # ‖(1, 2, 2, 0)‖ = 3
    assert curves["patterns"].tolist() == pytest.approx([3 / 8, 0])
    assert curves["patterns/gate"].tolist() == pytest.approx([3 / 8, 0])


def test_layers_count_alike_whatever_their_width() -> None:
    wide = nn.Linear(1, 9)
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), wide, nn.ReLU())
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    watch = Dynamics(model, torch.ones(2, 1))
    with torch.no_grad():
        wide.bias.fill_(-9.0)  # all nine of the second layer, none of the first
    watch.step()
    curves = watch.curves()
    assert (curves["patterns/1"][0], curves["patterns/3"][0], curves["patterns"][0]) == (0, 1, 0.5)


def test_frozen_weights_are_not_followed() -> None:
    model = TwoUnits()
    model.head.requires_grad_(False)
    watch = Dynamics(model, torch.ones(2, 1))
    with torch.no_grad():
        model.head.add_(1)
    watch.step()
    assert watch.curves()["weights"].tolist() == [0]


def test_weights_are_followed_by_name_while_layers_are_frozen_and_unfrozen() -> None:
    """By hand: 3 of the first layer, then nothing (the head was frozen before), then 4 of the head."""
    model = TwoUnits()
    model.head.requires_grad_(False)
    watch = Dynamics(model, torch.ones(2, 1))

    def step(parameter: nn.Parameter, by: float) -> None:
        with torch.no_grad():
            parameter[0, 0] += by
        watch.step()

    with torch.no_grad():
        model.first[0, 0] += 3
    model.first.requires_grad_(False)  # after its step, which counts
    watch.step()
    model.head.requires_grad_(True)
    step(model.head, 7)  # not trainable at the reading before
    step(model.head, 4)
    assert watch.curves()["weights"].tolist() == [3, 0, 4]


def test_unfreezing_moves_nothing() -> None:
    """Layers of one shape, of which others are trained at each reading."""
    model = nn.Sequential(*[m for _ in range(3) for m in (nn.Linear(4, 4), nn.ReLU())])
    watch = Dynamics(model, torch.ones(2, 4))
    for trained in ((0,), (2,), (0, 2, 4), (), (4,)):
        for index in (0, 2, 4):
            model[index].requires_grad_(index in trained)
        watch.step()
    assert watch.curves()["weights"].tolist() == [0] * 5
    relative = watch.curves()["relative_weights"]
    assert [math.isnan(value) for value in relative] == [False, False, False, False, True]  # all were frozen


def test_a_layer_of_another_size_counts_from_then_on() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    watch = Dynamics(model, torch.ones(2, 2))
    model[2] = nn.Linear(3, 5)
    with torch.no_grad():
        model[0].bias[0] += 2  # type: ignore[union-attr,operator,index]
    watch.step()
    with torch.no_grad():
        model[2].bias[0] += 1  # type: ignore[union-attr,operator,index]
    watch.step()
    assert watch.curves()["weights"].tolist() == pytest.approx([2, 1])


def test_watching_does_not_change_the_training() -> None:
    digits = data.load("digits", train_size=200)
    ends = []
    for watched in (True, False):
        seed_everything(0)
        model = build("row_transformer", 10, 1)
        watch = Dynamics(model, digits.probe(16))
        recipe = Recipe(2, 64, 1e-3, optimiser="adam")
        list(fit(model, digits, recipe, seed=0, on_batch=watch.step if watched else lambda: None))
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_every_step_is_read_and_the_path_is_no_shorter_than_the_distance() -> None:
    digits = data.load("digits", train_size=200)
    seed_everything(1)
    model = build("convnet3", 10, 1)
    first = [p.detach().clone() for p in model.parameters()]
    watch = Dynamics(model, digits.probe(16))
    before = watch.probe.patterns()
    list(fit(model, digits, Recipe(3, 64, 0.05), seed=1, on_batch=watch.step))
    after = watch.probe.patterns()
    curves = watch.curves()
    assert {name: curve.shape for name, curve in curves.items()} == dict.fromkeys(curves, (9,))
    distance = math.sqrt(
        sum(float((a - b.detach()).square().sum()) for a, b in zip(first, model.parameters(), strict=True))
    )
    assert curves["weights"].sum() >= distance - 1e-5
    for name, bits in before.items():
        assert curves[f"patterns/{name}"].sum() >= float((bits ^ after[name]).float().mean()) - 1e-9


def test_moving_average_by_hand() -> None:
    assert moving_average([4, 0, 2, 6], 2).tolist() == [2, 1, 4]
    assert moving_average([4, 0, 2], 1).tolist() == [4, 0, 2]


def test_auc_by_hand() -> None:
    assert auc([4, 0, 2, 2], window=1) == 0.5
    assert auc([4, 0, 2, 6], window=2) == pytest.approx(7 / 12)
    assert auc([5] * 30) == 1


def test_times_by_hand() -> None:
    assert [cumulative_time([6, 2, 1, 1], share) for share in (0.6, 0.61, 0.8, 0.9, 1)] == [1, 2, 2, 3, 4]
    assert cumulative_time([0.1] * 10, 0.3) == 3  # 0.1 + 0.1 + 0.1 > 0.3 in floats, and it is 3 either way
    assert [threshold_time([8, 1, 5, 1, 1], level, window=1) for level in (0.7, 0.5, 0.1)] == [1, 3, 5]
    assert threshold_time([8, 0, 0, 4, 4, 0], 0.5, window=2) == 5  # averages 4, 0, 2, 4, 2: strictly above 2


def test_a_steeper_exponential_is_earlier_by_the_ratio_of_the_rates() -> None:
    t = np.arange(4000)
    slow, fast = np.exp(-t / 300), np.exp(-t / 100)
    found = speed_ups(slow, fast)
    assert found["auc_raw"] == pytest.approx(3, rel=0.01)
    assert found["cumulative_0.5"] == pytest.approx(3, rel=0.02)
    assert found["cumulative_0.9"] == pytest.approx(3, rel=0.02)
    # A trailing window adds its length to both threshold times.
    assert found["threshold_0.1"] == pytest.approx(
        (20 + 300 * math.log(10)) / (20 + 100 * math.log(10)), rel=0.02
    )


@given(CURVES, st.floats(0.1, 10))
def test_no_definition_sees_the_unit_of_a_curve(curve: np.ndarray, unit: float) -> None:
    assert speed_ups(curve, 2.0**3 * curve) == pytest.approx(dict.fromkeys(SPEED_UPS, 1.0))
    assert auc(unit * curve) == pytest.approx(auc(curve))
    assert late_over_early(unit * curve, 5) == pytest.approx(late_over_early(curve, 5))


@given(CURVES, CURVES)
def test_speed_ups_are_reciprocal(a: np.ndarray, b: np.ndarray) -> None:
    there, back = speed_ups(a, b), speed_ups(b, a)
    assert {name: there[name] * back[name] for name in SPEED_UPS} == pytest.approx(
        dict.fromkeys(SPEED_UPS, 1.0)
    )


@given(CURVES)
def test_times_are_ordered(curve: np.ndarray) -> None:
    shares = [cumulative_time(curve, share) for share in (0.1, 0.5, 0.9, 1.0)]
    levels = [threshold_time(curve, level) for level in (0.9, 0.5, 0.2, 0.1)]
    assert shares == sorted(shares)
    assert shares[-1] == curve.size
    assert levels == sorted(levels)
    assert 20 <= min(levels) <= max(levels) <= curve.size


def test_late_over_early_by_hand() -> None:
    assert late_over_early([4, 2, 9, 1, 2], steps=2) == 0.5


def test_thinned_keeps_both_ends_and_the_window() -> None:
    curve = np.arange(1.0, 101)
    rows = list(thinned({"a": curve, "b": 2 * curve}, points=10, window=5))
    steps = [row["step"] for row in rows if row["metric"] == "a"]
    assert steps == [row["step"] for row in rows if row["metric"] == "b"]
    assert (steps[0], steps[-1]) == (5, 100)
    assert [rows[0]["value"], rows[-1]["value"]] == [3, 2 * 98]  # the means of 1 … 5, and of 96 … 100 twice


def test_summary_sets_patterns_against_both_measures_of_the_weights() -> None:
    t = np.arange(1000)
    slow, middle, fast = np.exp(-t / 90), np.exp(-t / 60), np.exp(-t / 30)
    rows = summary({"weights": slow, "relative_weights": middle, "patterns": fast}, steps=100)
    ends = {row["metric"]: row["value"] for row in rows if row["step"] == 1000}
    assert ends["weights/auc_raw"] == pytest.approx(3, rel=0.02)
    assert ends["relative_weights/auc_raw"] == pytest.approx(2, rel=0.02)
    assert ends["late_over_early"] == pytest.approx(math.exp(-900 / 30))
    assert {row["metric"] for row in rows if row["step"] != 1000} == {
        "weights",
        "relative_weights",
        "patterns",
    }


def test_a_diverged_run_is_unknown_not_dropped() -> None:
    broken = np.array([1.0] * 30 + [math.inf, math.nan])
    assert all(math.isnan(value) for value in speed_ups(broken, np.ones(32)).values())
    assert math.isnan(late_over_early(broken, 5))
    assert math.isnan(list(thinned({"weights": broken}))[-1]["value"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auc([]), "non-empty"),
        (lambda: auc([[1.0]]), r"\(1, 1\)"),
        (lambda: auc(np.ma.masked_greater([1.0, 9.0], 5), 1), "masked values"),
        (lambda: auc([1.0, -1.0], 1), "not negative"),
        (lambda: auc([0.0] * 30), "nothing ever changes"),
        (lambda: auc([1.0] * 19), "window of 20"),
        (lambda: moving_average([1.0], 0), "window of 0"),
        (lambda: cumulative_time([1.0], 0), "share"),
        (lambda: cumulative_time([1.0, math.nan], 0.5), "diverge"),
        (lambda: threshold_time([1.0] * 20, 1.0), "level"),
        (lambda: threshold_time([math.nan] * 20, 0.5), "diverge"),
        (lambda: late_over_early([1.0] * 9, 5), "overlap"),
        (lambda: late_over_early([0.0, 1.0], 1), "first 1 iterations"),
        (lambda: Dynamics(nn.Linear(2, 2), torch.ones(2, 2)), "no gate module"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "parameters", "shapes"),
    [
        # 64·256 + 256, 256·128 + 128, 128·10 + 10
        ("mlp", 50_826, [(256,), (128,)]),
        # 9·(1·16 + 16·32 + 32·32) + 80, 128·10 + 10
        ("convnet3", 15_338, [(16, 8, 8), (32, 4, 4), (32, 2, 2)]),
        # embedding 288, positions 256, blocks 2·(128 + 4·(32·32 + 32) + 2·32·128 + 160), norm 64, head 330
        ("row_transformer", 26_346, [(8, 128), (8, 128)]),
    ],
)
def test_networks_by_hand(name: str, parameters: int, shapes: list[tuple[int, ...]]) -> None:
    model = build(name, 10, 1).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    with torch.no_grad(), record_patterns(model) as patterns:
        assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    assert [tuple(bits.shape[1:]) for bits in patterns.values()] == shapes  # each gate once, batch first


def test_the_mlp_without_its_reshaping_is_a_net_of_the_stability_theory() -> None:
    torch.manual_seed(0)
    net, images = build("mlp", 10, 1), torch.rand(3, 1, 8, 8)
    chain = nn.Sequential(*list(net.children())[2:])
    assert torch.equal(chain(images.flatten(1)), net(images))
    assert margins(chain, images).shape == (3, 2)


def test_transformer_tokens_are_the_rows_in_order() -> None:
    torch.manual_seed(0)
    model = build("row_transformer", 10, 2).eval()
    x = torch.rand(1, 2, 8, 8)
    seen: list[Tensor] = []
    model.embed.register_forward_hook(lambda module, args, output: seen.append(args[0]))  # type: ignore[union-attr]
    with torch.no_grad():
        logits = model(x)
        assert torch.equal(seen[0][0, 3], torch.cat([x[0, 0, 3], x[0, 1, 3]]))
        assert not torch.allclose(logits, model(x.flip(2)), atol=1e-6)  # positions tell rows apart
