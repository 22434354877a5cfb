"""Dealing labelled samples to clients: evenly, by Dirichlet proportions, or a few classes to each.

Every function returns one sorted int64 array of positions per client. Together they are a partition: each
position belongs to exactly one client. The same arguments give the same partition.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]


def iid(labels: ArrayLike, clients: int, *, seed: int) -> list[Indices]:
    """Deal the samples at random, so that sizes differ by one at most.

    Raises:
        ValueError: labels are not a list of integers, or there are fewer samples than clients.
    """
    given = _checked(labels, clients)
    order = np.random.default_rng(seed).permutation(given.size)
    return [np.sort(part) for part in np.array_split(order, clients)]


def dirichlet(
    labels: ArrayLike,
    clients: int,
    alpha: float,
    *,
    seed: int,
    balanced: bool = True,
    minimum: int = 10,
    attempts: int = 10_000,
) -> list[Indices]:
    """Deal each class by proportions drawn from a Dirichlet distribution: the smaller alpha, the more skew.

    Args:
        labels: one integer per sample.
        clients: how many share them.
        alpha: concentration, > 0; the same for all clients.
        seed: of all draws.
        balanced: the twist of the released code: a client's share of a class is first multiplied by what it
            has left to the size of that class, max(0, class size − samples that it holds so far), so that
            full clients get little more (where nobody has anything left: the plain proportions; inferred).
        minimum: samples that every client must end up with.
        attempts: draws of the whole partition until that is so.

    Counts are rounded down; the remainder goes to the first clients, one each.

    Raises:
        ValueError: as `iid`; alpha ≤ 0; or no draw gave every client its minimum.

    Source: arXiv 2605.11571 (authors' code); without the twist, Hsu et al., arXiv 1909.06335.
    """
    given = _checked(labels, clients)
    if not alpha > 0:
        raise ValueError(f"alpha is the concentration of a Dirichlet distribution, > 0: got {alpha}")
    if minimum * clients > given.size:
        raise ValueError(f"{clients} clients cannot have {minimum} samples each: there are {given.size}")
    rng = np.random.default_rng(seed)
    for _ in range(attempts):
        owners = _dirichlet_owners(given, clients, alpha, balanced, rng)
        if np.bincount(owners, minlength=clients).min() >= minimum:
            return _by_owner(owners, clients)
    raise ValueError(
        f"{attempts} draws gave no partition with {minimum} samples for each of {clients} clients at "
        f"alpha = {alpha}: ask for a smaller minimum, fewer clients or a larger alpha"
    )


def pathological(labels: ArrayLike, clients: int, classes_per_client: int, *, seed: int) -> list[Indices]:
    """Give every client the samples of exactly so many classes; clients of a class share it evenly.

    Classes are dealt in turn, so that the numbers of their owners differ by one at most.

    Raises:
        ValueError: as `iid`; there are not so many classes; some class would have no owner, or an owner no
            sample of its class.

    Source: McMahan et al., arXiv 1602.05629, whose shards may hold two classes; here each is one class.
    """
    given = _checked(labels, clients)
    classes = np.unique(given)
    if not 1 <= classes_per_client <= classes.size:
        raise ValueError(f"classes_per_client must be 1 to {classes.size}: got {classes_per_client}")
    if clients * classes_per_client < classes.size:
        raise ValueError(
            f"{clients} clients with {classes_per_client} of {classes.size} classes each leave some out"
        )
    rng = np.random.default_rng(seed)
    dealt = np.resize(rng.permutation(classes), (clients, classes_per_client))
    hands = rng.permutation(dealt)  # which client has which hand
    owners = np.empty(given.size, np.int64)
    for label in classes:
        mine = np.flatnonzero((hands == label).any(axis=1))
        samples = rng.permutation(np.flatnonzero(given == label))
        if samples.size < mine.size:
            raise ValueError(f"class {label} has {samples.size} samples for {mine.size} clients")
        owners[samples] = np.resize(rng.permutation(mine), samples.size)
    return _by_owner(owners, clients)


def _dirichlet_owners(
    labels: Indices, clients: int, alpha: float, balanced: bool, rng: np.random.Generator
) -> Indices:
    """One draw: which client owns each sample."""
    owners = np.empty(labels.size, np.int64)
    sizes = np.zeros(clients, np.int64)
    for label in np.unique(labels):
        samples = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(clients, alpha))
        room = np.maximum(samples.size - sizes, 0)
        if balanced and room.any():  # tiny shares can be exactly 0: then the room alone decides
            shares = shares * room if (shares * room).any() else room
        counts = np.floor(shares / shares.sum() * samples.size).astype(np.int64)
        counts[: samples.size - counts.sum()] += 1
        owners[samples] = np.repeat(np.arange(clients), counts)
        sizes += counts
    return owners


def _by_owner(owners: Indices, clients: int) -> list[Indices]:
    return [np.flatnonzero(owners == client) for client in range(clients)]


def _checked(labels: ArrayLike, clients: int) -> Indices:
    given = np.asarray(labels)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"labels must be one integer per sample: got {given.dtype} of shape {given.shape}")
    if not 1 <= clients <= given.size:
        raise ValueError(f"{given.size} samples can be dealt to 1 to {given.size} clients: got {clients}")
    return given.astype(np.int64)
