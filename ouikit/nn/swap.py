"""Exchange of activations inside other people's networks: GELU and ReLU → λ-GELU → ReLU, with a report.

Torch's encoder layers compute a ReLU or GELU in a fused path of their own when they are evaluated, whatever
module was put in its place later; both functions here see to that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from ouikit.gates import gate_modules, is_gate
from ouikit.nn.lambda_gelu import OUTPUT_GAP, START, LambdaGELU, hardness_gates, hardnesses, lambda_gelu

_ATTENTION = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_FUNCTIONS = (functional.relu, functional.gelu, torch.relu)
# Transformers' classes that are a GELU or an approximation of it, by name, so that nothing is imported.
_TRANSFORMERS = frozenset(
    f"transformers.activations.{name}"
    for name in (
        "AccurateGELUActivation",
        "FastGELUActivation",
        "GELUActivation",
        "GELUTanh",
        "NewGELUActivation",
        "PytorchGELUTanh",
        "QuickGELUActivation",
    )
)


def to_lambda_gelu(
    model: nn.Module,
    *,
    init: float = START,
    temperature: float = 0.1,
    learnable: bool = True,
    constrained: bool = True,
) -> dict[str, LambdaGELU]:
    """Put a λ-GELU in the place of every GELU and ReLU module of a model; returns them by name.

    Also of Transformers' GELUs, and of the activation of torch's `TransformerEncoderLayer` and
    `TransformerDecoderLayer`, be it a module or a function; their fused path is turned off, as it would go
    on computing the old one. A module that the model uses in several places becomes one λ-GELU with one λ.
    Its parameter is on the model's device, in float32. SiLU, LeakyReLU and other gates, whose limit is not
    ReLU, stay, and so does a function that is called inside a `forward`: it cannot be found. Do this before
    the optimiser is made and before `torch.compile`.

    Args: as of `ouikit.nn.lambda_gelu.LambdaGELU`.

    Raises ValueError, and changes nothing, where there is a λ-GELU already, where nothing can be replaced,
    where the model itself is the activation, or for λ and temperature as `LambdaGELU`.

    >>> model = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 2))
    >>> list(to_lambda_gelu(model, init=2.0))
    ['1']
    """
    if any(isinstance(module, LambdaGELU) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has λ-GELUs already; a second swap would reset their hardness"
        )
    settings: dict[str, Any] = {
        "init": init, "temperature": temperature, "learnable": learnable, "constrained": constrained,
    }  # fmt: skip
    LambdaGELU(**settings)  # raises before anything is changed
    places = [
        (name, module) for name, module in model.named_modules(remove_duplicate=False) if _replaced(module)
    ]
    blocks = [m for m in model.modules() if isinstance(m, _ATTENTION) and m.activation in _FUNCTIONS]
    if any(not name for name, _ in places):
        raise ValueError(f"the model itself is a {type(model).__name__}: replace it by LambdaGELU()")
    if not places and not blocks:
        others = {type(gate).__name__ for gate in gate_modules(model).values()}
        found = f"only {', '.join(sorted(others))}" if others else "none; a function becomes a module first"
        raise ValueError(f"{type(model).__name__} has no GELU or ReLU module to replace: {found}")
    device = next((p.device for p in model.parameters()), None)
    made: dict[nn.Module, LambdaGELU] = {}
    for name, module in places:
        if module not in made:
            made[module] = LambdaGELU(**settings, device=device).train(module.training)
        model.set_submodule(name, made[module])
    for block in blocks:
        block.activation = LambdaGELU(**settings, device=device).train(block.training)
    _set_fused(model, relu=False)
    return hardness_gates(model)


@dataclass(frozen=True)
class Swap:
    """What putting a ReLU in the place of one λ-GELU changed, on one batch.

    Attributes:
        hardness: λ.
        spread: λ times the standard deviation of the gate's inputs, which is what hardness amounts to; nan
            without a batch.
        largest, mean: of ``|f(z; λ) − ReLU(z)|`` over the gate's inputs z, with z as it was before any swap;
            nan without one.
        bound: 0.169971/λ, which `largest` cannot exceed.
    """

    hardness: float
    spread: float
    largest: float
    mean: float
    bound: float


@dataclass(frozen=True)
class Report:
    """What `to_relu` changed: by gate, and in the model's outputs on the batch (nan without one)."""

    gates: dict[str, Swap]
    largest: float
    mean: float

    def __str__(self) -> str:
        width = max(len("output"), *(len(name) for name in self.gates))
        lines = [f"{'gate':{width}}  {'λ':>8}  {'λ·std(z)':>8}  {'largest':>9}  {'mean':>9}"]
        lines += [
            f"{name:{width}}  {s.hardness:8.3f}  {s.spread:8.3f}  {s.largest:9.2e}  {s.mean:9.2e}"
            for name, s in self.gates.items()
        ]
        return "\n".join(
            [*lines, f"{'output':{width}}  {'':8}  {'':8}  {self.largest:9.2e}  {self.mean:9.2e}"]
        )


def to_relu(model: nn.Module, batch: Any = None) -> Report:
    """Put a ReLU in the place of every λ-GELU, and say what that changed.

    Encoder layers of torch may use their fused path again. A Transformers model is rebuilt from its config:
    set `model.config.hidden_act = "relu"` (or `activation_function`) before it is saved. Parameters of the
    optimiser stay where they are: those of the λ-GELUs have no use any more.

    Args:
        batch: inputs of the model on which changes are measured: a tensor, a tuple of arguments, or a
            mapping of keywords, as Transformers' models take it. Evaluation mode, without gradients.

    Raises ValueError, and changes nothing, where there is no λ-GELU (a second swap), or a λ is not finite
    or below 1.

    >>> model = nn.Sequential(nn.Linear(3, 8), LambdaGELU(init=16.0), nn.Linear(8, 2))
    >>> report = to_relu(model, torch.randn(32, 3))
    >>> report.gates["1"].largest <= report.gates["1"].bound < 0.011
    True
    >>> model[1]
    ReLU()
    """
    values, gates = hardnesses(model), hardness_gates(model)
    if isinstance(model, LambdaGELU):
        raise ValueError("the model itself is a LambdaGELU: replace it by torch.nn.ReLU()")
    if low := {name: value for name, value in values.items() if value < 1}:
        raise ValueError(f"a hardness below 1 is no λ-GELU's: {low}; set_hardness(1) makes it a GELU")
    seen: dict[str, list[Tensor]] = {name: [] for name in gates}
    before = _outputs(model, batch, seen, gates)
    places = [
        (name, module)
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, LambdaGELU)
    ]
    report = {name: _swap_of(values[name], seen[name]) for name in gates}
    made = {gate: nn.ReLU().train(gate.training) for gate in gates.values()}
    for name, module in places:
        model.set_submodule(name, made[module])
    _set_fused(model, relu=True)
    after = _outputs(model, batch, {}, {})
    changes = [(a.double() - b.double()).abs().flatten() for a, b in zip(before, after, strict=True)]
    largest, mean = _extent(changes)
    return Report(report, largest, mean)


def _replaced(module: nn.Module) -> bool:
    kinds = {f"{base.__module__}.{base.__qualname__}" for base in type(module).__mro__}
    return isinstance(module, nn.GELU | nn.ReLU) or (is_gate(module) and not _TRANSFORMERS.isdisjoint(kinds))


def _set_fused(model: nn.Module, *, relu: bool) -> None:
    """Let encoder layers compute a ReLU by themselves, or no activation; whole encoders pad as usual."""
    for module in model.modules():
        kind = nn.ReLU if relu else LambdaGELU
        if isinstance(module, nn.TransformerEncoderLayer) and isinstance(module.activation, kind):
            module.activation_relu_or_gelu = int(relu)
        if isinstance(module, nn.TransformerEncoder) and not relu:
            module.use_nested_tensor = False


@torch.no_grad()
def _outputs(
    model: nn.Module, batch: Any, seen: Mapping[str, list[Tensor]], gates: Mapping[str, LambdaGELU]
) -> list[Tensor]:
    """The model's float outputs; what its gates read goes to `seen`."""
    if batch is None:
        return []

    def reader(name: str) -> Callable[..., None]:
        return lambda _module, args: seen[name].append(args[0].detach().double().flatten())

    training = {module: module.training for module in model.modules()}
    hooks = [gate.register_forward_pre_hook(reader(name)) for name, gate in gates.items()]
    try:
        model.eval()
        if isinstance(batch, Mapping):
            outputs = model(**batch)
        else:
            outputs = model(*batch) if isinstance(batch, tuple | list) else model(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for module, was in training.items():
            module.training = was
    leaves = tree_leaves(dict(outputs) if isinstance(outputs, Mapping) else outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _swap_of(hardness: float, seen: Sequence[Tensor]) -> Swap:
    z = torch.cat([*seen]) if seen else torch.empty(0)
    largest, mean = _extent([(lambda_gelu(z, hardness) - z.relu()).abs()])
    spread = hardness * float(z.std()) if len(z) > 1 else float("nan")
    return Swap(hardness, spread, largest, mean, OUTPUT_GAP / hardness)


def _extent(changes: Sequence[Tensor]) -> tuple[float, float]:
    """Largest and mean; nan of nothing."""
    if not changes or not sum(map(len, changes)):
        return float("nan"), float("nan")
    together = torch.cat([*changes])
    return float(together.amax()), float(together.mean())
