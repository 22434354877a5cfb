"""Frozen gates: what follows from the definition of the two copies, for an MLP and for a residual network."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ouikit.fl.read.averaging import averaging_gap, mean_state
from ouikit.fl.setting.networks import residual_cnn
from ouikit.nn import models
from ouikit.nn.gated import DualCopy
from ouikit.nn.resnet import resnet18
from ouikit.patterns import flip_rate, record_patterns

NETWORKS = {"mlp": lambda: models.build("mlp", 10, 1), "residual": lambda: residual_cnn(10, 1)}


def network(kind="mlp", seed=0):
    """In evaluation mode, with running statistics and biases that are not those of the start."""
    torch.manual_seed(seed)
    net = NETWORKS[kind]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.bias, std=0.3)
    return net.eval()


def images(count=12, seed=1):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def labels(count=12):
    return torch.arange(count) % 10


def drifted(state, size=0.3, seed=2):
    """The state dict with noise on everything that is trained."""
    generator = torch.Generator().manual_seed(seed)
    noisy = {}
    for name, tensor in state.items():
        frozen = "running" in name or "tracked" in name
        noise = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        noisy[name] = tensor.clone() if frozen else tensor + size * tensor.std(correction=0) * noise
    return noisy


def train(model, steps=30, lr=0.1):
    sgd = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr, momentum=0.9)
    model.train()
    for _ in range(steps):
        sgd.zero_grad()
        functional.cross_entropy(model(images()), labels()).backward()
        sgd.step()
    return model.eval()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equal_copies_give_the_networks_output_and_its_gradient(kind, layout):
    net = network(kind)
    dual, x = DualCopy(net, images(2), norm="affine"), images().to(memory_format=layout)
    assert torch.equal(dual(x), net(x))
    for model in (net, dual):
        functional.cross_entropy(model(x), labels()).backward()
    for (name, mine), theirs in zip(dual.quantity.named_parameters(), net.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad), name
    assert all(p.grad is None and not p.requires_grad for p in dual.structure.parameters())


def test_imagenets_resnet_with_overlapping_pooling_and_gates_in_place():
    torch.manual_seed(0)
    net, x = resnet18(10, 3).eval(), torch.randn(2, 3, 32, 32)
    assert torch.equal(DualCopy(net, x)(x), net(x))


@pytest.mark.parametrize("kind", NETWORKS)
def test_gates_and_structure_are_bitwise_constant_while_plain_training_flips_gates(kind):
    net = network(kind)
    dual, x = DualCopy(net, images(2), norm="affine"), images(64, seed=5)
    before, structure = dual.regime(x), deepcopy(dual.structure.state_dict())
    start = dual(x)
    train(dual)
    after = dual.regime(x)
    for one, other in ((before.masks, after.masks), (before.winners, after.winners)):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(structure[name], t) for name, t in dual.structure.state_dict().items())
    assert not torch.allclose(dual(x), start, atol=0.1)
    assert flip_rate(before.masks, dual.wanted(x)) > 0.01  # the weights have left their regime

    def gates():
        with record_patterns(net) as patterns:
            net(x)
        return dict(patterns)

    plain = gates()
    assert list(plain) == list(before.masks)
    assert flip_rate(plain, before.masks) == 0
    train(net)
    assert flip_rate(plain, gates()) > 0.01


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_output_is_affine_in_each_layer_and_not_in_all_of_them(kind):
    dual = DualCopy(network(kind).double(), images(2).double(), norm="affine")
    x = images().double()
    start, far = dual.quantity.state_dict(), drifted(dual.quantity.state_dict(), size=3.0)
    start = {name: tensor.clone() for name, tensor in start.items()}

    def output(step, names):
        moved = {n: t + step * (far[n] - t) if n in names else t for n, t in start.items()}
        dual.quantity.load_state_dict(moved)
        return dual(x)

    def bend(names):
        return float((output(2, names) - 2 * output(1, names) + output(0, names)).abs().max())

    trained = [name for name, _ in dual.quantity.named_parameters()]
    layers = {name.rpartition(".")[0] for name in trained}
    scale = float(output(1, trained).detach().abs().max())
    for layer in layers:
        names = [name for name in trained if name.rpartition(".")[0] == layer]
        assert bend(names) < 1e-9 * scale, layer
    assert bend(trained) > 0.1 * scale


def clients_of(dual, names, size, count=3):
    """State dicts of clients that drifted in some parameters alone."""
    start = {name: tensor.clone() for name, tensor in dual.quantity.state_dict().items()}
    states = []
    for client in range(count):
        far = drifted(start, size, seed=10 + client)
        states.append({name: far[name] if name in names else tensor for name, tensor in start.items()})
    return states


def gap_of(dual, states, weights=(0.5, 0.3, 0.2)):
    x = images().double()

    def outputs(state):
        dual.quantity.load_state_dict(state)
        return dual(x).detach()

    ours = [outputs(state) for state in states]
    mean = sum(w * o for w, o in zip(weights, ours, strict=True))
    absolute = float((outputs(mean_state(states, weights)) - mean).norm())
    return absolute, averaging_gap(outputs(mean_state(states, weights)), torch.stack(ours), weights)


@pytest.mark.parametrize(("kind", "layer"), [("mlp", "4"), ("residual", "4.residual.0")])
def test_averaging_one_layer_is_exact_for_any_drift_and_several_leave_a_quadratic_gap(kind, layer):
    dual = DualCopy(network(kind).double(), images(2).double(), norm="affine")
    start = {name: tensor.clone() for name, tensor in dual.quantity.state_dict().items()}
    trained = [name for name, _ in dual.quantity.named_parameters()]

    def gap(names, size):
        dual.quantity.load_state_dict(start)
        return gap_of(dual, clients_of(dual, names, size))

    one = [name for name in trained if name.startswith(f"{layer}.")]
    assert gap(one, 50.0)[1] < 1e-9
    whole, half = gap(trained, 0.02), gap(trained, 0.01)
    assert whole[1] > 1e-3
    assert half[0] / whole[0] == pytest.approx(0.25, rel=0.1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), layer=st.sampled_from(["2", "4", "6"]))
def test_a_single_layers_loss_is_convex_under_held_gates(seed, layer):
    dual = DualCopy(network().double(), images(2).double())
    start = {name: tensor.clone() for name, tensor in dual.quantity.state_dict().items()}

    def loss(state):
        dual.quantity.load_state_dict(state)
        return float(functional.cross_entropy(dual(images().double()), labels()))

    ends = []
    for part in (0, 1):
        far = drifted(start, size=2.0, seed=2 * seed + part)
        ends.append({n: far[n] if n.startswith(f"{layer}.") else t for n, t in start.items()})
    middle = mean_state(ends, [0.5, 0.5])
    assert loss(middle) <= (loss(ends[0]) + loss(ends[1])) / 2 + 1e-12


def test_a_masked_unit_is_zero_and_not_minus_zero():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    net[0].weight.data.fill_(-1.0)
    out = DualCopy(net, torch.rand(2, 1))(torch.ones(1, 1))
    assert not torch.signbit(out).any()


def test_a_gate_that_is_shared_is_frozen_call_by_call():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.relu = nn.Linear(3, 6), nn.Linear(6, 6), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.two(self.relu(self.one(x))))

    torch.manual_seed(0)
    net, x = Shared(), torch.randn(20, 3)
    dual = DualCopy(net, x[:2])
    assert torch.equal(dual(x), net(x))
    assert list(dual.regime(x).masks) == ["relu", "relu#2"]
    assert not torch.equal(*dual.regime(x).masks.values())


@pytest.mark.parametrize(
    "pool",
    [nn.MaxPool1d(2), nn.MaxPool2d(3, 2, padding=1), nn.MaxPool3d(2), nn.AdaptiveMaxPool2d(3)],
    ids=lambda pool: type(pool).__name__,
)
def test_the_quantitative_copy_takes_the_structures_winners(pool):
    axes = int(type(pool).__name__[-2])
    convolution = [nn.Conv1d, nn.Conv2d, nn.Conv3d][axes - 1](2, 3, 3, padding=1)
    net = nn.Sequential(convolution, nn.ReLU(), pool)
    x = torch.randn(4, 2, *[8] * axes)
    dual, own = DualCopy(net, x), DualCopy(net, x, pool="own")
    assert torch.equal(dual(x), net(x))
    assert torch.equal(own(x), net(x))
    dual.quantity[0].bias.data.add_(torch.randn(3, 1)[:, 0])
    weights = dual.quantity[0].weight.data
    weights.add_(torch.randn(weights.shape))
    own.quantity.load_state_dict(dual.quantity.state_dict())
    held = torch.where(dual.regime(x).masks["1"], dual.quantity[0](x), 0.0)
    winners = dual.regime(x).winners["2"].flatten(2)
    assert torch.equal(dual(x).flatten(2), held.flatten(2).gather(2, winners))
    assert (own(x) >= dual(x)).all()
    assert (own(x) > dual(x)).any()


def test_free_gates_with_their_own_pooling_are_the_network_with_frozen_normalisation():
    net = network("residual")
    free = DualCopy(net, images(2), gate="own", pool="own")
    train(free)
    plain = deepcopy(net)
    plain.load_state_dict(free.quantity.state_dict())
    assert torch.equal(free(images()), plain(images()))
    with record_patterns(plain) as patterns:
        plain(images())
    assert flip_rate(dict(patterns), free.wanted(images())) == 0


@pytest.mark.parametrize(("norm", "moves"), [("frozen", False), ("affine", True)])
def test_normalisation_keeps_its_statistics_and_moves_its_scale_only_if_asked(norm, moves):
    net = network("residual").train()
    dual = DualCopy(net, images(2), norm=norm)
    assert dual.training
    assert not dual.structure.training
    train(dual)
    before, after = net.state_dict(), dual.quantity.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[n], before[n]) for n in before if "running" in n or "tracked" in n)
    assert torch.equal(after["1.weight"], before["1.weight"]) != moves
    assert not torch.equal(after["0.weight"], before["0.weight"])


def test_loading_takes_what_is_frozen_from_the_structure():
    dual, net = DualCopy(network("residual"), images(2)), network("residual", seed=3)
    rounded = {n: t * 1.0001 if t.is_floating_point() else t + 1 for n, t in net.state_dict().items()}
    dual.load(net.state_dict(), rounded)
    now = dual.quantity.state_dict()
    for name, tensor in net.state_dict().items():
        frozen = name.startswith(("1.", "4.residual.1.", "4.residual.4.", "4.shortcut.1."))
        assert torch.equal(now[name], tensor if frozen else rounded[name]), name
    affine = DualCopy(net, images(2), norm="affine").load(net.state_dict(), rounded).quantity.state_dict()
    assert torch.equal(affine["1.weight"], rounded["1.weight"])
    assert torch.equal(affine["1.running_var"], net.state_dict()["1.running_var"])


def test_dropout_is_off_where_gates_are_decided():
    net = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.Linear(50, 50), nn.ReLU())
    dual, x = DualCopy(net, torch.rand(2, 4)).train(), torch.rand(5, 4)
    first, second = (dual.regime(x).masks["3"] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(dual(x), dual(x))


def test_a_kept_regime_is_that_of_its_own_batch():
    dual, x = DualCopy(network(), images(2)), images()
    assert torch.equal(dual(x, dual.regime(x)), dual(x))
    with pytest.raises(ValueError, match="another batch"):
        dual(x, dual.regime(images(5)))
    with pytest.raises(ValueError, match="made no call '3'"):
        dual(x, type(dual.regime(x))())


def test_copies_survive_a_deep_copy_and_a_state_dict():
    dual, x = DualCopy(network("residual"), images(2)), images()
    train(dual, steps=3)
    twin = deepcopy(dual)
    assert torch.equal(twin(x), dual(x))
    other = DualCopy(network("residual", seed=4), images(2)).eval()
    other.load_state_dict(dual.state_dict())
    assert torch.equal(other(x), dual(x))


class Functional(nn.Module):
    """One gate that modules show, one that they hide."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.gate = nn.Linear(4, 8), nn.Linear(8, 8), nn.ReLU()

    def forward(self, x):
        return functional.relu(self.two(self.gate(self.one(x))))


class Clobbering(nn.Module):
    """Counts on its gate to change its input."""

    def __init__(self):
        super().__init__()
        self.one, self.gate = nn.Linear(4, 8), nn.ReLU(inplace=True)

    def forward(self, x):
        z = self.one(x)
        return self.gate(z) + z


def sequence(*layers):
    return nn.Sequential(nn.Linear(4, 8), *layers)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sequence(nn.ReLU(), nn.GELU()), "layer '2' is a GELU"),
        (lambda: sequence(nn.LeakyReLU()), "layer '1' is a LeakyReLU"),
        (lambda: sequence(nn.Identity()), "holds no nn.ReLU module"),
        (lambda: nn.ReLU(), "holds no nn.ReLU module"),
        (Functional, "not affine in its input"),
        (lambda: sequence(nn.ReLU(), nn.Linear(8, 8), nn.Tanh()), "not affine in its input"),
        (lambda: sequence(nn.LayerNorm(8), nn.ReLU()), "not affine in its input"),
        (
            lambda: sequence(nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU()),
            "not affine in its input",
        ),
        (Clobbering, "inplace=False"),
    ],
)
def test_what_cannot_be_frozen_is_refused_by_name(build, message):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message):
        DualCopy(build(), torch.randn(4, 4))


def test_bad_choices_are_named():
    with pytest.raises(ValueError, match="pool must be one of structure, own: got 'max'"):
        DualCopy(network(), images(2), pool="max")
    with pytest.raises(TypeError, match="float tensor"):
        DualCopy(network(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="one weight per state dict: got 1 for 2"):
        mean_state([{}, {}], [1.0])
