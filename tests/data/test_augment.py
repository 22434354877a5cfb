"""Augmentation: what each policy may change, that images differ in their draws, that seeds decide them."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ouikit.data import augment

NAMES = ["none", "shift", "cifar", "cifar_autoaugment", "cifar_randaugment", "tiny_imagenet", "imagenet"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 24, side: int = 16) -> Tensor:
    return torch.rand(count, 3, side, side, generator=seeded(9))


def dots(count: int) -> Tensor:
    """One lit pixel in the middle of each 9 × 9 image."""
    batch = torch.zeros(count, 1, 9, 9)
    batch[:, :, 4, 4] = 1
    return batch


def test_shift_moves_by_up_to_a_pixel_and_reaches_every_place() -> None:
    moved = augment.shift(dots(200), seeded())
    places = {tuple(place) for place in moved.squeeze(1).nonzero()[:, 1:].tolist()}
    assert moved.sum() == 200
    assert places == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}


def test_shift_by_hand() -> None:
    """Whatever was drawn, the result is a window of the padded image."""
    batch = images(6, side=5)
    padded = torch.nn.functional.pad(batch, [2] * 4)
    for image, wide in zip(augment.shift(batch, seeded(), pixels=2), padded, strict=True):
        windows = [wide[:, row : row + 5, column : column + 5] for row in range(5) for column in range(5)]
        assert sum(torch.equal(image, window) for window in windows) == 1


def test_flip_mirrors_half_of_the_images() -> None:
    batch = images(400)
    flipped = augment.flip(batch, seeded())
    mirrored = (flipped == batch.flip(3)).flatten(1).all(1)
    kept = (flipped == batch).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert 160 <= mirrored.sum() <= 240  # 4 standard deviations


@pytest.mark.parametrize("name", NAMES)
def test_policies_keep_the_form_and_follow_the_generator(name: str) -> None:
    policy, batch = augment.policy(name), images()
    original = batch.clone()
    state = torch.get_rng_state()
    first, again, other = (policy(batch, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch, original)
    assert (first.shape, first.dtype) == (batch.shape, torch.float32)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "none")


@pytest.mark.parametrize("name", NAMES[1:])
def test_images_of_a_batch_are_drawn_one_by_one(name: str) -> None:
    copies = images(1).repeat(24, 1, 1, 1)
    changed = augment.policy(name)(copies, seeded())
    assert len({image.numpy().tobytes() for image in changed}) >= 3
    assert any(not torch.equal(a, b) for a, b in pairwise(changed))


def test_autoaugment_gives_each_image_a_subpolicy_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With sub-policies that write their own number, the numbers of one batch cover many of the 25."""

    class Write(torch.nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def forward(self, batch: Tensor) -> Tensor:
            return torch.full_like(batch, self.number)

    assert len(augment._autoaugment()) == 25
    monkeypatch.setattr(augment, "_autoaugment", lambda: [Write(number) for number in range(25)])
    written = augment.cifar_autoaugment(images(500), seeded())
    assert written[:, 0, 0, 0].unique().tolist() == list(range(25))
    assert torch.equal(written, written[:, :1, :1, :1].expand_as(written))


def test_tiny_imagenet_turns_every_image_and_imagenet_none() -> None:
    """Turning darkens the corners of grey images against their middle; the other steps change both alike."""
    grey = torch.full((32, 3, 24, 24), 0.5)  # jitter cannot brighten it beyond 1
    for name, turned in (("tiny_imagenet", 32), ("imagenet", 0)):
        changed = augment.policy(name)(grey, seeded())
        corners = changed[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].amin(dim=(1, 2))
        assert (corners < changed[:, :, 12, 12].amin(dim=1) - 1e-4).sum() == turned


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(KeyError, match="cifar_autoaugment"):
        augment.policy("cifar_autoaugmnt")
