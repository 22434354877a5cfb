"""Committed records of other chapters, as inputs of a notebook; see `Study.reads`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ouikit.lab import record
from ouikit.lab.claims import Measured
from ouikit.lab.parameters import nearest

Identity = dict[str, str]  # `key`: of the run; `code`: of what made its numbers


class MissingRecordError(FileNotFoundError):
    """A chapter has no committed record at that scale; the message says how to make one."""


@dataclass(frozen=True)
class Input:
    """What a notebook sees of a committed record: metrics by name, verdicts by the claim's id."""

    slug: str
    scale: str
    identity: Identity
    metrics: Mapping[str, Measured]
    verdicts: Mapping[str, str]

    def __getitem__(self, metric: str) -> Measured:
        """A metric with its interval and n. Raises KeyError with the nearest names."""
        return self._named(metric, self.metrics, "metric")

    def verdict(self, claim: str) -> str:
        """The verdict on a claim, *not run* where this scale does not test it. Raises KeyError likewise."""
        return self._named(claim, self.verdicts, "claim")

    def _named(self, name: str, known: Mapping[str, Any], kind: str) -> Any:
        if name not in known:
            raise KeyError(f"no {kind} {name!r} in {self.slug}/{self.scale}; {nearest(name, known)}")
        return known[name]


def place(root: Path, slug: str, scale: str) -> Path:
    """The file of a committed record."""
    return root / "book" / "results" / slug / scale / "record.json"


def read(root: Path, slug: str, scale: str) -> Input:
    """Read a committed record.

    Raises:
        MissingRecordError: where there is none, with the command that makes it.
        RecordError: where it cannot be read.
    """
    path = place(root, slug, scale)
    if not path.exists():
        raise MissingRecordError(
            f"{path.relative_to(root)} is missing; make it: ouikit run {slug} --scale {scale} --publish"
        )
    found = record.read(path.parent)
    metrics = {name: Measured.of(values) for name, values in found["result"]["metrics"].items()}
    verdicts = {claim["id"]: claim["verdict"] for claim in found["result"]["claims"]}
    return Input(slug, scale, _identity(found), metrics, verdicts)


def changed(root: Path, reads: Mapping[str, Identity]) -> bool:
    """Whether a record that was read, `slug/scale` -> identity, is gone or is another today."""
    for name, identity in reads.items():
        path = place(root, *name.split("/"))
        if not path.exists() or _identity(record.read(path.parent)) != identity:
            return True
    return False


def _identity(found: Mapping[str, Any]) -> Identity:
    return {"key": found["run"]["key"], "code": str(found["made_by"].get("code"))}
