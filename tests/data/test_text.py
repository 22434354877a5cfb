"""Bad options of text."""

import pytest
import torch

from ouikit.data import text


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_that_leaves_nothing(share):
    with pytest.raises(ValueError, match="validation is a share"):
        text.python_manual(share)


@pytest.mark.parametrize("start", [-1, 3])
def test_a_window_that_does_not_fit(start):
    with pytest.raises(ValueError, match=r"starts must lie in 0 … 2"):
        text.windows(torch.arange(5), 2, torch.tensor([0, start]))
