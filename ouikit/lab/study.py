"""What a notebook calls: begin, sweep, figure, report, provenance.

After the parameters cell::

    study = lab.begin("oui_weight_decay", globals())
    rows = study.sweep(cell, {"weight_decay": weight_decay}, seeds=seeds)
    study.figure(plots.themed(draw), name="mva", title="…", alt="…", numbers=table)
    study.report({"best.oui": estimate})  # raises when a registered verdict changed
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from IPython.display import display

from ouikit.lab import inputs, record, rows, sources, tables
from ouikit.lab.again import recognise
from ouikit.lab.chapter import Chapter, device_kind
from ouikit.lab.claims import Measured, fragile, judge
from ouikit.lab.keys import canonical
from ouikit.lab.paper import Claim
from ouikit.lab.parameters import ParameterError, resolve
from ouikit.lab.spec import RunSpec, default_engine, handed_on
from ouikit.lab.sweep import sweep
from ouikit.lab.sweep.grid import calls


class VerdictChangedError(AssertionError):
    """A claim's verdict is no longer the registered one."""


class HasChecksum(Protocol):
    """A data set as `ouikit.data` loads it; one that is read from files lists them as `files`."""

    name: str
    checksum: str


class HasThemes(Protocol):
    """A figure drawn for both themes, as `ouikit.plots.themed` returns it: two SVG documents."""

    light: str
    dark: str


def paper_claims(slug: str) -> tables.Shown:
    """What the paper of a chapter claims, from its YAML."""
    return tables.promises(Chapter(slug).paper)


def begin(slug: str, values: Mapping[str, Any], *, may_be_empty: Sequence[str] = ()) -> "Study":
    """Start a study inside a notebook; `values` are its globals, which hold the parameters.

    Args:
        may_be_empty: parameters whose list may have no item, beside those whose default has none.

    Raises:
        ParameterError: for a value of the wrong type (papermill alone would let it pass), a list without
            items or with one twice, or an engine of Flower where the chapter is not federated.
        PermissionError: if the run folder cannot be written, with the way out.
    """
    chapter = Chapter(slug)
    given = {name: values[name] for name in chapter.parameters if name in values}
    types = {p.record.name: values[p.record.name] for p in chapter.parameters.values() if p.record}
    run = handed_on()
    # Cells that nobody checked against the committed notebook must not pass for the run of that key.
    official = run and run.slug == slug and run.parameters == resolve(chapter.parameters, given)
    if not (run and official):
        run = chapter.spec(chapter.place(given), default_engine())
    study = Study(chapter, run, types, by_hand=not official)
    for name, value in run.parameters.items():
        if isinstance(value, list):
            default = chapter.parameters[name].default
            without = name in may_be_empty or not default
            study.require(name, bool(value) or without, f"give at least one, as in {default!r}")
            study.require(name, all(value.count(item) == 1 for item in value), "give each item once")
    return study


class Study:
    """One run of one chapter, seen from inside its notebook; one that is run by hand is kept apart."""

    def __init__(self, chapter: Chapter, run: RunSpec, types: Mapping[str, type], *, by_hand: bool) -> None:
        self.chapter = chapter
        self.run = run
        official = Path(run.folder or chapter.folder(run.key))
        self.folder = chapter.folder("by-hand") / run.key if by_hand else official
        self._types = types
        self._start = time.perf_counter()
        self._data: dict[str, str] = {}
        self._files: set[Path] = set()
        self._reads: dict[str, inputs.Identity] = {}
        self._figures: list[dict[str, str]] = []
        self._tables: list[pd.DataFrame] = []
        self._cells = {
            "total": 0,
            "computed": 0,
            "cached": 0,
            "diverged": 0,
            "seconds": 0.0,
            "cpu_seconds": 0.0,
        }
        self._workers_cpu = 0.0
        self._workers_peak_mb = 0.0
        self._record: dict[str, Any] = {}
        record.make_folder(self.folder / "figures")
        display(tables.settings(run.settings))

    def records(self, name: str) -> list[Any]:
        """The values of a parameter `list[Task]` as instances of the notebook's class `Task`.

        The class becomes a frozen dataclass, so that `Task(env="CartPole-v1")` works in the notebook, too;
        `dataclasses.asdict(task)` is the plain dict that a cell of a sweep takes.

        Raises:
            KeyError: for a name that is no parameter with records.
        """
        parameter = self.chapter.parameters.get(name)
        if parameter is None or parameter.record is None:
            raise KeyError(f"{name!r} is no parameter of {self.chapter.slug} that is a list of records")
        cls = parameter.record.make(self._types[parameter.record.name])
        return [cls(**value) for value in self.run.parameters[name]]

    def require(self, name: str, holds: bool, fix: str) -> None:
        """Refuse the value of a parameter, before anything is computed, unless a condition holds.

        Args:
            name: the parameter.
            holds: the condition; what a number must be is best said of the parameters, not of their results.
            fix: what to give in its place.

        Raises:
            ParameterError: naming the parameter, its value and the fix.
            KeyError: for a name that is no parameter.
        """
        value = self.run.parameters[name]
        if not holds:
            raise ParameterError(f"parameter {name!r} is {value!r}; {fix}")

    def uses(self, data: HasChecksum) -> None:
        """Enter a data set's checksum in the record, and in the keys of the sweeps that follow.

        A run is made again when a file of the set (`files`, where it has such) is no longer what it was.
        """
        self._data[data.name] = data.checksum
        self._files.update(getattr(data, "files", ()))

    def reads(self, slug: str, scale: str = "extended") -> inputs.Input:
        """The committed record of another chapter: its metrics with interval and n, its verdicts.

        ::

            decay = study.reads("oui_weight_decay")
            decay["early_drop.convnet6_digits"], decay.verdict("early")

        The keys of its run and of its code enter this run's record, and this run is made again when the other
        record changes. A committed record that read another one than today's is shown as older, and
        `ouikit check SLUG --records --fix` lets it say what follows from today's.

        Raises:
            UnknownNameError: for a chapter that does not exist.
            MissingRecordError: where no record of that scale is committed, with the command that makes it.
            ValueError: for the chapter itself.
        """
        if slug == self.chapter.slug:
            raise ValueError(f"{slug} cannot read its own record: name another chapter")
        found = inputs.read(self.chapter.root, Chapter(slug, self.chapter.root).slug, scale)
        self._reads[f"{slug}/{scale}"] = found.identity
        self._files.add(inputs.place(self.chapter.root, slug, scale))
        return found

    def sweep(
        self,
        cell: Callable[..., Any],
        grid: Mapping[str, Sequence[Any]] | Iterable[Mapping[str, Any]],
        *,
        seeds: Sequence[int],
        title: str = "",
        here: bool = False,
    ) -> pd.DataFrame:
        """`ouikit.lab.sweep`, kept beside this chapter's runs: every scale shares the cells.

        `here` is for cells that do much in one program: they run in this process, one after the other, which
        saves a worker's start and memory, unless the run says how many workers it wants.
        """
        if self.run.engine.kind == "record":
            listed = calls(grid, seeds)
            table = rows.read(Path(self.run.engine.address), len(self._tables), listed)
            if self.run.force:
                call = random.choice(listed)
                point = {name: value for name, value in call.items() if name != "seed"}
                recognise(table, call, self._computed(cell, [point], [call["seed"]], title, here))
        else:
            table = self._computed(cell, grid, seeds, title, here)
        for name, count in table.attrs["cells"].items():
            self._cells[name] += count
        self._workers_cpu += table.attrs["workers"]["cpu_seconds"]
        self._workers_peak_mb = max(self._workers_peak_mb, table.attrs["workers"]["peak_memory_mb"])
        self._tables.append(table)
        return table.copy()

    def _computed(
        self, cell: Callable[..., Any], grid: Any, seeds: Sequence[int], title: str, here: bool
    ) -> pd.DataFrame:
        device = device_kind(self.run.parameters.get("device", "auto"))
        return sweep(
            cell,
            grid,
            seeds=seeds,
            store=self.chapter.folder("cells"),
            context=canonical([self.chapter.lock, device, self._data]),
            engine=self.run.engine,
            jobs=0 if here and self.run.jobs is None else self.run.jobs,
            force=self.run.force,
            title=title or self.chapter.slug,
        )

    def figure(self, drawn: HasThemes, *, name: str, title: str, alt: str, numbers: pd.DataFrame) -> None:
        """Show a figure in both themes, with its alternative text and its numbers as a table.

        Where these parameters leave nothing to draw (see `ouikit.plots.themed`) a sentence takes its place.
        """
        if not drawn.light:
            display(tables.left_out(title))
            return
        for theme, svg in (("light", drawn.light), ("dark", drawn.dark)):
            record.write_atomically(self.folder / "figures" / f"{name}-{theme}.svg", svg.encode())
        light, dark = (f"figures/{name}-{theme}.svg" for theme in ("light", "dark"))
        self._figures.append({"name": name, "title": title, "alt": alt, "light": light, "dark": dark})
        display(tables.figure(drawn.light, drawn.dark, title, alt, numbers))

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Judge every claim, write the record, show the paper's numbers beside ours.

        A metric given as None cannot be measured on this machine: claims on it are not run and guard nothing.
        One with n = 0 was not run, as if it were not given.

        Raises:
            VerdictChangedError: at a named scale, after the record is written, if one changed.
        """
        measured = {name: Measured.of(value) for name, value in metrics.items() if value is not None}
        impossible = metrics.keys() - measured.keys()
        measured = {name: found for name, found in measured.items() if found.n != 0}
        claims = [self._judged(claim, measured, impossible) for claim in self.chapter.paper.claims]
        changed = [c for c in claims if c["registered"] and c["verdict"] != c["registered"]]
        self._keep("verdict changed" if changed else "ok", claims, measured)
        display(tables.claims(claims, self.run.settings.scale, self.chapter.paper.names))
        if changed:
            lines = "; ".join(f"{c['id']}: registered {c['registered']}, now {c['verdict']}" for c in changed)
            raise VerdictChangedError(
                f"{self.chapter.slug} at {self.run.settings.scale}: {lines}. "
                f"If the new verdict is right, register it in {self.chapter.slug}.yaml and say why."
            )

    def provenance(self) -> None:
        """Show what made this run."""
        display(tables.provenance(self._record))

    def _judged(
        self, claim: Claim, measured: Mapping[str, Measured], impossible: Set[str] = frozenset()
    ) -> dict[str, Any]:
        """One claim's line in the record. Off the named scales the nearest one's test gives the verdict."""
        test = claim.at.get(self.run.settings.nearest)
        found = measured.get(claim.metric)
        bound = test and impossible.isdisjoint(test.operands(claim.metric))
        return {
            "id": claim.id,
            "says": claim.says,
            "where": claim.where,
            "metric": claim.metric,
            "null": claim.null,
            "paper": claim.paper,
            "predicate": test and test.predicate,
            "against": test and test.against,
            "why": test and test.why,
            "value": found and found.value,
            "low": found and found.low,
            "high": found and found.high,
            "n": found and found.n,
            "verdict": judge(test, claim.metric, measured, claim.paper) if test else "not run",
            "fragile": bool(test and fragile(test, claim.metric, measured, claim.paper)),
            "registered": claim.status.get(self.run.settings.scale) if bound else None,
            "note": claim.note,
        }

    def _keep(self, status: str, claims: list[dict[str, Any]], measured: Mapping[str, Measured]) -> None:
        """Write the rows, then the record."""
        parameters = self.run.parameters
        new = {
            "schema": record.SCHEMA,
            "run": {
                "slug": self.chapter.slug,
                "scale": self.run.settings.scale,
                "parameters": parameters,
                "differences": self.run.settings.differences,
                "seeds": parameters.get("seeds", [parameters.get("seed")]),
                "key": self.run.key,
                "engine": str(self.run.engine),
                "reads": self._reads,
            },
            "result": {
                "status": status,
                "claims": claims,
                "metrics": {name: vars(m) for name, m in measured.items()},
                "rows": self._kept_rows(),
                "figures": self._figures,
                "cells": self._cells,
                "seconds": round(time.perf_counter() - self._start, 2),
                "cpu_seconds": round(record.cpu_seconds() + self._workers_cpu, 2),
                "peak_memory_mb": round(record.peak_memory_mb() + self._workers_peak_mb, 1),
            },
            "made_by": record.made_by(
                self.chapter.root, self.chapter.code, self.chapter.science_key(), data=self._data
            ),
        }
        sources.write(self.folder, self._files)
        record.write(new, self.folder)
        self._record = new

    def _kept_rows(self) -> str | None:
        """Write the rows, unless a record's are read; returns their digest, None where nothing was swept."""
        if not self._tables:
            return None
        if self.run.engine.kind == "record":
            return record.rows_digest(Path(self.run.engine.address))
        return rows.write(self.folder, self._tables)
