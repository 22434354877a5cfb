"""ImageNet-1K (Russakovsky et al., IJCV 2015) from unpacked folders, decoded as batches are read."""

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ouikit.data.dataset import Batch, Dataset, index_batches
from ouikit.data.files import DataError, Root, data_root, first_present

SOURCE = "ILSVRC 2012, https://image-net.org/download-images"
PUBLISHED = {"classes": 1000, "train": 1_281_167, "validation": 50_000}
# Statistics of the training pixels in common use; measuring them would decode 1.3 million files.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageFiles:
    """A split that stays on disk: files, int64 labels [N], each image decoded to size × size pixels.

    With `random_crop` (training) a random resized crop is taken; without, the shorter side is resized to
    size · 256 / 224 and the centre cut out. `workers` processes decode ahead of the training.
    """

    files: tuple[str, ...]
    labels: Tensor
    size: int
    random_crop: bool
    workers: int

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ImageFiles":
        return self  # batches are moved one by one

    def with_labels(self, labels: Tensor) -> "ImageFiles":
        return replace(self, labels=labels)

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[Batch]:
        index = index_batches(len(self), batch_size, generator, drop_last)
        # One seed per image and pass: the crops do not depend on the number of workers.
        seeds = torch.randint(2**62, (len(self),), generator=generator or torch.Generator())
        loader = DataLoader(
            TensorDataset(torch.arange(len(self)), seeds),
            batch_sampler=[batch.tolist() for batch in index],
            num_workers=self.workers,
            collate_fn=partial(_collated, self),
            generator=torch.Generator(),  # else a loader draws from torch's global generator
        )
        for images, labels in loader:
            yield images.float().div_(255), labels

    def decoded(self, position: int, seed: int) -> Tensor:
        """uint8 [3, size, size]: image `position`, its crop drawn from `seed`."""
        try:
            with Image.open(self.files[position]) as file:
                image = file.convert("RGB")
        except OSError as error:
            raise DataError(f"{self.files[position]} is not an image that can be read: {error}") from error
        box = random_box(*image.size, seed) if self.random_crop else centre_box(*image.size)
        small = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def read(root: Root = None, size: int = 224, workers: int | None = None, verify: bool = True) -> Dataset:
    """The folders imagenet/train/<wnid>/ and imagenet/val/<wnid>/; validation is the official split `val`.

    `workers` is the number of decoding processes (default: as many as there are cores, 8 at most; 0
    decodes in this process). `verify` counts classes and images. The checksum covers names and sizes of
    the files, not their 150 GB.
    """
    folder = first_present(data_root(root), ("imagenet",), "ImageNet (train/<wnid>/, val/<wnid>/)", SOURCE)
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    classes = tuple(sorted(path.name for path in folder.glob("train/*") if path.is_dir()))
    files = {split: sorted(folder.glob(f"{split}/*/*.JPEG")) for split in ("train", "val")}
    found = {"classes": len(classes), "train": len(files["train"]), "validation": len(files["val"])}
    strangers = sorted({file.parent.name for file in files["val"]} - set(classes))
    if not min(found.values()) or strangers or (verify and found != PUBLISHED):
        raise DataError(
            f"{folder} holds {found} and classes {strangers} in val alone; published: {PUBLISHED}"
        )
    label = {wnid: number for number, wnid in enumerate(classes)}
    splits = {
        split: ImageFiles(
            tuple(map(str, paths)),
            torch.tensor([label[path.parent.name] for path in paths]),
            size,
            random_crop=split == "train",
            workers=workers,
        )
        for split, paths in files.items()
    }
    checksum = _listing_checksum(folder, [*files["train"], *files["val"]])
    return Dataset("imagenet", classes, splits["train"], splits["val"], MEAN, STD, checksum, (folder,))


def random_box(width: int, height: int, seed: int) -> Box:
    """(left, top, right, bottom) of a crop with 8 to 100 % of the area and aspect ratio 3/4 to 4/3.

    The random resized crop of Szegedy et al. (arXiv 1409.4842, section 6): ten tries to fit into the
    image, then the largest centred crop whose ratio is allowed.
    """
    draw = np.random.default_rng(seed)
    for _ in range(10):
        area = width * height * draw.uniform(0.08, 1)
        ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and high <= height:
            left, top = draw.uniform(0, width - wide), draw.uniform(0, height - high)
            return left, top, left + wide, top + high
    return _centred(width, height, min(width, height * 4 / 3), min(height, width * 4 / 3))


def centre_box(width: int, height: int) -> Box:
    """The centred square with 224/256 of the shorter side."""
    side = min(width, height) * 224 / 256
    return _centred(width, height, side, side)


def _centred(width: int, height: int, wide: float, high: float) -> Box:
    left, top = (width - wide) / 2, (height - high) / 2
    return left, top, left + wide, top + high


def _collated(split: ImageFiles, pairs: list[tuple[Tensor, Tensor]]) -> Batch:
    positions = torch.stack([position for position, _ in pairs])
    images = [split.decoded(int(position), int(seed)) for position, seed in pairs]
    return torch.stack(images), split.labels[positions]


def _listing_checksum(folder: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()} {file.stat().st_size}\n".encode())
    return digest.hexdigest()
