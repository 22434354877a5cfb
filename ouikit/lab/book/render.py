"""Records and executed notebooks to a site: assemble the sources, build them with Jupyter Book.

Nothing is executed here. `assemble` writes one folder that holds everything the book needs, `digest` tells
whether it changed, `build` turns it into HTML that loads nothing from outside.
"""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, files, version
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from ouikit.lab import tables
from ouikit.lab.book import badges, cite, pages
from ouikit.lab.book.shelf import Entry, Shelf, read_shelf

MATHJAX = "sphinx-mathjax-offline"  # the package; the book needs one file of it
MATHJAX_SHA256 = "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"  # tex-svg.js of 3.2.2
LAUNCH = ("repository", "launch_buttons")
LAUNCH_HTML = ("use_repository_button", "use_issues_button")


class BookError(RuntimeError):
    """The book cannot be built; the message holds the engine's own complaints."""


def assemble(
    root: Path,
    runs: Sequence[Path],
    out: Path,
    *,
    outdated: Callable[[Mapping[str, Any]], bool] = lambda record: False,
) -> None:
    """Write the book's sources to `out`, from nothing; the same inputs give the same bytes.

    Args:
        root: the repository, for `book/` and `chapters/`.
        runs: folders with `record.json`, `executed.ipynb` and `figures/`, one per chapter. A chapter without
            a run is shown unexecuted, and marked so.
        out: the folder to write.
        outdated: tells whether a record was made with code that is no longer today's.

    Raises:
        PaperError, RecordError, ValueError: for a source that is wrong, naming the file.
        BookError: if the packaged MathJax is missing or not the expected one.
    """
    shelf = read_shelf(root, runs, outdated)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(root / "book", out, ignore=shutil.ignore_patterns("results"))
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        if (root / name).exists():
            shutil.copy(root / name, out / name)
    _write_config(root / "book" / "_config.yml", shelf, out)
    _write_toc(root / "book" / "_toc.yml", shelf, out)
    _write_bibliography(shelf, out)
    _write_pages(shelf, out)
    for entry in shelf.entries:
        _write_chapter(root, entry, shelf, out)
    mathjax = out / "vendor" / "mathjax"
    mathjax.mkdir(parents=True)
    shutil.copy(_mathjax(), mathjax)


def _write_pages(shelf: Shelf, out: Path) -> None:
    generated = out / "generated"
    generated.mkdir()
    (generated / "summary.md").write_text(pages.summary(shelf))
    (generated / "cards.md").write_text(pages.cards(shelf))
    for page in (pages.results, pages.status, pages.gallery, pages.benchmarks):
        (out / f"{page.__name__}.md").write_text(page(shelf))


def _write_config(source: Path, shelf: Shelf, out: Path) -> None:
    """Without a repository address no button may point there."""
    config = yaml.safe_load(source.read_text())
    if not shelf.repository.url:
        for key in LAUNCH:
            config.pop(key, None)
        for key in LAUNCH_HTML:
            config.get("html", {}).pop(key, None)
    (out / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def _write_toc(source: Path, shelf: Shelf, out: Path) -> None:
    """The papers come first: a part for each area that has chapters."""
    toc = yaml.safe_load(source.read_text())
    parts = [
        {
            "caption": area.capitalize(),
            "chapters": [{"file": f"chapters/{entry.paper.slug}"} for entry in entries],
        }
        for area, entries in groupby(shelf.entries, key=lambda entry: entry.paper.area)
    ]
    toc["parts"] = parts + toc["parts"]
    (out / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False, allow_unicode=True))


def _write_bibliography(shelf: Shelf, out: Path) -> None:
    papers = [entry.paper for entry in shelf.entries]
    (out / "papers.bib").write_text("\n".join(cite.bibtex(one.slug, one.citation) for one in papers))


def _write_chapter(root: Path, entry: Entry, shelf: Shelf, out: Path) -> None:
    """The chapter's page, its figures, and its downloads."""
    slug = entry.paper.slug
    source = root / "chapters" / f"{slug}.ipynb"
    executed = entry.fresh.folder / "executed.ipynb" if entry.fresh else None
    (out / "chapters").mkdir(exist_ok=True)
    downloads = out / "vendor" / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    notebook = json.loads(source.read_text())
    if executed:
        notebook = with_outputs(notebook, json.loads(executed.read_text()))
    notebook = with_pieces(
        notebook, badges.badge_line(entry, shelf.repository), pages.head_of(entry), pages.beside(entry)
    )
    (out / "chapters" / f"{slug}.ipynb").write_text(json.dumps(notebook, ensure_ascii=False, indent=1))
    (downloads / f"{slug}.bib").write_text(cite.bibtex(slug, entry.paper.citation))
    shutil.copy(source, downloads / f"{slug}.ipynb")
    if entry.fresh and executed:
        shutil.copy(executed, downloads / f"{slug}-executed.ipynb")
        shutil.copy(entry.fresh.folder / "record.json", downloads / f"{slug}-record.json")
    for one in entry.published:
        figures = out / "vendor" / "figures" / slug / one.scale
        figures.mkdir(parents=True, exist_ok=True)
        for figure in one.record["result"]["figures"]:
            for theme in ("light", "dark"):
                shutil.copy(one.folder / figure[theme], figures / f"{figure['name']}-{theme}.svg")


def with_outputs(source: dict[str, Any], executed: Mapping[str, Any]) -> dict[str, Any]:
    """Today's notebook with the outputs of a run of its code: a corrected sentence needs no new run."""
    ran = {cell["id"]: cell for cell in executed["cells"] if cell["cell_type"] == "code"}
    cells = [
        {**cell, "outputs": ran[cell["id"]]["outputs"]}
        if cell["cell_type"] == "code" and cell["id"] in ran
        else cell
        for cell in source["cells"]
    ]
    return {**source, "cells": cells}


def with_pieces(notebook: dict[str, Any], badge: str, head: str, beside: str) -> dict[str, Any]:
    """The notebook with what is generated from records.

    The badge line stands under the title, `head` at the end of "In one minute", the larger scales (`beside`)
    before "Try it yourself".
    """
    cells = [dict(cell, source="".join(cell["source"])) for cell in notebook["cells"]]
    for cell in cells:
        first, _, rest = cell["source"].partition("\n")
        if cell["cell_type"] == "markdown" and first.startswith("# "):
            cell["source"] = f"{first}\n{pages.block(badge)}\n{rest}"
            break
    for name, text, before in (
        ("headline", head, "## What the paper claims"),
        ("published-beside", beside, "## Try it yourself"),
    ):
        spots = [i for i, cell in enumerate(cells) if cell["source"].startswith(before)]
        if text:
            piece = {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}
            cells.insert(spots[0] if spots else len(cells), piece)
    return {**notebook, "cells": cells}


def _mathjax() -> Path:
    """The one MathJax file, from the installed package."""
    try:
        found = [path for path in files(MATHJAX) or [] if path.name == "tex-svg.js"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise BookError(f"MathJax is not installed: pip install {MATHJAX} (part of the `book` extra)")
    path = Path(str(found[0].locate()))
    if hashlib.sha256(path.read_bytes()).hexdigest() != MATHJAX_SHA256:
        raise BookError(f"{path} is not MathJax 3.2.2's tex-svg.js; reinstall {MATHJAX}")
    return path


def digest(inputs: Iterable[Path], more: str = "") -> str:
    """16 hex digits over the names and bytes of files, and of all files below folders, and over `more`."""
    total = hashlib.sha256(more.encode())
    for given in inputs:
        below = sorted(given.rglob("*")) if given.is_dir() else [given]
        for path in below:
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(given).as_posix() if given.is_dir() else path.name
                total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return total.hexdigest()[:16]


def mirror(fresh: Path, kept: Path) -> None:
    """Make `kept` equal to `fresh`, leaving alone every file that is equal already."""
    wanted = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    for path in [path for path in kept.rglob("*") if path.is_file()]:
        if path.relative_to(kept) not in wanted:
            path.unlink()
    for name in sorted(wanted):
        target = kept / name
        if not target.is_file() or target.read_bytes() != (fresh / name).read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(fresh / name, target)


def build(assembled: Path, html: Path, work: Path) -> None:
    """Build the assembled book into `html`, warnings as errors; a failed build leaves the old site alone.

    Args:
        assembled: the sources.
        html: the site, replaced as a whole at the end.
        work: what the engine keeps to read only changed pages again. Made anew when something changed that
            every page shows (configuration, contents, titles, style), and after whatever went wrong: what was
            warned of once would not be again.

    Raises:
        BookError: with every warning and error of the engine.
    """
    frame, stamp = _frame(assembled), work / "frame.digest"
    if not stamp.exists() or stamp.read_text() != frame:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    try:
        _run_engine(assembled, work)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    stamp.write_text(frame)
    built = work / "_build" / "html"
    vendor = assembled / "vendor"
    for path in [p for top in ("figures", "downloads") for p in (built / top).rglob("*") if p.is_file()]:
        if not (vendor / path.relative_to(built)).exists():  # of a figure that is no longer shown
            path.unlink()
    html.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=html.parent, prefix=".book-") as scratch:
        shutil.copytree(built, Path(scratch) / "new")
        with signals_held_back():  # between the two renames there is no site
            if html.exists():
                html.rename(Path(scratch) / "old")
            (Path(scratch) / "new").rename(html)


def _frame(assembled: Path) -> str:
    """Digest of what is repeated on every page: configuration, contents, style, and the pages' titles."""
    fixed = [assembled / name for name in ("_config.yml", "_toc.yml", "_static")]
    pages = sorted(path for path in assembled.rglob("*") if path.suffix in (".md", ".ipynb"))
    titles = [_title(path) for path in pages if "vendor" not in path.relative_to(assembled).parts]
    return digest(fixed, "\n".join([version("sphinx-book-theme"), *titles]))


def _title(page: Path) -> str:
    """The first heading of a page."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        text = "".join(json.loads(text)["cells"][0]["source"])
    found = re.search(r"^# .*$", text, re.MULTILINE)
    return found[0] if found else ""


def _run_engine(assembled: Path, work: Path) -> None:
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "-W", "-n", "--keep-going"]
    done = subprocess.run(
        [*command, "--path-output", str(work), str(assembled)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BookError(f"the book does not build ({assembled}):\n{_complaints(done.stdout + done.stderr)}")


@contextmanager
def signals_held_back() -> Iterator[None]:
    """SIGINT and SIGTERM that come meanwhile, to whichever thread, are delivered at the end.

    Python runs handlers in the main thread alone, so in any other one there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda number, _: came.append(number)) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)
        for number in came:
            signal.raise_signal(number)


def _complaints(log: str) -> str:
    """The lines of a build log that say what is wrong; its end where none does."""
    lines = tables.uncoloured(log).splitlines()
    wrong = [line for line in lines if any(word in line for word in ("WARNING", "ERROR", "CRITICAL"))]
    return "\n".join(dict.fromkeys(wrong) or lines[-30:])
