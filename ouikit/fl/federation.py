"""What a federated experiment consists of: who holds which samples, how clients train, how many rounds.

A `Federation` is plain scalars, so it travels inside a message: a client on another machine rebuilds its
own data and network from it, and gets the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from ouikit import data
from ouikit.data.dataset import Dataset, Images
from ouikit.fl.anomalies import ANOMALIES, altered
from ouikit.fl.nets import build
from ouikit.fl.partition import Indices, dirichlet, iid, pathological
from ouikit.fl.source import DOMAINS, fresh_head, pretrained, seeded, set_aside
from ouikit.nn.gated import DECIDES, NORMS
from ouikit.train import Recipe, seed_everything

PROTOCOLS = ("as_described", "as_released")
SPLIT_ON_LOADING = ("digits", "glyphs")
PARTITIONS = ("iid", "dirichlet", "dirichlet_balanced", "pathological")


@dataclass(frozen=True)
class Federation:
    """Everything that a run depends on besides the code. Defaults: digits, α = 0.1, nobody rare or noisy.

    Attributes:
        method: a name of `ouikit.fl.methods.METHODS`.
        seed: of weights, partition, participants, order of batches and probes, alike for every method.
        rounds: how many.
        clients, per_round: how many there are, and how many of them train in a round.
        dataset: as in `ouikit.data.load`.
        train_size: training images; 0 takes all. Digits and glyphs are split so on loading, alike for every
            seed; of another set so many are drawn by the seed.
        test_size: test images drawn by the seed; 0 takes all.
        partition: "dirichlet_balanced" (the released code's twist), "dirichlet", "iid", "pathological".
        alpha: of the Dirichlet partitions.
        minimum: samples that a Dirichlet partition gives every client at least.
        classes_per_client: of the pathological partition.
        protocol: "as_described", a clean federation, or "as_released": a fifth of the clients rare, a fifth
            noisy, in every scenario (`released_population`).
        rare_size: samples that a rare client keeps at most.
        model: as `ouikit.fl.nets.build` knows it.
        lr, momentum, batch_size, epochs: local SGD, with a constant rate and a fresh momentum buffer each
            round; an incomplete last batch is kept.
        steps: if not 0, every client takes so many steps of full batches in the place of its epochs.
        source: "none", or the domain on which the backbone is pretrained: "rotated" or "first_half" of the
            classes (`ouikit.fl.source`). Images of the source are not dealt out.
        source_size, source_epochs: training images that the source takes, and passes over them.
        frozen_norm, frozen_pool, frozen_gate: how FedSQ treats batch normalisation, max-pooling and gates, as
            `norm`, `pool` and `gate` of `ouikit.nn.gated.DualCopy`.
        augment: a name of `ouikit.data.augment.policy`.
        probe: samples of its own on which a client reads its OUI.
        timeout: seconds in which a round's replies must be there; whoever is later is left out.
        shared_probe: test images on which a monitor reads every client's patterns; the first ones.
        anomaly: "none" or a name of `ouikit.fl.anomalies.ANOMALIES`: what goes wrong with the data of some
            clients.
        anomalous: how many clients that befalls, drawn by the seed, alike for every anomaly.
        onset: rounds that these clients take part in with their own data before it does.
    """

    method: str = "fedavg"
    seed: int = 0
    rounds: int = 60
    clients: int = 20
    per_round: int = 5
    dataset: str = "digits"
    train_size: int = 1437
    test_size: int = 0
    partition: str = "dirichlet_balanced"
    alpha: float = 0.1
    minimum: int = 10
    classes_per_client: int = 2
    protocol: str = "as_described"
    rare_size: int = 40
    model: str = "mlp"
    lr: float = 0.05
    momentum: float = 0.9
    batch_size: int = 32
    epochs: int = 2
    augment: str = "none"
    probe: int = 32
    timeout: float = 600.0
    shared_probe: int = 128
    steps: int = 0
    source: str = "none"
    source_size: int = 700
    source_epochs: int = 40
    frozen_norm: str = "frozen"
    frozen_pool: str = "structure"
    frozen_gate: str = "structure"
    anomaly: str = "none"
    anomalous: int = 4
    onset: int = 0

    def __post_init__(self) -> None:
        choices: dict[str, tuple[str, ...]] = {
            **{"protocol": PROTOCOLS, "partition": PARTITIONS, "anomaly": ("none", *ANOMALIES)},
            **{"source": DOMAINS, "frozen_norm": NORMS},
            **{"frozen_pool": DECIDES, "frozen_gate": DECIDES},
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}: got {getattr(self, name)!r}")
        if not 1 <= self.per_round <= self.clients:
            raise ValueError(f"per_round must be 1 to {self.clients} (clients): got {self.per_round}")
        if self.rounds < 1 or self.probe < 2 or self.seed < 0:
            raise ValueError(
                f"rounds ≥ 1, probe ≥ 2, seed ≥ 0: got {self.rounds}, {self.probe} and {self.seed}"
            )
        if min(self.steps, self.onset, self.anomalous) < 0 or self.shared_probe < 2:
            raise ValueError("steps, onset and anomalous must be ≥ 0 and shared_probe ≥ 2")
        if self.anomaly != "none" and self.anomalous > self.clients:
            raise ValueError(f"anomalous must be 0 to {self.clients} (clients): got {self.anomalous}")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """From a run's or a message's configuration; keys that are not attributes are left alone.

        Raises:
            ValueError: for a value that cannot be.
        """
        return cls(**{f.name: settings[f.name] for f in fields(cls) if f.name in settings})

    def config(self) -> dict[str, int | float | str]:
        """The attributes by name, as a Flower `ConfigRecord` takes them."""
        return asdict(self)

    def recipe(self) -> Recipe:
        """How a client trains for one round."""
        epochs = 1 if self.steps else self.epochs
        return Recipe(epochs, self.batch_size, self.lr, self.momentum, schedule="constant", drop_last=False)

    def population(self) -> "Population":
        """Who holds which samples, under which labels."""
        return _shared(replace(self, method="fedavg")).population

    def client_data(self, client: int, server_round: int = 0) -> Dataset:
        """One client's samples in a round, as both splits; in round 0 nothing has gone wrong yet.

        Raises:
            ValueError: there is no such client.
        """
        if not 0 <= client < self.clients:
            raise ValueError(f"clients are 0 to {self.clients - 1}: got {client}")
        shared = _shared(replace(self, method="fedavg"))
        if server_round > self.onset and client in shared.altered:
            return shared.altered[client]
        return shared.clients[client]

    def data(self) -> Dataset:
        """The whole set, with clean labels; the global model is judged on its validation split."""
        return _shared(replace(self, method="fedavg")).whole

    def network(self) -> nn.Module:
        """A network with the seed's initial weights; seeds the global generators.

        With a source they are those of the pretrained backbone, alike for every method, and a fresh head.
        """
        whole = self.data()
        backbone = None if self.source == "none" else _backbone(self._pretraining())
        seed_everything(self.seed)
        network = build(self.model, classes=len(whole.classes), in_channels=whole.channels)
        return network if backbone is None else fresh_head(dict(backbone), network)

    def source_data(self) -> Dataset:
        """The source domain, as both splits. Raises ValueError where there is none."""
        return set_aside(_images(self), self.source, self.source_size, self.seed)[0]

    def _pretraining(self) -> "Federation":
        """What a backbone depends on; all else at its default."""
        kept = ("seed", "dataset", "train_size", "model", "source", "source_size", "source_epochs")
        return Federation(**{name: getattr(self, name) for name in kept})


@dataclass(frozen=True)
class Population:
    """Who holds which samples.

    indices: per client, positions in the training split. labels: int64, one per position, as clients see
    them. rare, noisy: clients whose data were cut or mislabelled. anomalous: clients whose data go wrong.
    """

    indices: tuple[Indices, ...]
    labels: Indices
    rare: tuple[int, ...] = ()
    noisy: tuple[int, ...] = ()
    anomalous: tuple[int, ...] = ()

    def entropies(self) -> list[float]:
        """Entropy in nats of each client's labels: 0 where it has one class only."""
        found = []
        for index in self.indices:
            shares = np.bincount(self.labels[index]) / len(index)
            found.append(float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()))
        return found


def released_population(
    labels: Indices,
    indices: Sequence[Indices],
    classes: int,
    *,
    seed: int,
    rare_fraction: float = 0.2,
    rare_size: int = 120,
    noisy_fraction: float = 0.2,
    noise_rate: float = 0.4,
) -> Population:
    """Rare and noisy clients, as the released runner makes them wherever its configuration is silent.

    `rare_fraction` of the clients keep `rare_size` samples at most, at random; the excess is shuffled and
    dealt in turn to the others. Then `noisy_fraction` of the clients get another class, chosen uniformly,
    for round(noise_rate · n) of their samples (that number: inferred). All from `default_rng(seed)`, in this
    order.

    Source: arXiv 2605.11571 (authors' code), whose defaults these are.
    """
    rng = np.random.default_rng(seed)
    clients = len(indices)
    held = [np.asarray(index) for index in indices]
    rare = rng.choice(clients, round(rare_fraction * clients), replace=False)
    excess: list[Indices] = []
    for client in rare:
        order = rng.permutation(held[client])
        held[client] = order[:rare_size]
        excess.append(order[rare_size:])
    others = np.setdiff1d(np.arange(clients), rare)
    pool = rng.permutation(np.concatenate([*excess, np.empty(0, np.int64)]))
    for place, client in enumerate(others):
        held[client] = np.concatenate([held[client], pool[place :: len(others)]])
    noisy = rng.choice(clients, round(noisy_fraction * clients), replace=False)
    seen = labels.copy()
    for client in noisy:
        wrong = rng.choice(held[client], round(noise_rate * len(held[client])), replace=False)
        seen[wrong] = (seen[wrong] + rng.integers(1, classes, len(wrong))) % classes
    as_tuple = [tuple(sorted(int(client) for client in chosen)) for chosen in (rare, noisy)]
    return Population(tuple(np.sort(index) for index in held), seen, *as_tuple)


@dataclass(frozen=True)
class _Shared:
    whole: Dataset
    population: Population
    clients: tuple[Dataset, ...]
    altered: Mapping[int, Dataset]


@lru_cache(maxsize=2)
def _shared(federation: Federation) -> _Shared:
    """What all clients of a process read; kept, because a grid asks for it at every message."""
    whole = _whole(federation)
    images, labels = _in_memory(whole.train), whole.train.labels.numpy()
    population = _population(federation, labels, len(whole.classes))
    seen = torch.from_numpy(population.labels)
    clients = []
    for index in map(torch.from_numpy, population.indices):
        own = Images(images.images[index], seen[index], images.size)
        clients.append(replace(whole, train=own, validation=own))
    altered = {client: _gone_wrong(federation, client, clients[client]) for client in population.anomalous}
    return _Shared(whole, population, tuple(clients), altered)


@lru_cache(maxsize=2)
def _loaded(dataset: str, train_size: int) -> Dataset:
    if dataset in SPLIT_ON_LOADING and train_size:
        return data.load(dataset, train_size=train_size)
    return data.load(dataset)


@lru_cache(maxsize=32)
def _backbone(federation: Federation) -> Mapping[str, torch.Tensor]:
    """Weights pretrained on the source; kept, because every method starts from them."""
    source = federation.source_data()
    seeded(federation.seed)
    network = build(federation.model, classes=len(source.classes), in_channels=source.channels)
    return pretrained(network, source, federation.source_epochs, federation.seed)


def _whole(federation: Federation) -> Dataset:
    f = federation
    whole = _images(f)
    if f.source != "none":
        whole = set_aside(whole, f.source, f.source_size, f.seed)[1]
    if f.test_size:
        generator = torch.Generator().manual_seed(f.seed + 999)
        drawn = torch.randperm(len(whole.validation), generator=generator)[: f.test_size]
        whole = replace(whole, validation=_taken(whole.validation, drawn))
    return whole


def _images(federation: Federation) -> Dataset:
    """The set as loaded, with so many training images as are wanted."""
    f = federation
    whole = _loaded(f.dataset, f.train_size)
    if f.train_size and f.dataset not in SPLIT_ON_LOADING:
        draw = np.random.default_rng(f.seed + 12345)
        chosen = np.sort(draw.choice(len(whole.train), f.train_size, replace=False))
        whole = replace(whole, train=_taken(whole.train, torch.from_numpy(chosen)))
    return whole


def _taken(split: Any, index: torch.Tensor) -> Images:
    images = _in_memory(split)
    return Images(images.images[index], images.labels[index], images.size)


def _in_memory(split: Any) -> Images:
    if not isinstance(split, Images):
        raise ValueError("a federation deals out a set that is held in memory, such as digits or cifar10")
    return split


def _gone_wrong(federation: Federation, client: int, own: Dataset) -> Dataset:
    seed = int(np.random.SeedSequence([federation.seed, client, 4177]).generate_state(1)[0])
    train = altered(_in_memory(own.train), federation.anomaly, classes=len(own.classes), seed=seed)
    return replace(own, train=train, validation=train)


def _population(federation: Federation, labels: Indices, classes: int) -> Population:
    f = federation
    drawn = np.random.default_rng([f.seed, 4177]).permutation(f.clients)[: f.anomalous]
    anomalous = tuple(sorted(int(client) for client in drawn)) if f.anomaly != "none" else ()
    if f.partition == "iid":
        indices = iid(labels, f.clients, seed=f.seed)
    elif f.partition == "pathological":
        indices = pathological(labels, f.clients, f.classes_per_client, seed=f.seed)
    else:
        twist = f.partition == "dirichlet_balanced"
        indices = dirichlet(labels, f.clients, f.alpha, seed=f.seed, balanced=twist, minimum=f.minimum)
    if f.protocol == "as_released":
        released = released_population(labels, indices, classes, seed=f.seed, rare_size=f.rare_size)
        return replace(released, anomalous=anomalous)
    return Population(tuple(indices), labels, anomalous=anomalous)
