"""Activation patterns and the OUI indicators, for anybody's training loop.

>>> import ouikit, torch
>>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU())
>>> oui = ouikit.OUI(model, kind="pairwise")
>>> _ = model(torch.randn(16, 3))
>>> 0 <= oui.compute() <= 1
True

The laboratory that runs the papers lives in `ouikit.lab` and needs no torch; the names below are
therefore imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ouikit.gates import register_gate
    from ouikit.oui import OUI, balance_oui, fixed_pairs, pairwise_oui
    from ouikit.patterns import flip_rate, hamming_distances, record_patterns

__version__ = "0.1.0"

_HOME = {
    "OUI": "oui",
    "balance_oui": "oui",
    "fixed_pairs": "oui",
    "pairwise_oui": "oui",
    "flip_rate": "patterns",
    "hamming_distances": "patterns",
    "record_patterns": "patterns",
    "register_gate": "gates",
}
__all__ = [
    "OUI",
    "balance_oui",
    "fixed_pairs",
    "flip_rate",
    "hamming_distances",
    "pairwise_oui",
    "record_patterns",
    "register_gate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ouikit' has no attribute {name!r}")
    return getattr(import_module(f"ouikit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
