"""Data: what `load` promises of each set, on real digits, rendered glyphs, and small archives written here in
the official formats, sound and spoilt."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ouikit import data
from ouikit.data import cifar, glyphs, imagenet, tiny_imagenet
from ouikit.data.dataset import channel_moments, index_batches

Write = Callable[..., Path]


# Splits, label noise, names


@given(
    count=st.integers(1, 60), size=st.integers(1, 60), seed=st.none() | st.integers(0, 9), drop=st.booleans()
)
def test_batches_cover_a_split_once(count: int, size: int, seed: int | None, drop: bool) -> None:
    if drop and size > count:
        with pytest.raises(ValueError, match=f"got {size}"):
            index_batches(count, size, None, drop)
        return
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batches = index_batches(count, size, generator, drop)
    positions = torch.cat(batches).tolist()
    assert len(set(positions)) == len(positions) == (count - count % size if drop else count)
    assert all(len(batch) == size for batch in batches[: None if drop else -1])
    if seed is None:
        assert positions == sorted(positions)


def test_in_memory_batches_are_float_images_in_the_unit_interval() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    [(batch, labels)] = data.Images(images, torch.tensor([2, 0, 1])).batches(3)
    assert batch.dtype == torch.float32
    assert batch[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert labels.tolist() == [2, 0, 1]
    [(large, _)] = data.Images(images, torch.tensor([2, 0, 1]), size=5).batches(3)
    assert large.shape == (3, 1, 5, 5)
    assert large[1].flatten().tolist() == pytest.approx([0.2] * 25)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("seed", [None, 0])
def test_who_changes_a_batch_changes_no_image(kind: torch.dtype, seed: int | None) -> None:
    held = data.Images(torch.ones(5, 1, 2, 2, dtype=kind), torch.arange(5))
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for images, _ in held.batches(2, generator):
        images.zero_()
    assert held.images.eq(1).all()


def test_without_a_generator_batches_are_in_the_stored_order() -> None:
    held = data.Images(torch.arange(5.0).view(5, 1, 1, 1), torch.arange(5))
    assert [labels.tolist() for _, labels in held.batches(2)] == [[0, 1], [2, 3], [4]]
    assert [images.flatten().tolist() for images, _ in held.batches(2, drop_last=True)] == [[0, 1], [2, 3]]


def test_channel_moments_by_hand() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 51]]]], dtype=torch.uint8)
    assert channel_moments(images) == (pytest.approx((0.5, 0.2)), pytest.approx((0.5, 1.0)))


def test_label_noise_is_exact_seeded_and_leaves_validation_alone() -> None:
    labels = torch.zeros(1000, dtype=torch.int64)
    noisy = data.randomise_labels(labels, 1_000_000, 0.2, seed=3)  # so many classes that no draw repeats a 0
    assert (noisy != labels).sum() == 200
    assert torch.equal(noisy, data.randomise_labels(labels, 1_000_000, 0.2, seed=3))
    assert not torch.equal(noisy, data.randomise_labels(labels, 1_000_000, 0.2, seed=4))
    assert not labels.any()
    plain, spoilt = data.load("digits"), data.load("digits", label_noise=0.2)
    assert 60 <= (plain.train.labels != spoilt.train.labels).sum() <= 100
    assert torch.equal(plain.validation.labels, spoilt.validation.labels)
    assert plain.checksum == spoilt.checksum
    with pytest.raises(ValueError, match=r"1\.5"):
        data.load("digits", label_noise=1.5)


def test_unknown_names_and_options() -> None:
    with pytest.raises(KeyError, match="cifar100 or cifar10"):
        data.load("cifar1000")
    with pytest.raises(TypeError, match=r"'trainsize'.*train_size"):
        data.load("digits", trainsize=3)
    assert data.options_of("digits") == ["train_size", "split_seed", "validation_size"]
    assert "size" in data.options_of("imagenet")
    with pytest.raises(KeyError, match="digits"):
        data.options_of("digit")


# Digits


def test_digits() -> None:
    digits = data.load("digits")
    assert (len(digits.train), len(digits.validation), digits.channels) == (500, 1297, 1)
    assert digits.classes == tuple("0123456789")
    images = torch.cat([split.images for split in (digits.train, digits.validation)])  # type: ignore[attr-defined]
    assert images.shape == (1797, 1, 8, 8)
    assert (images.min(), images.max()) == (0, 1)
    assert len(images.flatten(1).unique(dim=0)) == 1797, "an image is in both splits"
    other = data.load("digits", split_seed=1)
    assert not torch.equal(other.train.labels, digits.train.labels)
    assert other.checksum == digits.checksum == data.load("digits", train_size=7).checksum
    with pytest.raises(ValueError, match="1797"):
        data.load("digits", train_size=1797)


def test_digits_keep_the_first_of_the_validation_images() -> None:
    whole, part = data.load("digits"), data.load("digits", validation_size=40)
    assert len(part.validation) == 40
    assert torch.equal(part.validation.labels, whole.validation.labels[:40])
    assert torch.equal(part.probe(40), whole.probe(40)), "another mean or other images"
    for size in (0, 1298):
        with pytest.raises(ValueError, match="1 to 1297"):
            data.load("digits", validation_size=size)


# Glyphs


def small_glyphs(**options: Any) -> data.Dataset:
    return data.load("glyphs", **{"train_size": 40, "validation_size": 20, "classes": 10, **options})


def pixels(split: data.Split) -> Tensor:
    assert isinstance(split, data.Images)
    return split.images


def test_glyphs_are_balanced_colour_images() -> None:
    rendered = small_glyphs()
    assert pixels(rendered.train).shape == (40, 3, 32, 32)
    assert pixels(rendered.train).dtype == torch.uint8
    assert rendered.train.labels.bincount().tolist() == [4] * 10
    assert rendered.validation.labels.bincount().tolist() == [2] * 10
    assert rendered.classes == tuple("ABDEGHKMNP")
    many = small_glyphs(classes=len(glyphs.CHARACTERS), train_size=100)
    assert set(many.train.labels.tolist()) == set(range(len(glyphs.CHARACTERS)))


def test_every_font_has_every_character() -> None:
    masks = glyphs._masks()
    assert len(set(glyphs.CHARACTERS)) == len(glyphs.CHARACTERS)
    assert (masks.sum(axis=(2, 3)) > 20).all(), "a character without ink"
    for font in masks.reshape(len(glyphs.FONTS), len(glyphs.CHARACTERS), -1):
        assert len(np.unique(font, axis=0)) == len(glyphs.CHARACTERS), "two characters look the same"
    rim = np.ones(masks.shape[2:], dtype=bool)
    rim[1:-1, 1:-1] = False
    assert not masks[:, :, rim].any(), "ink at the rim would be smeared outwards"


def test_glyphs_without_difficulty_are_the_masks_themselves() -> None:
    plain = pixels(small_glyphs(difficulty=0.0).train)
    ink = ((1 - glyphs._masks()[:, :10, 8:40, 8:40]) * 255 + 0.5).astype(np.uint8)
    for label, image in enumerate(plain[:10]):
        assert any(np.array_equal(image[0], mask) for mask in ink[:, label])
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])


def test_interpolation_by_hand() -> None:
    masks = np.zeros((1, glyphs.CANVAS, glyphs.CANVAS))
    masks[0, 10, 20] = 1
    places_y, places_x = np.array([[[10.0, 10.25, 10.5, 9.0]]]), np.array([[[20.0, 20.5, 19.5, 20.0]]])
    values = glyphs._interpolated(masks, places_y, places_x)
    assert values.ravel().tolist() == pytest.approx([1, 0.375, 0.25, 0])


def test_glyphs_repeat_across_processes_and_differ_with_every_option() -> None:
    options = "train_size=40, validation_size=20, classes=10"
    script = f"from ouikit import data; print(data.load('glyphs', {options}).checksum)"
    fresh = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == small_glyphs().checksum
    variants: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"difficulty": 0.6},
        {"classes": 11},
        {"train_size": 41},
    ]
    assert len({small_glyphs(**variant).checksum for variant in variants}) == len(variants)
    assert torch.equal(pixels(small_glyphs(train_size=80).validation), pixels(small_glyphs().validation))
    equal = small_glyphs(train_size=20)
    both = torch.cat([pixels(equal.train), pixels(equal.validation)])
    assert len(both.flatten(1).unique(dim=0)) == 40, "an image is in both splits"


@pytest.mark.parametrize(
    "option",
    [{"classes": 1}, {"classes": 99}, {"difficulty": 1.1}, {"difficulty": float("nan")}, {"train_size": 0}],
)
def test_glyphs_out_of_range(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(option.values())))):
        small_glyphs(**option)


# CIFAR


PythonPickler: Any = vars(pickle)["_Pickler"]


class PythonTwoPickler(PythonPickler):
    """Writes strings as the Python 2 that wrote the official archives did."""

    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(PythonPickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        raw = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)

    dispatch[str] = dispatch[bytes] = save_string


def as_python_2(value: object) -> bytes:
    buffer = io.BytesIO()
    PythonTwoPickler(buffer, protocol=2).dump(value)
    # numpy's module had its old name, too
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def rows(seed: int, count: int = 4) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def cifar10_tables() -> dict[str, Any]:
    tables: dict[str, Any] = {
        f"data_batch_{n}": {"data": rows(n), "labels": [n - 1, 9, 0, n]} for n in range(1, 6)
    }
    tables["test_batch"] = {"data": rows(6), "labels": [3, 2, 1, 0]}
    return {**tables, "batches.meta": {"label_names": [f"class {n}" for n in range(10)]}}


def cifar100_tables() -> dict[str, Any]:
    return {
        "train": {"data": rows(1, 8), "fine_labels": list(range(90, 98)), "coarse_labels": [0] * 8},
        "test": {"data": rows(2, 3), "fine_labels": [0, 1, 99], "coarse_labels": [0] * 3},
        "meta": {"fine_label_names": [f"class {n}" for n in range(100)]},
    }


@pytest.fixture
def write_cifar(tmp_path: Path) -> Write:
    """Writes tables (or raw bytes) as an official archive, or as the folder it unpacks to."""

    def write(form: cifar.Form, tables: dict[str, Any], packed: bool = True) -> Path:
        folder = tmp_path / form.folder
        folder.mkdir(exist_ok=True)
        for name, table in tables.items():
            (folder / name).write_bytes(table if isinstance(table, bytes) else as_python_2(table))
        if packed:
            with tarfile.open(tmp_path / form.archive, "w:gz") as archive:
                archive.add(folder, form.folder)
        return tmp_path

    return write


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_reads_the_official_format(write_cifar: Write, packed: bool) -> None:
    read = data.load("cifar10", write_cifar(cifar.CIFAR10, cifar10_tables(), packed), verify=False)
    assert (len(read.train), len(read.validation), read.classes[3]) == (20, 4, "class 3")
    assert read.train.labels.tolist()[:5] == [0, 9, 0, 1, 1]
    expected = rows(2)[1].reshape(3, 32, 32)  # red, green, blue planes, row by row
    assert torch.equal(pixels(read.train)[5], torch.from_numpy(expected))


def test_cifar100_uses_the_fine_labels(write_cifar: Write) -> None:
    read = data.load("cifar100", write_cifar(cifar.CIFAR100, cifar100_tables()), verify=False)
    assert len(read.classes) == 100
    assert read.validation.labels.tolist() == [0, 1, 99]
    assert read.std == pytest.approx((0.29, 0.29, 0.29), abs=0.01)  # of uniform bytes


def test_cifar_is_found_through_the_environment(
    write_cifar: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(cifar.CIFAR100, cifar100_tables(), packed=False)
    monkeypatch.setenv("OUIKIT_DATA", str(tmp_path))
    assert len(data.load("cifar100", verify=False).train) == 8
    with pytest.raises(data.MissingDataError, match="elsewhere"):
        data.load("cifar100", tmp_path / "elsewhere", verify=False)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny_imagenet", "imagenet"])
def test_a_missing_set_says_what_to_put_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(data.MissingDataError, match=rf"Put .* into {tmp_path}.*OUIKIT_DATA.*Official source"):
        data.load(name, tmp_path)


def test_published_checksums_guard_by_default(write_cifar: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = cifar100_tables()
    root = write_cifar(cifar.CIFAR100, tables)
    with pytest.raises(data.DataError, match=r"md5 [0-9a-f]{32}.*16019d7e3df5f24257cddd939b257f8d"):
        data.load("cifar100", root)
    for part in (cifar.CIFAR100.train, cifar.CIFAR100.validation, cifar.CIFAR100.meta):
        for name in part:
            monkeypatch.setitem(part, name, hashlib.md5(as_python_2(tables[name])).hexdigest())
    assert len(data.load("cifar100", root).train) == 8


class Malice:
    """Unpickled by the ordinary unpickler, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_malicious_pickle_is_refused(write_cifar: Write, tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    evil = pickle.dumps({"data": rows(0), "fine_labels": Malice(mark)}, protocol=protocol)
    pickle.loads(evil)
    assert mark.is_dir(), "the attack itself must work for this test to mean anything"
    mark.rmdir()
    root = write_cifar(cifar.CIFAR100, {**cifar100_tables(), "train": evil})
    with pytest.raises(data.DataError, match="refused"):
        data.load("cifar100", root, verify=False)
    assert not mark.exists()


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"\x80\x02}q\x00(U",
        [1, 2],
        {"fine_labels": [0]},
        {"data": rows(0)[:, :-1], "fine_labels": [0] * 4},
        {"data": rows(0).astype(np.float32), "fine_labels": [0] * 4},
        {"data": rows(0), "fine_labels": [0] * 3},
        {"data": rows(0), "fine_labels": [0, 1, 2, 100]},
        {"data": rows(0), "fine_labels": [0, 1, 2, -1]},
        {"data": rows(0), "fine_labels": "abcd"},
    ],
)
def test_spoilt_tables_are_data_errors(write_cifar: Write, table: Any) -> None:
    root = write_cifar(cifar.CIFAR100, {**cifar100_tables(), "train": table})
    with pytest.raises(data.DataError, match="cifar-100-python"):
        data.load("cifar100", root, verify=False)


@pytest.mark.parametrize("kept", [0, 20, 1000, 20_000])
def test_a_truncated_archive_is_a_data_error(write_cifar: Write, kept: int) -> None:
    root = write_cifar(cifar.CIFAR100, cifar100_tables())
    archive = root / cifar.CIFAR100.archive
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(data.DataError, match=r"(?s)incomplete or corrupt.*fetch it again"):
        data.load("cifar100", root, verify=False)


def test_an_incomplete_folder_is_a_data_error(write_cifar: Write) -> None:
    tables = cifar100_tables()
    del tables["meta"]
    root = write_cifar(cifar.CIFAR100, tables, packed=False)
    with pytest.raises(data.DataError, match="meta"):
        data.load("cifar100", root, verify=False)


# Tiny-ImageNet and ImageNet


def jpeg(colour: tuple[int, int, int] | int, size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


TINY = {
    "wnids.txt": b"n02\nn01\n",
    "words.txt": b"n01\tthe first\n",
    "train/n01/images/n01_0.JPEG": jpeg((255, 0, 0)),
    "train/n01/images/n01_1.JPEG": jpeg(128),
    "train/n01/n01_boxes.txt": b"n01_0.JPEG\t0\t0\t1\t1\n",
    "train/n02/images/n02_0.JPEG": jpeg((0, 0, 255)),
    "val/val_annotations.txt": b"val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n",
    "val/images/val_0.JPEG": jpeg((0, 0, 255)),
    "val/images/val_1.JPEG": jpeg((255, 0, 0)),
    "test/images/test_0.JPEG": jpeg((0, 255, 0)),
}


@pytest.fixture
def write_tiny(tmp_path: Path) -> Write:
    def write(files: dict[str, bytes], packed: bool = True) -> Path:
        if packed:
            with zipfile.ZipFile(tmp_path / tiny_imagenet.ARCHIVE, "w") as archive:
                archive.mkdir(f"{tiny_imagenet.FOLDER}/")
                for name, content in files.items():
                    archive.writestr(f"{tiny_imagenet.FOLDER}/{name}", content)
            return tmp_path
        for name, content in files.items():
            path = tmp_path / tiny_imagenet.FOLDER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path

    return write


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet_reads_the_official_layout(write_tiny: Write, packed: bool) -> None:
    read = data.load("tiny_imagenet", write_tiny(TINY, packed), verify=False)
    assert read.classes == ("n01", "n02")
    assert read.train.labels.tolist() == [0, 0, 1]
    assert read.validation.labels.tolist() == [1, 0]
    assert pixels(read.train).shape == (3, 3, 64, 64)
    assert pixels(read.train)[0, :, 9, 9].tolist() == pytest.approx([255, 0, 0], abs=3)
    assert pixels(read.train)[1, :, 9, 9].tolist() == [128] * 3
    large = data.load("tiny_imagenet", write_tiny(TINY, packed), verify=False, size=96)
    assert next(iter(large.validation.batches(2)))[0].shape == (2, 3, 96, 96)


def test_tiny_imagenet_is_verified_by_default(write_tiny: Write) -> None:
    with pytest.raises(data.DataError, match=tiny_imagenet.MD5):
        data.load("tiny_imagenet", write_tiny(TINY))


def test_a_tiny_imagenet_folder_is_counted(write_tiny: Write) -> None:
    with pytest.raises(data.DataError, match=r"'train': 3.*100000"):
        data.load("tiny_imagenet", write_tiny(TINY, packed=False))


@pytest.mark.parametrize(
    "spoilt",
    [
        {"val/images/val_0.JPEG": b"not an image"},
        {"val/images/val_0.JPEG": TINY["val/images/val_0.JPEG"][:200]},
        {"val/images/val_0.JPEG": jpeg(7, (64, 1))},
        {"val/val_annotations.txt": b"val_0.JPEG\tn99\t0\t0\t9\t9\n"},
        {"val/val_annotations.txt": b"val_7.JPEG\tn01\t0\t0\t9\t9\n"},
        {"val/val_annotations.txt": b"val_0.JPEG"},
        {"wnids.txt": b"\xff"},
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_spoilt_tiny_imagenet(write_tiny: Write, spoilt: dict[str, bytes], packed: bool) -> None:
    with pytest.raises(data.DataError, match="incomplete or corrupt"):
        data.load("tiny_imagenet", write_tiny({**TINY, **spoilt}, packed), verify=False)


def test_a_truncated_zip_is_a_data_error(write_tiny: Write) -> None:
    root = write_tiny(TINY)
    archive = root / tiny_imagenet.ARCHIVE
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(data.DataError, match="incomplete or corrupt"):
        data.load("tiny_imagenet", root, verify=False)


@pytest.fixture
def imagenet_root(tmp_path: Path) -> Path:
    files = {
        "train/n01/n01_0.JPEG": jpeg((255, 0, 0), (90, 60)),
        "train/n01/n01_1.JPEG": jpeg(128, (60, 200)),
        "train/n02/n02_0.JPEG": jpeg((0, 0, 255), (40, 40)),
        "val/n01/val_0.JPEG": jpeg((255, 0, 0), (64, 96)),
        "val/n02/val_1.JPEG": jpeg((0, 0, 255), (96, 64)),
    }
    for name, content in files.items():
        path = tmp_path / "imagenet" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_imagenet_is_decoded_batch_by_batch(imagenet_root: Path, workers: int) -> None:
    read = data.load("imagenet", imagenet_root, size=32, workers=workers, verify=False)
    state = torch.get_rng_state()
    [(images, labels)] = read.train.batches(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert (images.shape, images.dtype, labels.tolist()) == ((3, 3, 32, 32), torch.float32, [0, 0, 1])
    assert images[2].mean(dim=(1, 2)).tolist() == pytest.approx([0, 0, 1], abs=0.02)
    sizes = [len(labels) for _, labels in read.train.batches(2)]
    assert sizes == [2, 1]
    assert [len(labels) for _, labels in read.train.batches(2, drop_last=True)] == [2]


def test_imagenet_crops_follow_the_generator(imagenet_root: Path) -> None:
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1)))
    for path in (imagenet_root / "imagenet").rglob("*.JPEG"):
        ramp.save(path, "JPEG")
    read = data.load("imagenet", imagenet_root, size=16, workers=0, verify=False)

    def first_pass(split: data.Split, seed: int) -> Tensor:
        return torch.cat([images for images, _ in split.batches(3, torch.Generator().manual_seed(seed))])

    assert torch.equal(first_pass(read.train, 0), first_pass(read.train, 0))
    assert not torch.equal(first_pass(read.train, 0), first_pass(read.train, 1))
    assert len(first_pass(read.train, 0).flatten(1).unique(dim=0)) == 3
    [(validation, _)] = read.validation.batches(2)
    middle = validation[0, 0].mean(0)  # the centred 87.5 of 200 columns: 56 to 144
    assert (255 * middle[[0, -1]]).tolist() == pytest.approx([58.5, 140.5], abs=2)


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), seed=st.integers(0, 2**62))
def test_crops_stay_inside_the_image(width: int, height: int, seed: int) -> None:
    for left, top, right, bottom in (
        imagenet.random_box(width, height, seed),
        imagenet.centre_box(width, height),
    ):
        assert 0 <= left < right <= width + 1e-9
        assert 0 <= top < bottom <= height + 1e-9
        assert 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9


def test_imagenet_faults(imagenet_root: Path) -> None:
    with pytest.raises(data.DataError, match=r"'classes': 2.*1281167"):
        data.load("imagenet", imagenet_root)
    image = imagenet_root / "imagenet/val/n01/val_0.JPEG"
    image.write_bytes(b"not an image")
    read = data.load("imagenet", imagenet_root, workers=0, verify=False)
    with pytest.raises(data.DataError, match=r"val_0\.JPEG"):
        list(read.validation.batches(2))
    image.parent.rename(image.parent.with_name("n99"))
    with pytest.raises(data.DataError, match="n99"):
        data.load("imagenet", imagenet_root, verify=False)


def test_a_standardised_set_gives_the_bits_of_normalising_every_batch():
    whole = data.load("digits", train_size=70)
    ready = whole.standardised
    assert ready is whole.standardised
    assert (ready.mean, ready.std) == ((0.0,), (1.0,))
    for split, own in ((whole.train, ready.train), (whole.validation, ready.validation)):
        plain, done = (each.batches(32, torch.Generator().manual_seed(3)) for each in (split, own))
        for (images, labels), (standard, same) in zip(plain, done, strict=True):
            assert torch.equal(whole.normalised(images), standard)
            assert torch.equal(labels, same)
    assert replace(whole, train=replace(whole.train, size=16)).standardised.mean == whole.mean
