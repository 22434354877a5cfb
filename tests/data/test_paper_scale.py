"""The papers' own configurations start: one step on tiny archives of the official formats."""

from itertools import islice, takewhile
from typing import Any

import pytest
from conftest import ROOT
from test_data import (  # the fixtures write the archives
    TINY,
    cifar10_tables,
    cifar100_tables,
    imagenet_root,  # noqa: F401
    write_cifar,  # noqa: F401
    write_tiny,  # noqa: F401
)

from ouikit import data
from ouikit.data import cifar
from ouikit.lab.chapter import Chapter


@pytest.fixture
def archives(write_cifar, write_tiny, imagenet_root):  # noqa: F811
    """A data root with all three sets, a few images each."""
    write_cifar(cifar.CIFAR10, cifar10_tables())
    write_cifar(cifar.CIFAR100, cifar100_tables())
    return write_tiny(TINY)


def names_of(chapter: Chapter, scale: str) -> dict[str, Any]:
    """The parameters as a notebook has them after `begin`: scalars, lists, and records of its own classes."""
    names = chapter.resolve(scale).parameters
    classes: dict[str, Any] = {}
    exec(next(source for source in chapter.code if source.startswith("class ")), classes)
    for name, parameter in chapter.parameters.items():
        if parameter.record:
            kind = parameter.record.make(classes[parameter.record.name])
            names |= {kind.__name__: kind, name: [kind(**value) for value in names[name]]}
    return names


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["paper", "paper_tiny_imagenet", "paper_imagenet"])
def test_the_weight_decay_papers_experiments_start(scale, archives):
    """As printed but for the device, the batch, and the first epoch instead of all."""
    chapter = Chapter("oui_weight_decay", ROOT)
    names = names_of(chapter, scale) | {"device": "cpu", "batch_size": 2}
    for source in chapter.code:
        if "def images_of" in source or "def train" in source:
            exec(source, names)
    small = {} if scale == "paper" else {"size": 64}
    names["images_of"] = lambda images: data.load(images, archives, verify=False, **small)
    whole = names["fit"]
    names["fit"] = lambda *args, **options: islice(whole(*args, **options), 1)
    (task,) = names["tasks"]
    trained = names["train"](task.network, task.images, names["weight_decay"][0], seed=42)
    rows = {row["metric"]: row["value"] for row in trained}
    assert rows["lr"] == pytest.approx(names["lr"] * (names["warmup_start"] if names["warmup_epochs"] else 1))
    assert 0 < rows["train_loss"] < 20
    assert 0 <= rows["oui"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["paper", "paper_densenet"])
def test_the_ouidecay_papers_experiments_start(scale, archives):
    """As known but for the device, the batch, the gap, and one epoch instead of all."""
    chapter = Chapter("ouidecay", ROOT)
    names = names_of(chapter, scale) | {"device": "cpu", "batch_size": 2, "epochs": 1}
    for source in takewhile(lambda source: "study.sweep" not in source, chapter.code):
        if source.startswith("import torch") or (source.startswith("def ") and "study." not in source):
            exec(source, names)
    names["images_of"] = lambda images: data.load(images, archives, verify=False)
    rows = names["train"](names["settings"][0], "OUIDecay", names["seeds"][0], 1, names["windows"][0])
    found = {row["metric"]: row["value"] for row in rows}
    assert 0 < found["train_loss"] < 20
    assert 2 / 3 <= found["scale"] <= 5
