"""Tiny-ImageNet (Le and Yang, Stanford CS231n, 2015) from the official archive, packed or unpacked."""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ouikit.data.dataset import Dataset, Images, channel_moments, fingerprint
from ouikit.data.files import DataError, Root, check_md5, data_root, first_present

ARCHIVE, FOLDER = "tiny-imagenet-200.zip", "tiny-imagenet-200"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
SOURCE = "Stanford CS231n, http://cs231n.stanford.edu/tiny-imagenet-200.zip"
SIDE = 64
PUBLISHED = {"train": 100_000, "validation": 10_000}
Read = Callable[[str], bytes]


def read(root: Root = None, size: int = SIDE, verify: bool = True) -> Dataset:
    """100,000 and 10,000 uint8 images [3, 64, 64] in 200 classes; validation is the official split `val`.

    They are decoded once into 1.4 GB of memory, and batches come at `size` × `size` pixels (224 in the
    paper's experiment). `verify` compares the archive with its md5, or counts the images of a folder.
    """
    path = first_present(data_root(root), (ARCHIVE, FOLDER), "Tiny-ImageNet", SOURCE)
    if verify and path.is_file():
        check_md5(path, MD5, str(path))
    try:
        with _tree(path) as (files, read):
            classes = tuple(sorted(read("wnids.txt").decode().split()))
            train = _decoded(_training_files(files, classes), read)
            validation = _decoded(_validation_files(read, classes), read)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, LookupError, ValueError) as error:
        raise DataError(f"{path} is incomplete or corrupt ({error}); fetch it again from {SOURCE}") from error
    found = {"train": len(train[1]), "validation": len(validation[1])}
    if verify and found != PUBLISHED:
        raise DataError(f"{path} holds {found} images, the published set {PUBLISHED}")
    mean, std = channel_moments(train[0])
    return Dataset(
        name="tiny_imagenet",
        classes=classes,
        train=_resized(train, size),
        validation=_resized(validation, size),
        mean=mean,
        std=std,
        checksum=fingerprint([*train, *validation]),
        files=(path,),
    )


@contextmanager
def _tree(path: Path) -> Iterator[tuple[list[str], Read]]:
    """Names below the set's folder, and a function from a name to its bytes, for archive and folder alike."""
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        yield names, lambda name: (path / name).read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        names = [name.removeprefix(f"{FOLDER}/") for name in archive.namelist() if not name.endswith("/")]
        yield names, lambda name: archive.read(f"{FOLDER}/{name}")


def _training_files(files: list[str], classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """(name, label) of train/<wnid>/images/<file>.JPEG, sorted by name."""
    images = sorted(name for name in files if name.startswith("train/") and name.endswith(".JPEG"))
    return [(name, classes.index(name.split("/")[1])) for name in images]


def _validation_files(read: Read, classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """(name, label) as val/val_annotations.txt lists them: file, wnid and a box, separated by tabs."""
    rows = [line.split("\t") for line in read("val/val_annotations.txt").decode().splitlines()]
    return [(f"val/images/{row[0]}", classes.index(row[1])) for row in rows]


def _decoded(files: list[tuple[str, int]], read: Read) -> tuple[Tensor, Tensor]:
    """uint8 images [N, 3, 64, 64] and int64 labels [N]; the few grey files become RGB."""
    images = np.empty((len(files), SIDE, SIDE, 3), dtype=np.uint8)
    for image, (name, _) in zip(images, files, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(read(name))).convert("RGB"))
        if pixels.shape != image.shape:
            raise ValueError(f"{name} has {pixels.shape[1]} × {pixels.shape[0]} pixels, not {SIDE} × {SIDE}")
        image[:] = pixels
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def _resized(split: tuple[Tensor, Tensor], size: int) -> Images:
    return Images(*split, size=None if size == SIDE else size)
