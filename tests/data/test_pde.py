"""Problems with known solutions: points, residuals, and Burgers' solution against finite differences."""

import math

import numpy as np
import pytest
import torch

from ouikit.data.pde import Burgers, Helmholtz, Poisson, gradient, laplacian

PROBLEMS = [Poisson(), Poisson((1.0, 2.0)), Helmholtz(), Helmholtz((1.0, 2.0), k=3.0), Burgers()]


def points(problem, n=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return problem.interior(n, generator).double().requires_grad_()


@pytest.mark.parametrize("problem", PROBLEMS[:4])
def test_the_manufactured_solution_leaves_no_residual(problem):
    x = points(problem)
    assert problem.residual(problem.exact(x), x).abs().max() < 1e-9


@pytest.mark.parametrize("problem", PROBLEMS)
def test_another_field_leaves_one(problem):
    x = points(problem)
    assert problem.residual(x.square().sum(-1), x).abs().max() > 0.1


def burgers_differences(problem, x, h=1e-4):
    """The residual of the exact solution, by central differences of it."""
    dx, dt = torch.tensor([[h, 0.0], [0.0, h]], dtype=torch.float64)
    u, left, right = problem.exact(x), problem.exact(x - dx), problem.exact(x + dx)
    u_t = (problem.exact(x + dt) - problem.exact(x - dt)) / (2 * h)
    return u_t + u * (right - left) / (2 * h) - problem.viscosity * (right - 2 * u + left) / h**2


def test_burgers_quadrature_solves_the_equation_where_it_is_smooth():
    problem = Burgers(0.1 / math.pi)
    x = points(problem).detach() * 0.9 + torch.tensor([0.0, 0.05])
    assert burgers_differences(problem, x).abs().max() < 1e-4
    assert burgers_differences(Burgers(0.2 / math.pi), x).abs().max() < 1e-4


def test_burgers_starts_as_a_sine_is_odd_and_vanishes_at_the_ends():
    problem = Burgers()
    start = torch.tensor([[-1.0, 0.0], [-0.5, 0.0], [0.25, 0.0]], dtype=torch.float64)
    expected = torch.tensor([0.0, 1.0, -math.sqrt(0.5)], dtype=torch.float64)
    torch.testing.assert_close(problem.exact(start), expected)
    x = points(problem).detach()
    mirrored = x * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(problem.exact(mirrored), -problem.exact(x))
    ends = problem.boundary(30).double()
    assert problem.exact(ends[1::3]).abs().max() < 1e-12
    assert problem.exact(ends[2::3]).abs().max() < 1e-12


def differences(nu, cells, end=0.5):
    """An independent solution: central differences of the fluxes, Runge and Kutta's fourth order in time."""
    x = np.linspace(-1, 1, cells + 1)
    h = x[1] - x[0]
    steps = math.ceil(end / (0.2 * min(h, h * h / (2 * nu))))

    def slope(u):
        found = np.zeros_like(u)
        flux = u * u / 2
        found[1:-1] = -(flux[2:] - flux[:-2]) / (2 * h) + nu * (u[2:] - 2 * u[1:-1] + u[:-2]) / h**2
        return found

    u, dt = -np.sin(np.pi * x), end / steps
    for _ in range(steps):
        a = slope(u)
        b = slope(u + dt / 2 * a)
        c = slope(u + dt / 2 * b)
        u = u + dt / 6 * (a + 2 * b + 2 * c + slope(u + dt * c))
    return x, u


@pytest.mark.parametrize("nu", [0.1 / math.pi, 0.05 / math.pi])
def test_burgers_agrees_with_finite_differences_to_their_second_order(nu):
    errors = []
    for cells in (200, 400):
        x, u = differences(nu, cells)
        exact = Burgers(nu).exact(torch.tensor(np.stack([x, np.full_like(x, 0.5)], 1))).numpy()
        errors.append(abs(u - exact).max())
    assert errors[1] < 2e-3
    assert 3 < errors[0] / errors[1] < 5
    assert abs(exact).max() > 0.5


def test_the_usual_viscosity_has_its_known_slope_at_the_shock():
    """∂u/∂x = −152.005 at x = 0, t = 1.6037 / π: Basdevant et al., Comput. Fluids 14, 1986."""
    problem, h = Burgers(), 1e-5
    x = torch.tensor([[-h, 1.6037 / math.pi], [h, 1.6037 / math.pi]], dtype=torch.float64)
    low, high = problem.exact(x)
    assert float(high - low) / (2 * h) == pytest.approx(-152.005, abs=0.01)


def test_derivatives_by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    u = x[:, 0] ** 2 * x[:, 1]  # 2xy, x²; Δ = 2y
    torch.testing.assert_close(gradient(u, x), torch.tensor([[4.0, 1.0], [-6.0, 9.0]]))
    torch.testing.assert_close(laplacian(u, x), torch.tensor([4.0, -2.0]))
    # Burgers: u_t + u u_x − ν u_xx with u = x² t
    expected = x[:, 0] ** 2 + u * 2 * x[:, 0] * x[:, 1] - 0.5 * 2 * x[:, 1]
    torch.testing.assert_close(Burgers(0.5).residual(u, x), expected)


def test_a_field_that_is_linear_or_constant_has_derivatives_of_zero():
    x = torch.rand(5, 2, requires_grad=True)
    assert not laplacian(x.sum(-1), x).any()
    assert not laplacian(torch.ones(5), x).any()


def test_networks_side_by_side_do_not_mix():
    problem = Helmholtz()
    x = torch.stack([points(problem, seed=s).detach() for s in range(3)]).requires_grad_()
    scale = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)[:, None]
    together = problem.residual(scale * x.prod(-1), x)
    for i in range(3):
        alone = x[i].detach().requires_grad_()
        torch.testing.assert_close(together[i], problem.residual(scale[i] * alone.prod(-1), alone))
    errors = problem.error(scale * problem.exact(x), x)
    torch.testing.assert_close(errors, torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_points_lie_where_they_should_and_follow_the_generator(problem):
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return problem.interior(200, generator), problem.boundary(30, generator)

    low, high = torch.tensor(problem.low), torch.tensor(problem.high)
    (inside, faces), again, other = draw(0), draw(0), draw(1)
    assert ((inside > low) & (inside < high)).all()
    assert (inside.max(0).values - inside.min(0).values > 0.8 * (high - low)).all()
    for i, (dimension, end) in enumerate(problem.faces):
        assert (faces[i :: len(problem.faces), dimension] == end).all()
    assert torch.equal(inside, again[0])
    assert torch.equal(faces, again[1])
    assert not torch.equal(inside, other[0])


def test_a_grid_has_its_ends_and_its_order():
    found = Burgers().grid(3)
    assert found[:4].tolist() == [[-1.0, 0.0], [-1.0, 0.5], [-1.0, 1.0], [0.0, 0.0]]
    assert Poisson().grid(5)[:, 0].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Poisson(()), "waves are finite numbers > 0"),
        (lambda: Helmholtz((1.0, 0.0)), "waves are finite numbers > 0"),
        (lambda: Helmholtz((1.0, 2.0, 3.0)), "two dimensions: got 3"),
        (lambda: Helmholtz(k=math.nan), "k are finite"),
        (lambda: Burgers(0.0), "viscosity are finite"),
        (lambda: Poisson().interior(0), "at least one point: got 0"),
        (lambda: Burgers().boundary(2), "burgers has 3 faces with conditions: got 2"),
        (lambda: Poisson().grid(1), "two or more points a side: got 1"),
        (lambda: gradient(torch.ones(3), torch.ones(3, 1)), "requires_grad=False"),
        (
            lambda: gradient(torch.ones(3, 1), torch.ones(3, 1, requires_grad=True)),
            r"got \(3, 1\) for \(3, 1\)",
        ),
    ],
)
def test_what_makes_no_problem(make, words):
    with pytest.raises(ValueError, match=words):
        make()
