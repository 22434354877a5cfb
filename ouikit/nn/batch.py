"""R networks of one architecture, trained side by side in one batched program.

`ouikit.nn.lockstep.Stack` is faster and holds plain perceptrons only. This takes every module that
`torch.func` maps (residual networks, batch normalisation) and losses that read derivatives in the inputs.

::

    batch = Batch(networks)                              # modules of one class, each with its own weights
    sgd = ouikit.optim.lockstep.SGD(batch, rates, momentum=0.9)
    out = batch(x)                                       # [R, B, d], or [B, d] for all -> [R, B, c]
    batch.backward(losses(out, y))                       # [R]
    sgd.step()
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


class Batch:
    """R networks, each with parameters and buffers of its own; nothing passes from one to another.

    Attributes:
        flat, grad: all parameters and their gradients, `[R, P]`.
        weights, grads: views of them by the modules' names, `[R, …]`.

    Raises ValueError for no network. Networks of several architectures, or some in training mode and others
    not, are refused by `torch.func.stack_module_state` (RuntimeError).

    >>> batch = Batch([nn.Linear(3, 2) for _ in range(4)])
    >>> batch(torch.randn(5, 3)).shape, batch.flat.shape
    (torch.Size([4, 5, 2]), torch.Size([4, 8]))
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        if not networks:
            raise ValueError("a batch holds at least one network: got none")
        stacked, self.buffers = stack_module_state(list(networks))
        self.flat = torch.cat([p.detach().flatten(1) for p in stacked.values()], 1)
        self.grad = torch.zeros_like(self.flat)
        sizes = [p[0].numel() for p in stacked.values()]

        def views(flat: Tensor) -> dict[str, Tensor]:
            parts = zip(stacked.items(), flat.split(sizes, 1), strict=True)
            return {name: part.view(p.shape) for (name, p), part in parts}

        self.weights, self.grads = views(self.flat), views(self.grad)
        self._leaves = {name: weight.detach().requires_grad_() for name, weight in self.weights.items()}
        self._network = copy.deepcopy(networks[0]).to("meta")
        self._layers = _plain_layers(self._network)

    def __call__(self, x: Tensor, *, each: bool = False) -> Tensor:
        """Inputs `[B, …]` for all, or with `each` a network's own `[R, B, …]` -> `[R, B, …]`."""
        if self._layers:
            return self._perceptrons(x if each else x.expand(len(self.flat), *x.shape))

        def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            found: Tensor = functional_call(self._network, (weights, buffers), (x,))
            return found

        out: Tensor = vmap(one, in_dims=(0, 0, 0 if each else None))(self._leaves, self.buffers, x)
        return out

    def _perceptrons(self, x: Tensor) -> Tensor:
        """Without vmap, whose linear layers have a third of the speed where derivatives are derived again."""
        for name, module in self._layers:
            if isinstance(module, nn.Linear):
                weight, bias = self._leaves[f"{name}.weight"], self._leaves[f"{name}.bias"]
                x = torch.baddbmm(bias[:, None], x, weight.mT)
            else:
                x = module(x)
        return x

    def train(self, mode: bool = True) -> None:
        """Training mode of all networks, or evaluation."""
        self._network.train(mode)

    def backward(self, losses: Tensor, into: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Fill `grad` from the losses `[R]`; returns their gradients in the tensors `into`, 0 where none."""
        leaves = list(self._leaves.values())
        found = torch.autograd.grad(losses.sum(), [*leaves, *into], allow_unused=True, materialize_grads=True)
        torch.cat([g.flatten(1) for g in found[: len(leaves)]], 1, out=self.grad)
        return found[len(leaves) :]


def _plain_layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules of a plain perceptron by name; none where it is something else."""
    layers = list(network.named_children()) if isinstance(network, nn.Sequential) else []
    plain = all(
        module.bias is not None if isinstance(module, nn.Linear) else isinstance(module, nn.Tanh | nn.ReLU)
        for _, module in layers
    )
    return layers if plain else []
