"""λ-GELU: closed forms by quadrature and on grids, its parameter, its schedule, what users do to modules."""

import math
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from torch import nn

import ouikit
from ouikit.gates import is_gate
from ouikit.nn.lambda_gelu import (
    GATE_GAP,
    OUTPUT_GAP,
    SHAPES,
    LambdaGELU,
    Schedule,
    harden,
    hardness_groups,
    hardnesses,
    lambda_gelu,
    target_hardness,
)

LEVELS = (1.0, 1.7, 8.0, 80.0)


def f(x, hardness):
    return float(lambda_gelu(torch.tensor(x, dtype=torch.float64), hardness))


def grid(hardness):
    """Up to 6/λ on both sides: beyond, nothing differs from ReLU."""
    return torch.linspace(-6, 6, 240_001, dtype=torch.float64) / hardness


# --- closed forms


def test_at_one_it_is_gelu_and_far_out_it_is_relu():
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    torch.testing.assert_close(lambda_gelu(x, 1.0), nn.functional.gelu(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lambda_gelu(x, 1e9), x.relu(), rtol=0, atol=1e-9)
    torch.testing.assert_close(lambda_gelu(x, 3.0), nn.functional.gelu(3 * x) / 3, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hardness", LEVELS)
def test_gaps_have_their_closed_forms(hardness):
    def gate(x):
        return 0.5 * math.erfc(hardness * x / 2**0.5)  # |Φ(λx) − step(x)| at x > 0, and at −x

    assert 2 * integrate.quad(gate, 0, 10 / hardness)[0] == pytest.approx(GATE_GAP / hardness, rel=1e-9)
    output = integrate.quad(lambda x: x * gate(x), 0, 10 / hardness)[0]
    assert 2 * output == pytest.approx(1 / (2 * hardness**2), rel=1e-9)
    x = grid(hardness)
    gaps = (lambda_gelu(x, hardness) - x.relu()).abs()
    assert float(gaps.max()) == pytest.approx(OUTPUT_GAP / hardness, rel=1e-8)
    assert float(x[gaps.argmax()].abs()) == pytest.approx(0.75179 / hardness, abs=1e-4 / hardness)
    assert float(lambda_gelu(x, hardness).min()) == pytest.approx(-OUTPUT_GAP / hardness, rel=1e-8)


@pytest.mark.parametrize("hardness", LEVELS)
def test_slopes_have_their_closed_forms(hardness):
    x = grid(hardness).requires_grad_()
    lam = torch.full_like(x, hardness).requires_grad_()
    slope, in_lam = torch.autograd.grad(lambda_gelu(x, lam).sum(), (x, lam))
    assert float(slope.min()) == pytest.approx(-0.128904, abs=1e-6)
    assert float(slope.max()) == pytest.approx(1.128904, abs=1e-6)
    assert abs(x[slope.argmax()].item() * hardness) == pytest.approx(2**0.5, abs=1e-3)
    assert float(in_lam.min()) >= 0
    assert float(in_lam.max()) == pytest.approx(0.293525 / hardness**2, rel=1e-5)
    step = float(x[1] - x[0])
    assert float(in_lam.sum()) * step == pytest.approx(hardness**-3, rel=1e-5)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
@pytest.mark.parametrize("hardness", LEVELS)
def test_the_mean_slope_in_hardness_falls_with_its_cube(hardness, sigma):
    def weighed(x):
        density = math.exp(-((x / sigma) ** 2) / 2) / sigma
        return x**2 * math.exp(-((hardness * x) ** 2) / 2) * density / (2 * math.pi)

    found = 2 * integrate.quad(weighed, 0, 12 * min(sigma, 1 / hardness))[0]
    closed = sigma**2 / math.sqrt(2 * math.pi) * (1 + (hardness * sigma) ** 2) ** -1.5
    assert found == pytest.approx(closed, rel=1e-7)


def test_targets_by_hand():
    assert [round(target_hardness(e), 3) for e in (0.1, 0.05, 0.01)] == [7.979, 15.958, 79.788]
    for wrong in (0, -1, 0.8, math.nan):
        with pytest.raises(ValueError, match="tolerance"):
            target_hardness(wrong)


# --- the parameter


@given(
    s=st.floats(-50, 50),
    temperature=st.floats(0.01, 10),
)
def test_the_constrained_form_never_falls_below_one(s, temperature):
    gate = LambdaGELU(temperature=temperature)
    gate.s.data.fill_(s)
    assert float(gate.hardness.detach()) >= 1


@given(hardness=st.floats(1.001, 1e4), temperature=st.floats(0.01, 10))
def test_it_starts_where_it_is_told(hardness, temperature):
    assert LambdaGELU(hardness, temperature).hardness.item() == pytest.approx(hardness, rel=1e-4)


def test_default_is_s_zero_and_its_slope_by_hand():
    gate = LambdaGELU()
    assert gate.s.item() == pytest.approx(0, abs=1e-7)
    gate.hardness.backward()
    assert gate.s.grad.item() == pytest.approx(5.0)  # σ(0)/t at t = 0.1


@pytest.mark.parametrize("wrong", [0.99, -1, math.nan, math.inf])
@pytest.mark.parametrize("constrained", [True, False])
def test_a_hardness_below_one_is_refused_and_changes_nothing(wrong, constrained):
    with pytest.raises(ValueError, match="at least 1"):
        LambdaGELU(wrong, constrained=constrained)
    gate = LambdaGELU(3.0, constrained=constrained)
    with pytest.raises(ValueError, match="at least 1"):
        gate.set_hardness(wrong)
    assert gate.hardness.item() == pytest.approx(3.0)


def test_one_itself_is_for_the_raw_form_alone():
    with pytest.raises(ValueError, match="never reaches 1"):
        LambdaGELU(1)
    x = torch.randn(50)
    torch.testing.assert_close(LambdaGELU(1, constrained=False)(x), nn.functional.gelu(x))
    with pytest.raises(ValueError, match="temperature"):
        LambdaGELU(temperature=0)


def test_state_carries_the_temperature_and_the_forms_do_not_mix():
    hot, cold = LambdaGELU(2.5, temperature=1.0), LambdaGELU(1.2, temperature=0.1)
    cold.load_state_dict(hot.state_dict())
    assert cold.hardness.item() == pytest.approx(2.5)
    with pytest.raises(RuntimeError, match="raw"):
        LambdaGELU(1.5, constrained=False).load_state_dict(hot.state_dict())
    copy = deepcopy(hot)
    copy.set_hardness(9.0)
    assert hot.hardness.item() == pytest.approx(2.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    gate, x = LambdaGELU(4.0).to(dtype), torch.linspace(-3, 3, 101).to(dtype)
    out = gate(x)
    assert out.dtype == dtype
    expected = lambda_gelu(x.float(), gate.hardness.detach())
    torch.testing.assert_close(out.detach(), expected.to(dtype), rtol=0, atol=0)
    out.sum().backward()
    assert gate.s.grad.isfinite()


def test_oui_reads_it_as_a_gate():
    assert is_gate(LambdaGELU())
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 16), LambdaGELU(), nn.Linear(16, 2)), torch.randn(8, 4)
    oui = ouikit.OUI(model, kind="pairwise", pairs=None)
    model(x)
    assert list(oui.per_layer()) == ["1"]
    assert oui.compute() == pytest.approx(float(ouikit.pairwise_oui(model[0](x) > 0)))


@pytest.mark.slow
def test_compiles_whole_and_follows_a_new_hardness():
    gate = LambdaGELU(2.0)
    compiled = torch.compile(gate, fullgraph=True)
    x = torch.randn(32)
    for hardness in (2.0, 15.0):
        gate.set_hardness(hardness)
        torch.testing.assert_close(compiled(x), gate(x))


# --- the optimiser's groups


def network(count=3, **settings):
    torch.manual_seed(0)
    hidden = [part for _ in range(count) for part in (nn.Linear(6, 6), LambdaGELU(**settings))]
    return nn.Sequential(*hidden, nn.Linear(6, 3))


def trained(temperature, optimiser, multiplier=None, steps=40):
    model, generator = network(temperature=temperature), torch.Generator().manual_seed(1)
    options = {"momentum": 0.9} if optimiser is torch.optim.SGD else {}
    groups = hardness_groups(model, optimiser, lr=1e-2, multiplier=multiplier)
    steps_of = optimiser(groups, **options)
    for _ in range(steps):
        x = torch.randn(16, 6, generator=generator)
        steps_of.zero_grad()
        (model(x) - x[:, :3].abs()).square().mean().backward()
        steps_of.step()
    return torch.tensor([*hardnesses(model).values()])


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
def test_with_the_multiplier_the_temperature_makes_no_difference(optimiser):
    warm, cool = trained(1.0, optimiser), trained(0.1, optimiser)
    torch.testing.assert_close(warm, cool, rtol=0, atol=1e-4)
    moved = trained(0.1, optimiser, multiplier=1.0)
    assert float((moved - cool).abs().max()) > 10 * float((cool - warm).abs().max()) + 0.01


def test_groups_hold_every_parameter_once_and_do_not_decay_hardness():
    model = network(temperature=0.1)
    groups = hardness_groups(model, torch.optim.AdamW, lr=1.0, weight_decay=0.3)
    assert [(len(g["params"]), g["lr"], g["weight_decay"]) for g in groups] == [
        (8, 1.0, 0.3),
        (3, pytest.approx(0.1), 0.0),
    ]
    squared = hardness_groups(model, torch.optim.SGD, lr=1.0)[1]["lr"]
    assert squared == pytest.approx(0.01)
    raw = network(constrained=False)
    assert hardness_groups(raw, torch.optim.SGD, lr=1.0)[1]["lr"] == 1.0
    with pytest.raises(ValueError, match="no multiplier is known for LBFGS"):
        hardness_groups(model, torch.optim.LBFGS, lr=1.0)
    with pytest.raises(ValueError, match="multiplier is finite"):
        hardness_groups(model, torch.optim.Adam, lr=1.0, multiplier=-1)
    with pytest.raises(ValueError, match="has no LambdaGELU"):
        hardness_groups(nn.Linear(2, 2), torch.optim.Adam, lr=1.0)


# --- hardening


@given(
    steps=st.integers(1, 200),
    switch=st.floats(0, 0.99),
    shape=st.sampled_from(SHAPES),
    learnt=st.floats(1, 40),
    tolerance=st.floats(0.01, 0.5),
)
def test_a_schedule_never_falls_and_ends_at_the_target(steps, switch, shape, learnt, tolerance):
    schedule = Schedule(steps, tolerance, switch, shape)
    way = [schedule.at(step, learnt) for step in range(steps + 3)]
    assert all(b >= a - 1e-12 * a for a, b in pairwise(way))
    assert min(way) >= learnt * (1 - 1e-12)
    assert way[: schedule.last_learnt + 1] == pytest.approx([learnt] * (schedule.last_learnt + 1))
    assert way[-1] == pytest.approx(max(schedule.target, learnt))


def test_half_way_by_hand():
    middle = [Schedule(100, 0.05, 0.0, shape).at(50, 1.0) for shape in SHAPES]
    assert middle == pytest.approx([8.479, 8.479, 3.9948], abs=1e-3)
    quarter = [Schedule(100, 0.05, 0.0, shape).at(25, 1.0) for shape in SHAPES]
    assert quarter == pytest.approx([4.7396, 1 + 14.9577 * 0.146447, 15.9577**0.25], abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"steps": 0}, "one step"), ({"switch": 1.0}, "fraction"), ({"shape": "sudden"}, "one of"),
     ({"tolerance": 2.0}, "tolerance")],
)  # fmt: skip
def test_a_wrong_schedule_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Schedule(**{"steps": 10, **wrong})


def run(model, optimiser, hardening, steps, seed=0):
    generator, way = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        x = torch.randn(16, 6, generator=generator)
        optimiser.zero_grad(set_to_none=False)
        (model(x) - x[:, :3].abs()).square().mean().backward()
        optimiser.step()
        hardening.step()
        way.append([*hardnesses(model).values()])
    return torch.tensor(way)


def test_lambda_is_learnt_and_then_only_rises_while_weights_go_on():
    model = network()
    optimiser = torch.optim.Adam(hardness_groups(model, torch.optim.Adam, lr=1e-2, multiplier=3.0))
    hardening = harden(model, Schedule(20, switch=0.5))
    way = run(model, optimiser, hardening, 9)
    assert float((way[-1] - way[0]).abs().min()) > 0.01
    weight = model[0].weight.clone()
    way = run(model, optimiser, hardening, 11, seed=1)
    assert bool((way.diff(dim=0) >= 0).all())
    assert way[0].tolist() == pytest.approx([*hardening.learnt.values()])
    assert way[-1].tolist() == pytest.approx([15.9577] * 3, rel=1e-4)
    assert not torch.equal(model[0].weight, weight)


def test_a_gate_beyond_the_target_stays():
    model = network(init=30.0)
    hardening = harden(model, Schedule(5, switch=0.0))
    before = hardnesses(model)
    for _ in range(7):
        hardening.step()
    assert hardnesses(model) == before


def test_hardening_goes_on_from_a_checkpoint():
    def begin():
        model = network()
        return model, torch.optim.SGD(model.parameters(), 1e-2), harden(model, Schedule(20, switch=0.25))

    whole = begin()
    run(*whole, 12)
    saved = [deepcopy(part.state_dict()) for part in whole]
    run(*whole, 8, seed=1)
    again = begin()
    for part, state in zip(again, saved, strict=True):
        part.load_state_dict(state)
    run(*again, 8, seed=1)
    for name, value in whole[0].state_dict().items():
        assert torch.equal(again[0].state_dict()[name], value), name
    with pytest.raises(ValueError, match="of the gates"):
        harden(network(2), Schedule(20)).load_state_dict(saved[2])


def test_a_lost_hardness_is_refused_by_name():
    model = network(constrained=False)
    model[3].raw.data.fill_(math.nan)
    with pytest.raises(ValueError, match="diverged"):
        harden(model, Schedule(10))
    model[3].raw.data.fill_(0.5)
    with pytest.raises(ValueError, match=r"'3': 0.5"):
        harden(model, Schedule(10, switch=0))
    assert model[3].raw.requires_grad
