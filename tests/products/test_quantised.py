"""Networks as chains of products: f32 equals torch, 8 bits equal a plain integer reference, to the bit."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("ouigemm")
from ouikit.products.quantised import STAGES, ProductNet, im2row, layers


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


def test_im2row_is_torchs_unfold(images):
    rows, shape = im2row(images.permute(0, 2, 3, 1).numpy(), 3, 1)
    unfolded = nn.functional.unfold(images, 3, padding=1)  # [B, C·9, H·W]
    want = unfolded.reshape(6, 2, 9, 80).permute(0, 3, 2, 1).reshape(480, 18)
    assert shape == (6, 10, 8)
    np.testing.assert_array_equal(rows, want.numpy())


def by_hand(model, calibration, images):
    """The 8-bit network in plain NumPy integers and floats, layer by layer."""
    f = np.float32
    plain = ProductNet(model)
    entering, x = [], calibration.permute(0, 2, 3, 1).numpy()
    for step in plain.steps:  # what enters each product, in f32
        if isinstance(step, str):
            x = (
                x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))
                if step == "pool"
                else x.mean((1, 2))
            )
            continue
        entering.append(abs(x).max())
        rows, shape = im2row(x, step.size, step.padding) if x.ndim == 4 else (x, x.shape[:1])
        x = rows @ step.weight + step.bias
        x = (np.maximum(x, 0) if step.relu else x).reshape(*shape, -1)
    scales = [float(top) / (255 if i else 127) for i, top in enumerate(entering)]
    x, at = np.clip(np.rint(images.permute(0, 2, 3, 1).numpy() / scales[0]), -127, 127).astype(int), 0
    for step in plain.steps:
        if isinstance(step, str):
            if step == "pool":
                x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))
            else:
                x = np.rint(x.mean((1, 2), dtype=f)).astype(int)
            continue
        unit = float(abs(step.weight).max()) / 127
        rows, shape = im2row(x, step.size, step.padding) if x.ndim == 4 else (x, x.shape[:1])
        sums = (rows @ np.rint(step.weight / unit).astype(int)).astype(f)
        after = scales[at + 1] if at + 1 < len(scales) else 1.0
        x = sums * f(scales[at] * unit / after) + (step.bias / f(after)).astype(f)
        x = (np.maximum(x, 0) if step.relu else x).reshape(*shape, -1)
        if at + 1 < len(scales):
            x = np.clip(np.rint(x), 0, 255).astype(int)
        at += 1
    return x


def test_in_8_bits_it_is_plain_integer_arithmetic(images):
    model = net()
    got = ProductNet(model, calibration=images)(images)
    np.testing.assert_allclose(got, by_hand(model, images, images), rtol=1e-6, atol=1e-6)
    assert not np.array_equal(got, ProductNet(model)(images))


def test_8_bits_are_near_f32(images):
    model = net()
    exact, rounded = ProductNet(model)(images), ProductNet(model, calibration=images)(images)
    assert 0 < abs(exact - rounded).max() < 0.05 * abs(exact).max()


def test_shapes_and_times_of_every_layer(images):
    quantised = ProductNet(net(), calibration=images)
    assert quantised.shapes(images) == {"0": (480, 5, 18), "3": (36, 7, 45), "7": (6, 4, 7)}
    assert not quantised.seconds  # calibration does not count
    quantised(images)
    assert {stage for _, stage in quantised.seconds} == set(STAGES)
    assert {layer for layer, _ in quantised.seconds} == {"0", "3", "7"}


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(2, 2, 3, stride=2),
        nn.Conv2d(2, 2, (3, 1)),
        nn.Conv2d(2, 2, 1, groups=2),
        nn.Tanh(),
        nn.MaxPool2d(3),
    ],
)
def test_other_modules_are_refused_by_name(module):
    with pytest.raises(ValueError, match=r"0: .* cannot be run as a product"):
        layers(nn.Sequential(module))


def test_calibration_without_a_signal_is_refused(images):
    with pytest.raises(ValueError, match="without a scale"):
        ProductNet(net(), calibration=0 * images)
