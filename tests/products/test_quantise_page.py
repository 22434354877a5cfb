"""`book/quantise.md`: its two blocks of code, run as they stand on a network that was trained."""

import re

import numpy as np
import torch
from conftest import ROOT
from sklearn.datasets import load_digits

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "book" / "quantise.md").read_text(), re.S)


def trained(images: torch.Tensor, labels: torch.Tensor) -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 32), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(32, 10))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return model


def test_the_page_makes_of_a_trained_network_one_in_8_bits_that_answers_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels, digits = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels, dtype=torch.float32), torch.tensor(digits)
    model = trained(images[:1300], labels[:1300])
    named = {"model": model, "some": images[:300]}
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        exec(block, named)
    with torch.no_grad():
        exact = model(images[1300:]).numpy()
    found = named["infer"](pixels[1300:].astype(np.float32))
    assert found.dtype == np.float32
    # A wrong scale, bias or order is off by as much as the outputs differ among themselves.
    assert np.abs(found - exact).max() < 0.1 * exact.std()
    assert (found.argmax(1) == exact.argmax(1)).mean() > 0.985
