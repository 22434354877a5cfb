"""The 1,797 handwritten digits (8 × 8, grey) that ship with scikit-learn: real data without a download."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ouikit.data.dataset import Dataset, Images, channel_moments, fingerprint


def read(train_size: int = 500, split_seed: int = 0, validation_size: int | None = None) -> Dataset:
    """Digits 0–9, float32 [N, 1, 8, 8]; `train_size` of them at random, the rest for validation.

    validation_size: how many of the rest are kept, the first of the same order; None keeps all.

    They are read from scikit-learn's file; importing it for `load_digits` would take a second.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed. ValueError: train_size leaves no digit over.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
    """
    library = find_spec("sklearn")
    if library is None or library.origin is None:
        raise ModuleNotFoundError("the digits ship with scikit-learn: pip install scikit-learn")
    with gzip.open(Path(library.origin).parent / "datasets" / "data" / "digits.csv.gz") as file:
        table = np.loadtxt(file, delimiter=",")
    images = torch.from_numpy(table[:, :-1].reshape(-1, 8, 8)).float().div_(16).unsqueeze(1)
    labels = torch.from_numpy(table[:, -1]).long()
    if not 0 < train_size < len(labels):
        raise ValueError(f"train_size must leave some of the {len(labels)} digits over: got {train_size}")
    rest = len(labels) - train_size
    count = rest if validation_size is None else validation_size
    if not 0 < count <= rest:
        raise ValueError(f"validation_size must be 1 to {rest}, what training leaves: got {validation_size}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(split_seed))
    train, validation = order[:train_size], order[train_size : train_size + count]
    mean, std = channel_moments(images[train])
    return Dataset(
        name="digits",
        classes=tuple("0123456789"),
        train=Images(images[train], labels[train]),
        validation=Images(images[validation], labels[validation]),
        mean=mean,
        std=std,
        checksum=fingerprint([images, labels]),
    )
