"""Image sets by name: `load("digits")`, `load("cifar100", root="~/data")`.

Sets that ship with dependencies (digits, glyphs) are ready at once. The others are read from official
archives below a data root: the `root` argument, else the environment variable OUIKIT_DATA, else
~/.cache/ouikit. Nothing is ever downloaded: a missing set is an error that says what to put where.

Imports no other room; `train`, `fl` and chapters may import it.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from os import PathLike
from typing import Any

from ouikit.data import cifar, digits, glyphs, imagenet, tiny_imagenet
from ouikit.data.dataset import Dataset, Images, Split, randomise_labels
from ouikit.data.files import DataError, MissingDataError

__all__ = [
    "DataError",
    "Dataset",
    "Images",
    "MissingDataError",
    "Split",
    "load",
    "names",
    "options_of",
    "randomise_labels",
]

_READERS: dict[str, Callable[..., Dataset]] = {
    "digits": digits.read,
    "glyphs": glyphs.render,
    "cifar10": cifar.read_cifar10,
    "cifar100": cifar.read_cifar100,
    "tiny_imagenet": tiny_imagenet.read,
    "imagenet": imagenet.read,
}


def names() -> list[str]:
    """The names that `load` knows."""
    return list(_READERS)


def options_of(name: str) -> list[str]:
    """The options of the set called `name`, beside what `load` takes for all. Raises KeyError as `load`."""
    if name not in _READERS:
        near = get_close_matches(name, _READERS, n=2) or names()
        raise KeyError(f"no data set {name!r}; did you mean {' or '.join(near)}?")
    return [option for option in inspect.signature(_READERS[name]).parameters if option != "root"]


def load(
    name: str,
    root: str | PathLike[str] | None = None,
    *,
    label_noise: float = 0.0,
    noise_seed: int = 0,
    **options: Any,
) -> Dataset:
    """The set called `name`.

    Args:
        name: one of `names()`.
        root: the data root of sets that are read from disk.
        label_noise: fraction of the training labels drawn anew (see `randomise_labels`).
        noise_seed: seed of that draw.
        options: the set's own, such as train_size of digits; see its reader in `ouikit.data.<set>`.

    Raises:
        KeyError: no set has that name.
        TypeError: the set has no such option.
        MissingDataError: files are not there (a FileNotFoundError naming each file and its source).
        DataError: a file is corrupt, or is not the published one (a ValueError).
    """
    accepted = options_of(name)
    reader = _READERS[name]
    for option in options:
        if option not in accepted:
            raise TypeError(f"{name} has no option {option!r}; it has {', '.join(accepted) or 'none'}")
    where = {"root": root} if "root" in inspect.signature(reader).parameters else {}
    data = reader(**where, **options)
    if not label_noise:
        return data
    noisy = randomise_labels(data.train.labels, len(data.classes), label_noise, noise_seed)
    return replace(data, train=data.train.with_labels(noisy))
