"""What Adam's normalised update is made of, and how long a memory balanced Adam (β1 = β2) should have.

Adam moves a weight by −lr · R, with R = m̂ / (√v̂ + ε). While a gradient g keeps its sign and its size drifts
slowly, R is a sign, plus a lag that comes from the two averages having memories of different lengths, plus a
remainder. With β1 = β2 there is no lag: rescaling the gradient no longer changes the update to first order.

Sources: Fernández-Hernández et al., arXiv 2601.21739 (decomposition: authors' released analysis of the
digits run), and arXiv 2605.10119 (refresh rule; that the grid value nearest in β is taken is inferred, and
reproduces every choice that the authors publish).
"""

import bisect
import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

Betas = tuple[float, float]
TINY = torch.finfo(torch.float64).tiny  # stands for a gradient of zero where its logarithm is taken
BETA_GRID = tuple(round(1 - 10 ** (-k / 4), 5) for k in range(13))  # the paper's: 0, 0.43766, … 0.999


class Decomposition(NamedTuple):
    """Parts of a normalised update, float64 in the shape of the gradients: their sum is the update."""

    sign: Tensor
    lag: Tensor
    remainder: Tensor


def normalised_update(gradients: Tensor, betas: Betas = (0.9, 0.999), eps: float = 1e-8) -> Tensor:
    """Adam's update divided by −lr, for every step of recorded gradients.

    gradients: `[T, …]`, one per step, any real dtype. Adam starts from zero, corrects the bias, and adds ε
    outside the root. Returns float64 `[T, …]`.

    Raises ValueError for no steps, gradients that are not all finite, betas outside [0, 1), or eps < 0;
    TypeError for gradients that are not real floating-point numbers.

    Source: arXiv 2601.21739, section 3 (normalised update); Kingma and Ba, arXiv 1412.6980, algorithm 1.

    >>> g = torch.tensor([1.0, 1.0, 2.0])
    >>> [round(r, 4) for r in normalised_update(g, (0.9, 0.9)).tolist()]
    [1.0, 1.0, 0.9431]
    """
    g = _recorded(gradients, betas)
    if not eps >= 0:
        raise ValueError(f"eps must be >= 0: got {eps}")
    first, second = betas
    return _average(g, first) / (_average(g.square(), second).sqrt() + eps)


def scale_lag(gradients: Tensor, betas: Betas = (0.9, 0.999)) -> Tensor:
    """The part of the normalised update that comes from a drift of the gradient's size.

    sign(g) · (EMA with β1 of log `|g|` − EMA with β2 of log `|g|`), both bias-corrected over the full
    history: to first order sign(g) · (τ2 − τ1) · d log `|g|` / dt with τ = β / (1 − β). It vanishes for
    β1 = β2. A gradient of zero has no sign, so no lag.

    Shapes, dtypes and errors as `normalised_update`.

    Source: arXiv 2601.21739, theorem 3.3 (lag term), in the discrete form of the authors' released analysis.

    >>> growing = torch.exp(1e-3 * torch.arange(20_000, dtype=torch.float64))
    >>> round(scale_lag(growing, (0.9, 0.99))[-1].item(), 6)  # (99 − 9) · 1e-3
    0.09
    """
    g = _recorded(gradients, betas)
    logarithm = g.abs().clamp(min=TINY).log()
    first, second = betas
    if first == second:
        return torch.zeros_like(g)
    return g.sign() * (_average(logarithm, first) - _average(logarithm, second))


def decompose(gradients: Tensor, betas: Betas = (0.9, 0.999), eps: float = 1e-8) -> Decomposition:
    """Normalised update = sign of the current gradient + `scale_lag` + remainder.

    Shapes, dtypes and errors as `normalised_update`. The reading as a sign and a lag means something only
    where a gradient has kept its sign: see `same_sign`.

    >>> parts = decompose(torch.linspace(1, 2, 50).reshape(50, 1), (0.9, 0.9))
    >>> bool((parts.lag == 0).all()), parts.sign.shape
    (True, torch.Size([50, 1]))
    """
    sign = _recorded(gradients, betas).sign()
    lag = scale_lag(gradients, betas)
    return Decomposition(sign, lag, normalised_update(gradients, betas, eps) - sign - lag)


def same_sign(gradients: Tensor, window: int) -> Tensor:
    """Where the last `window` gradients, the current one among them, are non-zero and of one sign.

    gradients: `[T, …]`. Returns bool `[T, …]`, False where the history is shorter than the window.

    Raises ValueError for a window below 1 or longer than the T steps.

    >>> same_sign(torch.tensor([1.0, 2.0, -1.0, -2.0, 0.0]), 2).tolist()
    [False, True, False, True, False]
    """
    if not 1 <= window <= len(gradients):
        raise ValueError(f"a window lies between 1 and the {len(gradients)} recorded steps: got {window}")
    kept = torch.zeros(gradients.shape, dtype=torch.int64)
    since = torch.zeros(gradients.shape[1:], dtype=torch.int64)  # steps for which the sign has been this one
    before = torch.zeros(gradients.shape[1:])
    for step, g in enumerate(gradients):
        sign = g.sign()
        since = torch.where((sign != 0) & (sign == before), since, 0) + (sign != 0)
        kept[step], before = since, sign
    return kept >= window


def refresh_beta(
    horizon: float, refreshes: float = 1000, *, grid: Sequence[float] | None = BETA_GRID
) -> float:
    """β of balanced Adam whose statistics are renewed `refreshes` times in the useful part of training.

    horizon: optimiser updates until validation stops improving, T. Without a grid the answer is
    1 − refreshes / T; with one it is the value of the grid nearest to that (the smaller of two that tie).

    Raises ValueError for a horizon that is not a finite number, or is below `refreshes`: there the rule asks
    for a negative β, so it says nothing (and little below about 3 · refreshes: β < 0.67); for refreshes that
    are not > 0, and for a grid that is empty or not in [0, 1).

    Source: arXiv 2605.10119 (rule: abstract; nearest in β: inferred).

    >>> round(refresh_beta(10_000), 4), round(refresh_beta(40_000), 4), refresh_beta(8_000, grid=None)
    (0.9, 0.9684, 0.875)
    """
    _check_refreshes(refreshes)
    if not _is_number(horizon) or not math.isfinite(horizon):
        raise ValueError(f"the horizon is a finite number of optimiser updates: got {horizon!r}")
    if horizon < refreshes:
        raise ValueError(
            f"a horizon of {horizon:g} updates is too short for {refreshes:g} refreshes: the rule asks for "
            f"β = {1 - refreshes / horizon if horizon > 0 else -math.inf:.3g}. Give a horizon of at least "
            f"{refreshes:g} updates, or fewer refreshes"
        )
    if grid is None:
        return 1 - refreshes / horizon
    values = _check_grid(grid)
    return values[bisect.bisect_left(refresh_boundaries(refreshes, grid=values), horizon)]


def refresh_boundaries(refreshes: float = 1000, *, grid: Sequence[float] = BETA_GRID) -> list[float]:
    """Horizons at which `refresh_beta` passes from one value of the grid to the next, in updates.

    >>> [round(horizon) for horizon in refresh_boundaries()[2:7]]
    [4048, 7199, 12802, 22766, 40486]
    """
    _check_refreshes(refreshes)
    return [refreshes / (1 - (low + high) / 2) for low, high in pairwise(_check_grid(grid))]


def _average(values: Tensor, beta: float) -> Tensor:
    """Exponential moving average over the first dimension, from zero, bias-corrected."""
    found, average = torch.empty_like(values), torch.zeros_like(values[0])
    for step, value in enumerate(values):
        average.mul_(beta).add_(value, alpha=1 - beta)
        torch.div(average, 1 - beta ** (step + 1), out=found[step])
    return found


def _recorded(gradients: Tensor, betas: Betas) -> Tensor:
    if not isinstance(gradients, Tensor) or not gradients.is_floating_point():
        kind = gradients.dtype if isinstance(gradients, Tensor) else type(gradients).__name__
        raise TypeError(f"gradients is a tensor of real floating-point numbers [steps, …]: got {kind}")
    if gradients.ndim < 1 or not len(gradients):
        raise ValueError(f"gradients has one entry per step, [steps, …]: got shape {tuple(gradients.shape)}")
    pair = isinstance(betas, tuple | list) and len(betas) == 2
    if not pair or not all(_is_number(beta) and 0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas are two numbers in [0, 1), such as (0.9, 0.999): got {betas!r}")
    g = gradients.detach().double()
    if not g.isfinite().all():
        step = (
            int((~g.isfinite()).flatten(1).any(1).nonzero()[0])
            if g.ndim > 1
            else int((~g.isfinite()).nonzero()[0])
        )
        raise ValueError(f"gradients must be finite: step {step} is not")
    return g


def _is_number(value: object) -> bool:
    """Python's numbers and NumPy's, which are registered as such; True and False count nothing here."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_refreshes(refreshes: float) -> None:
    if not _is_number(refreshes) or not 0 < refreshes < math.inf:
        raise ValueError(f"refreshes must be a finite number > 0: got {refreshes!r}")


def _check_grid(grid: Sequence[float]) -> list[float]:
    if not len(grid) or not all(_is_number(beta) and 0 <= beta < 1 for beta in grid):
        raise ValueError(f"the grid holds values of β in [0, 1): got {list(grid)}")
    return sorted(set(grid))
