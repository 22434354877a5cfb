"""Networks side by side against each of them alone, in torch's own loop and with the library's StableGrad."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ouikit.nn.batch import Batch
from ouikit.nn.residual import residual_convnet, residual_mlp
from ouikit.optim import StableGrad, lockstep

MAKE = {
    "perceptron": lambda: nn.Sequential(
        nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 4)
    ),
    "no bias": lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 4)),
    "residual": lambda: residual_mlp(6, 4, width=5, blocks=2, norm=False),
    "normalised": lambda: residual_mlp(6, 4, width=5, blocks=2, norm=True),
    "convnet": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), residual_convnet(1, 4, width=3, blocks=1, norm=True)
    ),
}


def networks(make, n=3):
    found = []
    for seed in range(n):
        torch.manual_seed(seed)
        found.append(make())
    return found


def batches(each, steps=4):
    generator = torch.Generator().manual_seed(5)
    shape = (3,) if each else ()
    return [
        (
            torch.randn(*shape, 16, 6, generator=generator),
            torch.randint(0, 4, (*shape, 16), generator=generator),
        )
        for _ in range(steps)
    ]


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("kind", MAKE)
def test_a_network_trains_as_it_does_alone(kind, each):
    batch = Batch(networks(MAKE[kind]))
    together = lockstep.SGD(batch, [0.1, 0.2, 0.05], momentum=0.9)
    for x, y in batches(each):
        out = batch(x, each=each)
        batch.backward(cross_entropy(out.mT, y if each else y.expand(3, -1), reduction="none").mean(1))
        together.step()
    batch.train(False)
    held = torch.randn(7, 6)
    found = batch(held)
    for r, (network, lr) in enumerate(zip(networks(MAKE[kind]), [0.1, 0.2, 0.05], strict=True)):
        sgd = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
        for x, y in batches(each):
            sgd.zero_grad()
            cross_entropy(network(x[r] if each else x), y[r] if each else y).backward()
            sgd.step()
        network.eval()
        torch.testing.assert_close(found[r], network(held), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["perceptron", "residual", "normalised", "convnet"])
def test_gradients_are_levelled_as_the_wrapper_does_it(kind):
    batch, ((x, y), *_) = Batch(networks(MAKE[kind])), batches(False)
    out = batch(x)
    (slope,) = batch.backward(cross_entropy(out.mT, y.expand(3, -1), reduction="none").mean(1), [out])
    lockstep.stable_(batch.grads.values(), slope.flatten(1).std(1))
    for r, network in enumerate(networks(MAKE[kind])):
        alone = StableGrad(torch.optim.SGD(network.parameters(), lr=0.1), reference=network)
        cross_entropy(network(x), y).backward()
        alone.step()
        for name, p in network.named_parameters():
            torch.testing.assert_close(batch.grads[name][r], p.grad, rtol=1e-3, atol=1e-6)


def test_a_gradient_without_spread_or_of_zero_is_left_alone():
    gradients = [torch.zeros(2, 3, 3), torch.full((2, 3, 3), 0.3), torch.arange(4.0).expand(2, 4).clone()]
    kept = [g.clone() for g in gradients]
    lockstep.stable_(gradients, torch.ones(2))
    assert all(map(torch.equal, gradients, kept))


def test_derivatives_in_the_inputs_and_into_the_outputs():
    batch = Batch(networks(lambda: nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))))
    x = torch.rand(3, 9, 1, requires_grad=True)
    u = batch(x, each=True)[..., 0]
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    (into,) = batch.backward((curvature - 1).square().mean((1, 2)), [u])
    assert not into.any()  # the loss reads derivatives only
    for r, network in enumerate(networks(lambda: nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)))):
        own = x[r].detach().requires_grad_()
        (slope,) = torch.autograd.grad(network(own).sum(), own, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), own, create_graph=True)
        (curvature - 1).square().mean().backward()
        torch.testing.assert_close(batch.grads["0.weight"][r], network[0].weight.grad, rtol=1e-4, atol=1e-6)
        assert network[2].bias.grad is None
    assert not batch.grads["2.bias"].any()


def test_the_networks_given_are_not_changed_and_none_is_refused():
    given = networks(MAKE["normalised"])
    before = [p.clone() for p in given[0].parameters()]
    batch = Batch(given)
    batch.flat.zero_()
    batch(torch.randn(8, 6))
    assert all(map(torch.equal, before, given[0].parameters()))
    assert int(given[0][1].num_batches_tracked) == 0
    with pytest.raises(ValueError, match="at least one network"):
        Batch([])
