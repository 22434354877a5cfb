"""How fast weights and activation patterns change per iteration, and which of the two settles earlier.

    watch = Dynamics(model, data.probe(128))
    for row in fit(model, data, recipe, on_batch=watch.step): ...
    curves = watch.curves()
    speed_ups(curves["weights"], curves["patterns"])

Source: Pérez-Corral et al., "Regime Change Hypothesis", arXiv 2602.08333. Only its abstract was available
("pattern changes decay 3 times earlier"): every formula here is inferred, and so there are several.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ouikit.patterns import flip_rate
from ouikit.probe import Probe

Curve = NDArray[np.float64]
WINDOW = 20


class Dynamics:
    """Follows a model while it trains: call `step` after every optimiser step.

    Args:
        model: any module with gates; its trainable parameters are the weights that are followed, by name. One
            that is frozen or unfrozen meanwhile counts from reading to reading: a step moves what was
            trainable, and of the same shape, at the reading before.
        inputs: fixed samples [B, …], B ≥ 2, on the model's device, read in evaluation mode at each step.
        layers: as in `ouikit.record_patterns`.

    Raises ValueError as `ouikit.record_patterns`.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, *, layers: Iterable[str] | None = None) -> None:
        self.probe = Probe(model, inputs, layers=layers)
        self._weights = self._trainable()
        self._patterns = self.probe.patterns()
        self._curves: dict[str, list[float]] = {"weights": [], "relative_weights": [], "patterns": []}

    @torch.no_grad()
    def step(self) -> None:
        """Read what changed since the last call, or since the beginning."""
        patterns, now, before = self.probe.patterns(), dict(self._parameters()), self._weights
        followed = [name for name, old in before.items() if name in now and now[name].shape == old.shape]
        moved = _norm([now[name] - before[name] for name in followed])
        size = _norm([before[name] for name in followed])
        flips = {name: flip_rate(self._patterns[name], bits) for name, bits in patterns.items()}
        values = {
            "weights": moved,
            "relative_weights": moved / size if size else math.nan,
            "patterns": sum(flips.values()) / len(flips),
            **{f"patterns/{name}": rate for name, rate in flips.items()},
        }
        for name, value in values.items():
            self._curves.setdefault(name, []).append(value)
        self._weights, self._patterns = self._trainable(), patterns

    def curves(self) -> dict[str, Curve]:
        """What was read, by name; float64 [T], T calls of `step`.

        weights: ‖θ_{t+1} − θ_t‖₂ over all trainable parameters.
        relative_weights: the same over ‖θ_t‖₂; nan where that is 0, as while everything is frozen.
        patterns: the share of a layer's bits [B, units…] that flipped; mean over layers, of equal weight.
        patterns/<layer>: that share, layer by layer.
        """
        return {name: np.array(values) for name, values in self._curves.items()}

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.probe.model.named_parameters()

    def _trainable(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self._parameters() if p.requires_grad}


def moving_average(curve: ArrayLike, window: int = WINDOW) -> Curve:
    """Mean of the last `window` values, from the first full window on: [T] → [T − window + 1].

    What is not finite (a diverged training) stays so.

    Raises:
        ValueError: the curve is empty, not one-dimensional, negative or 0 throughout, or shorter than the
            window, or the window is below 1.
    """
    values = _changes(curve)
    if not 1 <= window <= values.size:
        raise ValueError(f"a window of {window} does not fit a curve of {values.size} iterations")
    return sliding_window_view(values, window).mean(axis=1)


def auc(curve: ArrayLike, window: int = WINDOW) -> float:
    """Area under the smoothed curve over that of its maximum, in (0, 1]: the mean of x / max x.

    A curve that falls early has a small one. `window=1` does not smooth; nan for a curve that is not finite.
    Raises ValueError as `moving_average`.
    """
    smooth = moving_average(curve, window)
    return float(smooth.mean() / smooth.max())


def cumulative_time(curve: ArrayLike, share: float) -> int:
    """The first iteration, from 1, by which `share` of the curve's total change has happened.

    Raises:
        ValueError: share is not in (0, 1], the curve is not finite, or as in `moving_average`.
    """
    values = _finite(_changes(curve))
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1]: got {share}")
    done = np.cumsum(values)
    # A share that is reached but for rounding is reached: shares of equal changes would hang on the last bit.
    return int(np.argmax(done >= share * done[-1] * (1 - 1e-12))) + 1


def threshold_time(curve: ArrayLike, level: float, window: int = WINDOW) -> int:
    """The last iteration, from 1, at which the moving average exceeds `level` times its maximum.

    The average is that of the last `window` iterations, so no time is below `window`.

    Raises:
        ValueError: level is not in (0, 1), the curve is not finite, or as in `moving_average`.
    """
    smooth = _finite(moving_average(curve, window))
    if not 0 < level < 1:
        raise ValueError(f"level is a share of the maximum and must lie between 0 and 1: got {level}")
    return int(np.flatnonzero(smooth > level * smooth.max())[-1]) + window


SPEED_UPS: Mapping[str, Callable[[ArrayLike], float]] = {
    "auc": auc,
    "auc_raw": partial(auc, window=1),
    **{f"cumulative_{share}": partial(cumulative_time, share=share) for share in (0.5, 0.9)},
    **{f"threshold_{level}": partial(threshold_time, level=level) for level in (0.5, 0.2, 0.1)},
}
"""Definitions of "how late a curve falls"; a speed-up is the quotient of two of the same kind."""


def speed_ups(weights: ArrayLike, patterns: ArrayLike) -> dict[str, float]:
    """How many times earlier the second curve falls than the first, by every definition of `SPEED_UPS`.

    Above 1 patterns settle before weights; below 1 after them; nan throughout where a curve is not finite.
    Raises ValueError as `moving_average`.
    """
    if not np.isfinite([np.sum(weights), np.sum(patterns)]).all():
        return dict.fromkeys(SPEED_UPS, math.nan)
    return {name: when(weights) / when(patterns) for name, when in SPEED_UPS.items()}


def late_over_early(curve: ArrayLike, steps: int = 50) -> float:
    """Mean change of the last `steps` iterations over that of the first; below 1 where changes decay.

    Raises:
        ValueError: the two would overlap, nothing changes in the first, or the curve as in `moving_average`.
    """
    values = _changes(curve)
    if not 1 <= steps <= values.size // 2:
        raise ValueError(f"first and last {steps} of {values.size} iterations overlap: take fewer")
    early = values[:steps].mean()
    if early == 0:
        raise ValueError(f"nothing changes in the first {steps} iterations, so there is no ratio to them")
    return float(values[-steps:].mean() / early)


def thinned(
    curves: Mapping[str, Curve], points: int = 60, window: int = WINDOW
) -> Iterator[dict[str, float | str]]:
    """Smoothed curves at about `points` iterations evenly spaced in log t: rows of step, metric, value.

    A long run has thousands of iterations, a figure shows a few dozen. `step` is the last iteration of a
    window. Curves of one run share their steps. Raises ValueError as `moving_average`.
    """
    for name, curve in curves.items():
        smooth = moving_average(curve, window)
        steps = np.unique(np.geomspace(window, window + smooth.size - 1, points).round().astype(int))
        for step in steps:
            yield {"step": float(step), "metric": name, "value": float(smooth[step - window])}


def summary(curves: Mapping[str, Curve], steps: int = 50) -> list[dict[str, float | str]]:
    """One run of `Dynamics.curves` as rows of step, metric, value: what is worth keeping of it.

    The thinned curves; then, at the last iteration, `weights/<definition>` and
    `relative_weights/<definition>`, the speed-ups of the patterns against either measure of the weights, and
    `late_over_early` of the patterns. Raises ValueError as `moving_average` and `late_over_early`.
    """
    patterns = curves["patterns"]
    found = {"late_over_early": late_over_early(patterns, steps)}
    for weights in ("weights", "relative_weights"):
        found |= {f"{weights}/{name}": ratio for name, ratio in speed_ups(curves[weights], patterns).items()}
    rows = list(thinned(curves))
    for name, value in found.items():
        rows.append({"step": float(patterns.size), "metric": name, "value": value})
    return rows


def _changes(curve: ArrayLike) -> Curve:
    if np.ma.is_masked(curve):
        raise ValueError("a curve has no masked values: say nan for what is unknown, curve.filled(nan)")
    values = np.asarray(curve, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"a curve is a non-empty list of numbers: got shape {values.shape}")
    if (values < 0).any():
        raise ValueError(f"a change is not negative: got {values.min()}")
    if not values.any():
        raise ValueError("nothing ever changes in this curve, so it has no maximum to compare with")
    return values


def _finite(values: Curve) -> Curve:
    if not np.isfinite(values).all():
        raise ValueError("the curve is not finite: did the training diverge?")
    return values


def _norm(tensors: list[Tensor]) -> float:
    return float(nn.utils.get_total_norm(tensors))
