"""The stability theory holds where it promises to, fails where it does not, and would be caught cheating."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ouikit import balance_oui, flip_rate, record_patterns
from ouikit.signals import flip_bounds as s


def net_of(*widths, gate=nn.ReLU, seed=0):
    """Linear layers of these widths with gates between them, float64."""
    torch.manual_seed(seed)
    layers = [part for n, d in pairwise(widths) for part in (nn.Linear(n, d), gate())]
    return nn.Sequential(*layers[:-1]).double()


def inputs_of(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_cases(gate=nn.ReLU, nets=60, inputs=64):
    """(net, inputs, direction): 1 to 4 hidden layers of 1 to 24 units."""
    for seed in range(nets):
        widths = np.random.default_rng(seed).integers(1, 25, size=seed % 4 + 3).tolist()
        net = net_of(*widths, gate=gate, seed=seed)
        yield net, inputs_of(inputs, widths[0], seed), s.random_perturbation(net, seed)


def attacks(nets=40):
    """One input each, and the direction that pushes its nearest first-layer unit straight to the threshold.

    Every inequality of the recursion is then an equality: no larger radius is true.
    """
    for seed in range(nets):
        net, x = net_of(5, 8, 2, seed=seed), inputs_of(1, 5, seed)
        z = s.pre_activations(net, x)["0"][0]
        unit = int(z.abs().argmin())
        push = {"0.weight": torch.zeros(8, 5).double(), "0.bias": torch.zeros(8).double()}
        push["0.weight"][unit] = -z[unit].sign() * x[0] / x.norm()
        push["0.bias"][unit] = -z[unit].sign()
        yield net, x, push


def chain():
    """Three layers of one unit, all drifts in one direction: the recursion is exact here too.

    z = 10, 20, then 60 − 62 = −2: pushed upwards, the third unit is the only one to flip.
    """
    net = net_of(1, 1, 1, 1, 1)
    for layer, weight, bias in zip(net[::2], (1.0, 2.0, 3.0, 1.0), (9.0, 0.0, -62.0, 0.0), strict=True):
        nn.init.constant_(layer.weight, weight)
        nn.init.constant_(layer.bias, bias)
    push = {f"{i}.{kind}": torch.ones(shape).double() for i in (0, 2, 4) for kind, shape in KINDS}
    return net, torch.ones(1, 1).double(), push


KINDS = (("weight", (1, 1)), ("bias", (1,)))


def violations(radius, cases, share=0.99):
    """How many inputs lose a pattern inside a claimed radius, and how many were looked at."""
    broken = seen = 0
    for net, x, direction in cases:
        claimed = radius(net, x, direction).clamp(max=1e6)
        broken += int((s.flips(net, x, direction, share * claimed) > 0).sum())
        seen += len(x)
    return broken, seen


# --- certified radius


@pytest.mark.parametrize("gate", [nn.ReLU, nn.Tanh])
def test_no_unit_flips_inside_the_certified_radius(gate):
    broken, seen = violations(s.certified_radius, random_cases(gate))
    assert seen == 60 * 64
    assert broken == 0


def test_units_flip_far_outside():
    broken, seen = violations(lambda net, x, _: torch.full((len(x),), 10.0), random_cases(), share=1)
    assert broken > 0.9 * seen


def test_an_inflated_radius_would_be_caught():
    """The mutant of the test above: 2 % more than is true, where the bound is tight."""
    tight = [*attacks(), chain()]
    assert violations(s.certified_radius, tight, share=0.999) == (0, 41)
    assert violations(lambda *case: 1.02 * s.certified_radius(*case), tight, share=0.999) == (41, 41)


def test_the_recursion_is_exact_on_the_chain():
    net, x, push = chain()
    radius = s.certified_radius(net, x, push)
    before, after = s.pre_activations(net, x), s.pre_activations(net, x, push, radius)
    drift = torch.stack([(after[name] - before[name]).abs() for name in before], dim=1)[..., 0]
    torch.testing.assert_close(drift, s.drift_bounds(net, x, push, radius))
    assert before["4"].item() == -2
    assert abs(after["4"].item()) < 1e-9


def test_drift_bounds_by_hand():
    net = net_of(2, 2, 1, 1)
    state = {"0.weight": [[2, 0], [0, 1]], "0.bias": [0, -1], "2.weight": [[3, 4]], "2.bias": [-10]}
    net.load_state_dict({k: torch.tensor(v).double() for k, v in state.items()}, strict=False)
    moved = {
        "0.weight": [[0.5, 0], [0, 0.5]],
        "0.bias": [0.3, 0.4],
        "2.weight": [[0.6, 0.8]],
        "2.bias": [0.25],
    }
    direction = {k: torch.tensor(v).double() for k, v in moved.items()}
    x = torch.tensor([[1.0, 0.0]]).double()
    # z = (2, −1), ‖h‖ = 2; then D₁ = .5·1 + .5 and D₂ = 5·1 + 1·(2 + 1) + .25
    assert s.margins(net, x).tolist() == [[1.0, 4.0]]
    torch.testing.assert_close(s.drift_bounds(net, x, direction), torch.tensor([[1.0, 8.25]]).double())
    # and at half the scale .5 and 5·.5 + .5·(2 + .5) + .125
    for half in (0.5, -0.5, torch.tensor([0.5])):
        found = s.drift_bounds(net, x, direction, half)
        torch.testing.assert_close(found, torch.tensor([[0.5, 3.875]]).double())
    assert not s.certified(net, x, direction, 1.0)
    assert s.certified(net, x, direction, 0.5)


@given(seed=st.integers(0, 10**6), size=st.floats(-9, 9), factor=st.floats(0, 3))
@settings(max_examples=40, deadline=None)
def test_the_radius_is_where_certification_ends(seed, size, factor):
    net = net_of(4, 6, 5, 2, seed=seed)
    x, direction = inputs_of(8, 4, seed), s.random_perturbation(net, seed, size=10**size)
    radius = s.certified_radius(net, x, direction)
    assert s.certified(net, x, direction, radius).all()
    assert not s.certified(net, x, direction, 1.0001 * radius).any()
    assert torch.equal(s.certified(net, x, direction, factor * radius), torch.full((8,), factor <= 1))


def test_what_moves_nothing_is_stable_at_any_scale():
    net, x = net_of(3, 4, 2), inputs_of(5, 3)
    only_output = {"2.weight": torch.ones(2, 4).double(), "2.bias": torch.ones(2).double()}
    assert s.certified_radius(net, x, only_output).tolist() == [math.inf] * 5
    on_threshold = torch.zeros(1, 3).double()
    nn.init.zeros_(net[0].bias)
    assert s.certified_radius(net, on_threshold, s.random_perturbation(net)).tolist() == [0.0]


# --- applying a perturbation


def test_flips_are_those_of_the_perturbed_network():
    for net, x, direction in random_cases(nets=6):
        with record_patterns(net) as patterns:
            net(x)
            before = dict(patterns)
            torch.func.functional_call(net, {n: p + 0.7 * direction[n] for n, p in net.named_parameters()}, x)
            after = dict(patterns)
        counted = sum((before[n] ^ after[n]).sum(1) for n in before)
        assert counted.sum() > 0
        assert torch.equal(s.flips(net, x, direction, 0.7), counted)


def test_a_scale_per_input_is_each_inputs_own():
    net, x = net_of(4, 16, 8, 2), inputs_of(6, 4)
    direction, scales = s.random_perturbation(net, 1), torch.linspace(0, 9, 6).double()
    together = s.flips(net, x, direction, scales)
    assert together.tolist() == [
        int(s.flips(net, x[i : i + 1], direction, float(scales[i]))) for i in range(len(x))
    ]
    assert together[0] == 0 < together[-1]


def test_a_perturbation_may_be_a_list_and_may_leave_parameters_out():
    net, x = net_of(4, 8, 2), inputs_of(6, 4)
    direction = s.random_perturbation(net, 3, size=2.5)
    assert math.isclose(math.sqrt(sum(float(d.square().sum()) for d in direction.values())), 2.5)
    radius = s.certified_radius(net, x, direction)
    assert torch.equal(radius, s.certified_radius(net, x, list(direction.values())))
    hidden = {name: d for name, d in direction.items() if name.startswith("0.")}
    assert torch.equal(radius, s.certified_radius(net, x, hidden))


def test_a_tied_layer_moves_wherever_it_is_used():
    net, x = net_of(4, 4, 4, 2), inputs_of(6, 4)
    net[2] = net[0]
    direction = s.random_perturbation(net, 3)
    moved = s.pre_activations(net, x, direction)
    direction_twice = [direction[f"0.{kind}"] for kind in ("weight", "bias")]
    h = torch.relu(moved["0"])
    torch.testing.assert_close(
        moved["2"], h @ (net[0].weight + direction_twice[0]).T + net[0].bias + direction_twice[1]
    )


def test_nets_as_people_write_them():
    """Flatten first, one gate module used twice and in place, nested, ending in a gate, float32."""
    torch.manual_seed(0)
    gate = nn.ReLU(inplace=True)
    net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 5), gate), nn.Linear(5, 3), gate)
    x = torch.randn(7, 2, 2)
    found, first = s.pre_activations(net, x), net[1][0](x.flatten(1))
    assert list(found) == ["1.0", "2"]
    torch.testing.assert_close(found["1.0"], first)
    torch.testing.assert_close(found["2"], net[2](first.relu()))
    assert s.certified_radius(net, x, s.random_perturbation(net)).dtype == torch.float32
    torch.testing.assert_close(s.local_jacobian(net, x), jacobian(net, x).flatten(2))


# --- moving the input


def jacobian(net, x):
    return torch.func.vmap(torch.func.jacrev(lambda one: net(one[None])[0]))(x).detach()


def test_jacobian_from_gates_is_autograds():
    for net, x, _ in random_cases(nets=20, inputs=16):
        torch.testing.assert_close(s.local_jacobian(net, x), jacobian(net, x), rtol=0, atol=1e-12)


def test_the_network_is_affine_inside_its_radius_and_not_beyond():
    beyond = 0
    for net, x, _ in random_cases(nets=20, inputs=16):
        radius, jacobians = s.affine_radius(net, x).clamp(max=1e6), s.local_jacobian(net, x)
        way = nn.functional.normalize(inputs_of(*x.shape, seed=99), dim=1)
        delta = 0.999 * radius[:, None] * way
        predicted = net(x) + (jacobians @ delta[..., None])[..., 0]
        torch.testing.assert_close(net(x + delta), predicted, rtol=1e-9, atol=1e-9)
        far = net(x + 10 * way) - net(x) - (jacobians @ (10 * way)[..., None])[..., 0]
        beyond += int((far.abs() > 1e-6).any(1).sum())
    assert beyond > 100


def test_the_affine_radius_is_exact():
    """Straight towards the nearest threshold, 1 % before and 1 % behind it."""
    for net, x, _ in random_cases(nets=20, inputs=16):
        radius, z = s.affine_radius(net, x), s.pre_activations(net, x)
        for i in range(len(x)):
            best = math.inf
            for index, name in enumerate(z):
                slopes = jacobian(net[: 2 * index + 1], x[i : i + 1])[0]
                reach = torch.where(slopes.norm(dim=1) > 0, z[name][i].abs() / slopes.norm(dim=1), math.inf)
                unit = int(reach.argmin())
                if reach[unit] < best:
                    best, side = float(reach[unit]), z[name][i, unit].sign()
                    way, found = -side * slopes[unit] / slopes[unit].norm(), (name, unit)
            assert math.isclose(best, radius[i].item(), rel_tol=1e-9)
            name, unit = found
            before = s.pre_activations(net, x[i : i + 1] + 0.99 * best * way)
            behind = s.pre_activations(net, x[i : i + 1] + 1.01 * best * way)
            assert all(torch.equal(before[n] > 0, z[n][i : i + 1] > 0) for n in z)
            assert (behind[name][0, unit] > 0) != (z[name][i, unit] > 0)


def test_excluded_set_needs_no_bias():
    """z = 0 on an open set of inputs and parameters; with a bias, only where that is exactly 0."""
    net = s.dead_layer_net()
    disk = nn.functional.normalize(inputs_of(2000, 2), dim=1) * torch.rand(2000, 1).double().sqrt() * 0.95
    for near in range(20):
        z = s.pre_activations(net, disk, s.random_perturbation(net, near, size=0.04))
        assert torch.equal(z["2"], torch.zeros(2000, 1))
    assert (s.pre_activations(net, 4 * disk)["2"] > 0).any()
    direction = s.random_perturbation(net)
    assert not s.certified_radius(net, disk, direction).any()  # never certified …
    assert not s.flips(net, disk, direction, 0.04).any()  # … although z = 0 counts as off, and stays off

    biased = s.dead_layer_net(bias=True)
    assert torch.equal(biased(disk), net(disk))
    push = {"2.bias": torch.ones(1).double()}
    for tiny in (1e-3, 1e-12, 1e-300):
        assert s.flips(biased, disk, push, tiny).tolist() == [1] * 2000
    moved = s.dead_layer_net(bias=True)
    nn.init.constant_(moved[2].bias, 1e-3)
    assert (s.certified_radius(moved, disk, push) > 0).all()


# --- first layer


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(6, 10).double()


def test_first_layer_change_is_exact(layer):
    x, u = inputs_of(50, 6), inputs_of(10, 7, seed=1)
    before = layer(x)
    with torch.no_grad():
        layer.weight -= 0.3 * u[:, :6]
        layer.bias -= 0.3 * u[:, 6]
    change = layer(x) - before
    torch.testing.assert_close(s.first_layer_change(x, u, 0.3), change)
    assert (change.abs() <= s.flip_bound(x, u, 0.3)).all()
    largest = float(u.abs().max())
    assert (change.abs() <= s.adam_flip_bound(x, 0.3, largest)[:, None]).all()
    worst = 2 * torch.cat([x[:1], torch.ones(1, 1)], dim=1).sign()
    torch.testing.assert_close(
        s.first_layer_change(x[:1], worst, 0.3).abs()[:, 0], s.adam_flip_bound(x[:1], 0.3, 2)
    )


def test_rows_of_a_layer_without_bias_end_in_zero(layer):
    x = inputs_of(5, 6)
    augmented = torch.cat([x, torch.ones(5, 1)], dim=1)
    torch.testing.assert_close(augmented @ s.affine_rows(layer).T, layer(x))
    layer.bias = None
    torch.testing.assert_close(augmented @ s.affine_rows(layer).T, layer(x))


def flipped(x, rows, u, step):
    z = x @ rows[:, :-1].T + rows[:, -1]
    return ((z > 0) != (z + s.first_layer_change(x, u, step) > 0)).any(1)


def test_no_flip_below_the_stable_step():
    seen = 0
    for seed in range(100):
        x, rows, u = inputs_of(50, 6, seed), inputs_of(10, 7, seed + 1000), inputs_of(10, 7, seed + 2000)
        steps = s.stable_step(x, rows, u)
        assert not any(bool(flipped(x[[i]], rows, u, 0.999 * float(steps[i]))) for i in range(50))
        seen += int(flipped(x, rows, u, 10.0).sum())
    assert seen > 4900  # a step that is far too long does flip


def test_a_longer_stable_step_would_be_caught():
    """An update along [x; 1] makes Cauchy's inequality an equality."""
    for seed in range(50):
        x, rows = inputs_of(1, 6, seed), inputs_of(1, 7, seed + 1)
        z = x @ rows[:, :-1].T + rows[:, -1]
        u = z.sign() * torch.cat([x, torch.ones(1, 1)], dim=1)
        step = float(s.stable_step(x, rows, u))
        assert not flipped(x, rows, u, 0.999 * step)
        assert flipped(x, rows, u, 1.001 * step)


def test_a_unit_that_does_not_move_sets_no_limit():
    x, rows = inputs_of(3, 6), inputs_of(2, 7)
    rows[1] = 0  # not even one that is on its threshold
    assert s.stable_step(x, rows, torch.zeros(2, 7)).tolist() == [math.inf] * 3


def test_halving_the_step_halves_every_bound():
    x, u = inputs_of(9, 6), inputs_of(4, 7)
    torch.testing.assert_close(s.flip_bound(x, u, 0.1), 2 * s.flip_bound(x, u, 0.05))
    torch.testing.assert_close(s.adam_flip_bound(x, 0.1), 2 * s.adam_flip_bound(x, 0.05))
    assert s.linear_flip_bound(0.4, 3, 0.1) == pytest.approx(2 * s.linear_flip_bound(0.4, 3, 0.05)) == 0.24


def test_adams_bound_holds_for_torchs_adam(layer):
    x, rows, lr = inputs_of(64, 6), s.affine_rows(layer), 1e-2
    optimiser = torch.optim.Adam(layer.parameters(), lr=lr)
    largest = s.adam_largest_update()
    ratios = []
    for step in range(60):  # gradients that explode are the worst case
        optimiser.zero_grad()
        (layer(x).square().sum() * 1.1**step).backward()
        optimiser.step()
        before, rows = rows, s.affine_rows(layer)
        change = s.first_layer_change(x, (before - rows) / lr, lr)
        assert (change.abs() <= s.adam_flip_bound(x, lr, largest)[:, None]).all()
        ratios.append(float((before - rows).abs().max()) / lr)
    assert max(ratios) <= largest


def test_adams_largest_update_is_approached_and_never_passed():
    assert s.adam_largest_update() == pytest.approx(7.270, abs=1e-3)
    assert s.adam_largest_update(0.0, 0.99) == pytest.approx(10)
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=1.0, eps=0)
    for step in range(-6000, 250):  # the second moment's memory fills up, then the gradient grows
        weight.grad = torch.tensor([1e-100 * (0.999 / 0.9) ** max(step, 0)], dtype=torch.float64)
        before = weight.item()
        optimiser.step()
        assert before - weight.item() <= s.adam_largest_update() * (1 + 1e-9)
    assert before - weight.item() > 0.99 * s.adam_largest_update()
    with pytest.raises(ValueError, match="β₁² < β₂"):
        s.adam_largest_update(0.99, 0.9)


def test_gaussian_flips_grow_linearly_with_one_over_pi():
    generator = torch.Generator().manual_seed(0)
    w = nn.functional.normalize(torch.randn(200, 20, generator=generator).double(), dim=1)
    u = torch.randn(200, 20, generator=generator).double()
    u = nn.functional.normalize(u - (u * w).sum(1, keepdim=True) * w, dim=1)
    x = torch.randn(20_000, 20, generator=generator, dtype=torch.float64)
    steps = np.array([0.003, 0.01, 0.03, 0.1, 0.3])
    shares = np.array([flip_rate(x @ w.T > 0, x @ (w - eta * u).T > 0) for eta in steps])
    exact = np.array([float(s.gaussian_flip_share(w, u, eta).mean()) for eta in steps])
    np.testing.assert_allclose(exact, np.arctan(steps) / math.pi, rtol=1e-12)
    np.testing.assert_allclose(shares, exact, rtol=0.03)
    slope, _ = np.polyfit(np.log(steps[:3]), np.log(shares[:3]), 1)
    assert slope == pytest.approx(1, abs=0.02)
    assert shares[0] / steps[0] == pytest.approx(1 / math.pi, rel=0.03)


def test_gaussian_flips_when_the_update_is_not_orthogonal():
    w, u = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([[3.0, 4.0]]).double()
    assert s.gaussian_flip_share(w, u, 0.5).item() == pytest.approx(0, abs=1e-12)  # shrunk, not turned
    assert s.gaussian_flip_share(w, u, 2.0).item() == pytest.approx(1)  # reversed
    assert s.gaussian_flip_share(w, torch.tensor([[-1.0, 7.0]]).double(), -1.0).item() == pytest.approx(
        math.acos((3 * 2 + 4 * 11) / (5 * math.hypot(2, 11))) / math.pi
    )


def test_expected_flips_stay_below_the_linear_bound():
    """Uniform inputs: z has a density ≤ 1/(2 max|w|), and |Δz| ≤ η‖u‖₁."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50_000, 5, generator=generator, dtype=torch.float64) * 2 - 1
    for trial in range(30):
        w, u = inputs_of(2, 5, seed=trial)
        density, speed = 1 / (2 * float(w.abs().max())), float(u.abs().sum())
        for step in (1e-3, 1e-2, 1e-1):
            share = float(((x @ w > 0) != (x @ (w - step * u) > 0)).double().mean())
            assert share <= s.linear_flip_bound(density, speed, step) + 3 * math.sqrt(share / 50_000)
    # z = x on [−1, 1] shifted by η: half of the bound, which allows for shifts of either sign
    share = float(((x[:, 0] > 0) != (x[:, 0] - 0.1 > 0)).double().mean())
    assert share == pytest.approx(s.linear_flip_bound(0.5, 1.0, 0.1) / 2, rel=0.05)


def test_oui_moves_no_faster_than_flips():
    generator, tight = torch.Generator().manual_seed(0), 0
    for trial in range(2000):
        samples, units = 2 + trial % 9, 1 + trial % 7
        bits = torch.rand(samples, units, generator=generator) < torch.rand(units, generator=generator)
        moved = bits ^ (torch.rand(samples, units, generator=generator) < 0.3)
        change = abs(balance_oui(moved) - balance_oui(bits))
        bound = s.oui_per_flip(samples) * flip_rate(bits, moved)
        assert change <= bound + 1e-12
        tight += bool(change > 0.999 * bound > 0)
    assert tight > 20  # a smaller factor would be caught
    assert (s.oui_per_flip(256), s.oui_per_flip(3)) == (2, 3)


# --- wrong use


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(3, 2), "must be an nn.Sequential"),
        (nn.Sequential(nn.Linear(3, 2)), "no hidden layer"),
        (nn.Sequential(nn.Linear(3, 2), nn.GELU()), "'1' is a GELU"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.ReLU()), "'2' is a ReLU"),
        (nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), "'0' is a ReLU"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), "'0' is a Conv2d"),
    ],
)
def test_a_net_that_the_theory_does_not_cover_is_refused(model, message):
    with pytest.raises(TypeError, match=message):
        s.margins(model, torch.randn(4, 3))


def test_only_relu_nets_are_piecewise_affine():
    with pytest.raises(TypeError, match="'0' is a Tanh"):
        s.local_jacobian(net_of(3, 4, 2, gate=nn.Tanh), inputs_of(2, 3))


def test_a_perturbation_must_fit():
    net, x = net_of(3, 4, 2), inputs_of(2, 3)
    with pytest.raises(KeyError, match=r"no parameter '0\.wieght'; it has 0\.weight"):
        s.flips(net, x, {"0.wieght": torch.zeros(4, 3)})
    with pytest.raises(ValueError, match=r"'0\.bias' have different shapes: \(3,\) and \(4,\)"):
        s.flips(net, x, {"0.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="1 perturbations for the model's 4"):
        s.flips(net, x, [torch.zeros(4, 3)])
    with pytest.raises(ValueError, match=r"have 5 values each, the net takes 3"):
        s.margins(net, inputs_of(2, 5))
    with pytest.raises(ValueError, match="batch_size = 1"):
        s.oui_per_flip(1)
