"""The samples of a federation, loaded, dealt to its clients and kept: every message asks for them again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ouikit import data
from ouikit.data.dataset import Dataset, Images
from ouikit.fl.setting.anomalies import Anomaly, altered
from ouikit.fl.setting.population import Holdings, Population
from ouikit.fl.setting.source import Source, set_aside

SPLIT_ON_LOADING = ("digits", "glyphs")
_ANOMALIES = 4177  # keeps the draws about anomalies apart from others with the same seed


@dataclass(frozen=True)
class ImageSet:
    """Which images: the arguments of the same names of `ouikit.fl.Federation`."""

    seed: int
    dataset: str
    train_size: int
    test_size: int

    def images(self) -> Dataset:
        """The set as loaded, with so many training images as are wanted."""
        whole = _loaded(self.dataset, self.train_size)
        if self.train_size and self.dataset not in SPLIT_ON_LOADING:
            draw = np.random.default_rng(self.seed + 12345)
            chosen = np.sort(draw.choice(len(whole.train), self.train_size, replace=False))
            whole = replace(whole, train=_taken(whole.train, torch.from_numpy(chosen)))
        return whole

    def target(self, source: Source) -> Dataset:
        """What the source leaves to the federation, with so many test images as are wanted."""
        whole = self.images()
        if source.domain != "none":
            whole = set_aside(whole, source.domain, source.size, self.seed)[1]
        if self.test_size:
            generator = torch.Generator().manual_seed(self.seed + 999)
            drawn = torch.randperm(len(whole.validation), generator=generator)[: self.test_size]
            whole = replace(whole, validation=_taken(whole.validation, drawn))
        return whole


@dataclass(frozen=True)
class Dealt:
    """whole: all samples under clean labels. clients: each one's samples, as both splits; altered: the same
    of those with an anomaly, once it has set in.
    """

    whole: Dataset
    holdings: Holdings
    clients: tuple[Dataset, ...]
    altered: Mapping[int, Dataset]


@lru_cache(maxsize=2)
def dealt(
    image_set: ImageSet, source: Source, population: Population, clients: int, anomaly: Anomaly
) -> Dealt:
    """The samples of every client of a federation, before and after an anomaly has set in."""
    whole, seed = image_set.target(source), image_set.seed
    images, labels = _in_memory(whole.train), whole.train.labels.numpy()
    holdings = population.deal(labels, clients, len(whole.classes), seed=seed)
    holdings = replace(holdings, anomalous=_drawn(anomaly, clients, seed))
    seen = torch.from_numpy(holdings.labels)
    own = []
    for index in map(torch.from_numpy, holdings.indices):
        held = Images(images.images[index], seen[index], images.size)
        own.append(replace(whole, train=held, validation=held))
    after = {client: _with_anomaly(own[client], anomaly, seed, client) for client in holdings.anomalous}
    return Dealt(whole, holdings, tuple(own), after)


@lru_cache(maxsize=2)
def _loaded(dataset: str, train_size: int) -> Dataset:
    if dataset in SPLIT_ON_LOADING and train_size:
        return data.load(dataset, train_size=train_size)
    return data.load(dataset)


def _drawn(anomaly: Anomaly, clients: int, seed: int) -> tuple[int, ...]:
    """The clients that get an anomaly, in ascending order: the same ones whatever its kind."""
    if anomaly.kind == "none":
        return ()
    drawn = np.random.default_rng([seed, _ANOMALIES]).permutation(clients)[: anomaly.clients]
    return tuple(sorted(int(client) for client in drawn))


def _with_anomaly(own: Dataset, anomaly: Anomaly, seed: int, client: int) -> Dataset:
    mine = int(np.random.SeedSequence([seed, client, _ANOMALIES]).generate_state(1)[0])
    train = altered(_in_memory(own.train), anomaly.kind, classes=len(own.classes), seed=mine)
    return replace(own, train=train, validation=train)


def _taken(split: Any, index: torch.Tensor) -> Images:
    images = _in_memory(split)
    return Images(images.images[index], images.labels[index], images.size)


def _in_memory(split: Any) -> Images:
    if not isinstance(split, Images):
        raise ValueError(
            f"a federation deals out images that are held in memory, not {type(split).__name__}: "
            "use a set such as digits or cifar10"
        )
    return split
