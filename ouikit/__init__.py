"""Activation patterns and what they tell: the OUI indicators for anybody's training loop.

>>> import ouikit
>>> oui = ouikit.OUI(model)       # doctest: +SKIP
>>> oui.compute()                 # doctest: +SKIP

The laboratory that runs the papers lives in `ouikit.lab` and needs no torch; the names below are
therefore imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
}
__all__ = [
    "OUI",
    "balance_oui",
    "fixed_pairs",
    "flip_rate",
    "hamming_distances",
    "pairwise_oui",
    "record_patterns",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ouikit' has no attribute {name!r}")
    return getattr(import_module(f"ouikit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
