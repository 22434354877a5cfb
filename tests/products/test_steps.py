"""Networks read as products: drawn options give torch's numbers, and what is not read is refused by name."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

pytest.importorskip("ouigemm")
from ouikit.nn.resnet import BasicBlock
from ouikit.products.quantised import ProductNet
from ouikit.products.steps import FIXED, HEEDED, Windows, layers

PAIRS = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))
PADS = st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2)))
CONVOLUTIONS = st.fixed_dictionaries(
    {"kernel_size": PAIRS},
    optional={
        "stride": PAIRS,
        "padding": st.one_of(PADS, st.sampled_from(["same", "valid"])),
        "dilation": PAIRS,
        "padding_mode": st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
        "bias": st.booleans(),
        "groups": st.sampled_from([1, 2]),
    },
)
POOLS = st.fixed_dictionaries(
    {"kernel_size": PAIRS},
    optional={
        "stride": PAIRS,
        "padding": PADS,
        "dilation": PAIRS,
        "ceil_mode": st.booleans(),
        "return_indices": st.sampled_from([False, False, True]),
    },
)


def tail(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(channels, 3)]


@settings(deadline=None, max_examples=100)
@given(CONVOLUTIONS, POOLS, st.booleans(), st.integers(5, 9), st.integers(5, 9))
def test_drawn_options_give_torchs_numbers_or_are_refused_by_name(convolution, pool, flat, height, width):
    torch.manual_seed(0)
    images = torch.randn(2, 2, height, width)
    try:  # half of what is drawn torch itself refuses
        model = nn.Sequential(nn.Conv2d(2, 4, **convolution), nn.ReLU(), nn.MaxPool2d(**pool))
        with torch.no_grad():
            between = model(images)
    except (RuntimeError, ValueError):
        assume(False)
    options = {
        "groups": convolution.get("groups", 1) != 1,
        "ceil_mode": pool.get("ceil_mode", False),
        "return_indices": pool.get("return_indices", False),
    }
    if any(options.values()):
        with pytest.raises(ValueError, match=r"^[02]: .* cannot be run as a product with (\w+)=") as refused:
            ProductNet(model)
        assert options[str(refused.value).split(" with ")[1].split("=")[0]]
        return
    model = nn.Sequential(*model, *([nn.Flatten(), nn.Linear(between[0].numel(), 3)] if flat else tail(4)))
    with torch.no_grad():
        np.testing.assert_allclose(ProductNet(model)(images), model(images).numpy(), atol=1e-5)
    net = ProductNet(model, calibration=images)
    m, n, _ = net.shapes(images)["0"]
    assert m * n == model[0](images).numel()
    assert net(images).shape == (2, 3)


def test_a_layer_that_comes_again_runs_again():
    relu, same = nn.ReLU(), nn.Linear(4, 4)
    model = nn.Sequential(nn.Flatten(), same, relu, same, relu, nn.Linear(4, 2))
    images = torch.randn(3, 1, 2, 2)
    with torch.no_grad():
        np.testing.assert_allclose(ProductNet(model)(images), model(images).numpy(), atol=1e-6)
    assert [step.relu for step in layers(model)[1:]] == [True, True, False]


def test_windows_are_torchs_unfold():
    images = torch.randn(6, 2, 10, 8, generator=torch.Generator().manual_seed(1))
    windows = Windows((3, 2), (2, 1), (1, 3), pads=((1, 1), (2, 2)))
    rows = windows.rows(images.permute(0, 2, 3, 1).numpy())
    places = windows.places(10, 8)
    assert rows.shape == (6, *places, 3, 2, 2)
    unfolded = nn.functional.unfold(images, (3, 2), (1, 3), (1, 2), (2, 1))  # [B, C·6, H'·W']
    want = unfolded.reshape(6, 2, 6, -1).permute(0, 3, 2, 1).reshape(rows.shape)
    np.testing.assert_array_equal(rows, want.numpy())


def test_windows_copy_nothing_but_for_padding():
    images = np.arange(120, dtype=np.float32).reshape(2, 5, 4, 3)
    pixels = Windows((1, 1)).rows(images)
    np.testing.assert_array_equal(pixels, images.reshape(40, 3))
    every_other = Windows((1, 1), (2, 2)).rows(images)
    np.testing.assert_array_equal(every_other.reshape(12, 3), images[:, ::2, ::2].reshape(12, 3))
    assert np.shares_memory(pixels, images)
    assert np.shares_memory(every_other, images)
    assert not every_other.flags.writeable


def test_images_smaller_than_the_windows_are_refused():
    with pytest.raises(ValueError, match="images of 5 x 4 pixels are smaller than Windows"):
        Windows((3, 3), dilation=(1, 2)).rows(np.zeros((2, 5, 4, 3), np.float32))


@pytest.mark.parametrize("windows", [
    Windows((3, 2), (2, 1), (1, 2), ((1, 0), (2, 1))), Windows((2, 2), (2, 2)), Windows((1, 3), mode="edge"),
])  # fmt: skip
def test_windows_by_axis_see_what_both_see(windows):
    """The largest number of each window, found along one axis and then along the other."""
    images = np.random.default_rng(0).standard_normal((2, 9, 8, 3)).astype(np.float32)
    want = windows.over(images, -np.inf).max((-2, -1))
    for one in windows.by_axis():
        images = one.over(images, -np.inf).max((-2, -1))
    np.testing.assert_array_equal(images, want)


def test_every_option_that_torch_has_is_known():
    for kind, heeded in HEEDED.items():
        assert heeded <= set(kind.__constants__) <= heeded | set(FIXED)


def test_an_option_of_a_later_torch_is_refused(monkeypatch):
    monkeypatch.setattr(nn.ReLU, "__constants__", ["inplace", "ceiling"])
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU())
    model[2].ceiling = 6.0
    with pytest.raises(ValueError, match=r"^2: ReLU\(\) cannot be run as a product with ceiling=6\.0"):
        layers(model)


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "module",
    [
        nn.Tanh(),
        nn.AvgPool2d(2, count_include_pad=False),
        nn.Conv1d(2, 2, 1),
        nn.BatchNorm2d(2),
        nn.Identity(),
        nn.Sequential(nn.Conv2d(2, 2, 1)),
        nn.LazyConv2d(2, 1),
        Doubled(2, 2, 1),
        parametrizations.weight_norm(nn.Conv2d(2, 2, 1)),
        nn.AdaptiveAvgPool2d(2),
        nn.AdaptiveAvgPool2d((None, 1)),
        nn.Flatten(0),
        nn.Flatten(1, 2),
        nn.ReLU(),  # behind no product
    ],
)
def test_other_modules_are_refused_by_name(module):
    with pytest.raises(ValueError, match=r"(?s)^0: .* cannot be run as a product"):
        layers(nn.Sequential(module, *tail(2)))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([nn.Linear(4, 2)], "0: Linear.* takes rows, and is given images"),
        ([nn.AdaptiveAvgPool2d(1), nn.Linear(1, 2)], "1: Linear.* takes rows, and is given means"),
        ([nn.Flatten(), nn.Conv2d(2, 2, 1)], "1: Conv2d.* takes images, and is given rows"),
        ([nn.Conv2d(2, 2, 1)], r"gives images: end it with nn\.Flatten"),
        ([nn.Flatten()], "no layer with weights"),
    ],
)
def test_layers_that_do_not_fit_together(modules, message):
    with pytest.raises(ValueError, match=message):
        layers(nn.Sequential(*modules))


def test_models_and_weights_in_a_state_of_their_own_are_refused():
    def fresh():
        return nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), *tail(2))

    class Skips(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    watched, pruned = fresh(), fresh()
    watched[3].register_forward_hook(lambda module, args, output: 2 * output)
    prune.l1_unstructured(pruned[0], "weight", amount=1)
    for model, message in (
        (fresh().double(), "0: weights must be float32 on the CPU, not torch.float64"),
        (fresh().bfloat16(), "not torch.bfloat16 on cpu"),
        (fresh().to("meta"), "not torch.float32 on meta"),
        (watched, "3 has forward hooks"),
        (pruned, "0 has forward hooks"),
        (Skips(*fresh()), "the model is a Skips: pass a plain nn.Sequential"),
        (nn.DataParallel(fresh()), "the model is a DataParallel"),
    ):
        with pytest.raises(ValueError, match=message):
            layers(model)


def test_what_a_block_does_besides_is_refused():
    def fresh():
        return nn.Sequential(BasicBlock(2, 4, 2), *tail(4)).eval()

    def changed(change):
        model = fresh()
        change(model[0])
        return model

    hook = lambda module, args, output: 2 * output  # noqa: E731
    for change, message in (
        (lambda block: setattr(block, "gate", nn.GELU()), r"0\.gate: GELU.* cannot be run"),
        (lambda block: block.register_forward_hook(hook), "0 has forward hooks"),
        (lambda block: block.gate.register_forward_hook(hook), r"0\.gate has forward hooks"),
        (lambda block: block.residual.register_forward_hook(hook), r"0\.residual has forward hooks"),
        (lambda block: block.residual[3].register_forward_hook(hook), r"0\.residual\.3 has forward hooks"),
        (lambda block: block.shortcut[0].register_forward_hook(hook), r"0\.shortcut\.0 has forward hooks"),
        (lambda block: block.residual.append(nn.ReLU()), r"0\.residual: (.|\n)* must end with one"),
        (lambda block: block.shortcut.append(nn.MaxPool2d(1)), r"0\.shortcut: (.|\n)* must end with one"),
        (lambda block: block.shortcut.append(nn.Conv2d(4, 4, 1)), r"0\.shortcut: (.|\n)* as one product"),
        (lambda block: setattr(block, "residual", nn.Identity()), r"0\.residual is a Identity"),
        (lambda block: setattr(block, "residual", nn.Sequential()), r"0\.residual: .* must end with one"),
        (lambda block: block.train(), r"0\.residual\.1: .* is in training mode: call model\.eval"),
    ):
        with pytest.raises(ValueError, match=message):
            layers(changed(change))
    assert layers(fresh())


def test_normalisations_that_do_not_follow_a_convolution_are_refused():
    for modules, message in (
        ([nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)], "2: BatchNorm2d.* behind a ReLU"),
        ([nn.Conv2d(2, 3, 1), nn.BatchNorm2d(1)], "1: BatchNorm2d.* does not fit 3 channels"),
        ([nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)], "track_running_stats=False"),
        ([nn.Conv2d(2, 2, 1), nn.MaxPool2d(1), nn.BatchNorm2d(2)], "2: BatchNorm2d.* follows none"),
    ):
        with pytest.raises(ValueError, match=message):
            layers(nn.Sequential(*modules, *tail(2)).eval())


@pytest.mark.parametrize("affine", [True, False])
def test_normalisation_is_torchs(affine):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, affine=affine, eps=0.1), nn.ReLU(), *tail(3))
    images = torch.randn(4, 2, 5, 5)
    with torch.no_grad():
        model(3 * images + 1)
        np.testing.assert_allclose(ProductNet(model.eval())(images), model(images).numpy(), atol=1e-6)
