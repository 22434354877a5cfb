"""λ-GELU, a GELU whose gate has a hardness λ: learnt, then hardened until ReLU can stand in for it.

In use::

    to_lambda_gelu(model)                          # of ouikit.nn.swap; GELUs and ReLUs of any model
    optimiser = torch.optim.Adam(hardness_groups(model, torch.optim.Adam, lr=1e-3))
    hardening = harden(model, Schedule(steps=len(loader) * epochs, tolerance=0.05))
    ...                                            # after each optimiser step:
    hardening.step()
    report = to_relu(model, inputs)                # of ouikit.nn.swap

f(x; λ) = x Φ(λx) with Φ the standard normal distribution function: λ = 1 is GELU, λ → ∞ is ReLU. Exactly, for
every λ > 0: ``sup |f − ReLU| = 0.169971/λ`` at ``|x| = 0.75179/λ``, ``∫|Φ(λx) − step(x)| dx = √(2/π)/λ``, and
f(x; λ) = GELU(λx)/λ, so that λ alone means little: what counts is λ times the spread of x.

Source: λ-GELU (arXiv 2603.21991). From its abstract: f, λ ≥ 1, a constrained parameter, an optimizer-aware
update, and a hardening to a principled target. From third parties: λ = 1 + softplus(s/t) with t = 0.1, s =
0 at first, and that the target bounds the gate's L1 distance from the step. Inferred: everything else,
marked below.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ouikit.gates import register_gate
from ouikit.watch import modules_by_name

GATE_GAP = math.sqrt(2 / math.pi)  # ∫|Φ(x) − step(x)| dx
OUTPUT_GAP = 0.16997120747990369  # max of x Φ(−x), at x = 0.751791524693564
START = 1 + math.log(2)  # s = 0
Shape = Literal["linear", "cosine", "geometric"]
SHAPES = ("linear", "cosine", "geometric")


def lambda_gelu(x: Tensor, hardness: Tensor | float) -> Tensor:
    """x Φ(λx), of x's shape and dtype; x float `[…]`, hardness λ a number or a tensor that broadcasts with x.

    Half precision is computed in float32. No check of λ: nothing here waits for a GPU.

    >>> lambda_gelu(torch.tensor([-1.0, 0.0, 1.0]), 1.0)
    tensor([-0.1587,  0.0000,  0.8413])
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return (wide * torch.special.ndtr(hardness * wide)).to(x.dtype)


def target_hardness(tolerance: float) -> float:
    """λ* = √(2/π)/ε, whose gate is within ε of the step in L1. That ε is this distance is inferred.

    Raises ValueError unless 0 < tolerance < 0.7979, where λ* would not exceed GELU's 1.

    >>> round(target_hardness(0.05), 3)
    15.958
    """
    if not 0 < tolerance < GATE_GAP:
        raise ValueError(f"the tolerance lies between 0 and {GATE_GAP:.4f}, GELU's own: got {tolerance}")
    return GATE_GAP / tolerance


@register_gate
class LambdaGELU(nn.Module):
    """x Φ(λx) with one hardness λ = 1 + softplus(s/t) for the module: float `[…]` → the same shape and dtype.

    Args:
        init: λ at first, above 1 (of the raw form: 1 or more).
        temperature: t > 0. dλ/ds = σ(s/t)/t: a smaller one moves λ faster at the same learning rate.
        learnable: whether s has a gradient.
        constrained: False learns λ itself, the naive form, which may leave [1, ∞).

    Attributes:
        s: the parameter, a scalar; the raw form has `raw` instead, so that neither loads the other's state.
        temperature: a scalar buffer, in the state dict because s means nothing without it.

    `ouikit.OUI` watches it as a gate. `deepcopy`, `.to()`, `.half()` and `torch.compile` work.

    Raises ValueError for a λ below 1 or not finite, for λ = 1 in the constrained form, which reaches it
    only in the limit, and for a temperature that is not positive.

    >>> gate = LambdaGELU(init=3.0)
    >>> gate
    LambdaGELU(hardness=3, temperature=0.1)
    >>> gate(torch.tensor([-1.0, 1.0])).detach()
    tensor([-0.0013,  0.9987])
    """

    s: nn.Parameter
    raw: nn.Parameter
    temperature: Tensor

    def __init__(
        self,
        init: float = START,
        temperature: float = 0.1,
        *,
        learnable: bool = True,
        constrained: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"the temperature is positive and finite: got {temperature}")
        self.constrained = constrained
        self._check(init)
        start = torch.zeros((), device=device, dtype=dtype)
        self.register_parameter("s" if constrained else "raw", nn.Parameter(start, requires_grad=learnable))
        if constrained:
            self.register_buffer("temperature", torch.full_like(start, temperature))
        self.set_hardness(init)

    @property
    def parameter(self) -> nn.Parameter:
        """s, or the raw λ."""
        return self.s if self.constrained else self.raw

    @property
    def hardness(self) -> Tensor:
        """λ, a scalar at least in float32, with its gradient."""
        if not self.constrained:
            return self.raw if self.raw.dtype == torch.float64 else self.raw.float()
        wide = self.s if self.s.dtype == torch.float64 else self.s.float()
        return 1 + nn.functional.softplus(wide / self.temperature)

    def set_hardness(self, hardness: float) -> None:
        """Set λ; raises as the constructor, and changes nothing then."""
        self._check(hardness)
        with torch.no_grad():
            if self.constrained:
                above = hardness - 1  # log(e^above − 1), without overflow
                self.s.fill_((above + math.log(-math.expm1(-above))) * self.temperature.item())
            else:
                self.raw.fill_(hardness)

    def forward(self, x: Tensor) -> Tensor:
        return lambda_gelu(x, self.hardness)

    def extra_repr(self) -> str:
        form = f"temperature={self.temperature.item():.3g}" if self.constrained else "constrained=False"
        return f"hardness={self.hardness.item():.4g}, {form}"

    def _check(self, hardness: float) -> None:
        if not 1 <= hardness < math.inf:
            raise ValueError(f"the hardness λ is finite and at least 1, which is GELU: got {hardness}")
        if self.constrained and hardness == 1:
            raise ValueError(
                "λ = 1 + softplus(s/t) never reaches 1: take nn.GELU(), or LambdaGELU(1, constrained=False)"
            )


def hardness_gates(model: nn.Module) -> dict[str, LambdaGELU]:
    """The λ-GELUs of a model by name; a shared one has its first name alone.

    Raises ValueError where there is none.
    """
    found = {name: gate for name, gate in modules_by_name(model).items() if isinstance(gate, LambdaGELU)}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no LambdaGELU; ouikit.nn.swap.to_lambda_gelu puts them in the place "
            "of its GELUs and ReLUs"
        )
    return found


def hardnesses(model: nn.Module) -> dict[str, float]:
    """λ of each λ-GELU by name.

    Raises ValueError where there is none, or a λ is not finite: that training has failed.
    """
    found = {name: gate.hardness.item() for name, gate in hardness_gates(model).items()}
    lost = {name: value for name, value in found.items() if not math.isfinite(value)}
    if lost:
        raise ValueError(f"the hardness is not finite any more: {lost}; the training has diverged")
    return found


# Inferred: at these powers of t the speed of λ, (σ/t)² η for SGD and σ/t · η for Adam, is that of t = 1.
_POWERS = {
    "SGD": 2, "Adam": 1, "AdamW": 1, "NAdam": 1, "RAdam": 1, "Adamax": 1, "Adagrad": 1, "RMSprop": 1,
}  # fmt: skip


def hardness_groups(
    model: nn.Module,
    optimiser: type[torch.optim.Optimizer],
    *,
    lr: float,
    weight_decay: float = 0.0,
    multiplier: float | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups in which each s has its own learning rate, and no weight decay.

    λ and the scale of the weights before it do the same thing, so that decay of s would be a force of its
    own. The paper's optimizer-aware update is known by that name alone; this one is inferred: with SGD the
    speed of λ goes with t⁻², with Adam and its kin, whose steps do not grow with the gradient, with t⁻¹.
    The learning rate of s is lr times t² or t, so that λ moves as fast as at t = 1, whatever t. For the raw
    form it is lr.

    Args:
        optimiser: the class that will have the groups.
        lr, weight_decay: of all other parameters.
        multiplier: of lr, for every s, in the place of those powers.

    Raises ValueError where the model has no λ-GELU, for a multiplier that is negative or not finite, and
    without one for an optimiser for which none is known.
    """
    gates = hardness_gates(model)
    power = next((_POWERS[kind.__name__] for kind in optimiser.__mro__ if kind.__name__ in _POWERS), None)
    if multiplier is None and power is None:
        known = ", ".join(_POWERS)
        raise ValueError(f"no multiplier is known for {optimiser.__name__}, only for {known}: give one")
    if multiplier is not None and not 0 <= multiplier < math.inf:
        raise ValueError(f"the multiplier is finite and not negative: got {multiplier}")
    rates: dict[float, list[nn.Parameter]] = {}
    for gate in gates.values():
        t = gate.temperature.item() if gate.constrained else 1.0
        rates.setdefault(t ** (power or 0) if multiplier is None else multiplier, []).append(gate.parameter)
    own = {id(gate.parameter) for gate in gates.values()}
    others = [parameter for parameter in model.parameters() if id(parameter) not in own]
    groups: list[dict[str, Any]] = (
        [{"params": others, "lr": lr, "weight_decay": weight_decay}] if others else []
    )
    return groups + [{"params": p, "lr": lr * rate, "weight_decay": 0.0} for rate, p in rates.items()]


@dataclass(frozen=True)
class Schedule:
    """When and how λ goes from what was learnt to λ* = √(2/π)/tolerance.

    Inferred: that λ is learnt for the first quarter and hardened over the rest. A third party's "25 % switch
    point" may as well mean the last quarter, `switch=0.75`. The shape of the way is not known.

    Attributes:
        steps: of the whole training.
        tolerance: ε, of the gate from the step in L1.
        switch: fraction of the steps in which λ is learnt, from 0 to below 1.
        shape: of the way from there: "linear", "cosine" (slow at both ends) or "geometric" (a constant
            factor a step).

    Raises ValueError for values outside these.

    >>> schedule = Schedule(steps=100, tolerance=0.05, switch=0.2)
    >>> [round(schedule.at(step, learnt=2.0), 2) for step in (0, 20, 60, 100, 1000)]
    [2.0, 2.0, 8.98, 15.96, 15.96]
    """

    steps: int
    tolerance: float = 0.05
    switch: float = 0.25
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        target_hardness(self.tolerance)
        if self.steps < 1:
            raise ValueError(f"a training has at least one step: got {self.steps}")
        if not 0 <= self.switch < 1:
            raise ValueError(f"the switch is a fraction from 0 to below 1: got {self.switch}")
        if self.shape not in SHAPES:
            raise ValueError(f"the shape is one of {', '.join(SHAPES)}: got {self.shape!r}")

    @property
    def target(self) -> float:
        """λ*."""
        return target_hardness(self.tolerance)

    @property
    def last_learnt(self) -> int:
        """The number of steps in which λ is learnt."""
        return round(self.switch * self.steps)

    def at(self, step: int, learnt: float) -> float:
        """λ after `step` steps, from what was `learnt` at the switch: never falling, never below it."""
        way = min(max((step - self.last_learnt) / max(self.steps - self.last_learnt, 1), 0.0), 1.0)
        if self.shape == "geometric":
            return learnt * (max(self.target, learnt) / learnt) ** way
        if self.shape == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return learnt + max(self.target - learnt, 0.0) * way


class Hardening:
    """What `harden` returns: `step()` after every step of the optimiser.

    Attributes:
        schedule: as given.
        steps: that were made.
        learnt: λ by gate at the switch; empty before it.
    """

    def __init__(self, model: nn.Module, schedule: Schedule) -> None:
        self.schedule, self.steps = schedule, 0
        self.learnt: dict[str, float] = {}
        self._gates = hardness_gates(model)
        self._check(hardnesses(model))
        self._advance()

    def step(self) -> None:
        """One step on: at the switch λ is fixed, then it follows the schedule.

        Raises ValueError where a λ is not finite or below 1 at the switch; the model stays as it is.
        """
        self.steps += 1
        self._advance()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, beside the model's own state."""
        return {"steps": self.steps, "learnt": dict(self.learnt)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; load the model's state as well.

        Raises ValueError for the state of other gates.
        """
        learnt = dict(state["learnt"])
        if learnt and learnt.keys() != self._gates.keys():
            raise ValueError(f"the state is of the gates {sorted(learnt)}, not {sorted(self._gates)}")
        self.steps, self.learnt = int(state["steps"]), learnt
        if learnt:
            self._freeze()

    def _advance(self) -> None:
        if self.steps < self.schedule.last_learnt:
            return
        if not self.learnt:
            learnt = {name: gate.hardness.item() for name, gate in self._gates.items()}
            self._check(learnt)
            self.learnt = learnt
            self._freeze()
        for name, gate in self._gates.items():
            wanted = self.schedule.at(self.steps, self.learnt[name])
            if wanted > gate.hardness.item():  # rounding of s never takes λ down
                gate.set_hardness(wanted)

    def _freeze(self) -> None:
        for gate in self._gates.values():
            gate.parameter.requires_grad_(False)
            gate.parameter.grad = None  # momentum would go on moving it

    def _check(self, found: Mapping[str, float]) -> None:
        wrong = {name: value for name, value in found.items() if not 1 <= value < math.inf}
        if wrong:
            raise ValueError(
                f"only a finite λ ≥ 1 can be hardened: got {wrong}; the constrained form keeps to it"
            )


def harden(model: nn.Module, schedule: Schedule) -> Hardening:
    """Begin a training in which every λ-GELU of a model is learnt first and then hardened.

    With `switch=0` nothing is learnt: each λ goes from where it is to the target. From the switch on λ is
    written between steps, and s has no gradient. Under DistributedDataParallel give
    `find_unused_parameters=True`, or wrap with `switch=0`.

    Raises ValueError where the model has no λ-GELU, or a λ that is not finite or below 1.

    >>> model = nn.Sequential(nn.Linear(3, 8), LambdaGELU(init=2.0))
    >>> hardening = harden(model, Schedule(steps=4, tolerance=0.1, switch=0.5))
    >>> for _ in range(4):
    ...     hardening.step()  # after optimiser.step()
    >>> {name: round(value, 3) for name, value in hardnesses(model).items()}
    {'1': 7.979}
    """
    return Hardening(model, schedule)
