"""A probe looks without touching, and its control keeps what it says it keeps."""

import copy

import pytest
import torch
from torch import nn

from ouikit import balance_oui, pairwise_oui
from ouikit.probe import Probe, shuffle_samples


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3))


def test_reading_leaves_model_and_random_numbers_alone(net):
    probe, before = Probe(net, torch.randn(16, 6)), copy.deepcopy(net.state_dict())
    random = torch.random.get_rng_state()
    probe.read()
    assert net.training
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_flips_are_counted_since_the_last_reading(net):
    probe = Probe(net, torch.randn(16, 6))
    assert "probe_flips" not in probe.read()  # nothing to compare with
    assert probe.read()["probe_flips"] == 0
    with torch.no_grad():  # every unit's sign turns
        net[1].weight.neg_()
        net[1].bias.neg_()
    assert probe.read()["probe_flips"] == 1


def test_readings_are_the_functions_values(net):
    probe = Probe(net, torch.randn(16, 6))
    found = probe.read()
    assert found["probe_oui"] == pairwise_oui(probe.patterns(), probe.pairs)
    assert found["probe_balance"] == balance_oui(probe.patterns())


def test_the_control_keeps_unit_statistics_and_loses_shared_patterns():
    two_kinds = torch.zeros(32, 64, dtype=torch.bool)
    two_kinds[::2, :16] = True  # half of the samples share one pattern, half the other
    shuffled = shuffle_samples({"layer": two_kinds})
    assert torch.equal(shuffled["layer"].sum(0), two_kinds.sum(0))
    assert balance_oui(shuffled) == balance_oui(two_kinds)
    same = (torch.arange(32) % 2).unsqueeze(0) == (torch.arange(32) % 2).unsqueeze(1)
    inside = torch.nonzero(torch.triu(same, 1))
    assert pairwise_oui(two_kinds, inside) == 0
    assert pairwise_oui(shuffled, inside) > 0.1


def test_a_frozen_layer_stays_frozen(net):
    net[1].eval()
    Probe(net, torch.randn(16, 6)).read()
    assert net.training
    assert net[3].training
    assert not net[1].training
