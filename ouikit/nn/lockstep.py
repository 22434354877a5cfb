"""R multilayer perceptrons of one shape, trained side by side in one batched program.

A sweep over learning rates, momenta or seeds trains networks of one shape. Here each of their parameters is
one tensor `[R, …]` with a network's own in every slice, and one call multiplies for all of them: what Python
and the calls of operators cost is paid once for R networks. Nothing passes from one network to another.

::

    stack = Stack.of(networks)                          # nn.Sequential of Linear and ReLU or Tanh
    adam = ouikit.optim.lockstep.Adam(stack, rates, betas)
    for x, y in batches:                                # [R, B, d] or [B, d] for all; int64 [R, B] or [B]
        outputs = stack.outputs(x)
        loss, slope = cross_entropy(outputs[-1], y)     # [R]
        stack.backward(outputs, slope)
        adam.step()
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

Layer = tuple[Tensor, Tensor]  # a weight [R, in, out] and a bias [R, 1, out]


def _tanh(z: Tensor) -> Tensor:
    """tanh z = 2 σ(2z) − 1, in place: torch's own tanh takes three times as long on a CPU."""
    return z.mul_(2).sigmoid_().mul_(2).sub_(1)


# In place forward; backward from the slope in the output, and the output.
UNITS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "tanh": (_tanh, torch.ops.aten.tanh_backward),
    "relu": (torch.relu_, lambda slope, out: slope.mul_(out > 0)),
}
_MODULES = {nn.Tanh: "tanh", nn.ReLU: "relu"}


class Stack:
    """R networks of Linear layers with one activation between them, float32 on the CPU, all zero at first.

    widths: inputs, hidden units, outputs. activation: `relu` or `tanh`.

    Attributes:
        flat, grad: all parameters and their gradients, `[R, P]`.
        layers, grads: views of them, a weight `[R, in, out]` and a bias `[R, 1, out]` per layer.

    Raises ValueError for fewer than two widths, one that is not > 0, no network, or another activation.
    """

    def __init__(self, widths: Sequence[int], networks: int, activation: str = "relu") -> None:
        if len(widths) < 2 or min(widths) < 1 or networks < 1:
            raise ValueError(f"a stack has networks and positive widths: got {networks} of {list(widths)}")
        if activation not in UNITS:
            raise ValueError(f"the activation is one of {', '.join(UNITS)}: got {activation!r}")
        shapes = [*pairwise(widths)]
        self.flat = torch.zeros(networks, sum((n + 1) * m for n, m in shapes))
        self.grad = torch.zeros_like(self.flat)
        self.layers, self.grads = _views(self.flat, shapes), _views(self.grad, shapes)
        self._forward, self._backward = UNITS[activation]

    @classmethod
    def of(cls, networks: Iterable[nn.Sequential]) -> Self:
        """A stack with the weights of networks: `nn.Sequential` of Linear layers and one activation.

        Raises ValueError for other modules, layers without a bias, or networks that differ in shape.
        """
        rows = [_linear_layers(network) for network in networks]
        if len({(tuple(layer.weight.shape for layer in row), kind) for row, kind in rows}) != 1:
            raise ValueError("the networks of a stack have one shape and one activation")
        first, kind = rows[0]
        stack = cls([first[0].in_features, *(layer.out_features for layer in first)], len(rows), kind)
        with torch.no_grad():
            for i, (weight, bias) in enumerate(stack.layers):
                weight.copy_(torch.stack([row[i].weight.T for row, _ in rows]))
                bias.copy_(torch.stack([row[i].bias[None] for row, _ in rows]))
        return stack

    def outputs(self, x: Tensor, first: int | None = None) -> list[Tensor]:
        """Inputs `[R, B, in]`, or `[B, in]` for all networks -> what every layer gives, the inputs first.

        first: run the first so many networks alone.
        """
        layers = [(weight[:first], bias[:first]) for weight, bias in self.layers] if first else self.layers
        found = [x.expand(len(layers[0][0]), *x.shape) if x.ndim == 2 else x]
        for weight, bias in layers[:-1]:
            found.append(self._forward(torch.baddbmm(bias, found[-1], weight)))
        weight, bias = layers[-1]
        return [*found, torch.baddbmm(bias.mT, weight.mT, found[-1].mT).mT]

    def backward(self, outputs: Sequence[Tensor], slope: Tensor, *, into_inputs: bool = False) -> Tensor:
        """Fill `grad` from the loss's slope in the last outputs, `[R, B, out]`.

        Returns the slope in the first layer's outputs; in its inputs `[R, B, in]` with `into_inputs`.
        """
        *_, (weight, bias) = self.grads
        torch.bmm(slope.mT, outputs[-2], out=weight.mT)
        torch.sum(slope, 1, keepdim=True, out=bias)
        for i in reversed(range(len(self.layers) - 1)):
            slope = self._backward(slope @ self.layers[i + 1][0].mT, outputs[i + 1])
            weight, bias = self.grads[i]
            torch.bmm(outputs[i].mT, slope, out=weight)
            torch.sum(slope, 1, keepdim=True, out=bias)
        return slope @ self.layers[0][0].mT if into_inputs else slope


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of each network `[R]` and its slope in the logits `[R, B, c]`.

    labels: int64 `[R, B]`, or `[B]` for all.
    """
    labels = labels.expand(logits.shape[:2])[:, :, None]
    log = logits.log_softmax(2)
    slope = log.exp()
    slope.scatter_add_(2, labels, torch.full_like(labels, -1, dtype=slope.dtype))
    return -log.gather(2, labels).mean((1, 2)), slope.div_(logits.shape[1])


def _views(flat: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Layer]:
    """Cut `[R, P]` into weights and biases.

    The last weight has few columns. It lies in memory with rows and columns exchanged, and is multiplied so:
    that is six times as fast.
    """
    found, end = [], 0
    for n, m in shapes:
        start, middle, end = end, end + n * m, end + (n + 1) * m
        found.append((flat[:, start:middle].unflatten(1, (n, m)), flat[:, middle:end].unflatten(1, (1, m))))
    (n, m), (weight, bias) = shapes[-1], found[-1]
    return [*found[:-1], (weight.view(-1, m, n).mT, bias)]


def _linear_layers(network: nn.Sequential) -> tuple[list[nn.Linear], str]:
    modules = list(network)
    layers = [module for module in modules[::2] if isinstance(module, nn.Linear) and module.bias is not None]
    units = {_MODULES.get(type(module)) for module in modules[1::2]} or {"relu"}
    unit = units.pop()
    if len(layers) != len(modules) // 2 + 1 or unit is None or units:
        raise ValueError(f"a stack takes Linear layers with biases, ReLU or Tanh between them: got {network}")
    return layers, unit
