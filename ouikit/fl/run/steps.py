"""Equal local work: the same number of full batches for every client, however many samples it holds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ouikit.data.dataset import Batch, Dataset, Images, Split


@dataclass(frozen=True)
class FixedSteps:
    """A split whose pass has exactly `steps` full batches.

    They are cut from passes over the samples put end to end, each in a new random order: a client with few
    samples sees them several times, one with many does not see all.
    """

    split: Images
    steps: int

    @property
    def labels(self) -> torch.Tensor:
        """Those of the samples, int64 [N]."""
        return self.split.labels

    def __len__(self) -> int:
        return len(self.split)

    def to(self, device: torch.device) -> "FixedSteps":
        """On another device."""
        return replace(self, split=self.split.to(device))

    def with_labels(self, labels: torch.Tensor) -> "FixedSteps":
        """The same images under other labels."""
        return replace(self, split=self.split.with_labels(labels))

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[Batch]:
        """`steps` batches of `batch_size`; as `ouikit.data.Split.batches`, and no batch is incomplete."""
        wanted, count = self.steps * batch_size, len(self)
        passes = [
            torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
            for _ in range(-(-wanted // count))
        ]
        yield from self.split.taken(torch.cat(passes)[:wanted], batch_size)


def limited(data: Dataset, steps: int) -> Dataset:
    """The data set with a training pass of `steps` batches; 0 leaves it as it is.

    Raises:
        ValueError: steps < 0, or the training split is not held in memory.
    """
    if steps < 0 or not isinstance(data.train, Images):
        raise ValueError(f"steps ≥ 0 of a set held in memory: got {steps} of a {type(data.train).__name__}")
    train: Split = FixedSteps(data.train, steps) if steps else data.train
    return replace(data, train=train)
