"""Committed records, derived again: today's notebook and claims, on the rows that a record keeps.

What a record says of its run (scale, parameters, seeds), of its metrics (value, interval, n) and of its
claims (sentence, test, verdict) must follow from its rows, so that no number can be written by hand. What a
notebook computes beside its sweeps is computed again, and what it reads in records of other chapters is read
again. Not derived are the figures, unless what was read has changed, the cost, and what made the run.
"""

import ast
import io
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

from ouikit.lab import notebook, record
from ouikit.lab.chapter import Chapter
from ouikit.lab.run import handing_on
from ouikit.lab.spec import Engine, RunSpec
from ouikit.lab.study import VerdictChangedError

CLOSE = 1e-9  # relative; sums in another order differ by less
DERIVED = {
    "run": ("slug", "scale", "parameters", "differences", "seeds", "reads"),
    "result": ("status", "claims", "metrics", "rows"),
}


class DerivationError(RuntimeError):
    """A record's rows do not carry today's notebook; the message names the record and the error."""


def committed(chapter: Chapter) -> list[Path]:
    """The folders of a chapter's committed records."""
    folder = chapter.root / "book" / "results" / chapter.slug
    return sorted(path.parent for path in folder.glob("*/record.json"))


def derived(
    chapter: Chapter, folder: Path, *, again: bool = False, figures: Path | None = None
) -> dict[str, Any]:
    """The record as it follows from the rows in `folder`, whose name is the scale.

    With `again` one cell of each sweep, taken at random, is computed again, and must resemble its rows.
    Figures are drawn into the folder `figures`, which is made, or left out.

    Raises:
        DerivationError: where the rows are not those of the scale, or the notebook raises on them.
    """
    if folder.name not in chapter.scales:
        raise DerivationError(f"{_name(folder)}: {chapter.slug}.yaml has no scale {folder.name!r}")
    settings, found = chapter.resolve(folder.name), record.read(folder)
    engine = Engine("record", str(folder.resolve()))
    spec = RunSpec(chapter.slug, settings, engine, 0, again, str(found["run"].get("key")))
    with tempfile.TemporaryDirectory() as scratch, chdir(chapter.root), redirect_stdout(io.StringIO()):
        try:
            with handing_on(chapter.root, spec, OUIKIT_RUNS=scratch):
                _play(chapter, spec.parameters, draws=figures is not None)
        except VerdictChangedError:
            pass  # the record is kept, and says so
        except (Exception, SystemExit) as error:
            raise DerivationError(
                f"{_name(folder)}: its rows do not carry today's notebook ({type(error).__name__}: {error}); "
                f"if that is right, make the record anew: ouikit run {chapter.slug} --scale {folder.name} "
                "--publish"
            ) from error
        made = Path(scratch) / chapter.slug / spec.key
        if figures and (made / "figures").exists():
            shutil.copytree(made / "figures", figures)
        return record.read(made)


def problems(chapter: Chapter, folder: Path, *, again: bool = False) -> list[str]:
    """Everything that a committed record says and its rows do not; `again` as for `derived`."""
    try:
        expected, found = derived(chapter, folder, again=again), record.read(folder)
    except (DerivationError, record.RecordError) as error:
        return [str(error)]
    lines: list[str] = []
    for part, names in DERIVED.items():
        for name in names:
            said = found[part].get(name, {} if name == "reads" else None)  # which older records do not say
            lines += _differences(expected[part][name], said, f"{part}.{name}")
    return [f"{_name(folder)}: {line}" for line in lines]


def rewrite(chapter: Chapter, folder: Path) -> None:
    """Let a record say what today's notebook and claims make of its rows, which stay as they are.

    Where a record that it read is another one by now, its figures are drawn again, since they may show it.

    Raises:
        DerivationError: as `derived`, where the rows are not those that the record was made with, and where
            a verdict is not the registered one.
    """
    found, expected = record.read(folder), derived(chapter, folder)
    if found["result"].get("rows") != expected["result"]["rows"]:
        raise DerivationError(f"{_name(folder)}: the rows are not those that the record was made with")
    if expected["result"]["status"] != "ok":
        raise DerivationError(f"{_name(folder)}: a verdict changed; register it, or find out why")
    if expected["run"]["reads"] != found["run"].get("reads", {}):
        with tempfile.TemporaryDirectory() as scratch:
            drawn = Path(scratch, "figures")
            expected = derived(chapter, folder, figures=drawn)
            shutil.rmtree(folder / "figures", ignore_errors=True)
            if drawn.exists():
                shutil.copytree(drawn, folder / "figures")
        found["result"]["figures"] = expected["result"]["figures"]
    for part, names in DERIVED.items():
        found[part] |= {name: _merged(expected[part][name], found[part].get(name)) for name in names}
    record.write(found, folder)


def _play(chapter: Chapter, parameters: Mapping[str, Any], draws: bool) -> None:
    """Run a notebook's code here, as papermill would with these parameters."""
    names: dict[str, Any] = {"__name__": "__main__"}
    before, after = notebook.up_to_parameters(notebook.read(chapter.path))
    _execute(before, chapter.path.name, names, draws)
    names |= parameters
    _execute(after, chapter.path.name, names, draws)


def _execute(sources: Iterable[str], file: str, names: dict[str, Any], draws: bool) -> None:
    for source in sources:
        tree = ast.parse(source)
        tree.body = [line for line in tree.body if draws or not _draws(line)]
        exec(compile(tree, file, "exec"), names)


def _draws(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Call)
        and ast.unparse(line.value.func) == "study.figure"
    )


def _differences(expected: Any, found: Any, place: str) -> Iterator[str]:
    """Where two pieces of JSON differ, numbers by more than `CLOSE`."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in expected | found:
            yield from _differences(expected.get(name), found.get(name), f"{place}.{name}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, (one, other) in enumerate(zip(expected, found, strict=True)):
            label = one["id"] if isinstance(one, dict) and "id" in one else i
            yield from _differences(one, other, f"{place}.{label}")
    elif not _same(expected, found):
        yield f"{place} is {found!r}; derived again it is {expected!r}"


def _merged(expected: Any, found: Any) -> Any:
    """`expected`, with the order and the digits of `found` where the two agree: diffs stay short."""
    if isinstance(expected, dict) and isinstance(found, dict):
        names = [name for name in found | expected if name in expected]
        return {name: _merged(expected[name], found.get(name)) for name in names}
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [_merged(one, other) for one, other in zip(expected, found, strict=True)]
    return found if _same(expected, found) else expected


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=1e-12)
    return type(one) is type(other) and one == other


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"
