"""`ouikit book`: from run folders to the site, doing nothing when nothing changed."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ouikit.lab import inputs
from ouikit.lab.chapter import Chapter, UnknownNameError
from ouikit.lab.keys.packages import modules, native

ENGINE = ("jupyter-book", "sphinx", "sphinx-book-theme", "sphinx-mathjax-offline")


def publish_book(root: Path, runs: Sequence[Path], html: Path) -> Path:
    """Assemble the book's sources and build them, unless the site of the same inputs is there.

    The references of `CITATION.cff` are brought up to date first. Whatever stops this, `html` holds a
    whole site: the one before, or the new one.

    Raises:
        BookError: with Sphinx's complaints; a warning is an error.
    """
    from ouikit.lab.book.render import digest  # no Sphinx and no YAML are needed to see that nothing changed

    stamp = html.with_name(f"{html.name}.digest")
    if (html / "index.html").exists() and stamp.exists():
        if stamp.read_text() == digest(_inputs(root, runs), _versions()):
            return html
        stamp.unlink()
    _publish(root, runs, html)
    stamp.write_text(digest(_inputs(root, runs), _versions()))
    return html


def _publish(root: Path, runs: Sequence[Path], html: Path) -> None:
    from ouikit.lab.book import cite
    from ouikit.lab.book.render import assemble, build, mirror
    from ouikit.lab.book.shelf import read_papers

    cite.refresh(root / "CITATION.cff", read_papers(root))
    sources = root / "build" / "book"
    fresh = sources.with_name(".book-fresh")
    assemble(root, runs, fresh, outdated=lambda record: outdated(record, root))
    mirror(fresh, sources)  # a page that did not change keeps its time, and is not read again
    shutil.rmtree(fresh)
    build(sources, html, root / "build" / "sphinx")


def _inputs(root: Path, runs: Sequence[Path]) -> Iterator[Path]:
    """Everything that the site is made from; the API pages come from the docstrings of the packages."""
    yield from (root / name for name in ("book", "chapters", "ci/constraints.txt", "CITATION.cff"))
    yield from (root / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))
    for package in ("ouikit", "ouigemm"):
        files = modules(package)
        yield from files.values()
        if package in files and package != "ouikit":
            yield from native(files[package].parent).values()
    for run in runs:
        yield from (run / name for name in ("record.json", "executed.ipynb", "figures"))


def _versions() -> str:
    return " ".join(version(name) for name in ENGINE)


def outdated(record: Mapping[str, Any], root: Path) -> bool:
    """Whether today's code and today's records would not make this record's numbers by construction."""
    run = record["run"]
    try:
        older = record["made_by"].get("code") != Chapter(run["slug"], root).science_key()
        return older or inputs.changed(root, run.get("reads", {}))
    except UnknownNameError:
        return True
