"""Networks as chains of products: f32 equals torch, 8 bits equal a plain integer reference, to the bit."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("ouigemm")
from ouikit.products.quantised import STAGES, ProductNet


def net() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = [
        nn.Conv2d(2, 5, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 7, 3, bias=False),
        nn.ReLU(),
    ]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, 2, 10, 8, generator=torch.Generator().manual_seed(1))


def test_in_f32_it_is_the_network(images):
    model = net()
    with torch.no_grad():
        np.testing.assert_allclose(ProductNet(model)(images), model(images).numpy(), atol=1e-5)


def by_hand(model, calibration, images):
    """The 8-bit network by torch's own layers on whole numbers in float64, which are exact."""
    entering, x = [], calibration
    for module in model:  # what enters each product, in f32
        entering += [abs(x).max().item()] if hasattr(module, "weight") else []
        x = module(x)
    products = [i for i, module in enumerate(model) if hasattr(module, "weight")]
    positive = [isinstance(model[i + 1 : i + 2][0], nn.ReLU) for i in products[:-1]]
    scales = [top / (255 if relu else 127) for top, relu in zip(entering, [False, *positive], strict=True)]
    x, at = (images / scales[0]).round().clamp(-127, 127).double(), 0
    for i, module in enumerate(model):
        if i not in products:
            x = module(x).round() if isinstance(module, nn.AdaptiveAvgPool2d) else module(x)
            continue
        unit, whole = module.weight.abs().max().item() / 127, copy.deepcopy(module).double()
        whole.weight.data, whole.bias = (module.weight.double() / unit).round(), None
        sums = whole(x).float()
        shape = [1, -1, *[1] * (sums.ndim - 2)]
        last = i == products[-1]
        after = 1.0 if last else scales[at + 1]
        x = sums * np.float32(scales[at] * unit / after)
        if module.bias is not None:
            x = x + (module.bias / np.float32(after)).reshape(shape)
        if not last:
            x = x.relu().round().clamp(0, 255) if positive[at] else x.round().clamp(-128, 127)
            x = x.double()
        at += 1
    return x.detach().numpy()


def without_relus() -> nn.Sequential:
    """Numbers of both signs enter every product; every option of a window is used."""
    torch.manual_seed(3)
    look = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)}
    return nn.Sequential(
        nn.Conv2d(2, 4, **look, padding_mode="reflect"),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(4, 3, 2, padding="same", bias=False),
        nn.Flatten(),
        nn.Linear(45, 4),
        nn.Linear(4, 5),
    ).eval()


@pytest.mark.parametrize("net", [net, without_relus])
@torch.no_grad()
def test_in_8_bits_it_is_plain_integer_arithmetic(net, images):
    model = net()
    got = ProductNet(model, calibration=images)(images)
    np.testing.assert_allclose(got, by_hand(model, images, images), rtol=1e-6, atol=1e-6)
    assert not np.array_equal(got, ProductNet(model)(images))


def test_8_bits_are_near_f32(images):
    model = net()
    exact, rounded = ProductNet(model)(images), ProductNet(model, calibration=images)(images)
    assert 0 < abs(exact - rounded).max() < 0.05 * abs(exact).max()
    signed = without_relus()
    exact, rounded = ProductNet(signed)(images), ProductNet(signed, calibration=images)(images)
    assert 0 < abs(exact - rounded).max() < 0.1 * abs(exact).max()


def test_shapes_and_times_of_every_layer(images):
    quantised = ProductNet(net(), calibration=images)
    assert quantised.shapes(images) == {"0": (480, 5, 18), "3": (36, 7, 45), "7": (6, 4, 7)}
    assert not quantised.seconds  # calibration does not count
    quantised(images)
    assert {stage for _, stage in quantised.seconds} == set(STAGES)
    assert {layer for layer, _ in quantised.seconds} == {"0", "3", "7"}


def test_calibration_without_a_signal_is_refused(images):
    with pytest.raises(ValueError, match="without a scale"):
        ProductNet(net(), calibration=0 * images)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(2, 10, 8), r"not torch.float32 \(2, 10, 8\) on cpu"),
        (torch.zeros(6, 2, 10, 8, dtype=torch.float64), "not torch.float64"),
        (torch.zeros(6, 2, 10, 8, dtype=torch.uint8), "not torch.uint8"),
        (torch.zeros(6, 2, 10, 8, device="meta"), "on meta"),
    ],
)
def test_other_images_are_refused(wrong, message):
    for call in (ProductNet(net()), lambda images: ProductNet(net(), calibration=images)):
        with pytest.raises(ValueError, match=message):
            call(wrong)


def test_an_empty_batch_gives_no_rows(images):
    assert ProductNet(net(), calibration=images)(images[:0]).shape == (0, 4)
