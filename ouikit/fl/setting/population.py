"""Who holds which samples: how a data set is dealt to clients, and whose samples are few or mislabelled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ouikit.fl.setting.partition import Indices, dirichlet, iid, pathological

PROTOCOLS = ("as_described", "as_released")
PARTITIONS = ("iid", "dirichlet", "dirichlet_balanced", "pathological")


@dataclass(frozen=True)
class Population:
    """How samples are dealt to clients. Defaults: the released partition at α = 0.1, nobody rare or noisy.

    Attributes:
        partition: "dirichlet_balanced" (the released code's variant), "dirichlet", "iid", "pathological".
        alpha: concentration of the Dirichlet partitions.
        minimum: samples that a Dirichlet partition gives every client at least.
        classes_per_client: of the pathological partition.
        protocol: "as_described", a clean federation, or "as_released": a fifth of the clients rare, a fifth
            noisy, in every scenario (`released_holdings`).
        rare_size: samples that a rare client keeps at most.

    Raises ValueError for an unknown partition or protocol.
    """

    partition: str = "dirichlet_balanced"
    alpha: float = 0.1
    minimum: int = 10
    classes_per_client: int = 2
    protocol: str = "as_described"
    rare_size: int = 40

    def __post_init__(self) -> None:
        for name, known in (("partition", PARTITIONS), ("protocol", PROTOCOLS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}: got {getattr(self, name)!r}")

    def deal(self, labels: Indices, clients: int, classes: int, *, seed: int) -> "Holdings":
        """Deal samples with these labels, int64 [N], to so many clients; the seed decides every draw.

        Raises ValueError as `ouikit.fl.setting.partition`.
        """
        if self.partition == "iid":
            indices = iid(labels, clients, seed=seed)
        elif self.partition == "pathological":
            indices = pathological(labels, clients, self.classes_per_client, seed=seed)
        else:
            balanced = self.partition == "dirichlet_balanced"
            indices = dirichlet(
                labels, clients, self.alpha, seed=seed, balanced=balanced, minimum=self.minimum
            )
        if self.protocol == "as_released":
            return released_holdings(labels, indices, classes, seed=seed, rare_size=self.rare_size)
        return Holdings(tuple(indices), labels)


@dataclass(frozen=True)
class Holdings:
    """Who holds which samples.

    indices: per client, positions in the training split. labels: int64, one per position, as clients see
    them. rare, noisy: clients whose samples were cut or mislabelled. anomalous: clients with an anomaly.
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


def released_holdings(
    labels: Indices,
    indices: Sequence[Indices],
    classes: int,
    *,
    seed: int,
    rare_fraction: float = 0.2,
    rare_size: int = 120,
    noisy_fraction: float = 0.2,
    noise_rate: float = 0.4,
) -> Holdings:
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
    return Holdings(tuple(np.sort(index) for index in held), seen, *as_tuple)
