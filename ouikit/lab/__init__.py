"""The laboratory: runs, records, sweeps, claims and pages. Knows no torch.

A notebook needs `paper_claims` (what the paper says), `begin` (a study with this notebook's parameters), and
the study's `sweep`, `figure`, `report` and `provenance`. `sweep` is also useful alone.
"""

from ouikit.lab.chapter import Chapter
from ouikit.lab.study import Study, VerdictChangedError, begin
from ouikit.lab.sweep import sweep
from ouikit.lab.tables import Shown, promises

__all__ = ["Study", "VerdictChangedError", "begin", "paper_claims", "sweep"]


def paper_claims(slug: str) -> Shown:
    """What the paper of a chapter claims, from its YAML."""
    return promises(Chapter(slug).paper)
