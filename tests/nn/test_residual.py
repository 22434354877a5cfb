"""Residual networks and their starts."""

import pytest
import torch
from torch import nn

from ouikit.nn.residual import Block, residual_convnet, residual_mlp, start_

MAKE = {
    "mlp": (lambda norm: residual_mlp(64, 10, width=16, blocks=6, norm=norm), (64,)),
    "convnet": (lambda norm: residual_convnet(1, 10, width=4, blocks=2, norm=norm), (1, 8, 8)),
}


def made(kind, start, norm=False):
    torch.manual_seed(0)
    make, shape = MAKE[kind]
    x = torch.randn(64, *shape)
    return start_(make(norm), start, x), x


@pytest.mark.parametrize("kind", MAKE)
def test_blocks_with_a_branch_of_zero_are_the_identity(kind):
    network, x = made(kind, "zero_branch")
    for module in network:
        before, x = x, module(x)
        if isinstance(module, Block):
            assert torch.equal(x, before)
    assert x.std() > 0.01


@torch.no_grad()
def test_he_doubles_the_moment_in_every_block_and_the_aware_start_keeps_it():
    moments = {}
    for start in ("he", "aware"):
        network, x = made("mlp", start)
        found = [x := module(x) for module in network]
        moments[start] = [
            float(y.square().mean()) for y, m in zip(found, network, strict=True) if isinstance(m, Block)
        ]
    assert moments["he"][-1] / moments["he"][0] > 2 ** (len(moments["he"]) - 2.5)
    assert max(moments["aware"]) <= max(1.0 + 1e-4, 1.01 * moments["aware"][0])
    assert min(moments["aware"]) > 0.2


@pytest.mark.parametrize("kind", MAKE)
def test_normalisation_can_be_left_out(kind):
    make, shape = MAKE[kind]
    norms = [m for m in make(True).modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == {"mlp": 13, "convnet": 10}[kind]
    assert not [m for m in make(False).modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert make(True)(torch.randn(5, *shape)).shape == (5, 10)


def test_a_start_that_is_none():
    with pytest.raises(ValueError, match="default, he, zero_branch or aware: got 'ones'"):
        made("mlp", "ones")
    with pytest.raises(ValueError, match="needs a batch"):
        start_(MAKE["mlp"][0](False), "aware")
