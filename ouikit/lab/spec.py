"""A run as one value: what is run, with which parameters, where. Resolved once and handed on whole."""

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

HANDED_ON = "OUIKIT_RUN"  # the environment variable in which the command hands a run to the notebook's kernel
FEDERATED = "ouikit.fl.run.apps"  # the module that the engines of Flower run
ENGINES = ("local", "dask://HOST:PORT", "flower-sim", "flower://HOST:PORT")


class EngineError(ValueError):
    """No engine has this name; the message holds the nearest one."""


@dataclass(frozen=True)
class Engine:
    """Where cells are computed: `local`, `dask`, `flower-sim` (Ray), `flower`; and a server's address.

    `record` computes nothing: it reads the rows of the record in the folder that `address` names (where a run
    has `force`, it computes one cell of each sweep again and compares). The laboratory derives committed
    records with it; the command line does not know it.
    """

    kind: str = "local"
    address: str = ""

    @classmethod
    def parse(cls, text: str) -> "Engine":
        """Read `local`, `dask://HOST:PORT`, `flower-sim` or `flower://HOST:PORT`. Raises EngineError."""
        if text in ("local", "flower-sim"):
            return cls(text)
        if served := re.fullmatch(r"(dask|flower)://([^/:\s]+:\d+)", text):
            return cls(served[1], served[2])
        near = get_close_matches(text, ENGINES, 1, 0.3)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise EngineError(f"unknown engine {text!r}; {hint}There are {', '.join(ENGINES)}")

    @property
    def federated(self) -> str:
        """The kind of an engine of Flower, else empty.

        What such an engine computes is kept apart from what others did; addresses do not matter.
        """
        return self.kind if self.kind.startswith("flower") else ""

    def __str__(self) -> str:
        return f"{self.kind}://{self.address}" if self.address else self.kind


LOCAL = Engine()


@dataclass(frozen=True)
class Settings:
    """Resolved parameters, the scale that they equal (`exploratory` if none), and the nearest scale with what
    sets them apart from it."""

    parameters: dict[str, Any]
    scale: str
    nearest: str
    differences: dict[str, Any]


@dataclass(frozen=True)
class RunSpec:
    """One run of one chapter. `jobs` is the number of workers (None: one per core), `key` the run's name;
    `folder` is where the notebook leaves what it makes (empty: where finished runs of that name lie)."""

    slug: str
    settings: Settings
    engine: Engine
    jobs: int | None
    force: bool
    key: str
    folder: str = ""

    @property
    def parameters(self) -> dict[str, Any]:
        """The resolved parameters."""
        return self.settings.parameters

    def to_json(self) -> str:
        """One line of JSON, for `HANDED_ON`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """The inverse of `to_json`."""
        found = json.loads(text)
        settings, engine = Settings(**found.pop("settings")), Engine(**found.pop("engine"))
        return cls(settings=settings, engine=engine, **found)


def handed_on() -> RunSpec | None:
    """The run that the command has started this process for; None in a notebook that is run by hand."""
    text = os.environ.get(HANDED_ON)
    return RunSpec.from_json(text) if text else None


def default_engine() -> Engine:
    """Engine of a notebook that is run by hand: `$OUIKIT_ENGINE`, else local. Raises EngineError."""
    return Engine.parse(os.environ.get("OUIKIT_ENGINE") or "local")


def default_jobs(scale: str) -> int | None:
    """Workers where nobody says how many: `$OUIKIT_JOBS`; else 0 at the reduced scale, elsewhere one a core.

    A worker's imports alone take some five CPU-seconds and half a gigabyte, each time a sweep starts; the
    budget of a reduced run, 60 CPU-seconds, is better spent in the notebook's own process.
    """
    text = os.environ.get("OUIKIT_JOBS", "")
    if text:
        return int(text)
    return 0 if scale == "reduced" else None
