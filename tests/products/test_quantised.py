"""Networks as chains of products: f32 equals torch, 8 bits equal a plain integer reference, to the bit."""

import copy
import itertools
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ouikit.nn.models import build
from ouikit.nn.resnet import BasicBlock, Bottleneck

pytest.importorskip("ouigemm")
import ouigemm

from ouikit.products.quantised import STAGES, ProductNet
from ouikit.products.scales import Grid, Quantiser, largest_pairs
from ouikit.products.steps import Product

ENDS = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


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


def unit_of(layer, reduce_range):
    """What one step of the weights is worth: 127 are the largest, or the largest pair of neighbours."""
    columns = layer.weight.detach()
    if columns.ndim == 4:
        columns = columns.permute(0, 2, 3, 1)
    columns = columns.flatten(1)
    if not reduce_range:
        return columns.abs().max().item() / 127
    pairs = nn.functional.pad(columns, (0, columns.shape[1] % 2)).unflatten(1, (-1, 2))
    return max(abs(pairs.sum(2)).max(), abs(pairs).max()).item() / 127


def by_hand(model, calibration, images, reduce_range=False):
    """The 8-bit network by torch's own layers on whole numbers in float64, which are exact."""
    entering, x = [], calibration
    takers = [i for i, module in enumerate(model) if hasattr(module, "weight") or is_mean(module)]
    for i, module in enumerate(model):  # what enters each product or mean, in f32
        entering += [abs(x).max().item()] if i in takers else []
        x = module(x)
    positive = [isinstance(model[i + 1 : i + 2][0], nn.ReLU) or is_mean(model[i]) for i in takers[:-1]]
    scales = [top / (255 if relu else 127) for top, relu in zip(entering, [False, *positive], strict=True)]
    x, at = (images / scales[0]).round().clamp(-127, 127).double(), 0
    for i, module in enumerate(model):
        if i not in takers:
            x = module(x)
            continue
        last = i == takers[-1]
        after = 1.0 if last else scales[at + 1]
        if is_mean(module):
            x = module(x).float() * np.float32(scales[at] / after)
        else:
            unit, whole = unit_of(module, reduce_range), copy.deepcopy(module).double()
            whole.weight.data, whole.bias = (module.weight.double() / unit).round(), None
            sums = whole(x).float()
            shape = [1, -1, *[1] * (sums.ndim - 2)]
            x = sums * np.float32(scales[at] * unit / after)
            if module.bias is not None:
                x = x + (module.bias / np.float32(after)).reshape(shape)
        if not last:
            x = x.relu().round().clamp(0, 255) if positive[at] else x.round().clamp(-128, 127)
            x = x.double()
        at += 1
    return x.detach().numpy()


def is_mean(module):
    return isinstance(module, nn.AdaptiveAvgPool2d)


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


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("net", [net, without_relus])
@torch.no_grad()
def test_in_8_bits_it_is_plain_integer_arithmetic(net, reduce_range, images):
    model = net()
    got = ProductNet(model, calibration=images, reduce_range=reduce_range)(images)
    np.testing.assert_allclose(got, by_hand(model, images, images, reduce_range), rtol=1e-6, atol=1e-6)
    assert not np.array_equal(got, ProductNet(model)(images))


def test_range_is_reduced_where_the_rung_adds_pairs(images):
    model = net()
    usual, reduced = (ProductNet(model, images, reduce_range=way)(images) for way in (False, True))
    assert not np.array_equal(usual, reduced)
    want = reduced if ouigemm.adds_pairs() else usual
    np.testing.assert_array_equal(ProductNet(model, images)(images), want)


@pytest.mark.parametrize("rows", [1, 2, 7, 8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_of_a_reduced_range_no_pair_leaves_16_bits(rows, per_channel):
    """The largest pairs are about as large as they may be, which wastes nothing."""
    rng = np.random.default_rng(rows)
    for _ in range(50):
        weight = rng.standard_normal((rows, 6)).astype(np.float32)
        layer = Product("layer", weight, np.zeros(6, np.float32))
        quantiser = Quantiser({"layer": 1.0}, "auto", per_channel, reduce_range=True)
        found, _ = quantiser.ready([layer], Grid(1.0, np.uint8))
        unit = np.asarray(found["layer"].epilogue.scale, np.float64)
        sums, whole = largest_pairs(weight) / unit, largest_pairs(np.rint(weight / unit))
        assert whole.max() <= 128
        assert (sums.max(axis=0) if per_channel else sums.max()) == pytest.approx(127)
        assert "/s16" not in found["layer"].weights.kernel(1) or not ouigemm.adds_pairs()


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


def blocks() -> nn.Sequential:
    """A residual network whose batch normalisations have seen something; one sum of bytes, one in f32."""
    torch.manual_seed(5)
    stem = [nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)]
    model = nn.Sequential(*stem, BasicBlock(4, 4, 1), BasicBlock(4, 6, 2), *tail)
    return settled(model)


def settled(model: nn.Sequential) -> nn.Sequential:
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
        norm.momentum = 1.0
    model(torch.randn(64, 2, 10, 8))
    return model.eval()


def others() -> list[nn.Sequential]:
    """Bottlenecks; a block that is given numbers of both signs; one that ends the network."""
    torch.manual_seed(6)
    models = [
        nn.Sequential(nn.Conv2d(2, 8, 1), nn.ReLU(), Bottleneck(8, 2, 1), Bottleneck(8, 3, 2), *ENDS),
        nn.Sequential(nn.Conv2d(2, 4, 1), BasicBlock(4, 4, 1), nn.MaxPool2d(2), BasicBlock(4, 4, 1), *ENDS),
        nn.Sequential(BasicBlock(2, 2, 1), *ENDS),
    ]
    return [settled(model) for model in models]


@torch.no_grad()
def test_residual_networks_are_torchs_in_f32_and_near_in_8_bits(images):
    for model in [blocks(), *others()]:
        want, kept = model(images).numpy(), images.clone()
        np.testing.assert_allclose(ProductNet(model)(images), want, atol=1e-5)
        for per_channel, reduce_range in itertools.product((False, True), repeat=2):
            got = ProductNet(model, images, per_channel=per_channel, reduce_range=reduce_range)(images)
            assert 0 < abs(got - want).max() < (0.1 if reduce_range else 0.05) * abs(want).max()
        assert torch.equal(images, kept)  # a sum is never taken in what the caller gave


@torch.no_grad()
def test_a_residual_block_in_8_bits_is_plain_integer_arithmetic(images):
    """By torch's own folding of the normalisation, and its layers on whole numbers in float64."""
    model = blocks()
    stem, (one, two), linear = fuse_conv_bn_eval(*model[:2]), model[3:5], model[-1]
    branches = [fuse_conv_bn_eval(*block.residual[i : i + 2]) for block in (one, two) for i in (0, 3)]
    side = fuse_conv_bn_eval(*two.shortcut)
    x1 = stem(images).relu()
    h1 = branches[0](x1).relu()
    x2 = (branches[1](h1) + x1).relu()
    h2 = branches[2](x2).relu()
    x3 = (branches[3](h2) + side(x2)).relu()
    s0, s1, t1, s2, t2, s3, s4 = (
        abs(x).max().item() / (127 if x is images else 255)
        for x in (images, x1, h1, x2, h2, x3, x3.mean((2, 3)))
    )

    def summed(layer, q, before, after):
        """The sums of a layer and its bias, in steps of its result."""
        unit = unit_of(layer, False)
        whole = copy.deepcopy(layer).double()
        whole.weight.data, whole.bias = (layer.weight / unit).round().double(), None
        sums = whole(q.double()).float()
        bias = (layer.bias / np.float32(after)).reshape(1, -1, *[1] * (sums.ndim - 2))
        return sums * np.float32(before * unit / after) + bias

    def bytes_of(x):
        return x.relu().round().clamp(0, 255)

    q1 = bytes_of(summed(stem, (images / s0).round().clamp(-127, 127), s0, s1))
    g1 = bytes_of(summed(branches[0], q1, s1, t1))
    q2 = bytes_of(summed(branches[1], g1, t1, s2) + np.float32(s1 / s2) * q1)
    g2 = bytes_of(summed(branches[2], q2, s2, t2))
    q3 = bytes_of(summed(branches[3], g2, t2, s3) + summed(side, q2, s2, s3))
    want = summed(linear, (np.float32(s3 / s4) * q3.mean((2, 3))).round(), s4, 1.0)
    got = ProductNet(model, calibration=images, reduce_range=False)(images)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_mean_has_a_scale_of_its_own(images):
    """One large position in many small ones is not cut off at what their mean comes to."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.ReLU(), *ENDS, nn.Linear(2, 2)).eval()
    model[0].weight.data.copy_(torch.eye(2).reshape(2, 2, 1, 1))
    spiked = 0 * images + 0.01
    spiked[..., 0, 0] = 10.0
    want = model(spiked).numpy()
    assert abs(ProductNet(model, calibration=spiked)(spiked) - want).max() < 0.1 * abs(want).max()


def test_scales_of_channels_follow_each_channel(images):
    """A channel a thousand times as large as another costs that one its digits, unless each has a scale."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Flatten()).eval()
    model[0].weight.data[0] *= 1000
    with torch.no_grad():
        want = model(images).numpy()
    small = slice(80, None)  # the second channel
    one, each = (
        abs(ProductNet(model, images, per_channel=way)(images) - want)[:, small].max() for way in (0, 1)
    )
    assert each < 0.02 * abs(want[:, small]).max() < one


def test_a_large_batch_is_the_same_in_parts(images, monkeypatch):
    nets = [ProductNet(model, calibration=images) for model in (net(), blocks())]
    whole = [net(images) for net in nets]
    monkeypatch.setattr("ouikit.products.quantised.IMAGES_AT_ONCE", 4 * 2 * 10 * 8 * 4)  # four, then two
    for small, want in zip(nets, whole, strict=True):
        np.testing.assert_array_equal(small(images), want)
    again = ProductNet(blocks(), calibration=images)
    np.testing.assert_array_equal(again(images), whole[1])


def test_a_copy_is_the_same_network(images):
    quantised = ProductNet(blocks(), calibration=images)
    np.testing.assert_array_equal(copy.deepcopy(quantised)(images), quantised(images))


def test_networks_in_several_threads_do_not_share_their_memory(images):
    quantised, torn = ProductNet(blocks(), calibration=images), []
    want = quantised(images)

    def again():
        torn.extend(not np.array_equal(quantised(images), want) for _ in range(50))

    threads = [threading.Thread(target=again) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torn == [False] * 200


def test_resnet_18_has_its_shapes():
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    model = build("resnet18", classes=10, in_channels=3).eval()
    shapes = ProductNet(model).shapes(images)
    assert len(shapes) == 21  # 17 convolutions, 3 shortcuts, and the linear layer
    assert shapes["0"] == (2 * 112**2, 64, 147)
    assert shapes["6.shortcut.0"] == (2 * 28**2, 128, 64)
    assert shapes["11.residual.3"] == (2 * 7**2, 512, 4608)
    assert sum(m * n * k for m, n, k in shapes.values()) == 2 * 1_814_073_344 - 2 * 512 * 990
