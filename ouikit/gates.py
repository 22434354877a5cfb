"""Which modules are gates: torch's, Transformers', and those that users register.

A gate works element by element, passes a positive input on and shuts, bends or damps a negative one.
"""

from copy import deepcopy
from functools import cache
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ouikit.watch import modules_by_name

_REGISTERED: list[type[nn.Module]] = [
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.SiLU,
    nn.GELU,
    nn.Mish,
    nn.Hardswish,
    nn.Softplus,
]
# By name, so that nothing has to be imported.
_TRANSFORMERS_GATES = frozenset(
    f"transformers.activations.{name}"
    for name in (
        "AccurateGELUActivation",
        "ClippedGELUActivation",
        "FastGELUActivation",
        "GELUActivation",
        "GELUTanh",
        "MishActivation",
        "NewGELUActivation",
        "PytorchGELUTanh",
        "QuickGELUActivation",
        "ReLUSquaredActivation",
        "SiLUActivation",
        "SqrtSoftplusActivation",
        "XIELUActivation",
    )
)
_TRIED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # modules of other classes: like a gate?
_TRIED_SIZE = 4096  # a module with a larger tensor is not tried

Kind = TypeVar("Kind", bound=type[nn.Module])


def register_gate(kind: Kind) -> Kind:
    """Have every module of this class watched as a gate, at its input; also a decorator.

    Known are torch's (ReLU, ReLU6, LeakyReLU, PReLU, RReLU, ELU, SELU, CELU, SiLU, GELU, Mish, Hardswish,
    Softplus), those of `transformers.activations`, and subclasses of any of them. Sigmoid and tanh saturate
    on both sides, and GLU takes its gate from another half: they are no gates, but `layers=` can watch them.

    Raises TypeError for anything but a subclass of `torch.nn.Module`.

    >>> @register_gate
    ... class Squared(nn.Module):
    ...     def forward(self, x):
    ...         return x.relu() ** 2
    >>> [*gate_modules(nn.Sequential(nn.Linear(3, 8), Squared()))]
    ['1']
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise TypeError(f"a gate is a class derived from torch.nn.Module, not {kind!r}")
    if kind not in _REGISTERED:
        _REGISTERED.append(kind)
        _is_gate_class.cache_clear()
    return kind


def registered_gates() -> tuple[type[nn.Module], ...]:
    """The classes that are registered; those of Transformers are known by name and not among them."""
    return tuple(_REGISTERED)


def is_gate(module: nn.Module) -> bool:
    """Whether a module is of a registered class or of one of Transformers' activations."""
    return _is_gate_class(type(module))  # type: ignore[arg-type]  # the class is hashable, not its modules


@cache
def _is_gate_class(kind: type[nn.Module]) -> bool:
    names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
    return issubclass(kind, registered_gates()) or not _TRANSFORMERS_GATES.isdisjoint(names)


def gate_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The gates of a model by name, as `modules_by_name`, in the order of `model.named_modules()`."""
    return {name: module for name, module in modules_by_name(model).items() if is_gate(module)}


def unregistered_gates(model: nn.Module) -> str:
    """Classes that behave like gates and are not registered, each with the names of its modules.

    Torch's own classes are known, and modules around a gate are watched at that gate.
    """
    found: dict[str, list[str]] = {}
    for name, module in modules_by_name(model).items():
        kind = type(module)
        if kind.__module__.startswith("torch.") or not name or any(map(is_gate, module.modules())):
            continue
        if any(name.startswith(f"{outer}.") for names in found.values() for outer in names):
            continue
        if module not in _TRIED:
            _TRIED[module] = _behaves_like_a_gate(module)
        if _TRIED[module]:
            found.setdefault(kind.__name__, []).append(name)
    return "; ".join(f"{kind} ({_shortened(names)})" for kind, names in found.items())


def _shortened(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


@torch.no_grad()
def _behaves_like_a_gate(module: nn.Module) -> bool:
    """Whether a small module works element by element and rises much more above 0 than it does below.

    Tried on a copy in evaluation mode: moving the elements of an input, or leaving some out, must move the
    results, or leave them out, and change nothing else.
    """
    held = [*module.parameters(), *module.buffers()]
    width = max((tensor.numel() for tensor in held), default=0)
    if width > _TRIED_SIZE:
        return False
    dtype = next((tensor.dtype for tensor in held if tensor.is_floating_point()), torch.float32)
    count = 4 * max(width, 8)
    z = torch.linspace(-4, 4, count + 1, dtype=torch.float64, device="cpu")[1:].to(dtype).view(4, -1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0), device="cpu")
    moved = z.flatten()[order].view_as(z)
    try:
        with torch.random.fork_rng(devices=[]):
            copy = deepcopy(module).cpu().eval()
            out, out_moved, part = (copy(x.clone()) for x in (z, moved, z[:2]))
            low, middle, high = (
                float(copy(torch.full_like(z, at)).double().mean()) for at in (-4.0, 0.0, 4.0)
            )
        same = out.shape == z.shape and _near(out.flatten()[order].view_as(z), out_moved)
        return same and _near(out[:2], part) and high - middle > 2 * abs(middle - low)
    except Exception:  # whatever it raises, it does not take any matrix as a gate does
        return False


def _near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4)
