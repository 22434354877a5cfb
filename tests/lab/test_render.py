"""Records to pages: what a reader sees of complete, damaged, contradicted and missing records."""

import json
import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from pybtex.database import parse_file, parse_string

from ouikit.lab import tables
from ouikit.lab.book import badges, cite, headline, pages, publish_book, render
from ouikit.lab.book.render import assemble, digest, with_pieces
from ouikit.lab.book.shelf import Repository, Shelf, complete, read_papers, read_shelf
from ouikit.lab.paper import AREAS, Citation, PaperError

BOOK = Path(__file__).parents[2] / "book"
TITLE = "A study of gates"
PAPER = {
    "paper": {"title": TITLE, "authors": ["Ana Gómez", "Lee Wu"], "year": 2025, "arxiv": "2501.00001"},
    "area": AREAS[0],
    "evidence": "measured",
    "idea": "Gates tell <early> & cheaply.",
    "scales": {"reduced": {}, "extended": {"epochs": 60}},
    "claims": [
        {
            "id": "rise",
            "says": "Gates rise",
            "where": "Table 1",
            "source": "text",
            "metric": "rise",
            "null": 0,
            "at_reduced": {"greater": 0.1, "why": "half of the pilot"},
        }
    ],
    "not_tested": ["ImageNet: no data"],
}
CLAIM = {
    "id": "rise", "says": "Gates rise\n\nwith depth", "where": "Table 1", "metric": "rise",
    "paper": {"value": 0.71}, "predicate": "greater", "against": 0.1, "why": "half of the pilot",
    "value": 0.66, "low": 0.64, "high": 0.68, "n": 3, "verdict": "reproduced", "registered": "reproduced",
    "note": None,
}  # fmt: skip
RECORD: dict[str, Any] = {
    "schema": 1,
    "run": {
        "slug": "gates",
        "scale": "reduced",
        "parameters": {},
        "seeds": [0, 1, 2],
        "key": "0123456789abcdef",
    },
    "result": {
        "status": "ok",
        "claims": [CLAIM],
        "metrics": {},
        "figures": [
            {
                "name": "curve",
                "title": "Gates over time",
                "alt": 'A line that "rises"',
                "light": "figures/curve-light.svg",
                "dark": "figures/curve-dark.svg",
            }
        ],
        "cells": {"total": 30, "computed": 30, "cached": 0, "diverged": 2, "seconds": 192.0},
        "seconds": 41.0,
        "peak_memory_mb": 812.3,
    },
    "made_by": {
        "commit": "3f9c2d1aa00",
        "dirty": False,
        "versions": {"torch": "2.13.0"},
        "cpu": "A fast chip",
        "cores": 2,
        "threads": 1,
        "python": "3.11.7",
        "time": "2026-11-23T20:01:02Z",
    },
}


def notebook(*sources: str) -> dict[str, Any]:
    cells = [
        {"cell_type": "markdown", "id": str(i), "metadata": {}, "source": s} for i, s in enumerate(sources)
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def code_cell(outputs: list[Any]) -> dict[str, Any]:
    return {"cell_type": "code", "id": "c", "metadata": {}, "source": "run()", "outputs": outputs}


def write_run(folder: Path, record: dict[str, Any]) -> Path:
    (folder / "figures").mkdir(parents=True)
    for theme in ("light", "dark"):
        (folder / "figures" / f"curve-{theme}.svg").write_text(f"<svg>{theme}</svg>")
    (folder / "record.json").write_text(json.dumps(record))
    executed = notebook(f"# {TITLE}", "## Try it yourself")
    executed["cells"].append(code_cell(["what ran"]))
    (folder / "executed.ipynb").write_text(json.dumps(executed))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one chapter and the real book around it."""
    shutil.copytree(BOOK, tmp_path / "book", ignore=shutil.ignore_patterns("results"))
    (tmp_path / "chapters").mkdir()
    add_chapter(tmp_path, "gates", PAPER)
    (tmp_path / "CONTRIBUTING.md").write_text("# Add a paper\n")
    return tmp_path


def add_chapter(root: Path, slug: str, paper: dict[str, Any]) -> None:
    (root / "chapters" / f"{slug}.yaml").write_text(yaml.safe_dump(paper, sort_keys=False))
    story = notebook(
        f"# {TITLE}\nToday's words.", "## In one minute", "## What the paper claims", "## Try it yourself"
    )
    story["cells"].append(code_cell([]))
    (root / "chapters" / f"{slug}.ipynb").write_text(json.dumps(story))


def changed(**parts: dict[str, Any]) -> dict[str, Any]:
    record = deepcopy(RECORD)
    for part, values in parts.items():
        record[part] |= values
    return record


def shelf_of(root: Path, record: dict[str, Any] | None = RECORD, outdated: bool = False) -> Shelf:
    runs = [write_run(root / "run", record)] if record else []
    return read_shelf(root, runs, lambda _: outdated)


def chapter_text(out: Path) -> str:
    cells = json.loads((out / "chapters" / "gates.ipynb").read_text())["cells"]
    return "\n\n".join(cell["source"] for cell in cells)


def test_a_chapter_page_has_badges_under_its_title_and_its_downloads(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assemble(root, [write_run(root / "run", RECORD)], out)
    text = chapter_text(out)
    title, badge, rest = text.split("\n\n", 2)
    assert title == f"# {TITLE}"
    for fact in ("measured", "1 reproduced", "Reduced record", "2026-11-23 · commit 3f9c2d1 · 3.2 min"):
        assert fact in badge
    assert rest.strip().startswith("Today's words."), "prose is the notebook's of today"
    cells = json.loads((out / "chapters" / "gates.ipynb").read_text())["cells"]
    assert cells[-1]["outputs"] == ["what ran"], "outputs are the run's"
    assert (
        text.index("## In one minute") < text.index("ouikit-answer") < text.index("## What the paper claims")
    )
    downloads = {path.name for path in (out / "vendor" / "downloads").iterdir()}
    assert downloads == {"gates.ipynb", "gates-executed.ipynb", "gates-record.json", "gates.bib"}
    assert all(f"../downloads/{name}" in badge for name in downloads)
    assert (
        out / "vendor" / "figures" / "gates" / "reduced" / "curve-dark.svg"
    ).read_text() == "<svg>dark</svg>"
    assert (out / "vendor" / "mathjax" / "tex-svg.js").stat().st_size > 1e6


def test_a_committed_record_is_shown_beside_and_told_when_it_is_old(root: Path, tmp_path: Path) -> None:
    old = changed(
        run={"scale": "extended"}, result={"cells": RECORD["result"]["cells"] | {"seconds": 5400.0}}
    )
    write_run(root / "book" / "results" / "gates" / "extended", old)
    out = tmp_path / "out"
    assemble(root, [write_run(root / "run", RECORD)], out, outdated=lambda r: r["run"]["scale"] == "extended")
    text = chapter_text(out)
    assert (
        text.index("## Published beside")
        < text.index("### Extended scale")
        < text.index("## Try it yourself")
    )
    assert "Reduced record</b> (in the sections below)" in text
    assert "Extended record</b> (under “Published beside”)" in text
    old, new = text.index("Extended record"), text.index("Reduced record")
    assert new < old < text.index(badges.OLDER), "the mark stands on the extended record alone"
    assert "1.5 h" in text
    assert "../figures/gates/extended/curve-light.svg" in text
    assert badges.OLDER in (out / "results.md").read_text()
    assert not (out / "results").exists(), "records are rendered, not published as they lie"


def test_a_chapter_that_was_not_run_says_so(root: Path, tmp_path: Path) -> None:
    assemble(root, [], tmp_path / "out")
    text = chapter_text(tmp_path / "out")
    assert "not run yet" in text
    assert "Executed notebook" not in text
    assert "Reduced record</b>: run <code>make book</code>" in text
    assert "<code>ouikit run gates --scale reduced</code>" in (tmp_path / "out" / "results.md").read_text()


def test_without_an_address_nothing_points_to_a_repository(root: Path, tmp_path: Path) -> None:
    assemble(root, [write_run(root / "run", RECORD)], tmp_path / "out")
    config = yaml.safe_load((tmp_path / "out" / "_config.yml").read_text())
    assert not {"repository", "launch_buttons"} & config.keys()
    assert "use_repository_button" not in config["html"]
    assert "colab" not in chapter_text(tmp_path / "out").lower()


def test_with_an_address_colab_and_binder_open_the_source(root: Path, tmp_path: Path) -> None:
    config = root / "book" / "_config.yml"
    config.write_text(config.read_text().replace('url: ""', "url: https://github.com/us/papers.git"))
    assemble(root, [], tmp_path / "out")
    text = chapter_text(tmp_path / "out")
    assert "https://colab.research.google.com/github/us/papers/blob/main/chapters/gates.ipynb" in text
    assert "https://mybinder.org/v2/gh/us/papers/main?urlpath=lab/tree/chapters/gates.ipynb" in text
    assert "launch_buttons" in yaml.safe_load((tmp_path / "out" / "_config.yml").read_text())
    assert Repository("https://codeberg.org/us/papers", "main").colab("gates") is None


def test_the_area_of_a_chapter_decides_its_part_and_empty_parts_are_left_out(
    root: Path, tmp_path: Path
) -> None:
    for slug, area, order in (("late", AREAS[2], 1), ("early", AREAS[2], 0), ("last", AREAS[4], 0)):
        add_chapter(root, slug, PAPER | {"area": area, "order": order})
    assemble(root, [], tmp_path / "out")
    written = yaml.safe_load((root / "book" / "_toc.yml").read_text())["parts"]
    parts = yaml.safe_load((tmp_path / "out" / "_toc.yml").read_text())["parts"]
    assert parts[3:] == written
    assert [(part["caption"], [c["file"] for c in part["chapters"]]) for part in parts[:3]] == [
        ("Activation patterns", ["chapters/gates"]),
        ("Federated learning", ["chapters/early", "chapters/late"]),
        ("Matrix multiplication", ["chapters/last"]),
    ]


def test_the_same_inputs_give_the_same_digest_and_a_change_another(root: Path, tmp_path: Path) -> None:
    runs = [write_run(root / "run", RECORD)]
    digests = []
    for _ in range(2):
        assemble(root, runs, tmp_path / "out")
        digests.append(digest([tmp_path / "out"]))
    (tmp_path / "out" / "stale.md").write_text("left over")
    (root / "book" / "cite.md").write_text("# Cite differently\n")
    assemble(root, runs, tmp_path / "out")
    assert digests[0] == digests[1] != digest([tmp_path / "out"])
    assert not (tmp_path / "out" / "stale.md").exists()


def test_digest_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = digest([tmp_path])
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = digest([tmp_path])
    (tmp_path / "b").write_text("2")
    assert len({first, renamed, digest([tmp_path])}) == 3
    assert digest([tmp_path / "b"]) != digest([tmp_path / "b", tmp_path / "b"])


def test_results_show_the_paper_beside_ours(root: Path) -> None:
    text = pages.results(shelf_of(root))
    for part in (
        "Gates rise with depth",
        ">0.71<",
        "0.66 [0.64, 0.68], n&nbsp;=&nbsp;3",
        "2026-11-23",
        "ImageNet: no data",
    ):
        assert part in text
    row = text[text.index("Gates rise with depth") :]
    assert row.index("verdict-reproduced") < row.index("</tr>")


def test_a_contradicted_claim_keeps_its_note(root: Path) -> None:
    bad = {**CLAIM, "verdict": "contradicted", "note": "it falls & falls"}
    shelf = shelf_of(root, changed(result={"claims": [bad]}))
    assert "it falls &amp; falls" in pages.results(shelf)
    for text in (
        pages.summary(shelf),
        pages.cards(shelf),
        badges.badge_line(shelf.entries[0], shelf.repository),
    ):
        assert "1 contradicted" in text
        assert "reproduced" not in text


def test_an_end_that_rounding_keeps_from_zero_is_zero_and_a_small_number_is_not() -> None:
    assert tables.ours({"value": 0.125, "low": -1.39e-17, "high": 0.25, "n": 8}) == "0.125 [0, 0.25], n = 8"
    assert tables.ours({"value": 2e-16, "low": 1e-16, "high": 3e-16, "n": 8}) == "2e−16 [1e−16, 3e−16], n = 8"


def test_a_caption_has_words_where_the_figure_has_a_formula() -> None:
    title = r"convnet12, $\lambda_0$ = 1.0 & $\Delta w$ of $5"
    assert tables.plain(title) == "convnet12, λ₀ = 1.0 & Δ w of $5"
    shown = tables.figure("<svg/>", "<svg/>", title, "alt", pd.DataFrame())
    assert "<figcaption>convnet12, λ₀ = 1.0 &amp; Δ w of $5<" in shown.html


@pytest.mark.parametrize(
    ("against", "words"),
    [
        ("a.low > 0.9", "interval above 0.9"),
        ("0.9 < a.low", "interval above 0.9"),
        ("a < -0.05", "interval below −0.05"),
        ("golden.error < 5.0e-8", "interval below 5e−08"),
        ("0.25 < a < 0.5", "interval above 0.25 and below 0.5"),
        ("0 > a", "interval below 0"),
        ("a_start>b.best > 0.1", "its start > its best > 0.1"),
        ("b.best > 0 < other", "its best > 0 < other"),
    ],
)
def test_an_order_reads_as_words(against: str, words: str) -> None:
    names = {"a_start": "its start", "b.best": "its best"}
    assert tables.in_words("order", against, names) == words


def test_no_page_prints_the_key_of_a_metric(root: Path) -> None:
    names = {"rise": "the rise of gates", "fall.of_all": "their fall"}
    test = {"order": "rise > fall.of_all", "why": "x"}
    claim = PAPER["claims"][0] | {"at_reduced": test}
    add_chapter(root, "gates", PAPER | {"claims": [claim], "names": names})
    judged = {**CLAIM, "predicate": "order", "against": test["order"]}
    write_run(root / "book" / "results" / "gates" / "extended", changed(result={"claims": [judged]}))
    shelf = shelf_of(root, changed(result={"claims": [judged]}))
    text = pages.results(shelf)
    assert text.count("the rise of gates &gt; their fall") == 2
    assert "the rise of gates &gt; their fall" in pages.beside(shelf.entries[0])
    assert "fall.of_all" not in text + pages.status(shelf) + pages.gallery(shelf)
    assert f"## {TITLE}, reduced scale" in pages.status(shelf)


def test_a_verdict_by_a_hair_is_marked_wherever_it_stands(root: Path) -> None:
    close = changed(result={"claims": [CLAIM | {"fragile": True}]})
    shelf = shelf_of(root, close)
    for page in (pages.results(shelf), pages.head_of(shelf.entries[0])):
        assert '>reproduced</span> <span class="ouikit-pill ouikit-fragile"' in page
    assert tables.line(CLAIM | {"fragile": True}).endswith("(paper: 0.71), fragile")
    assert "fragile" not in tables.claims([CLAIM], "reduced").html


def test_claims_that_a_scale_does_not_test_are_folded_away() -> None:
    untested = {**CLAIM, "says": "Gates fall", "predicate": None, "why": None, "verdict": "not run"}
    shown = tables.claims([CLAIM, untested], "reduced")
    open_part, fold, folded = shown.html.partition("<details")
    assert "interval above 0.1" in open_part
    assert "Gates fall" not in open_part
    assert "1 of 2 claims" in folded
    assert "Gates fall" in folded
    assert tables.ours(untested) in folded.replace("&nbsp;", " ")
    assert "Gates fall" not in tables.claims([CLAIM], "reduced").html
    assert "not run" in shown.text
    assert not tables.claims([untested], "reduced").html.startswith("<table")
    assert fold


def test_the_largest_scale_that_tested_a_claim_counts(root: Path) -> None:
    other = PAPER["claims"][0] | {"id": "other"}
    add_chapter(root, "gates", PAPER | {"claims": [*PAPER["claims"], other]})
    untested = {**CLAIM, "id": "other", "verdict": "not run", "value": None}
    weak = changed(run={"scale": "extended"}, result={"claims": [{**CLAIM, "verdict": "weaker"}, untested]})
    write_run(root / "book" / "results" / "gates" / "extended", weak)
    shelf = shelf_of(root, changed(result={"claims": [CLAIM, {**untested, "verdict": "inconclusive"}]}))
    text = pages.summary(shelf)
    assert "1 weaker" in text
    assert "1 inconclusive" in text
    assert "reproduced" not in text
    assert "<b>2</b> claims of the papers" in text


def test_the_badge_line_names_the_widest_scale_with_its_contradictions(root: Path) -> None:
    other = PAPER["claims"][0] | {"id": "other"}
    add_chapter(root, "gates", PAPER | {"claims": [*PAPER["claims"], other]})
    against = changed(
        run={"scale": "extended"},
        result={
            "claims": [{**CLAIM, "verdict": "contradicted"}, {**CLAIM, "id": "other", "verdict": "not run"}]
        },
    )
    write_run(root / "book" / "results" / "gates" / "extended", against)
    shelf = shelf_of(root, changed(result={"claims": [CLAIM, {**CLAIM, "id": "other", "verdict": "weaker"}]}))
    badge = badges.badge_line(shelf.entries[0], shelf.repository)
    for text in (badge, pages.cards(shelf), pages.results(shelf).partition("<details")[2]):
        seen = re.findall(r">(\w+ scale|\d \w+)<", text.partition("</summary>")[0])
        assert seen[:4] == ["Extended scale", "1 contradicted", "Reduced scale", "1 weaker"]
    assert "reproduced" not in badge


def test_controls_and_checks_are_never_counted_as_the_papers(root: Path) -> None:
    control = PAPER["claims"][0] | {"id": "control", "source": "ours"}
    add_chapter(root, "gates", PAPER | {"claims": [*PAPER["claims"], control]})
    shelf = shelf_of(
        root, changed(result={"claims": [{**CLAIM, "verdict": "weaker"}, {**CLAIM, "id": "control"}]})
    )
    theirs, ours = pages.summary(shelf).split("Apart from these, 1 controls")
    assert "<b>1</b> claim of the papers" in theirs
    assert ("1 weaker" in theirs, "reproduced" in theirs, "1 reproduced" in ours) == (True, False, True)
    for text in (pages.cards(shelf), badges.badge_line(shelf.entries[0], shelf.repository)):
        assert ("1 weaker" in text, "reproduced" in text) == (True, False)
    folded = pages.results(shelf)
    assert folded.index("A study of gates</b>") < folded.index("Controls and checks of our own")


def test_a_strip_is_to_scale() -> None:
    drawn = headline.strip(
        CLAIM | {"predicate": "within", "against": [0.0, 1.0], "low": 0.25, "value": 0.5, "high": 0.75}
    )
    # from -0.12 to 1.12 on the 140 px between the edges: 0 at 5 + 0.12 / 1.24 * 140
    assert '<rect class="holds" x="18.5"' in drawn
    assert 'x1="46.8" x2="103.2"' in drawn
    assert 'cx="75.0"' in drawn
    assert 'class="paper"' in drawn
    assert "interval reproduced" in drawn
    assert headline.strip(CLAIM | {"predicate": "order", "against": "rise > fall"}) == ""
    assert headline.strip(CLAIM | {"value": None}) == ""


def test_the_head_of_a_chapter_is_what_its_yaml_names(root: Path) -> None:
    claims = [
        PAPER["claims"][0] | {"id": name, "source": source, "says": name}
        for name, source in (
            ("a", "ours"),
            ("b", "abstract"),
            ("c", "abstract"),
            ("d", "text"),
            ("e", "abstract"),
            ("f", "abstract"),
        )
    ]
    add_chapter(root, "gates", PAPER | {"claims": claims})
    found = [{**CLAIM, "id": claim["id"]} for claim in claims]
    (entry,) = shelf_of(root, changed(result={"claims": found})).entries
    assert [claim.id for claim in entry.paper.headlines] == ["b", "c", "e"]
    assert "curve-light.svg" in pages.head_of(entry)
    add_chapter(
        root, "gates", PAPER | {"claims": claims, "headline": {"claims": ["f", "a"], "figure": "none"}}
    )
    shutil.rmtree(root / "run")
    (entry,) = shelf_of(root, changed(result={"claims": found})).entries
    assert [claim.id for claim in entry.paper.headlines] == ["f", "a"]
    assert "<img" not in pages.head_of(entry)
    add_chapter(root, "gates", PAPER | {"headline": {"claims": ["g"], "figure": "curve"}})
    with pytest.raises(PaperError, match="headline: no claim 'g'"):
        read_papers(root)


def test_mirroring_leaves_equal_files_alone(tmp_path: Path) -> None:
    fresh, kept = tmp_path / "fresh", tmp_path / "kept"
    for folder, files in (
        (fresh, {"same": "1", "new/a": "2", "other": "3"}),
        (kept, {"same": "1", "other": "0", "old": "4"}),
    ):
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    os.utime(kept / "same", (1, 1))
    render.mirror(fresh, kept)
    assert {p.relative_to(kept).as_posix(): p.read_text() for p in kept.rglob("*") if p.is_file()} == {
        "same": "1",
        "new/a": "2",
        "other": "3",
    }
    assert (kept / "same").stat().st_mtime == 1


def test_the_engine_starts_only_when_something_changed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def engine(assembled: Path, work: Path) -> None:
        calls.append((work / "kept").exists())
        (work / "kept").touch()
        (work / "_build" / "html").mkdir(parents=True, exist_ok=True)
        (work / "_build" / "html" / "index.html").write_text((assembled / "cite.md").read_text())

    monkeypatch.setattr(render, "_run_engine", engine)
    (root / "ci").mkdir()
    (root / "ci" / "constraints.txt").write_text("torch==2.13.0\n")
    runs, html = [write_run(root / "run", RECORD)], tmp_path / "html"
    monkeypatch.setattr("ouikit.lab.book.outdated", lambda record, root: False)
    for _ in range(2):
        publish_book(root, runs, html)
    assert calls == [False]
    (root / "book" / "cite.md").write_text("# How to cite\n\nDifferently.\n")
    publish_book(root, runs, html)
    (root / "book" / "cite.md").write_text("# How to cite\n\nDifferently again.\n")
    publish_book(root, runs, html)
    assert calls[2] is True, "pages that did not change are not read again"
    assert "again" in (html / "index.html").read_text()
    (root / "book" / "cite.md").write_text("# Another title\n")
    publish_book(root, runs, html)
    assert calls[3] is False, "a title stands in the margin of every page"

    def stopped(assembled: Path, work: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(render, "_run_engine", stopped)
    (root / "book" / "cite.md").write_text("# Another title\n\nMore.\n")
    with pytest.raises(KeyboardInterrupt):
        publish_book(root, runs, html)
    assert (html / "index.html").read_text() == "# Another title\n"
    assert not (root / "build" / "sphinx").exists(), "half-read pages are not kept"


@pytest.mark.parametrize(
    "record",
    [
        {"schema": 1, "run": {"slug": "gates"}, "result": {}, "made_by": {}},
        changed(result={"claims": [dict.fromkeys(CLAIM) | {"id": "rise"}], "seconds": None, "cells": None}),
        changed(result={"peak_memory_mb": None, "figures": None}, made_by=dict.fromkeys(RECORD["made_by"])),
    ],
)
def test_missing_and_null_fields_leave_pages_standing(
    root: Path, tmp_path: Path, record: dict[str, Any]
) -> None:
    assemble(root, [write_run(root / "run", record)], tmp_path / "out")
    for name in ("results", "status", "gallery"):
        text = (tmp_path / "out" / f"{name}.md").read_text()
        assert TITLE in text or "gates" in text
        assert "None" not in text


def test_an_empty_laboratory_has_pages_too(root: Path) -> None:
    shelf = shelf_of(root, None)
    assert "Nothing has been run yet" in pages.status(shelf)
    assert "No figures yet" in pages.gallery(shelf)
    assert "None has been recorded yet" in pages.benchmarks(shelf)


def test_status_and_gallery_link_to_what_exists(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assemble(root, [write_run(root / "run", RECORD)], out)
    status, gallery = (out / "status.md").read_text(), (out / "gallery.md").read_text()
    for part in ("0123456789abcdef", "30, 2 diverged", "3.2 min", "torch 2.13.0", "A fast chip", "812"):
        assert part in status
    assert 'alt="A line that &quot;rises&quot;"' in gallery
    for theme in ("light", "dark"):
        place = f"figures/gates/reduced/curve-{theme}.svg"
        assert gallery.count(f'href="{place}"') == gallery.count(f'src="{place}"') == 1, "shown and linked"
        assert (out / "vendor" / place).exists()


def test_cards_show_chapters_by_area(root: Path) -> None:
    text = pages.cards(shelf_of(root))
    assert text.count('role="listitem"') == 1
    assert [line for line in text.splitlines() if line.startswith("### ")] == [f"### {AREAS[0].capitalize()}"]
    assert '<a href="chapters/gates.html">A study of gates</a>' in text
    assert "Gómez et al. 2025" in text
    assert "Gates tell &lt;early&gt; &amp; cheaply." in text


def test_the_bibliography_has_every_paper(root: Path, tmp_path: Path) -> None:
    assemble(root, [], tmp_path / "out")
    papers = parse_file(tmp_path / "out" / "papers.bib").entries
    assert set(papers) == {"gates"}
    assert papers["gates"].fields["eprint"] == "2501.00001"
    assert [str(person) for person in papers["gates"].persons["author"]] == ["Gómez, Ana", "Wu, Lee"]
    assert not set(papers) & set(parse_file(BOOK / "references.bib").entries)


def test_benchmarks_show_values_targets_and_the_machine(root: Path) -> None:
    rows = [
        {
            "name": "speed",
            "value": 2410,
            "low": 2300,
            "high": 2500,
            "n": 9,
            "unit": "×",
            "target": 1000,
            "met": True,
        },
        {"name": "cost", "value": None, "unit": "s", "target": "at most 0.05", "met": False, "note": "a < b"},
        {"name": "speed by day", "value": 7, "unit": "×", "target": None, "met": None, "detail": True},
    ]
    (root / "book" / "results" / "bench").mkdir(parents=True)
    file = root / "book" / "results" / "bench" / "oui.json"
    file.write_text(json.dumps({"rows": rows, "made_by": RECORD["made_by"]}))
    text = pages.benchmarks(shelf_of(root))
    for part in (
        "## oui",
        "2410 × [2300, 2500], n = 9",
        ">1000<",
        ">yes<",
        ">no<",
        "a &lt; b",
        "A fast chip",
    ):
        assert part in text
    shown, folded = text.split("<summary>In detail: 1 more rows</summary>")
    assert "speed by day" in folded
    assert "speed by day" not in shown
    assert "cost" not in folded
    file.write_text('{"made_by": {}}')
    with pytest.raises(ValueError, match=r"oui\.json: not a benchmark record"):
        read_shelf(root, [], lambda _: False)


def test_html_blocks_hold_no_blank_line() -> None:
    assert "\n\n" not in pages.block("<p>\n\nGates\n  rise</p>").strip()


def test_bibtex_is_one_entry_under_the_slug() -> None:
    paper = Citation(
        title="On {OUI}",
        authors=["Ana de Gómez", "Wu, Lee An", "and two others"],
        year=2025,
        venue="Letters 3",
    )
    text = cite.bibtex("gates", paper)
    assert text.startswith("@misc{gates,\n")
    assert "author = {Ana de Gómez and Wu, Lee An and others}" in text
    assert text.count("{") == text.count("}")
    entry = parse_string(text, "bibtex").entries["gates"]
    assert (entry.fields["title"], entry.fields["howpublished"]) == ("{On {OUI}}", "Letters 3")


def test_the_citation_file_follows_the_chapters_and_keeps_its_head(root: Path) -> None:
    file = root / "CITATION.cff"
    head = "cff-version: 1.2.0\n# a remark\ntitle: t\n"
    file.write_text(head + "references:\n- title: an old one\n")
    add_chapter(
        root,
        "younger",
        PAPER | {"paper": {"title": "T", "authors": ["Wu, Lee An", "and others"], "year": 2026}},
    )
    cite.refresh(file, read_papers(root))
    assert file.read_text().startswith(head)
    gates, younger = yaml.safe_load(file.read_text())["references"]
    assert gates["title"] == TITLE
    assert gates["authors"][0] == {"family-names": "Gómez", "given-names": "Ana"}
    assert gates["identifiers"] == [{"type": "other", "value": "arXiv:2501.00001"}]
    assert younger["authors"] == [{"family-names": "Wu", "given-names": "Lee An"}, {"name": "and others"}]
    assert "identifiers" not in younger
    before = file.read_text()
    cite.refresh(file, read_papers(root))
    assert file.read_text() == before
    cite.refresh(root / "nowhere.cff", read_papers(root))
    assert not (root / "nowhere.cff").exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(48.4, "48 s"), (192, "3.2 min"), (5400, "1.5 h"), (float("nan"), "time unknown")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert badges.duration(seconds) == text


def test_beside_goes_last_where_no_section_asks_for_it() -> None:
    nb = with_pieces(notebook("# T\nx", "tail"), "<p>badge</p>", "", "## Published beside")
    assert [cell["source"] for cell in nb["cells"]] == [
        "# T\n\n<p>badge</p>\n\nx",
        "tail",
        "## Published beside",
    ]


def test_complete_leaves_what_is_known() -> None:
    assert complete(RECORD)["result"]["claims"] == [CLAIM | {"note": None, "null": None, "fragile": False}]
    assert complete({})["made_by"]["cpu"] == "unknown hardware"


def test_the_file_behind_a_page_of_source_code_is_found_without_importing_it() -> None:
    code = """import sys
from ouikit.lab.book.source_pages import file_of
print(file_of(None, "ouikit.integrations.lightning"), file_of(None, "math"), file_of(None, "ouikit.no"))
sys.exit(", ".join({"lightning", "torch", "ouikit.integrations"} & sys.modules.keys()) or None)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path, *absent = done.stdout.split()
    assert Path(path) == BOOK.parent / "ouikit" / "integrations" / "lightning.py"
    assert absent == ["None", "None"]


def test_a_failed_build_tells_why_and_keeps_the_old_site(root: Path, tmp_path: Path) -> None:
    out, html = tmp_path / "out", tmp_path / "html"
    html.mkdir()
    (html / "index.html").write_text("yesterday's book")
    (out / "_static").mkdir(parents=True)
    (out / "_config.yml").write_text("title: t\nexecute: {execute_notebooks: 'off'}\n")
    (out / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    (out / "intro.md").write_text("# Intro\n\n[](nowhere.md)\n")
    with pytest.raises(render.BookError, match="nowhere") as error:
        render.build(out, html, tmp_path / "work")
    assert not (tmp_path / "work").exists(), "a warning would not come twice"
    assert "\x1b" not in str(error.value)
    assert (html / "index.html").read_text() == "yesterday's book"


def test_mathjax_is_the_pinned_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert render._mathjax().name == "tex-svg.js"
    monkeypatch.setattr(render, "MATHJAX_SHA256", "0" * 64)
    with pytest.raises(render.BookError, match=r"not MathJax 3\.2\.2"):
        render._mathjax()
    monkeypatch.setattr(render, "MATHJAX", "no-such-package")
    with pytest.raises(render.BookError, match="pip install no-such-package"):
        render._mathjax()
