"""A chapter: one pair of files, its scales, and the key of a run with given parameters."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ouikit.lab import keys, notebook
from ouikit.lab.paper import Paper, read_paper
from ouikit.lab.parameters import ParameterError, Parameters, checked, nearest, resolve
from ouikit.lab.spec import FEDERATED, LOCAL, Engine, RunSpec, Settings, default_jobs


class UnknownNameError(LookupError):
    """No chapter or scale has this name; the message holds the nearest ones."""


class Chapter:
    """`chapters/<slug>.ipynb` and `chapters/<slug>.yaml`.

    Raises:
        UnknownNameError: if one of the two files is missing.
    """

    def __init__(self, slug: str, root: Path | None = None) -> None:
        self.root = root or keys.repo_root()
        self.slug = slug
        self.path = self.root / "chapters" / f"{slug}.ipynb"
        if slug not in slugs(self.root):
            raise UnknownNameError(f"no chapter {slug!r}; {nearest(slug, slugs(self.root))}")
        for half in (self.path, self.path.with_suffix(".yaml")):
            if not half.exists():
                raise UnknownNameError(f"chapter {slug!r} is half a pair: {half} is missing")

    @cached_property
    def paper(self) -> Paper:
        return read_paper(self.path.with_suffix(".yaml"))

    @cached_property
    def code(self) -> list[str]:
        return notebook.code_cells(notebook.read(self.path))

    @cached_property
    def parameters(self) -> Parameters:
        return notebook.parameters(notebook.read(self.path), self.path)

    @cached_property
    def lock(self) -> str:
        """Hash of the libraries that the code reaches, as the lock pins them."""
        return keys.reached_lock_hash(self.root, self.code)

    @cached_property
    def scales(self) -> dict[str, dict[str, Any]]:
        """The parameters of every named scale, checked and complete."""
        return {name: resolve(self.parameters, overrides) for name, overrides in self.paper.scales.items()}

    def resolve(self, scale: str = "reduced", overrides: Mapping[str, Any] | None = None) -> Settings:
        """Parameters of a named scale with a reader's own values on top.

        Raises:
            UnknownNameError: for a scale that the YAML does not have.
            ParameterError: for an unknown parameter or a wrong type.
        """
        if scale not in self.scales:
            raise UnknownNameError(f"no scale {scale!r}; {nearest(scale, self.scales)}")
        return self._settings({**self.scales[scale], **checked(self.parameters, overrides or {})})

    def place(self, parameters: Mapping[str, Any]) -> Settings:
        """Which scale these parameters equal; claims bind only there. Raises ParameterError."""
        return self._settings(resolve(self.parameters, parameters))

    def _settings(self, resolved: dict[str, Any]) -> Settings:
        apart = {
            scale: {k: v for k, v in resolved.items() if v != named[k]}
            for scale, named in self.scales.items()
        }
        nearest = min(apart, key=lambda scale: len(apart[scale]))
        return Settings(resolved, "exploratory" if apart[nearest] else nearest, nearest, apart[nearest])

    def spec(
        self, settings: Settings, engine: Engine = LOCAL, jobs: int | None = None, force: bool = False
    ) -> RunSpec:
        """A run with these settings, as the one value that is handed on.

        Raises:
            ParameterError: if the engine is one of Flower's and the chapter is not federated.
        """
        if engine.federated and not self.federated:
            can = ", ".join(chapter.slug for chapter in chapters(self.root) if chapter.federated)
            raise ParameterError(
                f"{self.slug} is not federated; engine {str(engine)!r} runs {can or 'none of these chapters'}"
            )
        key = self.key(settings.parameters, engine)
        workers = default_jobs(settings.scale) if jobs is None else jobs
        return RunSpec(self.slug, settings, engine, workers, force, key)

    def key(self, parameters: Mapping[str, Any], engine: Engine = LOCAL) -> str:
        """Name of the run: code, parameters, definitions that the code reaches, lock, claims, device.

        Runs on an engine of Flower have keys of their own; all other engines share one.
        """
        claims = {"claims": hashlib.sha256(repr(self.paper).encode()).hexdigest()}
        return keys.run_key(
            self.code,
            parameters,
            lock=self.lock,
            data=claims | ({"engine": engine.federated} if engine.federated else {}),
            device=device_kind(parameters.get("device", "auto")),
        )

    @cached_property
    def federated(self) -> bool:
        """Whether the chapter can run on an engine of Flower."""
        return keys.reaches(self.code, FEDERATED)

    def science_key(self) -> str:
        """Hash of what makes the numbers: code cells, the science they reach, the lock; no laboratory."""
        science = keys.source_hash(self.code, exclude=keys.LABORATORY)
        return hashlib.sha256((science + self.lock).encode()).hexdigest()[:16]

    def folder(self, key: str) -> Path:
        return runs_folder(self.root) / self.slug / key


def chapters(root: Path | None = None) -> list[Chapter]:
    """All chapters on disk, by slug."""
    root = root or keys.repo_root()
    return [Chapter(slug, root) for slug in slugs(root)]


def runs_folder(root: Path) -> Path:
    """Where runs are kept: `$OUIKIT_RUNS`, else `.runs` in the repository."""
    return root / (os.environ.get("OUIKIT_RUNS") or ".runs")


def device_kind(device: str) -> str:
    """`auto` is cuda where an NVIDIA driver answers; torch is not asked, the laboratory does not know it."""
    if device != "auto":
        return device.split(":")[0]
    return "cuda" if shutil.which("nvidia-smi") else "cpu"


def slugs(root: Path) -> list[str]:
    """Stems of the files in `chapters/`."""
    return sorted({p.stem for p in (root / "chapters").iterdir() if p.suffix in (".ipynb", ".yaml")})
