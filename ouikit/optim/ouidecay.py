"""Weight decay steered layer by layer while a network trains: OUIDecay.

::

    optimiser = torch.optim.AdamW(decay_groups(model, 1e-2), lr=3e-4)   # instead of model.parameters()
    control = OUIDecay(model, optimiser)
    ...                                                                 # forward, backward
    optimiser.step()
    control.step()

The indicator is `ouikit.balance_oui` of one batch, layer by layer, on the raw output of a convolution or
linear layer: before batch normalisation and before the non-linearity.

Source: Fernández-Hernández et al., "OUIDecay", arXiv 2605.10161 (read from the authors' released code; the
printed algorithm was not available).
"""

import math
import random
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from ouikit.oui import balance_oui
from ouikit.patterns import LOCK, Watch, _outside, listed, positive
from ouikit.watch import modules_by_name, nan_unless_finite, plain_names

EPSILON = 1e-8
Window = tuple[float, float]
ScaleMap = Callable[[Sequence[float], Window], Sequence[float]]


def ouidecay_scales(oui: Sequence[float], window: Window = (2 / 3, 5.0)) -> list[float]:
    """One multiplier of weight decay per layer: OUI stretched over the window, high OUI → more decay.

        s₁ + (s₂ − s₁) · (Oₗ − min O) / (max O − min O + 1e-8)

    oui: one indicator per layer, in any unit: a common shift or positive factor changes nothing (up to
    the 1e-8). window: (s₁, s₂), 0 ≤ s₁ ≤ s₂. Layers that all tie get s₁.

    Raises ValueError for no layers, an indicator that is not finite, or a window that does not satisfy this.

    Source: arXiv 2605.10161 (authors' code, which writes 0.6666 for 2/3).

    >>> [round(scale, 4) for scale in ouidecay_scales([0.0, 0.5, 1.0])]
    [0.6667, 2.8333, 5.0]
    """
    values, (low, high) = [float(value) for value in oui], window
    if not values:
        raise ValueError("oui is empty: give one indicator per layer")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"every layer's OUI must be finite: got {values}")
    if not 0 <= low <= high < math.inf:
        raise ValueError(f"the window (s1, s2) needs 0 <= s1 <= s2: got {window}")
    least, span = min(values), max(values) - min(values) + EPSILON
    return [low + (high - low) * (value - least) / span for value in values]


def reversed_scales(oui: Sequence[float], window: Window = (2 / 3, 5.0)) -> list[float]:
    """A control: the map of the negated indicator, so that the highest OUI gets s₁. Raises as the map."""
    return ouidecay_scales([-float(value) for value in oui], window)


def permuted_scales(oui: Sequence[float], window: Window = (2 / 3, 5.0), seed: int = 0) -> list[float]:
    """A control: the same multipliers, handed to the layers in random order. Raises as the map.

    A new order for every new reading: it is drawn by a generator seeded with `seed` and the readings
    themselves, so the function is pure, and a resumed run draws what the unbroken one would have.
    """
    scales = ouidecay_scales(oui, window)
    random.Random(repr((seed, [float(value) for value in oui]))).shuffle(scales)
    return scales


def dynamic_layers(model: nn.Module, ends: bool = False) -> dict[str, nn.Module]:
    """The layers whose decay is steered, by name and in order of definition.

    Every Conv2d, Linear and Conv1D of Transformers with a trainable weight, except the first and the last of
    them; `ends=True` keeps those (the default of the authors' stand-alone module; their experiments drop
    them). A weight that two layers share counts once; names are without what torch.compile, DataParallel and
    DistributedDataParallel add. A layer that its model never calls (the `out_proj` of MultiheadAttention) is
    among them: see `OUIDecay`.

    Raises ValueError where nothing is left.
    """
    weights: dict[int, str] = {}
    modules = modules_by_name(model)
    for name, module in modules.items():
        if _eligible(module):
            weights.setdefault(id(module.weight), name)
    names = list(weights.values())
    kept = names if ends else names[1:-1]
    if not kept:
        raise ValueError(
            f"{type(model).__name__} has {len(names)} trainable Conv2d or Linear layers, and the first and "
            "the last are left out; ends=True keeps them"
        )
    return {name: modules[name] for name in kept}


def decay_groups(
    model: nn.Module, weight_decay: float, layers: Iterable[str] | None = None
) -> list[dict[str, Any]]:
    """Parameter groups for any optimiser of torch, as OUIDecay wants them.

    One group per steered layer with its weight alone (its name under "layer"), one for the other parameters
    of two or more dimensions, all at `weight_decay` (λ₀), and one for the rest (biases, normalisation) at 0.
    layers: names of the steered layers; None takes `dynamic_layers(model)`.

    Raises KeyError for a layer that the model lacks; ValueError where it has no weight to steer, or λ₀ is
    negative.
    """
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be finite and not negative: got {weight_decay}")
    modules, plain = modules_by_name(model, duplicates=True), plain_names(model)
    groups: list[dict[str, Any]] = []
    for given in dynamic_layers(model) if layers is None else layers:
        name = plain.get(given, given)
        if name not in modules:
            raise KeyError(f"{type(model).__name__} has no layer {name!r}; see dynamic_layers(model)")
        if not _eligible(modules[name]):
            raise ValueError(
                f"layer {name!r} ({type(modules[name]).__name__}) is no trainable Conv2d or Linear"
            )
        groups.append({"params": [modules[name].weight], "weight_decay": weight_decay, "layer": name})
    steered = {id(group["params"][0]) for group in groups}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in steered]
    others = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    return groups + [group for group in others if group["params"]]


@dataclass(frozen=True)
class Update:
    """What one update read and wrote: the optimiser step, the mean OUI of each layer that was read, and every
    steered layer's new weight decay, until a schedule changes its base."""

    step: int
    oui: dict[str, float]
    weight_decay: dict[str, float]


class OUIDecay:
    """Rescales the weight decay of every steered layer by how its OUI compares with the other layers'.

    Every `gap` optimiser steps λₗ = λ₀ · scaleₗ, the scales being `mapping` of the layers' OUI, each the mean
    of its last `memory` readings. A reading is the balance OUI of one training batch: of a convolution's
    output one position per sample, drawn anew for every layer and step, with all its channels; of a layer
    on sequences one token per sample. Until the first update every layer keeps its λ₀. Learning rates are
    not touched: make LR schedulers from the optimiser as usual.

    λ₀ is kept in the optimiser's groups, as "initial_weight_decay", and the scale beside it, as
    "decay_scale": a second OUIDecay, or one resumed without its state, starts from λ₀ again. Whoever writes
    another "weight_decay" into a group, as a schedule does, sets a new λ₀, which is scaled before the
    optimiser's next step; a schedule that multiplies what it finds must multiply "initial_weight_decay".

    Only batches that the next update will use are read; the others cost one empty call per layer. Where
    gradients are accumulated, or a layer runs twice, the last pass counts. What cannot be read (see
    `ouikit.watch.readable`) is passed over, as are batches of one sample, which the authors' code counts as
    0. Layers that have not been read when an update is due keep their λ₀, as the `out_proj` of
    MultiheadAttention does, which torch never calls; those that the first pass leaves out are named in a
    warning. An update for which outputs that are not finite were read leaves the decay unchanged: the
    training has diverged, which shows in its loss.

    Args:
        model: its calls `model(x)` in training mode are read.
        optimiser: made from `decay_groups(model, λ₀)`; its groups say which layers are steered.
        window: (s₁, s₂) of the mapping.
        gap: optimiser steps between updates (500 in the authors' scripts, 256 in their launcher).
        memory: how many of the last readings are averaged.
        mapping: (OUI of the layers, window) → multipliers; `reversed_scales` and `permuted_scales` are
            controls.
        seed: of the positions.

    Raises ValueError where the optimiser has no groups of steered layers, or those of another model.

    Source: arXiv 2605.10161 (authors' code).
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        *,
        window: Window = (2 / 3, 5.0),
        gap: int = 500,
        memory: int = 5,
        mapping: ScaleMap = ouidecay_scales,
        seed: int = 0,
    ) -> None:
        if gap < 1 or memory < 1:
            raise ValueError(f"gap and memory count steps and must be at least 1: got {gap} and {memory}")
        ouidecay_scales([0.0], window)  # says what is wrong with a window now, not after the first gap
        self.optimiser, self.window, self.gap, self.memory = optimiser, window, gap, memory
        self.mapping = mapping
        self.log: list[Update] = []
        self._groups = _groups_of(model, optimiser)
        self._fifo = {name: deque[float](maxlen=memory) for name in self._groups}
        self.scales = dict.fromkeys(self._groups, 1.0)
        self.steps = 0
        self._happened = 0
        self._dose, self._base_dose = 0.0, 0.0
        self._reader = _Reader(model, self._groups, seed)
        self._reader.wanted = self._wanted()
        self._write()
        stepping = _innermost(optimiser)
        self._handles = [
            stepping.register_step_pre_hook(self._before_step),
            stepping.register_step_post_hook(self._after_step),
        ]

    @property
    def mean_multiplier(self) -> float:
        """The constant that would have decayed as much so far: Σ ηₜ scaleₗₜ / Σ ηₜ over layers and steps.

        Steps weigh as their learning rate, as they do in what AdamW takes from a weight; all layers the
        same. Raises RuntimeError before the first step with a learning rate above zero.
        """
        if self._base_dose == 0:
            raise RuntimeError(
                "no step with a learning rate above zero yet: call step() after optimiser.step()"
            )
        return self._dose / self._base_dose

    def step(self) -> bool:
        """Call after every `optimiser.step()`. True where the decay was changed.

        Only steps that happened count, not those that gradient accumulation or a gradient scaler leaves out.
        Raises ValueError where the mapping returns no multipliers, RuntimeError where no layer has been read
        when an update is due.
        """
        before, self.steps, self._happened = self.steps, self.steps + self._happened, 0
        if self.steps == before:
            return False
        self._say_what_did_not_run()
        for name, (bits, spoiled) in self._reader.take().items():
            self._fifo[name].append(math.nan if math.isnan(spoiled) else balance_oui(bits))
        changed = self.steps // self.gap > before // self.gap and self._update()
        self._reader.wanted = self._wanted()
        return changed

    def _before_step(self, *_: Any) -> None:
        self._write()

    def _after_step(self, *_: Any) -> None:
        self._happened += 1
        for name, group in self._group_of().items():
            self._dose += float(group["lr"]) * self.scales[name]
            self._base_dose += float(group["lr"])

    def _say_what_did_not_run(self) -> None:
        if idle := self._reader.take_idle():
            warnings.warn(
                f"the first training pass did not run {', '.join(idle)}: such a layer keeps its weight decay "
                "until it is read; leave it out by decay_groups(model, weight_decay, layers=…)",
                stacklevel=_outside(),
            )

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the optimiser's own state; the log is not in it."""
        return {
            "settings": self._settings(),
            "steps": self.steps,
            "base": dict(self._base),
            "scales": dict(self.scales),
            "readings": {name: list(values) for name, values in self._fifo.items()},
            "doses": [self._dose, self._base_dose],
            "generator": self._reader.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`, bit for bit; before or after the optimiser's own. Raises ValueError
        if it was made with other settings or layers."""
        if state["settings"] != self._settings():
            raise ValueError(
                f"the state was made with {state['settings']}, this OUIDecay has {self._settings()}"
            )
        self.steps, self.scales = state["steps"], dict(state["scales"])
        for name, values in state["readings"].items():
            self._fifo[name] = deque(values, maxlen=self.memory)
        self._dose, self._base_dose = state["doses"]
        self._happened = 0
        self._reader.generator.set_state(state["generator"])
        self._reader.take()
        self._reader.wanted = self._wanted()
        for name, group in self._group_of().items():
            _scale(group, state["base"][name], self.scales[name])

    def close(self) -> None:
        """Take every hook off the model; decay stays as it is. Calling it again does nothing."""
        self._reader.close()
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _settings(self) -> dict[str, Any]:
        window = [float(edge) for edge in self.window]
        return {"window": window, "gap": self.gap, "memory": self.memory, "layers": list(self._groups)}

    def _group_of(self) -> dict[str, dict[str, Any]]:
        """Looked up anew: loading an optimiser's state replaces its groups."""
        return {name: self.optimiser.param_groups[index] for name, index in self._groups.items()}

    @property
    def _base(self) -> dict[str, float]:
        """Every layer's λ₀, as the groups have it now."""
        return {name: _base_of(group) for name, group in self._group_of().items()}

    def _wanted(self) -> bool:
        """Whether the update that follows will see a reading of the coming step."""
        return -(self.steps + 1) % self.gap < self.memory

    def _update(self) -> bool:
        read = {name: values for name, values in self._fifo.items() if values}
        if not read:
            passed_over = (
                f"; passed over: {listed(self._reader.passed_over)}" if self._reader.passed_over else ""
            )
            raise RuntimeError(
                f"no reading of any steered layer at step {self.steps}: OUIDecay reads calls model(x) in "
                f"training mode, of at least 2 samples{passed_over}"
            )
        oui = {name: sum(values) / len(values) for name, values in read.items()}
        if not all(map(math.isfinite, oui.values())):
            return False
        scales = [float(scale) for scale in self.mapping(list(oui.values()), self.window)]
        if len(scales) != len(oui) or not all(0 <= scale < math.inf for scale in scales):
            raise ValueError(f"mapping must give {len(oui)} finite multipliers, none negative: got {scales}")
        self.scales |= dict(zip(oui, scales, strict=True))
        self.log.append(Update(self.steps, oui, self._write()))
        return True

    def _write(self) -> dict[str, float]:
        """The scales into the optimiser's groups; returns every layer's weight decay."""
        return {
            name: _scale(group, _base_of(group), self.scales[name])
            for name, group in self._group_of().items()
        }


def _base_of(group: dict[str, Any]) -> float:
    """λ₀ of a group: what it had before it was scaled, or what somebody has written since."""
    base: float = group.get("initial_weight_decay", math.nan)
    changed = group["weight_decay"] != base * group.get("decay_scale", 1.0)
    return float(group["weight_decay"] if changed else base)


def _scale(group: dict[str, Any], base: float, scale: float) -> float:
    group["initial_weight_decay"], group["decay_scale"] = base, scale
    group["weight_decay"] = base * scale
    return base * scale


Sample = tuple[Tensor, Tensor | float]  # bits [B, C]; 0, or nan where not all that was sampled is finite


class _Reader(Watch):
    """Keeps the bits at one position per sample of each steered layer's last output, when it is wanted."""

    samples = 2

    def __init__(self, model: nn.Module, layers: Iterable[str], seed: int) -> None:
        self.wanted = True
        self.generator = torch.Generator().manual_seed(seed)
        self._latest: dict[str, Sample] = {}
        self._idle: list[str] | None = None  # layers that the first pass did not run
        super().__init__(model, layers)

    def take(self) -> dict[str, Sample]:
        """What was read since the last call, by layer."""
        taken, self._latest = self._latest, {}
        return taken

    def take_idle(self) -> list[str]:
        """The layers that the first training pass did not run: once, and only after it."""
        idle = self._idle or []
        self._idle = [] if self._idle is not None else None
        return idle

    def _begin(self) -> dict[str, Sample] | None:
        return {} if self.model.training and (self.wanted or self._idle is None) else None

    def _see(self, kept: dict[str, Sample], name: str, z: Tensor) -> None:
        if self.wanted:
            name = name.partition("#")[0]
            sample = self._one_position(z, isinstance(self.layers[name], nn.Conv2d))
            kept[name] = positive(sample), nan_unless_finite(sample)

    def _end(self, kept: dict[str, Sample], ran: Collection[str]) -> None:
        with LOCK:
            self._latest.update(kept)
            if self._idle is None:
                self._idle = [name for name in self.layers if name not in ran]

    def _one_position(self, z: Tensor, channels_first: bool) -> Tensor:
        """[B, C, H, W], [B, tokens…, C] or [B, C] → [B, C]."""
        if z.ndim == 2:
            return z
        positions = math.prod(z.shape[2:]) if channels_first else math.prod(z.shape[1:-1])
        drawn = torch.randint(positions, (len(z),), generator=self.generator).to(z.device)
        samples = torch.arange(len(z), device=z.device)
        if channels_first:
            return z[samples, :, drawn // z.shape[3], drawn % z.shape[3]]
        return z.flatten(1, -2)[samples, drawn]


def _eligible(module: nn.Module) -> bool:
    known = isinstance(module, nn.Conv2d | nn.Linear) or type(module).__name__ == "Conv1D"  # Transformers'
    weight = getattr(module, "weight", None)
    return known and isinstance(weight, nn.Parameter) and weight.requires_grad and weight.ndim >= 2


def _innermost(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The one whose steps change weights: Accelerate and Lightning wrap it."""
    while isinstance(inside := getattr(optimiser, "optimizer", None), torch.optim.Optimizer):
        optimiser = inside
    return optimiser


def _groups_of(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, int]:
    """Steered layer (as named in `model`) → number of its parameter group."""
    modules = modules_by_name(model)
    names = {id(m.weight): name for name, m in reversed(modules.items()) if _eligible(m)}
    found = {}
    for index, group in enumerate(optimiser.param_groups):
        if "layer" not in group:
            continue
        if len(group["params"]) != 1 or id(group["params"][0]) not in names:
            raise ValueError(
                f"the optimiser's group of layer {group['layer']!r} is not the weight of a layer of this "
                f"{type(model).__name__}: make both from the same model"
            )
        if "weight_decay" not in group:
            raise ValueError(f"{type(optimiser).__name__} has no weight decay to steer")
        found[names[id(group["params"][0])]] = index
    if not found:
        raise ValueError(
            f"no group of this {type(optimiser).__name__} is a steered layer's: make it from "
            "decay_groups(model, weight_decay) instead of model.parameters()"
        )
    return found
