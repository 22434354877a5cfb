"""Adam's normalised update against torch's Adam, the closed form, and the rule's published choices."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ouikit.optim import decompose, normalised_update, refresh_beta, refresh_boundaries, same_sign, scale_lag
from ouikit.optim.balanced_adam import BETA_GRID

PAIRS = [(0.9, 0.9), (0.9, 0.999), (0.99, 0.9), (0.0, 0.5), (0.0, 0.0)]


@pytest.mark.parametrize("betas", PAIRS)
def test_it_is_what_adam_does(betas):
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    weight = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimiser = torch.optim.Adam([weight], lr=0.5, betas=betas)
    moves = []
    for gradient in gradients:
        before, weight.grad = weight.detach().clone(), gradient.clone()
        optimiser.step()
        moves.append((before - weight.detach()) / 0.5)
    torch.testing.assert_close(normalised_update(gradients, betas), torch.stack(moves), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("betas", "rate", "expected"),
    [
        ((0.9, 0.9), 1e-4, -4.4916e-7),
        ((0.9, 0.9), 1e-3, -4.416e-5),
        ((0.9, 0.99), 1e-4, 8.942e-3),
        ((0.9, 0.999), 1e-4, 9.436e-2),
        ((0.99, 0.9), 1e-4, -8.912e-3),
        ((0.99, 0.99), 1e-4, -4.853e-5),
    ],
)
def test_a_gradient_that_grows_at_a_constant_rate_has_the_closed_form(betas, rate, expected):
    g = torch.exp(rate * torch.arange(20_000, dtype=torch.float64))
    found = normalised_update(-g, betas, eps=0)[-1].item()
    assert -found - 1 == pytest.approx(expected, rel=2e-4)
    lag = -scale_lag(-g, betas)[-1].item()
    assert lag == pytest.approx((betas[1] / (1 - betas[1]) - betas[0] / (1 - betas[0])) * rate, abs=1e-8)


def closed(betas, rate):
    first, second = betas
    return (1 - first) / (1 - first * math.exp(-rate)) * math.sqrt(
        (1 - second * math.exp(-2 * rate)) / (1 - second)
    ) - 1


@pytest.mark.parametrize(
    ("betas", "slope"), [((0.9, 0.9), 2), ((0.99, 0.99), 2), ((0.9, 0.99), 1), ((0.99, 0.9), 1)]
)
def test_the_deviation_is_of_first_order_off_the_diagonal_and_of_second_on_it(betas, slope):
    fine, coarse = abs(closed(betas, 1e-6)), abs(closed(betas, 1e-5))
    assert math.log10(coarse / fine) == pytest.approx(slope, abs=0.01)
    g = torch.exp(1e-5 * torch.arange(5_000, dtype=torch.float64))
    assert normalised_update(g, betas, eps=0)[-1].item() - 1 == pytest.approx(closed(betas, 1e-5), rel=1e-5)


def test_a_constant_factor_changes_nothing_and_a_large_epsilon_breaks_that():
    g = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(normalised_update(g, eps=0), normalised_update(1e6 * g, eps=0))
    floor = normalised_update(torch.full((2000,), 1e-8), (0.95, 0.95))[-1].item()
    assert floor == pytest.approx(0.5, rel=1e-6)


def test_what_one_spike_does():
    """A gradient of one, once a thousand: the balanced update falls, the unbalanced one doubles first."""
    g = torch.ones(3000, dtype=torch.float64)
    g[2000] = 1000
    balanced, unbalanced = (normalised_update(g, betas)[2000:] for betas in ((0.95, 0.95), (0.9, 0.999)))
    assert balanced.max().item() < 1
    assert balanced[1:].min().item() < 0.07
    assert unbalanced.max().item() > 2


@given(st.integers(1, 12), st.sampled_from(PAIRS), st.integers(0, 2**31))
def test_the_parts_add_up(steps, betas, seed):
    g = torch.randn(steps, 2, 3, generator=torch.Generator().manual_seed(seed))
    parts = decompose(g, betas)
    torch.testing.assert_close(sum(parts), normalised_update(g, betas))
    assert all(part.dtype == torch.float64 and part.shape == g.shape for part in parts)
    if betas[0] == betas[1]:
        assert not parts.lag.any()


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 3.0]), min_size=1, max_size=12), st.integers(1, 12))
def test_one_sign_over_a_window(values, window):
    g = torch.tensor(values)
    if window > len(values):
        with pytest.raises(ValueError, match="between 1 and"):
            same_sign(g, window)
        return
    past = [values[max(0, k + 1 - window) : k + 1] for k in range(len(values))]
    expected = [len(p) == window and (min(p) > 0 or max(p) < 0) for p in past]
    assert same_sign(g, window).tolist() == expected


def test_the_published_choices():
    horizons = [6000, 10_000, 20_000, 30_000, 40_000]
    assert [round(refresh_beta(h), 3) for h in horizons] == [0.822, 0.9, 0.944, 0.968, 0.968]
    assert refresh_beta(1000) == 0
    assert refresh_beta(np.int64(10_000)) == refresh_beta(np.float32(10_000)) == 0.9
    assert refresh_beta(41_000) == pytest.approx(0.98222, abs=1e-5)


@given(st.floats(1000, 1e7))
def test_it_is_the_nearest_value_and_grows_with_the_horizon(horizon):
    chosen, raw = refresh_beta(horizon), refresh_beta(horizon, grid=None)
    assert raw == 1 - 1000 / horizon
    assert abs(chosen - raw) <= min(abs(beta - raw) for beta in BETA_GRID) + 1e-12
    assert refresh_beta(horizon * 1.5) >= chosen


@pytest.mark.parametrize("boundary", refresh_boundaries())
def test_a_boundary_parts_two_values(boundary):
    below, above = refresh_beta(max(boundary * (1 - 1e-9), 1000)), refresh_beta(boundary * (1 + 1e-9))
    assert BETA_GRID.index(above) == BETA_GRID.index(below) + 1


@pytest.mark.parametrize("horizon", [999, 0, -5, math.nan, math.inf, "1e4", None, True, [5000]])
def test_a_horizon_without_meaning(horizon):
    with pytest.raises(ValueError, match="horizon"):
        refresh_beta(horizon)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: normalised_update(torch.ones(3), (1.0, 0.9)), r"two numbers in \[0, 1\).*got \(1.0, 0.9\)"),
        (lambda: scale_lag(torch.ones(3), (0.9, -0.1)), "two numbers"),
        (lambda: decompose(torch.ones(3), (0.9, math.nan)), "two numbers"),
        (lambda: decompose(torch.ones(3), (0.9, "0.999")), "two numbers.*'0.999'"),
        (lambda: decompose(torch.ones(3), (0.9, True)), "two numbers"),
        (lambda: decompose(torch.ones(3), (0.9,)), "two numbers"),
        (lambda: decompose(torch.ones(3), 0.9), "two numbers.*got 0.9"),
        (lambda: normalised_update(torch.ones(0, 2)), r"one entry per step.*\(0, 2\)"),
        (lambda: normalised_update(torch.tensor([[1.0, 1], [1, torch.nan]])), "step 1 is not"),
        (lambda: normalised_update(torch.tensor([1.0, torch.inf])), "step 1 is not"),
        (lambda: normalised_update(torch.ones(3), eps=-1e-8), "eps must be >= 0"),
        (lambda: normalised_update(torch.ones(3, dtype=torch.int64)), "int64"),
        (lambda: same_sign(torch.ones(3), 0), "between 1 and the 3"),
        (lambda: refresh_beta(5000, 0), "refreshes must be"),
        (lambda: refresh_beta(5000, "1000"), "refreshes must be.*'1000'"),
        (lambda: refresh_beta(5000, grid=[math.nan]), "the grid holds"),
        (lambda: refresh_beta(5000, grid=[]), "the grid holds"),
        (lambda: refresh_beta(5000, grid=[0.9, 1.0]), "the grid holds"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
