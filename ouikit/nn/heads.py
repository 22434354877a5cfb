"""Heads on fixed features, trained without a tape: an MLP and a path model, step by step alike.

Both have their gradient by hand and fused Adam over all their parameters, so that what differs in time is
the arithmetic. For a few hundred units a tape, and the bookkeeping of `torch.optim`, take as long as that.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ouikit.nn.chain import chain_of
from ouikit.nn.path_sum import units_gradient
from ouikit.nn.paths import PathModel, with_one


class FusedAdam:
    """Adam (Kingma and Ba, arXiv 1412.6980) as torch's fused kernel alone, on values that stay in place.

    With torch's default β and ε, and the bits of `torch.optim.Adam(…, fused=True)`, whose bookkeeping takes
    several times as long as the kernel for small networks.
    """

    def __init__(self, values: Sequence[Tensor], lr: float) -> None:
        self.values, self.lr = list(values), lr
        self._first, self._second = ([torch.zeros_like(v) for v in values] for _ in range(2))
        self._steps = [torch.zeros(()) for _ in values]

    def step(self, gradients: Sequence[Tensor]) -> None:
        """One update, in the values' memory."""
        torch._foreach_add_(self._steps, 1)
        torch._fused_adam_(
            self.values,
            list(gradients),
            self._first,
            self._second,
            [],
            self._steps,
            lr=self.lr,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


def mlp_epochs(
    mlp: nn.Sequential, x: Tensor, labels: Tensor, epochs: int, batch_size: int, lr: float, seed: int
) -> Iterator[int]:
    """Train `Linear, ReLU, …, Linear` in place with mean cross-entropy and Adam; yields 1, 2, … epochs.

    x: float32 `[n, d]`; labels: int64 `[n]`; the incomplete last batch is used.

    Raises ValueError for another network, one on a device, or not float32.
    """
    chain = chain_of(nn.Sequential(nn.Flatten(), *mlp))
    if chain is None:
        raise ValueError(
            f"trained by hand is nn.Sequential(Linear, ReLU, …, Linear), float32 on the CPU: got {mlp}"
        )
    adam = FusedAdam(chain.values, lr)
    for epoch, batches in enumerate(_orders(len(x), epochs, batch_size, seed), 1):
        for index in batches:
            chain.backward(x[index], labels[index])
            adam.step(chain.gradients)
        yield epoch


def path_epochs(
    model: PathModel, x: Tensor, labels: Tensor, epochs: int, batch_size: int, lr: float, seed: int
) -> Iterator[int]:
    """As `mlp_epochs`, for the paths of a model; its gates are computed once for all samples.

    Raises ValueError for a model that is not float32 on the CPU.
    """
    if model.paths.dtype != torch.float32 or model.paths.device.type != "cpu":
        raise ValueError(
            f"trained by hand is float32 on the CPU: got {model.paths.dtype} on {model.paths.device}"
        )
    steps = PathSteps(model, lr)
    x1, gates = with_one(x), model.gates(x).float()
    for epoch, batches in enumerate(_orders(len(x), epochs, batch_size, seed), 1):
        for index in batches:
            steps(x1[index], gates[index], labels[index])
        yield epoch


class PathSteps:
    """Training steps of a path model with mean cross-entropy, by hand, and the room that they need."""

    def __init__(self, model: PathModel, lr: float) -> None:
        self.paths, self.bias = model.paths.detach(), model.bias.detach()
        self._matrix = self.paths.flatten(0, 1)
        self._gradients = torch.empty_like(self.paths), torch.empty_like(self.bias)
        self._adam = FusedAdam([self.paths, self.bias], lr)

    @torch.no_grad()
    def __call__(self, x1: Tensor, gates: Tensor, labels: Tensor) -> None:
        """x1: float32 `[B, d + 1]`, the last input 1; gates: float32 `[B, h]`; labels: int64 `[B]`."""
        outputs, h, _ = self.paths.shape
        units = torch.mm(x1, self._matrix.t()).view(-1, outputs, h)
        out = units.mul_(gates.unsqueeze(1)).sum(2).add_(self.bias)
        out = torch.softmax(out, 1)
        out.scatter_add_(1, labels.unsqueeze(1), out.new_full((1, 1), -1.0).expand(len(out), 1))
        out.div_(len(out))
        by_paths, by_bias = self._gradients
        torch.mm(units_gradient(out, gates).t(), x1, out=by_paths.view_as(self._matrix))
        torch.sum(out, 0, out=by_bias)
        self._adam.step(self._gradients)


def _orders(samples: int, epochs: int, batch_size: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randperm(samples, generator=generator).split(batch_size) for _ in range(epochs))
