"""Partitioners: every sample has one owner; the released protocol's rare and noisy clients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ouikit.fl.setting import partition
from ouikit.fl.setting.federation import Federation
from ouikit.fl.setting.population import Population, released_holdings

LABELS = np.random.default_rng(0).integers(0, 10, 1437)
KINDS = {
    "iid": lambda labels, clients, seed: partition.iid(labels, clients, seed=seed),
    "dirichlet": lambda labels, clients, seed: partition.dirichlet(
        labels, clients, 0.5, seed=seed, balanced=False, minimum=1
    ),
    "balanced": lambda labels, clients, seed: partition.dirichlet(labels, clients, 0.5, seed=seed, minimum=1),
    "pathological": lambda labels, clients, seed: partition.pathological(labels, clients, 2, seed=seed),
}


def shares(labels, parts):
    """Client × class: how a client's samples divide over the classes."""
    counts = np.stack([np.bincount(labels[part], minlength=10) for part in parts])
    return counts / counts.sum(1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(clients=st.integers(5, 12), seed=st.integers(0, 2**20), size=st.integers(300, 600))
def test_every_sample_has_one_owner_and_a_seed_gives_one_partition(kind, clients, seed, size):
    labels = LABELS[:size]
    parts = KINDS[kind](labels, clients, seed)
    assert len(parts) == clients
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(size))
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in parts)
    again = KINDS[kind](labels, clients, seed)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))
    other = KINDS[kind](labels, clients, seed + 1)
    assert not all(np.array_equal(one, two) for one, two in zip(parts, other, strict=True))


def test_iid_sizes_differ_by_one_at_most():
    sizes = [len(part) for part in partition.iid(LABELS, 20, seed=3)]
    assert sorted(set(sizes)) == [71, 72]


def test_alpha_sets_the_skew():
    """The share of a client's commonest class: near 1 for tiny alpha, near 1/10 for a huge one."""
    top = {
        alpha: np.mean(
            [
                shares(LABELS, partition.dirichlet(LABELS, 20, alpha, seed=seed, minimum=1)).max(1).mean()
                for seed in range(5)
            ]
        )
        for alpha in (0.03, 0.3, 1000.0)
    }
    assert top[0.03] > 0.75 > top[0.3] > 0.35 > 0.2 > top[1000.0]


def test_the_balancing_twist_narrows_the_sizes():
    def spread(balanced):
        parts = [
            partition.dirichlet(LABELS, 20, 0.3, seed=s, balanced=balanced, minimum=1) for s in range(20)
        ]
        return np.mean([np.std([len(part) for part in one]) for one in parts])

    assert spread(True) < 0.8 * spread(False)


def test_the_balancing_twist_gives_nothing_to_a_client_that_holds_a_class_size():
    """Two clients, two classes of 4: whoever holds all of the first class gets none of the second."""
    labels, met = np.repeat([0, 1], 4), 0
    for seed in range(20):
        first, second = partition.dirichlet(labels, 2, 0.05, seed=seed, minimum=0)
        if {0, 1, 2, 3} <= set(first) or {0, 1, 2, 3} <= set(second):
            met += 1
            assert len(first) == len(second) == 4
    assert met > 5


def test_dirichlet_proportions_of_a_class_have_the_right_mean_and_variance():
    """Without the twist a client's share of a class is Beta(α, (K−1)α): mean 1/K, var (K−1)/(K²(Kα+1))."""
    labels, clients, alpha = np.zeros(10_000, np.int64), 4, 0.5
    kind = {"balanced": False, "minimum": 0}
    drawn = np.array(
        [
            [len(p) / 10_000 for p in partition.dirichlet(labels, clients, alpha, seed=s, **kind)]
            for s in range(800)
        ]
    )
    expected = (clients - 1) / (clients**2 * (clients * alpha + 1))
    assert drawn.mean(0) == pytest.approx(np.full(clients, 0.25), abs=0.02)
    assert drawn.var(0) == pytest.approx(np.full(clients, expected), rel=0.15)


@pytest.mark.parametrize(("samples", "sizes"), [(7, [3, 2, 2]), (8, [3, 3, 2])])
def test_counts_are_rounded_down_and_the_first_clients_get_the_rest(samples, sizes):
    """Equal shares, but for one part in a million: 7/3 or 8/3 samples each."""
    for balanced in (True, False):
        parts = partition.dirichlet([0] * samples, 3, 1e12, seed=0, balanced=balanced, minimum=0)
        assert [len(part) for part in parts] == sizes


def test_every_client_has_its_minimum():
    parts = partition.dirichlet(LABELS, 20, 0.1, seed=5, minimum=20)
    assert min(map(len, parts)) >= 20


def test_pathological_clients_have_exactly_so_many_classes_and_classes_are_shared_evenly():
    parts = partition.pathological(LABELS, 20, 2, seed=1)
    held = shares(LABELS, parts) > 0
    assert (held.sum(1) == 2).all()
    assert (held.sum(0) == 4).all()
    for label in range(10):
        sizes = [np.sum(LABELS[part] == label) for part in parts if label in LABELS[part]]
        assert max(sizes) - min(sizes) <= 1


# The same partitions as dealt by flwr-datasets, where it is installed (the extra fl-data).


def dealt_by_flower(partitioner, labels):
    """Classes [K × C]: how many samples of each class each client has."""
    datasets = pytest.importorskip("datasets")
    partitioner.dataset = datasets.Dataset.from_dict({"label": labels.tolist()})
    parts = [partitioner.load_partition(client)["label"] for client in range(partitioner.num_partitions)]
    return np.array([np.bincount(np.array(part), minlength=10) for part in parts])


def dealt_by_us(indices, labels):
    return np.array([np.bincount(labels[part], minlength=10) for part in indices])


def test_iid_sizes_are_those_of_flower():
    flower = pytest.importorskip("flwr_datasets.partitioner")
    labels = np.random.default_rng(0).integers(0, 10, 1003)
    theirs = dealt_by_flower(flower.IidPartitioner(7), labels)
    ours = dealt_by_us(partition.iid(labels, 7, seed=0), labels)
    assert sorted(ours.sum(axis=1)) == sorted(theirs.sum(axis=1))


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_dirichlet_skew_is_that_of_flower(alpha):
    """How uneven the clients' shares of a class are, over 40 draws of each: equal means within 4 errors."""
    flower = pytest.importorskip("flwr_datasets.partitioner")
    labels = np.repeat(np.arange(10), 100)

    def unevenness(counts):
        return float(((counts / counts.sum(axis=0)) ** 2).sum(axis=0).mean())

    theirs, ours = [], []
    for seed in range(40):
        dealer = flower.DirichletPartitioner(
            8, "label", alpha, min_partition_size=0, self_balancing=False, seed=seed
        )
        theirs.append(unevenness(dealt_by_flower(dealer, labels)))
        dealt = partition.dirichlet(labels, 8, alpha, seed=seed, balanced=False, minimum=0)
        ours.append(unevenness(dealt_by_us(dealt, labels)))
    error = np.sqrt((np.var(theirs) + np.var(ours)) / 40)
    assert abs(np.mean(theirs) - np.mean(ours)) < 4 * error
    assert error < 0.02


def test_pathological_clients_are_those_of_flower():
    """So many classes for each client, and as many owners of every class."""
    flower = pytest.importorskip("flwr_datasets.partitioner")
    labels = np.repeat(np.arange(10), 60)
    dealer = flower.PathologicalPartitioner(10, "label", 3, class_assignment_mode="deterministic")
    theirs = dealt_by_flower(dealer, labels)
    ours = dealt_by_us(partition.pathological(labels, 10, 3, seed=0), labels)
    for axis in (0, 1):
        assert sorted((ours > 0).sum(axis=axis)) == sorted((theirs > 0).sum(axis=axis))
    assert sorted(ours.sum(axis=1)) == sorted(theirs.sum(axis=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: partition.iid(LABELS, 0, seed=0), "got 0"),
        (lambda: partition.iid([0.5, 1.0], 1, seed=0), "one integer per sample"),
        (lambda: partition.iid([0, 1], 3, seed=0), "2 samples"),
        (lambda: partition.dirichlet(LABELS, 20, 0.0, seed=0), "got 0.0"),
        (lambda: partition.dirichlet(LABELS, 20, 0.1, seed=0, minimum=80), "cannot have 80"),
        (lambda: partition.dirichlet(LABELS, 20, 0.01, seed=0, minimum=60, attempts=5), "smaller minimum"),
        (lambda: partition.pathological(LABELS, 20, 11, seed=0), "1 to 10"),
        (lambda: partition.pathological(LABELS, 4, 2, seed=0), "leave some out"),
        (lambda: partition.pathological([0, 1], 2, 2, seed=0), "1 samples for 2 clients"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("seed", "ids"), [(1, (8, 9, 14, 19)), (2, (2, 4, 5, 14)), (3, (1, 3, 4, 13))])
def test_the_rare_clients_are_those_of_the_released_runs(seed, ids):
    parts = partition.iid(LABELS, 20, seed=0)
    assert released_holdings(LABELS, parts, 10, seed=seed).rare == ids


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), cap=st.integers(5, 90))
def test_rare_clients_are_cut_others_take_over_and_noise_is_another_class(seed, cap):
    parts = partition.dirichlet(LABELS, 20, 0.3, seed=seed)
    people = released_holdings(LABELS, parts, 10, seed=seed, rare_size=cap)
    sizes = np.array([len(index) for index in people.indices])
    assert np.array_equal(np.sort(np.concatenate(people.indices)), np.arange(len(LABELS)))
    assert (sizes[list(people.rare)] == np.minimum([len(parts[c]) for c in people.rare], cap)).all()
    given_more = sizes - [len(part) for part in parts]
    others = np.delete(given_more, people.rare)
    assert others.max() - others.min() <= 1
    for client, index in enumerate(people.indices):
        wrong = int((people.labels[index] != LABELS[index]).sum())
        assert wrong == (round(0.4 * len(index)) if client in people.noisy else 0)
    assert people.labels.min() >= 0
    assert people.labels.max() <= 9


def test_a_noisy_label_is_any_other_class_equally_often():
    labels = np.zeros(40_000, np.int64)
    people = released_holdings(labels, partition.iid(labels, 20, seed=0), 5, seed=0)
    counts = np.bincount(people.labels, minlength=5)
    assert counts[1:] == pytest.approx(np.full(4, 40_000 * 0.2 * 0.4 / 4), rel=0.1)


def test_entropy_of_labels():
    def of_classes(count):
        population = Population("pathological", classes_per_client=count)
        return Federation(population=population, clients=10, per_round=5).holdings()

    people = of_classes(2)
    assert people.entropies() == pytest.approx([np.log(2)] * 10, abs=0.02)
    assert of_classes(1).entropies() == pytest.approx([0.0] * 10)
