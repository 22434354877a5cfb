"""Our equations and StableGrad against DeepXDE, in double precision."""

import math

import pytest
import torch

from ouikit.data.pde import Burgers, Helmholtz, Poisson
from ouikit.optim import StableGrad

pytest.importorskip("deepxde", reason="needs ouikit[pde]")
from ouikit.integrations.deepxde import double_precision


def _poisson(dde, x, u):
    exact = torch.sin(math.pi * x[:, :1]) * torch.sin(3 * math.pi * x[:, 1:])
    return -dde.grad.hessian(u, x, i=0, j=0) - dde.grad.hessian(u, x, i=1, j=1) - 10 * math.pi**2 * exact


def _helmholtz(dde, x, u):
    exact = torch.sin(math.pi * x[:, :1]) * torch.sin(4 * math.pi * x[:, 1:])
    source = (4 - 17 * math.pi**2) * exact
    return dde.grad.hessian(u, x, i=0, j=0) + dde.grad.hessian(u, x, i=1, j=1) + 4 * u - source


def _burgers(dde, x, u):
    slopes = [dde.grad.jacobian(u, x, i=0, j=j) for j in (0, 1)]
    return slopes[1] + u * slopes[0] - 0.02 * dde.grad.hessian(u, x, i=0, j=0)


@pytest.mark.parametrize(
    ("problem", "theirs"),
    [(Poisson((1.0, 3.0)), _poisson), (Helmholtz(k=2.0), _helmholtz), (Burgers(0.02), _burgers)],
    ids=["poisson", "helmholtz", "burgers"],
)
def test_a_network_leaves_the_residual_that_deepxde_finds(problem, theirs):
    torch.manual_seed(0)
    with double_precision() as dde:
        network = dde.nn.FNN([2, 12, 12, 1], "tanh", "Glorot normal")
        x = problem.interior(40).double().requires_grad_()
        u = network(x)
        expected = theirs(dde, x, u)[:, 0]
        dde.grad.clear()
    torch.testing.assert_close(problem.residual(network(x)[:, 0], x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("wrapped", [False, True])
def test_fifty_steps_of_deepxde_are_fifty_of_a_plain_loop(wrapped):
    def optimiser_of(network):
        adamw = torch.optim.AdamW(network.parameters(), lr=1e-3)
        return StableGrad(adamw, reference=network) if wrapped else adamw

    problem = Poisson((1.0,))
    with double_precision() as dde:

        def residual(x, u):
            return -dde.grad.hessian(u, x) - math.pi**2 * torch.sin(math.pi * x)

        ends = torch.tensor([[0.0], [1.0]])
        held = dde.icbc.PointSetBC(ends.numpy(), 0)
        data = dde.data.PDE(dde.geometry.Interval(0, 1), residual, held, 16)
        theirs, ours = (dde.nn.FNN([1, 8, 8, 1], "tanh", "Glorot normal") for _ in range(2))
        ours.load_state_dict(theirs.state_dict())
        model = dde.Model(data, theirs)
        model.compile(optimiser_of(theirs), loss_weights=[1, 10], verbose=0)
        model.train(iterations=50, display_every=50, verbose=0)

        optimiser, x = optimiser_of(ours), torch.tensor(data.train_x_all)
        for _ in range(50):
            points = x.clone().requires_grad_()
            u = ours(torch.cat([ends, points]))[:, 0]
            loss = problem.residual(u[2:], points).square().mean() + 10 * u[:2].square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def _fail():
    with double_precision() as dde:
        assert torch.get_default_dtype() == torch.float64
        assert dde.config.default_float() == "float64"
        raise ZeroDivisionError


def test_torchs_defaults_outlast_a_block_that_fails():
    with pytest.raises(ZeroDivisionError):
        _fail()
    assert torch.get_default_dtype() == torch.float32
    assert torch.zeros(1).device.type == "cpu"
    with double_precision() as dde:
        pass
    assert dde.config.default_float() == "float32"
