"""What a federated experiment consists of: who holds which samples, how clients train, how many rounds.

>>> Federation(method="fedoui", population=Population(alpha=1.0)).config()["population.alpha"]
1.0

A `Federation` can be written as plain numbers and strings, so it travels inside a message: a client on
another machine rebuilds its own data and network from it, and gets the same bits.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, Self

import torch
from torch import nn

from ouikit.data.dataset import Dataset
from ouikit.fl.setting.anomalies import Anomaly
from ouikit.fl.setting.gates import FrozenGates
from ouikit.fl.setting.networks import build
from ouikit.fl.setting.population import Holdings, Population
from ouikit.fl.setting.samples import Dealt, ImageSet, dealt
from ouikit.fl.setting.source import Source, fresh_head, pretrained, seeded, set_aside
from ouikit.train import Recipe, seed_everything

_PARTS: dict[str, Any] = {
    "population": Population,
    "anomaly": Anomaly,
    "source": Source,
    "gates": FrozenGates,
}


@dataclass(frozen=True)
class Federation:
    """Everything that a run depends on besides the code. Defaults: digits, α = 0.1, no anomaly, no source.

    Attributes:
        method: a name of `ouikit.fl.strategies.methods.METHODS`.
        seed: of weights, partition, participants, order of batches and probes, the same for every method.
        rounds: how many.
        clients, per_round: how many there are, and how many of them train in a round.
        dataset: as in `ouikit.data.load`.
        train_size: training images; 0 takes all. Digits and glyphs are split so on loading, alike for every
            seed; of another set so many are drawn by the seed.
        test_size: test images drawn by the seed; 0 takes all.
        model: as `ouikit.fl.setting.networks.build` knows it.
        lr, momentum, batch_size, epochs: local SGD, with a constant rate and a fresh momentum buffer each
            round; an incomplete last batch is kept.
        steps: if not 0, every client takes so many steps of full batches instead of its epochs.
        augment: a name of `ouikit.data.augment.policy`.
        probe: samples of its own on which a client reads its OUI.
        shared_probe: test images on which a monitor reads every client's patterns; the first ones.
        timeout: seconds in which a round's replies must arrive; later ones are left out.
        population: how samples are dealt to the clients.
        anomaly: what goes wrong with the data of some of them.
        source: on what the network is pretrained.
        gates: how FedSQ freezes them.

    Raises ValueError for a value out of range; the message names it.
    """

    method: str = "fedavg"
    seed: int = 0
    rounds: int = 60
    clients: int = 20
    per_round: int = 5
    dataset: str = "digits"
    train_size: int = 1437
    test_size: int = 0
    model: str = "mlp"
    lr: float = 0.05
    momentum: float = 0.9
    batch_size: int = 32
    epochs: int = 2
    steps: int = 0
    augment: str = "none"
    probe: int = 32
    shared_probe: int = 128
    timeout: float = 600.0
    population: Population = field(default_factory=Population)
    anomaly: Anomaly = field(default_factory=Anomaly)
    source: Source = field(default_factory=Source)
    gates: FrozenGates = field(default_factory=FrozenGates)

    def __post_init__(self) -> None:
        least = {"seed": 0, "rounds": 1, "clients": 1, "steps": 0, "probe": 2, "shared_probe": 2}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be ≥ {value}: got {getattr(self, name)}")
        if not 1 <= self.per_round <= self.clients:
            raise ValueError(f"per_round must be 1 to {self.clients} (clients): got {self.per_round}")
        if self.anomaly.kind != "none" and self.anomaly.clients > self.clients:
            raise ValueError(
                f"clients with an anomaly must be 0 to {self.clients} (clients): got {self.anomaly.clients}"
            )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """From a run's or a message's configuration; keys that are not attributes are left alone.

        Those of a part are written as `config` writes them, or nested, as TOML reads them.

        Raises:
            ValueError: a value is out of range.
        """
        given: dict[str, Any] = {}
        for f in fields(cls):
            if f.name in _PARTS:
                part, names = _PARTS[f.name], [own.name for own in fields(_PARTS[f.name])]
                dotted = {own: settings[key] for own in names if (key := f"{f.name}.{own}") in settings}
                given[f.name] = part(**settings.get(f.name, {}), **dotted)
            elif f.name in settings:
                given[f.name] = settings[f.name]
        return cls(**given)

    def config(self) -> dict[str, int | float | str]:
        """Every attribute as one number or string, as a Flower `ConfigRecord` takes them.

        Those of a part have its name before theirs: "population.alpha".
        """
        flat: dict[str, int | float | str] = {}
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                flat |= {f"{name}.{own}": inner for own, inner in value.items()}
            else:
                flat[name] = value
        return flat

    def recipe(self) -> Recipe:
        """How a client trains for one round."""
        epochs = 1 if self.steps else self.epochs
        return Recipe(epochs, self.batch_size, self.lr, self.momentum, schedule="constant", drop_last=False)

    def holdings(self) -> Holdings:
        """Who holds which samples, under which labels."""
        return self._dealt().holdings

    def client_data(self, client: int, server_round: int = 0) -> Dataset:
        """One client's samples in a round, as both splits; in round 0 without an anomaly.

        Raises:
            ValueError: there is no such client.
        """
        if not 0 <= client < self.clients:
            raise ValueError(f"clients are 0 to {self.clients - 1}: got {client}")
        samples = self._dealt()
        if server_round > self.anomaly.onset and client in samples.altered:
            return samples.altered[client]
        return samples.clients[client]

    def data(self) -> Dataset:
        """The whole set, with clean labels; the global model is judged on its validation split."""
        return self._dealt().whole

    def network(self) -> nn.Module:
        """A network with the seed's initial weights; seeds the global generators.

        With a source they are those of the pretrained backbone, the same for every method, and a fresh head.
        """
        whole = self.data()
        backbone = None
        if self.source.domain != "none":
            backbone = _backbone(self._image_set(), self.source, self.model)
        seed_everything(self.seed)
        network = build(self.model, classes=len(whole.classes), in_channels=whole.channels)
        return network if backbone is None else fresh_head(dict(backbone), network)

    def source_data(self) -> Dataset:
        """The source domain, as both splits. Raises ValueError where there is none."""
        return _source_data(self._image_set(), self.source)

    def _image_set(self) -> ImageSet:
        return ImageSet(self.seed, self.dataset, self.train_size, self.test_size)

    def _dealt(self) -> Dealt:
        anomaly = replace(self.anomaly, onset=0)  # when it sets in does not change the samples
        return dealt(self._image_set(), self.source, self.population, self.clients, anomaly)


def _source_data(image_set: ImageSet, source: Source) -> Dataset:
    return set_aside(image_set.images(), source.domain, source.size, image_set.seed)[0]


@lru_cache(maxsize=32)
def _backbone(image_set: ImageSet, source: Source, model: str) -> Mapping[str, torch.Tensor]:
    """Weights pretrained on the source; kept, because every method starts from them."""
    images = _source_data(image_set, source)
    seeded(image_set.seed)
    network = build(model, classes=len(images.classes), in_channels=images.channels)
    return pretrained(network, images, source.epochs, image_set.seed)
