"""`ouikit book`: from run folders to the site, doing nothing when nothing changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ouikit.lab.book import cite
from ouikit.lab.book.render import assemble, build, digest
from ouikit.lab.book.shelf import read_papers
from ouikit.lab.chapter import Chapter, UnknownNameError


def publish_book(root: Path, runs: Sequence[Path], html: Path) -> Path:
    """Assemble the book's sources and build them, unless the site of the same sources is there.

    The references of `CITATION.cff` are brought up to date first.

    Raises:
        BookError: with Sphinx's complaints; a warning is an error.
    """
    cite.refresh(root / "CITATION.cff", read_papers(root))
    sources = root / "build" / "book"
    assemble(root, runs, sources, outdated=lambda record: outdated(record, root))
    # The API pages are made from the package itself.
    wanted = digest([sources, root / "ouikit"])
    stamp = html.with_name(f"{html.name}.digest")
    if not (html / "index.html").exists() or not stamp.exists() or stamp.read_text() != wanted:
        stamp.unlink(missing_ok=True)
        build(sources, html)
        stamp.write_text(wanted)
    return html


def outdated(record: Mapping[str, Any], root: Path) -> bool:
    """Whether today's code would not make this record's numbers by construction."""
    try:
        return record["made_by"].get("code") != Chapter(record["run"]["slug"], root).science_key()
    except UnknownNameError:
        return True
