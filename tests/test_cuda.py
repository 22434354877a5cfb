"""On a CUDA device: the same numbers as on the CPU, nothing that waits for the device, and a training run.

Skipped where there is none, as on the machines of CI: run it on one that has, `pytest tests/test_cuda.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
import torch
from torch import nn

from ouikit import OUI, balance_oui, pairwise_oui, record_patterns
from ouikit.data import load
from ouikit.data.augment import policy
from ouikit.nn.models import build
from ouikit.oui import fixed_pairs
from ouikit.patterns import flip_rate, hamming_distances
from ouikit.train import Recipe, fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Whatever makes the CPU wait for the device raises inside."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_indicators_are_those_of_the_cpu() -> None:
    layers = [torch.rand(37, 3, 5) > 0.4, torch.rand(37, 1001) > 0.7]
    there = [bits.cuda() for bits in layers]
    pairs = fixed_pairs(37)
    assert balance_oui(there) == pytest.approx(balance_oui(layers), abs=1e-12)
    assert pairwise_oui(there) == pytest.approx(pairwise_oui(layers), abs=1e-12)
    assert pairwise_oui(there, pairs) == pytest.approx(pairwise_oui(layers, pairs), abs=1e-12)
    assert flip_rate(there, [~bits for bits in there]) == 1
    assert hamming_distances(there[0]).cpu().equal(hamming_distances(layers[0]))


@pytest.mark.parametrize("kind", ["balance", "pairwise"])
def test_a_stream_reads_what_the_cpu_reads(kind: Literal["balance", "pairwise"]) -> None:
    """Gates only, so that no product of the device rounds in another way."""
    batches, model = torch.randn(5, 24, 100), nn.Sequential(nn.ReLU(), nn.GELU())
    with OUI(model, kind) as here:
        for x in batches:
            model(x)
    with OUI(model, kind) as there:
        for x in batches.cuda():
            model(x)
    assert there.compute() == pytest.approx(here.compute(), abs=1e-12)
    assert there.per_layer() == pytest.approx(here.per_layer(), abs=1e-12)


@pytest.mark.parametrize("kind", ["balance", "pairwise"])
def test_nothing_waits_for_the_device_before_compute(kind: Literal["balance", "pairwise"]) -> None:
    model = build("convnet6", 10, 1).cuda()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(64, 1, 8, 8, device="cuda")
    with OUI(model, kind) as oui:
        model(x)  # the first batch sends the pairs
        with nothing_waits():
            for _ in range(3):
                optimiser.zero_grad()
                model(x).sum().backward()
                optimiser.step()
        assert oui.readings == 4
        assert 0 < oui.compute() < 1


def test_a_model_on_two_devices() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.here, self.there = nn.ReLU(), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.there(self.here(x).cuda() - 0.5)

    model, x = Split(), torch.randn(16, 50)
    with OUI(model, kind="balance") as oui, record_patterns(model) as patterns:
        model(x)
    assert {name: bits.device.type for name, bits in patterns.items()} == {"here": "cpu", "there": "cuda"}
    assert oui.compute() == pytest.approx(balance_oui(patterns))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype: torch.dtype) -> None:
    """Under autocast, and nan where a batch overflows."""
    model = nn.Sequential(nn.Linear(30, 200), nn.ReLU(), nn.Linear(200, 1)).cuda()
    x = torch.randn(32, 30, device="cuda")
    with OUI(model, kind="balance") as plain, torch.autocast("cuda", dtype):
        model(x)
    with record_patterns(model) as patterns, torch.autocast("cuda", dtype):
        model(x)
    assert plain.compute() == pytest.approx(balance_oui(patterns))
    with OUI(model, kind="balance") as diverged:
        model(x * float("inf"))
    assert diverged.compute() != diverged.compute()


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_compiled_model(backend: str) -> None:
    model, batches = (
        nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 2)).cuda(),
        torch.randn(4, 32, 30),
    )
    with OUI(model, kind="balance") as oui:
        compiled = torch.compile(model, backend=backend)
        for x in batches.cuda():
            compiled(x).sum().backward()
    with OUI(model, kind="balance") as plain:
        for x in batches.cuda():
            model(x)
    assert oui.readings == 4
    assert oui.compute() == pytest.approx(plain.compute(), abs=1e-3)  # a bit may turn with the rounding


def test_training() -> None:
    """As on the CPU: the same images in the same order, to the rounding of the device while that is small."""
    rows = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model, recipe = build("convnet6", 10, 1), Recipe(4, 50, lr=0.05)
        with torch.backends.cudnn.flags(allow_tf32=False):
            rows[device] = list(fit(model, load("digits"), recipe, device=device, augment=policy("shift")))
    assert rows["cuda"][0]["train_loss"] == pytest.approx(rows["cpu"][0]["train_loss"], rel=0.02)
    assert min(rows[device][-1]["val_accuracy"] for device in rows) > 0.8
