"""Divergences of activation patterns: hand-computed values, invariances on networks."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import rand_score
from torch import Tensor, nn

from ouikit.nn.gated import DualCopy
from ouikit.probe import Probe
from ouikit.signals.divergence import (
    DIVERGENCES,
    cell_divergence,
    direct_divergence,
    pairwise_divergence,
    reading,
)

torch.set_num_threads(1)

BLIND = ("pairwise", "cells")  # to the order of the units
PROBE = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
WIDTHS = (9, 4)
ALL = pytest.mark.parametrize("name", DIVERGENCES)


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    first, second = WIDTHS
    return nn.Sequential(
        nn.Linear(5, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 3)
    )


def moved(model: nn.Sequential, scale: float, seed: int) -> nn.Sequential:
    """A copy whose weights took a random step: a client after its local training."""
    copy = network(0)
    copy.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in copy.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=scale)
    return copy


def permuted(model: nn.Sequential, orders: list[Tensor]) -> nn.Sequential:
    """The same function, its hidden units in another order."""
    copy = network(0)
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        for at, order in zip((0, 2), orders, strict=True):
            layer, following = copy[at], copy[at + 2]
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])
            following.weight.copy_(following.weight[:, order])
    return copy


def orders(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(width, generator=generator) for width in WIDTHS]


def patterns(model: nn.Module) -> dict[str, Tensor]:
    return Probe(model, PROBE).patterns()


def masks(samples: int = 6, units: int = 4) -> st.SearchStrategy[Tensor]:
    bits = st.lists(st.booleans(), min_size=samples * units, max_size=samples * units)
    return bits.map(lambda b: torch.tensor(b).reshape(samples, units))


def by_loops(one: Tensor, other: Tensor) -> dict[str, float]:
    """The three formulas, written out for one layer."""
    samples, units = len(one), one.shape[1]
    pairs = list(combinations(range(samples), 2))

    def apart(bits: Tensor, i: int, j: int) -> int:
        return sum(bool(x) != bool(y) for x, y in zip(bits[i], bits[j], strict=True))

    changes = [abs(apart(one, i, j) - apart(other, i, j)) / units for i, j in pairs]
    flips = [apart(torch.stack([one[i], other[i]]), 0, 1) / units for i in range(samples)]
    cells = [[tuple(row) for row in bits.tolist()] for bits in (one, other)]
    return {
        "pairwise": sum(changes) / len(pairs),
        "direct": sum(flips) / samples,
        "cells": 1 - float(rand_score(*[[hash(cell) for cell in layer] for layer in cells])),
    }


@ALL
@given(one=masks(), other=masks())
@settings(deadline=None, max_examples=50)
def test_against_the_formulas_written_out(name, one, other):
    assert DIVERGENCES[name](one, other) == pytest.approx(by_loops(one, other)[name], abs=1e-12)


@ALL
def test_layers_count_alike_whatever_their_width(name):
    narrow, wide = torch.tensor([[True], [False]]), torch.tensor([[True] * 8, [False] * 8])
    still, flat = wide, torch.ones(2, 1, dtype=torch.bool)
    expected = {"pairwise": 1 / 2, "direct": 1 / 4, "cells": 1 / 2}[name]
    assert DIVERGENCES[name]({"a": narrow, "b": wide}, {"a": flat, "b": still}) == expected
    assert DIVERGENCES[name]([narrow, wide], [flat, still]) == expected


@ALL
def test_no_divergence_from_itself(name):
    assert DIVERGENCES[name](patterns(network(1)), patterns(network(1))) == 0


@ALL
@given(client=st.integers(0, 10**6), shuffle=st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_units_that_change_places_in_both_networks_alike_change_nothing(name, client, shuffle):
    base = network(1)
    other = moved(base, 0.3, client)
    same = DIVERGENCES[name](
        patterns(permuted(other, orders(shuffle))), patterns(permuted(base, orders(shuffle)))
    )
    assert same == DIVERGENCES[name](patterns(other), patterns(base))


@pytest.mark.parametrize("name", BLIND)
@given(client=st.integers(0, 10**6), one=st.integers(0, 10**6), two=st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_units_may_change_places_in_each_network_in_its_own_way(name, client, one, two):
    base = network(1)
    other = moved(base, 0.3, client)
    shuffled = DIVERGENCES[name](
        patterns(permuted(other, orders(one))), patterns(permuted(base, orders(two)))
    )
    assert shuffled == DIVERGENCES[name](patterns(other), patterns(base))


@given(shuffle=st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_direct_takes_reordered_units_for_a_change(shuffle):
    """The same function: pairwise sees nothing, direct sees every unit that another has replaced."""
    base = network(1)
    now, before = patterns(permuted(base, orders(shuffle))), patterns(base)
    assert pairwise_divergence(now, before) == 0
    displaced = any((order != torch.arange(len(order))).any() for order in orders(shuffle))
    assert (direct_divergence(now, before) > 0) == displaced  # no two units are on for the same inputs


@ALL
@given(client=st.integers(0, 10**6), log_scale=st.floats(-3, 3))
@settings(deadline=None, max_examples=20)
def test_a_unit_that_is_scaled_and_scaled_back_changes_nothing(name, client, log_scale):
    base = network(1)
    other = moved(base, 0.3, client)
    before = DIVERGENCES[name](patterns(other), patterns(base))
    with torch.no_grad():  # powers of two: no rounding
        scales = 2.0 ** torch.linspace(-log_scale, log_scale, WIDTHS[0]).round()
        other[0].weight.mul_(scales[:, None])
        other[0].bias.mul_(scales)
        other[2].weight.div_(scales)
    assert DIVERGENCES[name](patterns(other), patterns(base)) == before


@ALL
def test_the_output_layer_alone_cannot_be_seen(name):
    base = network(1)
    other = network(1)
    with torch.no_grad():
        other[4].weight.normal_(std=10.0)
        other[4].bias.normal_()
    assert DIVERGENCES[name](patterns(other), patterns(base)) == 0


@ALL
def test_frozen_gates_do_not_diverge_however_far_the_weights_go(name):
    base = network(1)
    dual, far = DualCopy(base, PROBE[:2]), moved(base, 1.0, 7)
    dual.load(base.state_dict(), far.state_dict())
    assert DIVERGENCES[name](dual.regime(PROBE).masks, patterns(base)) == 0
    assert DIVERGENCES[name](patterns(far), patterns(base)) > 0


@ALL
@given(one=masks(), other=masks(), third=masks())
@settings(deadline=None, max_examples=50)
def test_a_pseudo_metric_within_bounds(name, one, other, third):
    between = DIVERGENCES[name]
    assert 0 <= between(one, other) <= 1
    assert between(one, other) == between(other, one)
    assert between(one, third) <= between(one, other) + between(other, third) + 1e-12


@given(one=masks(), other=masks())
@settings(deadline=None, max_examples=50)
def test_pairwise_is_at_most_twice_direct(one, other):
    assert pairwise_divergence(one, other) <= 2 * direct_divergence(one, other) + 1e-12


def test_the_bounds_are_reached():
    """All alike against all different, and every gate in the other state."""
    alike = torch.ones(2, 3, dtype=torch.bool)
    apart = torch.tensor([[True] * 3, [False] * 3])
    assert pairwise_divergence(alike, apart) == cell_divergence(alike, apart) == 1
    assert direct_divergence(alike, ~alike) == 1
    assert pairwise_divergence(alike, ~alike) == 0
    assert pairwise_divergence(alike, apart) == 2 * direct_divergence(alike, apart)


def test_networks_of_other_widths_can_be_compared_but_not_unit_by_unit():
    one = torch.tensor([[True, False], [False, False], [True, True]])
    doubled = one.repeat(1, 2)
    assert pairwise_divergence(one, doubled) == cell_divergence(one, doubled) == 0
    with pytest.raises(ValueError, match="shapes"):
        direct_divergence(one, doubled)


def test_in_a_wide_layer_every_input_has_its_own_cell():
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.rand(64, 64, generator=generator) > 0.5 for _ in range(2))
    assert cell_divergence(one, other) == 0
    assert pairwise_divergence(one, other) > 0.04


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pairwise_divergence(PROBE > 0, PROBE), TypeError, "boolean"),
        (lambda: pairwise_divergence(PROBE[:1] > 0, PROBE[:1] > 0), ValueError, "m ≥ 2"),
        (lambda: cell_divergence(PROBE > 0, PROBE[:9] > 0), ValueError, "24 and 9"),
        (lambda: pairwise_divergence({"a": PROBE > 0}, {"b": PROBE > 0}), ValueError, "different layers"),
        (lambda: direct_divergence({"a": PROBE > 0}, {"b": PROBE > 0}), ValueError, "different layers"),
        (lambda: pairwise_divergence({}, {}), ValueError, "no layers"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@ALL
def test_a_reading_stands_for_its_pattern(name):
    one, other = patterns(network(1)), patterns(network(2))
    expected = DIVERGENCES[name](one, other)
    read = reading(one), reading(other)
    assert DIVERGENCES[name](*read) == DIVERGENCES[name](read[0], other) == expected
