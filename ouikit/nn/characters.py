"""R character language models in lockstep: embed the last characters, then a multilayer perceptron."""

import torch
from torch import Tensor, nn

from ouikit.nn.lockstep import Stack, cross_entropy


class Table:
    """R embeddings `[characters, size]`, as parameters for `ouikit.optim.lockstep`."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.flat, self.grad = weight.flatten(1), torch.zeros(len(weight), weight[0].numel())


class CharacterModels:
    """R networks with the same weights at first that predict the next character (Bengio et al., 2003).

    characters: of the alphabet. context: characters that a network sees. Weights are drawn from `seed` as
    torch draws those of `nn.Embedding` and `nn.Linear`.

    Attributes:
        table, stack: the two sets of parameters, each for an optimiser of its own.
    """

    def __init__(
        self,
        characters: int,
        networks: int,
        seed: int,
        *,
        context: int = 8,
        embedding: int = 12,
        hidden: int = 64,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            weight = torch.randn(characters, embedding)
            layers = nn.Linear(context * embedding, hidden), nn.ReLU(), nn.Linear(hidden, characters)
        self.table = Table(weight.repeat(networks, 1, 1))
        self.stack = Stack.of([nn.Sequential(*layers)] * networks)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy `[R]` in nats of what follows each of the contexts x `[B, context]`, int64."""
        return cross_entropy(self._outputs(x)[-1], y)[0]

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss, and its gradients in `table.grad` and `stack.grad`."""
        outputs = self._outputs(x)
        loss, slope = cross_entropy(outputs[-1], y)
        slope = self.stack.backward(outputs, slope, into_inputs=True)
        networks, characters, size = self.table.weight.shape
        grad = self.table.grad.zero_().view(networks, characters, size)
        grad.index_add_(1, x.flatten(), slope.view(networks, -1, size))
        return loss

    def _outputs(self, x: Tensor) -> list[Tensor]:
        embedded = self.table.weight.index_select(1, x.flatten())
        return self.stack.outputs(embedded.view(len(embedded), len(x), -1))
