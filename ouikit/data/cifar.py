"""CIFAR-10 and CIFAR-100 from the official Python archives (Krizhevsky, 2009), packed or unpacked.

The archives hold pickles, and a pickle can run code. The unpickler here admits plain containers and numpy
arrays and nothing else, whatever the checksum says.
"""

import io
import pickle
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ouikit.data.dataset import Dataset, Images, channel_moments, fingerprint
from ouikit.data.files import DataError, Root, check_md5, data_root, first_present

SOURCE = (
    "the CIFAR page of Alex Krizhevsky, University of Toronto, https://www.cs.toronto.edu/~kriz/cifar.html"
)


@dataclass(frozen=True)
class Form:
    """File names of one of the two sets, each with its published md5, and the keys inside them."""

    title: str
    archive: str
    folder: str
    labels: str
    class_names: str
    train: dict[str, str]
    validation: dict[str, str]
    meta: dict[str, str]


CIFAR10 = Form(
    title="CIFAR-10",
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    labels="labels",
    class_names="label_names",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    validation={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
)
CIFAR100 = Form(
    title="CIFAR-100",
    archive="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    labels="fine_labels",
    class_names="fine_label_names",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    validation={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
)


def read_cifar10(root: Root = None, verify: bool = True) -> Dataset:
    """50,000 and 10,000 uint8 images [3, 32, 32] in 10 classes; validation is the official test split."""
    return _read("cifar10", CIFAR10, data_root(root), verify)


def read_cifar100(root: Root = None, verify: bool = True) -> Dataset:
    """50,000 and 10,000 uint8 images [3, 32, 32] in 100 classes; validation is the official test split."""
    return _read("cifar100", CIFAR100, data_root(root), verify)


def _read(name: str, form: Form, root: Path, verify: bool) -> Dataset:
    """The set; `verify` compares every file with its published md5, and off reads any set of that format."""
    path = first_present(root, (form.archive, form.folder), form.title, SOURCE)
    published = form.train | form.validation | form.meta
    files = _unpacked(path, form, list(published))
    if verify:
        for file, content in files.items():
            check_md5(content, published[file], f"{file} of {form.title} in {path}")
    contents = {file: _unpickled(content, f"{path}: {file}") for file, content in files.items()}
    classes = tuple(str(entry) for meta in form.meta for entry in contents[meta][form.class_names])
    train = _split([contents[file] for file in form.train], form, len(classes), path)
    validation = _split([contents[file] for file in form.validation], form, len(classes), path)
    mean, std = channel_moments(train.images)
    checksum = fingerprint([train.images, train.labels, validation.images, validation.labels])
    read = tuple(path / file for file in files) if path.is_dir() else (path,)
    return Dataset(name, classes, train, validation, mean, std, checksum, read)


def _unpacked(path: Path, form: Form, files: list[str]) -> dict[str, bytes]:
    """The bytes of each file, out of the archive (nothing is written to disk) or of the folder."""
    try:
        if path.is_dir():
            return {file: (path / file).read_bytes() for file in files}
        with tarfile.open(path) as archive:
            return {file: _member(archive, f"{form.folder}/{file}") for file in files}
    except (tarfile.TarError, EOFError, OSError, zlib.error, KeyError) as error:
        raise DataError(f"{path} is incomplete or corrupt ({error}); fetch it again from {SOURCE}") from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise KeyError(f"{name} is not a file")
    return member.read()


_RECONSTRUCT = np.empty(0).__reduce__()[0]  # what a pickled array calls; its module was renamed in numpy 2
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Admits what a pickled numpy array needs, and no other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return _ADMITTED[module, name]


def _unpickled(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{where} was refused or is corrupt: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} holds a {type(value).__name__}, not a table of images")
    return value


def _split(batches: list[dict[str, Any]], form: Form, classes: int, path: Path) -> Images:
    try:
        rows = np.concatenate([np.asarray(batch["data"]) for batch in batches])
        images = torch.from_numpy(rows.reshape(-1, 3, 32, 32))
        labels: Tensor = torch.tensor([label for batch in batches for label in batch[form.labels]])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} does not hold {form.title} images and labels: {error!r}") from error
    fits = images.dtype == torch.uint8 and labels.dtype == torch.int64 and len(images) == len(labels)
    if not fits or not ((labels >= 0) & (labels < classes)).all():
        raise DataError(
            f"{path} holds {len(images)} images of {images.dtype} and {len(labels)} labels; "
            f"{form.title} has uint8 images, as many labels, and {classes} classes"
        )
    return Images(images, labels)
