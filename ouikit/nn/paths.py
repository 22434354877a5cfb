"""One hidden ReLU layer with frozen gates, written as a sum over its paths: linear in what is trained.

In use::

    model = PathModel.from_mlp(mlp)                # nn.Sequential(Linear, ReLU, Linear); equal outputs
    fit = fit_ridge(model, x, labels, penalty=1.0) # ouikit.nn.path_ridge: exact, in one solve
    logits = model(images)                         # or train `model.paths` with any optimiser

With gates g_j(x) = [w_j·x + b_j > 0] that are never trained,

    y_o(x) = Σ_j g_j(x) Σ_i π_oji x_i + c_o,      i = 1, …, d and one more input that is always 1.

Gates are the structure, π and c the quantity. The features φ_ji(x) = g_j(x) x_i would have h (d + 1) columns;
they are never formed here: a model costs one matrix product and a masked sum.

Source: the path form of GreenLightningAI (arXiv 2312.09971) and GLAI (arXiv 2510.00883), of which only the
abstracts are known; how it is carried out is a reconstruction.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from ouikit.nn.path_sum import path_sum
from ouikit.patterns import positive


def gates(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """Which units are on: bool `[B, h]`, w_j·x + b_j > 0; an exact zero is off. No gradient.

    weight `[h, d]`, bias `[h]`, x `[B, d]`, of one dtype and device.

    >>> gates(torch.eye(2), torch.zeros(2), torch.tensor([[1.0, -1.0], [0.0, 2.0]])).tolist()
    [[True, False], [False, True]]
    """
    return positive(linear(x.detach(), weight.detach(), bias.detach()))


def with_one(x: Tensor) -> Tensor:
    """x `[…, d]` with a last input that is always 1: `[…, d + 1]`."""
    return pad(x, (0, 1), value=1.0)


class PathModel(nn.Module):
    """y = Σ_j g_j(x) π_j·(x, 1) + c, gates g fixed.

    Args:
        weight, bias: `[h, d]` and `[h]`, float: the gates'. They are copied, and are buffers.
        outputs: how many; π and c start at zero.

    Attributes:
        paths: π `[outputs, h, d + 1]`, the last of the inputs being the 1. bias: c `[outputs]`.
        gate_weight, gate_bias: the gates'.

    Raises:
        ValueError: the shapes do not fit, a gate is not finite, or there are no outputs.

    >>> model = PathModel(torch.eye(2), torch.zeros(2), outputs=1)
    >>> with torch.no_grad():
    ...     _ = model.paths.copy_(torch.tensor([[[1.0, 0, 0], [0, 10, 5]]]))
    >>> model(torch.tensor([[2.0, -1.0], [2.0, 3.0]])).tolist()
    [[2.0], [37.0]]
    """

    gate_weight: Tensor
    gate_bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, outputs: int) -> None:
        super().__init__()
        if weight.ndim != 2 or bias.shape != weight.shape[:1] or 0 in weight.shape:
            raise ValueError(f"gates are [h, d] and [h]: got {tuple(weight.shape)} and {tuple(bias.shape)}")
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError("the gates' weights are not all finite: train or draw them anew")
        if outputs < 1:
            raise ValueError(f"a model has at least one output: got {outputs}")
        h, d = weight.shape
        self.register_buffer("gate_weight", weight.detach().clone())
        self.register_buffer("gate_bias", bias.detach().clone())
        self.paths = nn.Parameter(weight.new_zeros(outputs, h, d + 1))
        self.bias = nn.Parameter(weight.new_zeros(outputs))

    @classmethod
    def from_mlp(cls, mlp: nn.Sequential) -> Self:
        """The model that gives what `mlp` gives: π_oji = v_oj w_ji, c = v's bias. The network is left alone.

        Raises ValueError for anything but `nn.Sequential(Linear, ReLU, Linear)`.

        >>> mlp, x = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(5, 3)
        >>> torch.allclose(PathModel.from_mlp(mlp)(x), mlp(x), atol=1e-5)
        True
        """
        match list(mlp):
            case [nn.Linear() as first, nn.ReLU(), nn.Linear() as last]:
                pass
            case _:
                raise ValueError(f"a path model is made from Linear, ReLU, Linear: got {mlp}")
        weight, last_weight = first.weight.detach(), last.weight.detach()
        bias = weight.new_zeros(len(weight)) if first.bias is None else first.bias.detach()
        model = cls(weight, bias, last.out_features)
        with torch.no_grad():
            model.paths.copy_(last_weight[:, :, None] * torch.cat([weight, bias[:, None]], 1))
            if last.bias is not None:
                model.bias.copy_(last.bias)
        return model

    def gates(self, x: Tensor) -> Tensor:
        """Bool `[…, h]`; they are the same whatever is trained, so they may be kept."""
        return gates(self.gate_weight, self.gate_bias, x)

    def forward(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """x `[…, d]` -> `[…, outputs]`.

        gates: what `self.gates(x)` gave before, bool `[…, h]`.

        Raises ValueError where the gates are another batch's.
        """
        gates = self.gates(x) if gates is None else gates
        outputs, h, _ = self.paths.shape
        if gates.shape != (*x.shape[:-1], h):
            raise ValueError(f"gates of {tuple(x.shape)} are […, {h}]: got {tuple(gates.shape)}")
        rows, on = with_one(x.reshape(-1, x.shape[-1])), gates.reshape(-1, h).to(x.dtype)
        return path_sum(rows, on, self.paths, self.bias).view(*x.shape[:-1], outputs)

    def extra_repr(self) -> str:
        """The sizes, in a printed network."""
        outputs, h, inputs = self.paths.shape
        return f"in={inputs - 1}, hidden={h}, out={outputs}"


@torch.no_grad()
def average(models: Sequence[PathModel], weights: Sequence[float] | None = None) -> PathModel:
    """The model whose π and c are means over models with the same gates.

    Its outputs are the mean of theirs, which for ordinary networks is false. It is not what pooled data
    would give: for that, add statistics (`ouikit.nn.path_ridge.pooled`).

    weights: one per model, ≥ 0, not all zero; equal where left out. They are divided by their sum.

    Raises ValueError for no models, other gates, or weights that are no such numbers.

    >>> a, b = (PathModel(torch.eye(2), torch.zeros(2), 1) for _ in range(2))
    >>> _ = nn.init.ones_(a.bias)
    >>> average([a, b], [3, 1])(torch.zeros(1, 2)).item()
    0.75
    """
    if not models:
        raise ValueError("there is no model to average")
    shares = torch.ones(len(models)) if weights is None else torch.as_tensor(weights, dtype=torch.float64)
    if shares.shape != (len(models),) or not (
        shares.isfinite().all() and (shares >= 0).all() and shares.sum() > 0
    ):
        raise ValueError(f"{len(models)} models need as many weights ≥ 0, not all zero: got {weights}")
    first = models[0]
    for k, model in enumerate(models):
        same = model.paths.shape == first.paths.shape
        if not (
            same
            and torch.equal(model.gate_weight, first.gate_weight)
            and torch.equal(model.gate_bias, first.gate_bias)
        ):
            raise ValueError(
                f"model {k} has other gates than model 0: only paths through the same gates can be averaged"
            )
    mean = PathModel(first.gate_weight, first.gate_bias, len(first.bias))
    for name, parameter in mean.named_parameters():
        stacked = torch.stack([model.get_parameter(name).double() for model in models])
        parameter.copy_(torch.tensordot((shares / shares.sum()).to(stacked), stacked, 1))
    return mean
