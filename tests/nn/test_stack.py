"""Many networks in lockstep against each of them alone, in torch's own loop."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from ouikit.nn.lockstep import Stack, cross_entropy
from ouikit.optim import lockstep

RATES = [1e-3, 1e-2, 3e-2]


def networks(activation=nn.ReLU, widths=(6, 9, 7, 4)):
    found = []
    for seed in range(len(RATES)):
        torch.manual_seed(seed)
        layers = [nn.Linear(n, m) for n, m in pairwise(widths)]
        modules = [module for layer in layers for module in (layer, activation())]
        found.append(nn.Sequential(*modules[:-1]))
    return found


def batches(steps, shared):
    generator = torch.Generator().manual_seed(9)
    shape = () if shared else (len(RATES),)
    return [
        (
            torch.randn(*shape, 8, 6, generator=generator),
            torch.randint(0, 4, (*shape, 8), generator=generator),
        )
        for _ in range(steps)
    ]


OPTIMISERS = {
    "Adam": (
        lambda p, r: torch.optim.Adam(
            p, lr=RATES[r], betas=([0.9, 0.5, 0.0][r], [0.999, 0.5, 0.9][r]), foreach=False
        ),
        lambda s: lockstep.Adam(s, RATES, ([0.9, 0.5, 0.0], [0.999, 0.5, 0.9])),
    ),
    "AdamW": (
        lambda p, r: torch.optim.AdamW(p, lr=RATES[r], weight_decay=[0, 0.1, 1][r], foreach=False),
        lambda s: lockstep.Adam(s, torch.tensor(RATES), weight_decay=[0, 0.1, 1]),
    ),
    "Adam, coupled decay": (
        lambda p, r: torch.optim.Adam(p, lr=RATES[r], weight_decay=0.1, foreach=False),
        lambda s: lockstep.Adam(s, RATES, weight_decay=0.1, decoupled=False),
    ),
    "SGD": (
        lambda p, r: torch.optim.SGD(p, lr=RATES[r], momentum=0.9, weight_decay=0.01, foreach=False),
        lambda s: lockstep.SGD(s, RATES, momentum=0.9, weight_decay=0.01),
    ),
    "plain SGD": (lambda p, r: torch.optim.SGD(p, lr=0.1), lambda s: lockstep.SGD(s, 0.1)),
}


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_network_learns_as_it_would_alone(name, shared, activation):
    alone, together = OPTIMISERS[name]
    models = networks(activation)
    stack = Stack.of(models)
    optimiser, own = together(stack), [alone(model.parameters(), r) for r, model in enumerate(models)]
    for x, y in batches(12, shared):
        outputs = stack.outputs(x)
        losses, slope = cross_entropy(outputs[-1], y)
        stack.backward(outputs, slope)
        optimiser.step()
        for r, (model, torchs) in enumerate(zip(models, own, strict=True)):
            torchs.zero_grad()
            loss = nn.functional.cross_entropy(model(x if shared else x[r]), y if shared else y[r])
            loss.backward()
            torchs.step()
            torch.testing.assert_close(losses[r], loss.detach(), rtol=1e-4, atol=1e-5)
    for a, b in zip(stack.layers, Stack.of(models).layers, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_network_does_not_depend_on_its_neighbours():
    results = []
    for chosen in ([0, 1, 2], [1]):
        models = networks()
        stack = Stack.of([models[r] for r in chosen])
        adam = lockstep.Adam(stack, [RATES[r] for r in chosen])
        for x, y in batches(5, True):
            outputs = stack.outputs(x)
            stack.backward(outputs, cross_entropy(outputs[-1], y)[1])
            adam.step()
        results.append(stack.flat[chosen.index(1)])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


def test_the_first_networks_alone():
    stack = Stack.of(networks())
    x = torch.randn(5, 6)
    for all_of_them, two in zip(stack.outputs(x), stack.outputs(x, first=2), strict=True):
        torch.testing.assert_close(all_of_them[:2], two)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Stack([3], 2), "positive widths"),
        (lambda: Stack([3, 0], 2), "positive widths"),
        (lambda: Stack([3, 2], 0), "positive widths"),
        (lambda: Stack([3, 2], 1, "gelu"), "one of tanh, relu: got 'gelu'"),
        (lambda: Stack.of([nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 4))]), "one shape"),
        (lambda: Stack.of([]), "one shape"),
        (lambda: Stack.of([nn.Sequential(nn.Linear(3, 2), nn.GELU(), nn.Linear(2, 2))]), "got Sequential"),
        (lambda: Stack.of([nn.Sequential(nn.Linear(3, 2, bias=False))]), "with biases"),
        (lambda: Stack.of([nn.Sequential(nn.Linear(3, 2), nn.ReLU())]), "between them"),
        (lambda: lockstep.Adam(Stack([3, 2], 3), [0.1, 0.2]), "each of 3 networks: got 2"),
        (lambda: lockstep.Adam(Stack([3, 2], 3), -0.1), "rates must be >= 0"),
        (lambda: lockstep.Adam(Stack([3, 2], 3), 0.1, (0.9, 1.0)), "below 1"),
        (lambda: lockstep.SGD(Stack([3, 2], 3), float("nan")), "rates must be >= 0"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
