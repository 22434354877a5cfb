"""Three partial differential equations with known solutions: points, residuals by autograd, errors.

::

    problem = Burgers()
    x = problem.interior(256, generator).requires_grad_()
    u = network(x)[..., 0]
    loss = problem.residual(u, x).square().mean()
    ends = problem.boundary(64, generator)
    loss = loss + (network(ends)[..., 0] - problem.exact(ends)).square().mean()

Points are `[…, N, d]` and fields `[…, N]`: what stands before N are networks or draws that do not mix.
Nothing here knows the network; a field must depend on each point alone (no batch statistics).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

Face = tuple[int, float]  # a dimension and where it is held


class Problem(ABC):
    """An equation on a box, with its solution given on some of the box's faces."""

    name: ClassVar[str]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @abstractmethod
    def exact(self, x: Tensor) -> Tensor:
        """The solution at `[…, N, d]`: `[…, N]`, in x's dtype."""

    @abstractmethod
    def residual(self, u: Tensor, x: Tensor) -> Tensor:
        """What is left of the equation where a field is put into it, `[…, N]`: 0 for the solution.

        u: the field at x, computed from it by operations that autograd knows. x: requires gradients.
        """

    @property
    def faces(self) -> list[Face]:
        """Where the solution is given: all faces of the box, unless the problem says otherwise."""
        return [(d, end) for d in range(len(self.low)) for end in (self.low[d], self.high[d])]

    def interior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n points drawn uniformly from the box, `[n, d]`. Raises ValueError for n < 1."""
        if n < 1:
            raise ValueError(f"give at least one point: got {n}")
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        return low + (high - low) * torch.rand(n, len(self.low), generator=generator)

    def boundary(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n points on the faces, taken in turn and drawn uniformly on each, `[n, d]`.

        Raises ValueError for fewer points than faces.
        """
        if n < len(self.faces):
            raise ValueError(f"{self.name} has {len(self.faces)} faces with conditions: got {n} points")
        x = self.interior(n, generator)
        for i, (dimension, end) in enumerate(self.faces):
            x[i :: len(self.faces), dimension] = end
        return x

    def grid(self, side: int) -> Tensor:
        """`side` equally spaced points a dimension, ends included: `[side ** d, d]`, the last fastest."""
        if side < 2:
            raise ValueError(f"a grid has two or more points a side: got {side}")
        axes = [torch.linspace(a, b, side) for a, b in zip(self.low, self.high, strict=True)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)

    def error(self, u: Tensor, x: Tensor) -> Tensor:
        """Relative L2 error ‖u − u*‖ / ‖u*‖ over the points: `[…, N]` and `[…, N, d]` -> `[…]`."""
        solution = self.exact(x)
        return (u - solution).norm(dim=-1) / solution.norm(dim=-1)


@dataclass(frozen=True)
class Poisson(Problem):
    """−Δu = f on [0, 1]^d with u = Π sin(a_i π x_i), so that f = π² Σ a_i² · u.

    waves: a_i, one for each dimension. Raises ValueError for none, or one that is not > 0.

    >>> x = torch.tensor([[0.25]], requires_grad=True)
    >>> Poisson((2,)).exact(x).item(), round(Poisson((2,)).residual(x[:, 0] ** 2, x).item(), 4)
    (1.0, -41.4784)
    """

    waves: tuple[float, ...] = (2.0,)
    name: ClassVar[str] = "poisson"

    def __post_init__(self) -> None:
        _check_positive("waves", self.waves)
        object.__setattr__(self, "low", (0.0,) * len(self.waves))
        object.__setattr__(self, "high", (1.0,) * len(self.waves))

    def exact(self, x: Tensor) -> Tensor:
        return _sines(self.waves, x)

    def residual(self, u: Tensor, x: Tensor) -> Tensor:
        return -laplacian(u, x) - math.pi**2 * sum(a * a for a in self.waves) * self.exact(x)


@dataclass(frozen=True)
class Helmholtz(Problem):
    """Δu + k² u = f on [−1, 1]² with u = sin(a₁ π x) sin(a₂ π y), so that f = (k² − π² (a₁² + a₂²)) u.

    waves: a₁, a₂. Raises ValueError for another number of them, or a number that is not > 0.

    Source of the usual setting (1, 4), k = 1: Wang, Teng, Perdikaris, SIAM J. Sci. Comput. 43(5), 2021.
    """

    waves: tuple[float, float] = (1.0, 4.0)
    k: float = 1.0
    name: ClassVar[str] = "helmholtz"

    def __post_init__(self) -> None:
        _check_positive("waves", self.waves)
        _check_positive("k", (self.k,))
        if len(self.waves) != 2:
            raise ValueError(f"helmholtz has two dimensions: got {len(self.waves)} waves")
        object.__setattr__(self, "low", (-1.0, -1.0))
        object.__setattr__(self, "high", (1.0, 1.0))

    def exact(self, x: Tensor) -> Tensor:
        return _sines(self.waves, x)

    def residual(self, u: Tensor, x: Tensor) -> Tensor:
        squares = sum(a * a for a in self.waves)
        return laplacian(u, x) + self.k**2 * u - (self.k**2 - math.pi**2 * squares) * self.exact(x)


@dataclass(frozen=True)
class Burgers(Problem):
    """u_t + u u_x = ν u_xx for x in [−1, 1], t in [0, 1]; u = −sin πx at t = 0, and 0 at x = ±1.

    Points are (x, t). Raises ValueError for a viscosity that is not > 0.

    Source: Cole, Q. Appl. Math. 9, 1951; the usual ν = 0.01 / π: Raissi, Perdikaris, Karniadakis, J. Comput.
    Phys. 378, 2019. A shock forms at x = 0, of width about ν.
    """

    viscosity: float = 0.01 / math.pi
    name: ClassVar[str] = "burgers"

    def __post_init__(self) -> None:
        _check_positive("viscosity", (self.viscosity,))
        object.__setattr__(self, "low", (-1.0, 0.0))
        object.__setattr__(self, "high", (1.0, 1.0))

    @property
    def faces(self) -> list[Face]:
        """The start and both ends; nothing is given at t = 1."""
        return [(1, 0.0), (0, -1.0), (0, 1.0)]

    @torch.no_grad()
    def exact(self, x: Tensor) -> Tensor:
        """By Cole's and Hopf's transform: the mean of −sin π(x − η) under weights of η, by quadrature.

        With η = 2 √(ν t) z the weights are exp(−z² − cos(π (x − η)) / 2πν). They are smooth in z and vanish
        beyond z = ±(√(1 / πν) + 6), so that the trapezoidal rule is exact to rounding. No gradients pass.
        """
        nu, (place, time) = self.viscosity, x.double().unbind(-1)
        reach = math.sqrt(1 / (math.pi * nu)) + 6
        z = torch.arange(-reach, reach, 0.05, dtype=torch.float64, device=x.device)
        shifted = math.pi * (place[..., None] - 2 * (nu * time[..., None]).sqrt() * z)
        weights = (-z.square() - shifted.cos() / (2 * math.pi * nu)).softmax(-1)
        return -(weights * shifted.sin()).sum(-1).to(x.dtype)

    def residual(self, u: Tensor, x: Tensor) -> Tensor:
        u_x, u_t = gradient(u, x).unbind(-1)
        return u_t + u * u_x - self.viscosity * gradient(u_x, x)[..., 0]


def gradient(u: Tensor, x: Tensor) -> Tensor:
    """∂u/∂x at every point, `[…, N]` and `[…, N, d]` -> `[…, N, d]`; can be differentiated again.

    Raises ValueError where u does not match x, or x does not require gradients (that includes a part of x
    taken before u was computed).
    """
    if u.shape != x.shape[:-1] or not x.requires_grad:
        raise ValueError(
            f"u has the shape of x without its last dimension, and x requires gradients: got "
            f"{tuple(u.shape)} for {tuple(x.shape)}, requires_grad={x.requires_grad}"
        )
    if not u.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(u.sum(), x, create_graph=True, materialize_grads=True)
    return found


def laplacian(u: Tensor, x: Tensor) -> Tensor:
    """Σ ∂²u/∂x_i² at every point, `[…, N]`."""
    slopes = gradient(u, x).unbind(-1)
    return torch.stack([gradient(slope, x)[..., i] for i, slope in enumerate(slopes)]).sum(0)


def _sines(waves: Sequence[float], x: Tensor) -> Tensor:
    return (math.pi * torch.tensor(waves, dtype=x.dtype, device=x.device) * x).sin().prod(-1)


def _check_positive(name: str, numbers: Sequence[float]) -> None:
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"{name} are finite numbers > 0: got {numbers}")
