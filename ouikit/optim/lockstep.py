"""Optimisers of many networks at once, each with its own learning rate and momenta; see `ouikit.nn.lockstep`.

They do what torch's do, element by element: `Adam` and `SGD` are tested against the for-loop versions, and
`stable_` against `ouikit.optim.StableGrad`. What a network gets does not depend on its neighbours.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ouikit.optim.stablegrad import scale_factors

Numbers = float | Sequence[float] | Tensor


class Parameters(Protocol):
    """What is optimised: parameters and gradients of R networks, `[R, P]`."""

    flat: Tensor
    grad: Tensor


class Adam:
    """`torch.optim.Adam` or, where decay is decoupled, `AdamW`: for-loop version, ε outside the root.

    rates, betas, weight_decay: one number for all networks, or one each `[R]`.

    Raises ValueError for numbers that are neither one nor R, or lie outside what Adam allows.
    """

    def __init__(
        self,
        parameters: Parameters,
        rates: Numbers,
        betas: tuple[Numbers, Numbers] = (0.9, 0.999),
        *,
        eps: float = 1e-8,
        weight_decay: Numbers = 0.0,
        decoupled: bool = True,
    ) -> None:
        self.parameters, self.eps, self.decoupled = parameters, eps, decoupled
        self.rates = _column(parameters, "rates", rates)  # may be changed between steps, by a schedule
        self.weight_decay = _column(parameters, "weight_decay", weight_decay)
        self._betas = [_column(parameters, "betas", beta, below=1.0) for beta in betas]
        self._mean, self._square = torch.zeros_like(parameters.flat), torch.zeros_like(parameters.flat)
        self._steps = 0

    def step(self) -> None:
        """Move every parameter by its gradient."""
        flat, grad, (first, second) = self.parameters.flat, self.parameters.grad, self._betas
        self._steps += 1
        if self.weight_decay.any():
            if self.decoupled:
                flat.mul_(1 - self.rates * self.weight_decay)
            else:
                grad = grad.addcmul(flat, self.weight_decay)
        self._mean.lerp_(grad, 1 - first)
        self._square.mul_(second).addcmul_(grad, grad * (1 - second))
        root = self._square.sqrt().div_((1 - second**self._steps).sqrt()).add_(self.eps)
        flat.sub_(torch.div(self._mean, root, out=root).mul_(self.rates / (1 - first**self._steps)))


class SGD:
    """`torch.optim.SGD` with momentum and coupled weight decay; rates and weight_decay as in `Adam`."""

    def __init__(
        self, parameters: Parameters, rates: Numbers, *, momentum: float = 0.0, weight_decay: Numbers = 0.0
    ) -> None:
        self.parameters, self.momentum = parameters, momentum
        self.rates = _column(parameters, "rates", rates)
        self.weight_decay = _column(parameters, "weight_decay", weight_decay)
        self._buffer: Tensor | None = None

    def step(self) -> None:
        """Move every parameter by its gradient."""
        flat, grad = self.parameters.flat, self.parameters.grad
        if self.weight_decay.any():
            grad = grad.addcmul(flat, self.weight_decay)
        if self.momentum:
            self._buffer = (
                grad.clone() if self._buffer is None else self._buffer.mul_(self.momentum).add_(grad)
            )
            grad = self._buffer
        flat.addcmul_(grad, self.rates, value=-1)


def stable_(gradients: Iterable[Tensor], reference: Tensor, eps: float = 1e-12) -> None:
    """Multiply each weight gradient `[R, …]` by σ_ref / (σ + ε), network by network, in place.

    σ is taken over one network's entries of a gradient; reference is σ_ref, `[R]`. Gradients of biases,
    `[R, m]`, stay as they are. See `ouikit.optim.StableGrad`, which also says where σ_ref comes from.
    """
    for gradient in gradients:
        if gradient.ndim > 2 and gradient[0].numel() > 1:
            spread, mean = torch.std_mean(gradient.flatten(1), 1)
            factors = scale_factors(spread, mean, reference, eps)
            gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))


def _column(parameters: Parameters, name: str, numbers: Numbers, below: float = float("inf")) -> Tensor:
    """`[R, 1]`."""
    networks = len(parameters.flat)
    values = torch.as_tensor(numbers, dtype=parameters.flat.dtype).flatten()
    if len(values) not in (1, networks):
        raise ValueError(f"{name}: one number, or one for each of {networks} networks: got {len(values)}")
    if not bool(((values >= 0) & (values < below)).all()):
        raise ValueError(f"{name} must be >= 0 and below {below:g}: got {values.tolist()}")
    return values.expand(networks)[:, None].clone()
