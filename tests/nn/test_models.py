"""Networks: the published sizes, one module per gate, and the shapes that they accept."""

from collections import Counter
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from ouikit.nn import efficientnet, mobilenet, models, resnet
from ouikit.nn.weights import load


def gates(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.ReLU | nn.ReLU6 | nn.SiLU)]


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "gate_count"),
    [
        ("densenet_bc_100", 10, 769_162, 99),
        ("densenet_bc_100", 100, 800_032, 99),
        ("densenet121", 1000, 7_978_856, 121),
        ("resnet18", 1000, 11_689_512, 17),
        ("resnet34", 1000, 21_797_672, 33),
        ("resnet50", 1000, 25_557_032, 49),
        ("efficientnet_b0", 1000, 5_288_548, 49),
        ("mobilenet_v2", 1000, 3_504_872, 35),
        ("mobilenet_v2_cifar", 1000, 3_504_872, 35),
    ],
)
def test_published_sizes(name: str, classes: int, parameters: int, gate_count: int) -> None:
    with torch.device("meta"):
        model = models.build(name, classes, 3)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(gates(model)) == gate_count


def test_small_nets_by_hand() -> None:
    # convolutions 9·(1·16 + 16·16 + 16·32 + 32·32 + 32·64 + 64·64), BN 2·224, classifier 64·10 + 10
    small = models.build("convnet6", 10, 1)
    assert sum(p.numel() for p in small.parameters()) == 9 * 7952 + 448 + 650
    for name, layers in (("convnet12", 4), ("convnet24", 8)):
        convolutions = [m for m in models.build(name, 10, 3).modules() if isinstance(m, nn.Conv2d)]
        assert [m.out_channels for m in convolutions] == [16] * layers + [32] * layers + [64] * layers


@pytest.mark.parametrize(
    ("name", "side", "deepest"),
    [
        ("convnet6", 8, (64, 2, 2)),
        ("convnet12", 32, (64, 8, 8)),
        ("densenet_bc_100", 32, (342, 8, 8)),
        ("densenet121", 64, (1024, 2, 2)),
        ("resnet18", 64, (512, 2, 2)),
        ("resnet50", 64, (2048, 2, 2)),
        ("efficientnet_b0", 64, (1280, 2, 2)),
        ("mobilenet_v2", 64, (1280, 2, 2)),
        ("mobilenet_v2_cifar", 32, (1280, 2, 2)),
    ],
)
def test_every_gate_runs_once_per_forward(name: str, side: int, deepest: tuple[int, int, int]) -> None:
    model = models.build(name, 7, 3).train()
    runs: Counter[nn.Module] = Counter()
    shapes: list[torch.Size] = []

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        runs.update([module])
        shapes.append(output.shape)

    for gate in gates(model):
        gate.register_forward_hook(note)
    with torch.no_grad():
        assert model(torch.rand(2, 3, side, side)).shape == (2, 7)
    assert set(runs.values()) == {1}
    assert set(runs) == set(gates(model))
    assert tuple(shapes[-1][1:]) == deepest


@pytest.mark.parametrize("name", models.names())
def test_all_parameters_learn(name: str) -> None:
    torch.manual_seed(0)
    model = models.build(name, 3, 1).train()
    model(torch.rand(4, 1, 33, 33)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_residual_blocks_start_from_the_sum() -> None:
    block = resnet.BasicBlock(64, 64, stride=1).eval()
    nn.init.zeros_(cast(Tensor, block.residual[-1].weight))
    x = torch.randn(1, 64, 4, 4)
    assert torch.equal(block(x), x.clamp(min=0))


def test_bottlenecks_start_from_the_sum_and_stride_in_the_middle() -> None:
    block = resnet.Bottleneck(64, 16, stride=1).eval()
    nn.init.zeros_(cast(Tensor, block.residual[-1].weight))
    x = torch.randn(1, 64, 4, 4)
    assert torch.equal(block(x), x.clamp(min=0))
    strides = [m.stride for m in resnet.Bottleneck(64, 32, stride=2).residual if isinstance(m, nn.Conv2d)]
    assert strides == [(1, 1), (2, 2), (1, 1)]


def test_inverted_residuals_project_without_a_gate() -> None:
    x = torch.randn(1, 16, 4, 4)
    for width, stride, added in ((16, 1, True), (16, 2, False), (24, 1, False)):
        block = mobilenet.InvertedResidual(16, width, expansion=6, stride=stride).eval()
        assert isinstance(block.residual[-1], nn.BatchNorm2d)
        nn.init.zeros_(cast(Tensor, block.residual[-1].weight))
        expected = x if added else torch.zeros(1, width, 4 // stride, 4 // stride)
        assert torch.equal(block(x), expected)


def test_inverted_bottlenecks_add_their_input_where_shapes_allow() -> None:
    x = torch.randn(1, 16, 4, 4)
    for width, stride, added in ((16, 1, True), (16, 2, False), (24, 1, False)):
        block = efficientnet.MBConv(16, width, expansion=6, kernel=3, stride=stride, drop=0.0).eval()
        nn.init.zeros_(cast(Tensor, block.residual[-1].weight))
        expected = x if added else torch.zeros(1, width, 4 // stride, 4 // stride)
        assert torch.equal(block(x), expected)


def test_stochastic_depth() -> None:
    torch.manual_seed(0)
    drop = efficientnet.StochasticDepth(0.25)
    kept = drop(torch.ones(4000, 2, 1, 1))
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert kept.mean().item() == pytest.approx(1, abs=4 * (1 / 3 / 4000) ** 0.5)
    x = torch.randn(3, 2, 1, 1)
    assert torch.equal(drop.eval()(x), x)
    network = models.build("efficientnet_b0", 2, 3)
    rates = [m.drop for m in network.modules() if isinstance(m, efficientnet.StochasticDepth)]
    assert rates == pytest.approx([0.2 * i / 16 for i in range(16)])


def test_build_says_what_is_wrong() -> None:
    with pytest.raises(KeyError, match="resnet34"):
        models.build("resnet43", 10, 3)
    with pytest.raises(ValueError, match="0 classes"):
        models.build("convnet6", 0, 3)


def test_weights_are_loaded_as_torch_loads_them() -> None:
    torch.manual_seed(0)
    first, second, third = (models.build("convnet6", 10, 1) for _ in range(3))
    load(first, second.state_dict())
    third.load_state_dict(second.state_dict())
    assert all(map(torch.equal, first.state_dict().values(), third.state_dict().values()))
    assert all(p.requires_grad for p in first.parameters())
    for wrong in (models.build("convnet6", 9, 1), models.build("mlp", 10, 1)):
        with pytest.raises(RuntimeError, match="Error"):
            load(first, wrong.state_dict())
