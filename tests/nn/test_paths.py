"""Path models: equal to the network at the switch, linear in their coefficients, and exactly averaged."""

import copy
import itertools
from collections import OrderedDict

import pytest
import torch
from torch import nn

from ouikit.nn.paths import PathModel, average, gates, with_one


def mlp(d=6, h=9, outputs=4, bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(d, h, bias), nn.ReLU(), nn.Linear(h, outputs, bias))


def random_model(seed, like=None):
    torch.manual_seed(seed)
    model = PathModel(torch.randn(9, 6), torch.randn(9), 4) if like is None else copy.deepcopy(like)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def explicit_features(model, x):
    """The h (d + 1) columns, one path at a time."""
    on = gates(model.gate_weight, model.gate_bias, x)
    columns = [
        on[:, j].to(x.dtype) * with_one(x)[:, i]
        for j, i in itertools.product(range(on.shape[1]), range(x.shape[1] + 1))
    ]
    return torch.stack(columns, 1)


def test_a_gate_is_on_strictly_above_zero():
    weight, bias = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([0.0, -2.0])
    x = torch.tensor([[3.0, 1.0], [1.0, 1.0], [0.0, 1.5]])
    assert gates(weight, bias, x).tolist() == [[True, False], [False, False], [False, True]]


def test_forward_by_hand():
    model = PathModel(torch.tensor([[1.0], [-1.0]]), torch.zeros(2), outputs=2)
    with torch.no_grad():
        model.paths.copy_(torch.tensor([[[1.0, 10.0], [2.0, 20.0]], [[3.0, 0.0], [0.0, 7.0]]]))
        model.bias.copy_(torch.tensor([0.5, -0.5]))
    # x = 2: the first unit alone; x = −3: the second; x = 0: none
    assert model(torch.tensor([[2.0], [-3.0], [0.0]])).tolist() == [[12.5, 5.5], [14.5, 6.5], [0.5, -0.5]]


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_are_equal_at_the_switch(bias):
    network, x = mlp(64, 64, 10, bias), torch.randn(300, 64)
    model = PathModel.from_mlp(network)
    assert torch.allclose(model(x), network(x), atol=1e-5, rtol=0)
    assert torch.equal(model.gates(x), network[0](x) > 0)
    exact = PathModel.from_mlp(network.double())
    assert torch.allclose(exact(x.double()), network(x.double()), atol=1e-13, rtol=0)


def test_forward_equals_explicit_path_features():
    model, x = random_model(0).double(), torch.randn(50, 6, dtype=torch.float64)
    wanted = explicit_features(model, x) @ model.paths.flatten(1).T + model.bias
    assert torch.allclose(model(x), wanted, atol=1e-12)


def test_leading_dimensions_and_kept_gates():
    model, x = random_model(1), torch.randn(2, 3, 6)
    flat = model(x.flatten(0, 1))
    assert torch.allclose(model(x).flatten(0, 1), flat, atol=1e-6)
    assert torch.equal(model(x, model.gates(x)), model(x))
    assert model(x[0, 0]).shape == (4,)
    with pytest.raises(ValueError, match=r"gates of \(2, 3, 6\)"):
        model(x, model.gates(x[:1]))


def test_gates_do_not_change_with_training():
    model, x = PathModel.from_mlp(mlp()), torch.randn(40, 6)
    before, outputs = model.gates(x), model(x)
    for _ in range(20):
        slopes = torch.autograd.grad(model(x).square().mean(), [*model.parameters()])
        with torch.no_grad():
            for parameter, slope in zip(model.parameters(), slopes, strict=True):
                parameter -= 0.5 * slope
    assert torch.equal(model.gates(x), before)
    assert not torch.allclose(model(x), outputs, atol=0.01)
    assert {name for name, _ in model.named_parameters()} == {"paths", "bias"}


def test_gradients_reach_the_inputs_and_not_the_gates():
    model, x = random_model(2).double(), torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    active = torch.einsum("bh,hd->bd", model.gates(x).double(), model.paths[1, :, :-1])
    assert torch.allclose(slope, active)
    assert not model.gate_weight.requires_grad


def test_state_dict_copy_and_precision_carry_the_gates():
    model, x = random_model(3), torch.randn(7, 6)
    other = PathModel(torch.zeros(9, 6), torch.zeros(9), 4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert model.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("loss", ["cross-entropy", "squared error"])
def test_convex_in_the_coefficients(loss):
    x, labels = torch.randn(60, 6, dtype=torch.float64), torch.arange(60) % 4
    targets = nn.functional.one_hot(labels, 4).double()
    score = {
        "cross-entropy": lambda out: nn.functional.cross_entropy(out, labels),
        "squared error": lambda out: nn.functional.mse_loss(out, targets),
    }[loss]
    first = random_model(0).double()
    for seed in range(1, 20):
        second = random_model(seed, like=first)
        middle = average([first, second])
        ends = score(first(x)) + score(second(x))
        assert score(middle(x)) < ends / 2 - 1e-6  # two random points are far apart: strictly below


def test_averaging_is_exact_for_paths_and_false_for_networks():
    first, x = random_model(0), torch.randn(100, 6)
    models = [first, *(random_model(seed, like=first) for seed in (1, 2))]
    mixed = 0.5 * models[0](x) + 0.25 * models[1](x) + 0.25 * models[2](x)
    assert torch.allclose(average(models, [2, 1, 1])(x), mixed, atol=3e-6)
    assert torch.allclose(average(models)(x), sum(model(x) for model in models) / 3, atol=3e-6)

    networks = [mlp(seed=seed) for seed in (0, 1)]
    mean = OrderedDict(
        (name, (value + networks[1].state_dict()[name]) / 2)
        for name, value in networks[0].state_dict().items()
    )
    averaged = mlp()
    averaged.load_state_dict(mean)
    assert (averaged(x) - (networks[0](x) + networks[1](x)) / 2).abs().max() > 0.05


def test_what_cannot_be_averaged_is_refused():
    model = random_model(0)
    with pytest.raises(ValueError, match="no model"):
        average([])
    with pytest.raises(ValueError, match="model 1 has other gates"):
        average([model, random_model(1)])
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="2 models need as many weights"):
            average([model, model], weights)


def test_other_networks_and_bad_gates_are_refused():
    for network in (
        nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4)),
    ):
        with pytest.raises(ValueError, match="Linear, ReLU, Linear"):
            PathModel.from_mlp(network)
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(3,\)"):
        PathModel(torch.zeros(2, 3), torch.zeros(3), 1)
    with pytest.raises(ValueError, match="not all finite"):
        PathModel(torch.full((2, 3), float("nan")), torch.zeros(2), 1)
    with pytest.raises(ValueError, match="at least one output"):
        PathModel(torch.zeros(2, 3), torch.zeros(2), 0)
