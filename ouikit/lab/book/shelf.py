"""What there is to publish: the chapters on disk, their records, the papers to come, the benchmarks."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ouikit.lab import record
from ouikit.lab.paper import Paper, read_paper

# An older record may lack what later ones hold; pages then say so instead of failing.
UNKNOWN: dict[str, dict[str, Any]] = {
    "run": {
        "slug": "",
        "scale": "unknown",
        "parameters": {},
        "differences": {},
        "seeds": [],
        "key": "unknown",
        "reads": {},
    },
    "result": {
        "status": "ok",
        "claims": [],
        "metrics": {},
        "figures": [],
        "cells": {},
        "seconds": math.nan,
        "peak_memory_mb": math.nan,
    },
    "made_by": {
        "commit": None,
        "dirty": False,
        "versions": {},
        "lock": "unknown",
        "cpu": "unknown hardware",
        "cores": "?",
        "isa": [],
        "threads": "?",
        "gpu": None,
        "os": "unknown",
        "python": "unknown",
        "data": {},
        "time": "",
    },
}
UNKNOWN_CELLS = {"total": 0, "computed": 0, "cached": 0, "diverged": 0, "seconds": math.nan}
UNKNOWN_CLAIM = {
    **dict.fromkeys(
        ("where", "metric", "null", "paper", "predicate", "against", "why", "registered", "note")
    ),
    **dict.fromkeys(("value", "low", "high", "n")),
    **{"id": "?", "says": "?", "verdict": "not run", "fragile": False},
}


@dataclass(frozen=True)
class Published:
    """A run record that the book shows, and the folder that its figures lie in."""

    record: dict[str, Any]
    folder: Path
    outdated: bool

    @property
    def slug(self) -> str:
        return self.record["run"]["slug"]

    @property
    def scale(self) -> str:
        return self.record["run"]["scale"]

    @property
    def date(self) -> str:
        return self.record["made_by"]["time"][:10] or "undated"

    @property
    def claims(self) -> list[dict[str, Any]]:
        return self.record["result"]["claims"]


@dataclass(frozen=True)
class Entry:
    """A chapter: its paper, the run made for this book if there is one, the committed records beside it."""

    paper: Paper
    fresh: Published | None
    beside: list[Published]

    @property
    def published(self) -> list[Published]:
        return ([self.fresh] if self.fresh else []) + self.beside


@dataclass(frozen=True)
class Repository:
    """Where the sources are published; without an address nothing points there."""

    url: str
    branch: str

    def colab(self, slug: str) -> str | None:
        owner = self._on_github()
        base = "https://colab.research.google.com/github"
        return owner and f"{base}/{owner}/blob/{self.branch}/chapters/{slug}.ipynb"

    def binder(self, slug: str) -> str | None:
        owner = self._on_github()
        base = "https://mybinder.org/v2/gh"
        return owner and f"{base}/{owner}/{self.branch}?urlpath=lab/tree/chapters/{slug}.ipynb"

    def _on_github(self) -> str | None:
        address = self.url.rstrip("/").removesuffix(".git")
        return address.removeprefix("https://github.com/") if "//github.com/" in address else None


@dataclass(frozen=True)
class Shelf:
    """Everything that pages are made from."""

    entries: list[Entry]
    benchmarks: dict[str, dict[str, Any]]
    repository: Repository

    @property
    def published(self) -> list[Published]:
        return [one for entry in self.entries for one in entry.published]


def read_shelf(root: Path, runs: Sequence[Path], outdated: Callable[[Mapping[str, Any]], bool]) -> Shelf:
    """Collect what `root` and the run folders hold.

    Raises:
        PaperError: for a chapter's YAML that is wrong.
        RecordError: for a record that cannot be read; the message names the file.
        ValueError: for a benchmark file that is wrong.
    """
    fresh = {one.slug: one for one in (_published(folder, outdated) for folder in runs)}
    papers = read_papers(root)
    entries = [Entry(paper, fresh.get(paper.slug), _committed(root, paper, outdated)) for paper in papers]
    config = yaml.safe_load((root / "book" / "_config.yml").read_text()).get("repository") or {}
    return Shelf(
        entries,
        {
            path.stem: _benchmark(path)
            for path in sorted((root / "book" / "results" / "bench").glob("*.json"))
        },
        Repository(config.get("url") or "", config.get("branch") or "main"),
    )


def read_papers(root: Path) -> list[Paper]:
    """The papers that have a chapter, in the order of the book."""
    papers = (read_paper(path) for path in (root / "chapters").glob("*.yaml"))
    return sorted(papers, key=lambda paper: paper.place)


def _published(folder: Path, outdated: Callable[[Mapping[str, Any]], bool]) -> Published:
    found = complete(record.read(folder))
    return Published(found, folder, outdated(found))


def _committed(root: Path, paper: Paper, outdated: Callable[[Mapping[str, Any]], bool]) -> list[Published]:
    """Committed records in the order of the YAML's scales."""
    folders = [root / "book" / "results" / paper.slug / scale for scale in paper.scales]
    return [_published(folder, outdated) for folder in folders if (folder / "record.json").exists()]


def complete(found: Mapping[str, Any]) -> dict[str, Any]:
    """The record with every absent or null part filled with its "unknown"."""
    whole = {part: _filled(found.get(part), blank) for part, blank in UNKNOWN.items()}
    whole["result"]["cells"] = _filled(whole["result"]["cells"], UNKNOWN_CELLS)
    whole["result"]["claims"] = [_filled(claim, UNKNOWN_CLAIM) for claim in whole["result"]["claims"]]
    return whole


def _filled(given: Mapping[str, Any] | None, blank: Mapping[str, Any]) -> dict[str, Any]:
    return {**blank, **{key: value for key, value in (given or {}).items() if value is not None}}


def _benchmark(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        return {"rows": list(found["rows"]), "made_by": _filled(found.get("made_by"), UNKNOWN["made_by"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a benchmark record: {error!r}") from error
