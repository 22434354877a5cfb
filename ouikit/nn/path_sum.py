"""The masked sum over paths, differentiated by hand: half of the time that a tape takes.

    y_o = Σ_j g_j π_oj·(x, 1) + c_o

The derivative of the loss by π_oj is Σ g_j (∂L/∂y_o) (x, 1): an outer product per sample, then one matrix
product. A tape would keep the units' values and run four kernels more.

Source: derived; the form is that of `ouikit.nn.paths`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def path_sum(x1: Tensor, gates: Tensor, paths: Tensor, bias: Tensor) -> Tensor:
    """y `[B, outputs]`, with gradients for x1, paths and bias; none passes through the gates.

    Args:
        x1: float `[B, d + 1]`, inputs with a last one that is always 1.
        gates: `[B, h]`, 0 or 1 in x1's dtype.
        paths: `[outputs, h, d + 1]`. bias: `[outputs]`.

    Under autocast it computes in the paths' dtype. A second derivative is refused by torch.

    >>> x1, gates = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    >>> path_sum(x1, gates, torch.tensor([[[3.0, 1.0], [9.0, 9.0]]]), torch.zeros(1)).tolist()
    [[7.0]]
    """
    if torch.is_autocast_enabled(x1.device.type):
        with torch.autocast(x1.device.type, enabled=False):
            return path_sum(x1.to(paths.dtype), gates.to(paths.dtype), paths, bias)
    y: Tensor = _PathSum.apply(x1, gates, paths, bias)
    return y


def units_gradient(out: Tensor, gates: Tensor) -> Tensor:
    """∂L/∂(π_oj·x): `[B, outputs · h]` from ∂L/∂y `[B, outputs]` and gates `[B, h]`."""
    return (out.unsqueeze(2) * gates.unsqueeze(1)).flatten(1)


class _PathSum(Function):
    @staticmethod
    def forward(ctx: Any, x1: Tensor, gates: Tensor, paths: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x1, gates, paths)
        units = torch.mm(x1, paths.flatten(0, 1).t()).view(-1, *paths.shape[:2])
        return units.mul_(gates.unsqueeze(1)).sum(2).add_(bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, out: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
        x1, gates, paths = ctx.saved_tensors
        wants_x, _, wants_paths, wants_bias = ctx.needs_input_grad
        units = units_gradient(out, gates) if wants_x or wants_paths else out
        return (
            torch.mm(units, paths.flatten(0, 1)) if wants_x else None,
            None,
            torch.mm(units.t(), x1).view_as(paths) if wants_paths else None,
            out.sum(0) if wants_bias else None,
        )
