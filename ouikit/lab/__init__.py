"""The laboratory: runs, records, sweeps, claims and pages. Knows no torch.

A notebook needs `paper_claims` (what the paper says), `begin` (a study with this notebook's parameters), and
the study's `records`, `sweep`, `figure`, `report` and `provenance`. `ouikit.lab.sweep` is also useful alone.
The names below are imported on first use: the command must say what to install where pandas is missing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ouikit.lab.study import Study, VerdictChangedError, begin, paper_claims

__all__ = ["Study", "VerdictChangedError", "begin", "paper_claims"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ouikit.lab' has no attribute {name!r}")
    return getattr(import_module("ouikit.lab.study"), name)
