"""The benchmark of a whole network: its peers compute the same network, in 8 bits where they say so."""

import numpy as np
import pytest
import torch

pytest.importorskip("ouigemm")
pytest.importorskip("onnxruntime")
import onnx

from ouikit.bench import network
from ouikit.nn.resnet import resnet18


@pytest.fixture(scope="module")
def images():
    return torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(images):
    torch.manual_seed(0)
    model = resnet18(classes=10, in_channels=3)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(images)
    return model.eval()


def test_all_compute_the_same_network(model, images):
    with torch.no_grad():
        want = model(images).numpy()
    for name, net in network.floats(model).items():
        np.testing.assert_allclose(net(images), want, atol=1e-4, err_msg=name)
    nets = network.eight_bits(model, images)
    assert len(nets) == 3
    for name, net in nets.items():
        off = abs(net(images) - want).max() / abs(want).max()
        whole = name == network.ONNX or torch.cpu._is_vnni_supported()  # else weights are smaller
        assert 1e-4 < off < (0.3 if whole else 0.4), f"{name}: {off}"


def test_no_convolution_of_the_peer_stays_in_f32(model, images, tmp_path):
    quantised = network.quantise(network.export(model, tmp_path), images)
    kinds = [node.op_type for node in onnx.load(quantised).graph.node]
    assert kinds.count("QLinearConv") == 20
    assert not {"Conv", "BatchNormalization", "Add"} & set(kinds)


def test_figures_of_speed_are_peers_over_ours(monkeypatch):
    monkeypatch.setattr(network, "in_turns", lambda rounds, *arms: [[float(i + 1)] for i in range(len(arms))])
    rows = {row["name"]: row for row in network.speed_rows((1, 1))}
    assert len(rows) == 5
    row = rows["ResNet-18, batch 1, ONNX Runtime over ouigemm in 8 bits"]
    assert (row["value"], row["target"], row["met"]) == (2.0, ">= 1.0", True)
    assert "product" in row["note"]


def test_figures_of_accuracy_are_points_lost():
    seeds = [{"f32": 0.93, "ouigemm": 0.93, "torch": 0.92}, {"f32": 0.91, "ouigemm": 0.909, "torch": 0.90}]
    rows = {row["name"].split(": ")[1]: row for row in network.accuracy_rows(seeds)}
    assert rows.keys() == {"ouigemm", "torch"}
    assert rows["ouigemm"]["value"] == pytest.approx(0.05)
    assert rows["ouigemm"]["met"]
    assert rows["torch"]["value"] == pytest.approx(1.0)
    assert not rows["torch"]["met"]
