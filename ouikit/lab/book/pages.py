"""Records to pages: pure functions from the shelf to MyST Markdown."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ouikit.lab import tables
from ouikit.lab.book import headline
from ouikit.lab.book.badges import (
    cost,
    counted,
    facts,
    heading,
    older,
    pill,
    verdict_counts,
    verdicts_at,
)
from ouikit.lab.book.cite import family_name
from ouikit.lab.book.shelf import Entry, Published, Shelf
from ouikit.lab.claims import VERDICTS
from ouikit.lab.paper import AREAS, OUR_OWN

MEANING = {
    "reproduced": "the whole interval supports the claim",
    "weaker": "the direction holds, the size does not",
    "inconclusive": "the interval allows both",
    "contradicted": "the interval excludes the claim",
    "not run": "not tested at this scale",
}
# The page has no list of its sections beside it, which leaves the width to its tables.
RESULTS = """---
html_theme.sidebar_secondary.remove: true
---
# Results

What each paper claims first, tested at the largest scale that was run: the paper's value, ours with its 95 %
interval and the number n of independent repetitions, and the verdict.
"""
KEY = (
    "In the strips the green field is where a test says <em>reproduced</em>, the dot and the bar are ours "
    "with the interval, the diamond is the paper's value. Each strip has its own scale."
)
BESIDE = """## Published beside

The sections above show the reduced record, and with it the mechanism. The runs below are of the same
notebook, took longer, and are kept with the sources.
"""
STATUS = """# Status

What was run, when, and with what. A run's *key* is a hash of its code, parameters, sources, lock and data: as
long as the key is the same, the run is not repeated.
"""
GALLERY = """# Gallery

Every figure of the book, for light and for dark pages. Choose one to see it large.
"""
BENCHMARKS = """# Benchmarks

Measured by `ouikit bench` and kept with the sources. Times depend on the machine that is named below each
table; ratios were taken in one process. MKL keeps its quickest code for Intel's CPUs: on others, a ratio
against it says little.
"""


def block(html: str) -> str:
    """An HTML block for a Markdown page: on one line, because a blank line would end it."""
    return f"\n{' '.join(html.split())}\n"


def summary(shelf: Shelf) -> str:
    """How far the collection is: how many papers, and each claim's verdict at its largest scale.

    Only what papers say is counted as theirs; our controls and checks stand apart.
    """
    papers, ours = counted(shelf.entries)
    many = f"<b>{len(papers)}</b> claim{'' if len(papers) == 1 else 's'} of the papers"
    words = f"<b>{len(shelf.entries)}</b> papers · {many}, each at the widest scale that tested it:"
    text = f'<p class="ouikit-summary"><span>{words}</span> {verdict_counts(papers)}</p>'
    if ours:
        text += (
            f'<p class="ouikit-summary ouikit-made"><span>Apart from these, {len(ours)} controls and checks '
            f"of our own:</span> {verdict_counts(ours)}</p>"
        )
    return block(text)


def cards(shelf: Shelf) -> str:
    """A card per paper with its figure, by area."""
    text = ""
    for area in AREAS:
        done = [_card(entry) for entry in shelf.entries if entry.paper.area == area]
        if done:
            text += f"\n### {area.capitalize()}\n"
            text += block(f'<div class="ouikit-cards" role="list">{"".join(done)}</div>')
    return text


def _card(entry: Entry) -> str:
    paper = entry.paper
    found = headline.figure(entry)
    picture = _images(*found, "", hidden=True) if found else ""
    who = f"{family_name(paper.authors[0])} {'et al. ' if len(paper.authors) > 1 else ''}{paper.year}"
    return (
        f'<div class="ouikit-card" role="listitem">{picture}<p class="ouikit-card-title">'
        f'<a href="chapters/{paper.slug}.html">{escape(paper.title)}</a></p>'
        f'<p class="ouikit-who">{escape(who)}</p><p>{escape(paper.idea)}</p>'
        f'<p class="ouikit-card-foot">{verdicts_at(entry)}</p></div>'
    )


def results(shelf: Shelf) -> str:
    """The headline claims of every paper in one table, then every claim at every scale, folded by paper."""
    legend = "".join(f"<li>{tables.verdict(name)} {MEANING[name]}</li>" for name in VERDICTS)
    legend += f"<li>{pill('fragile', 'ouikit-fragile')} {tables.FRAGILE}</li>"
    bodies = "".join(_headline_rows(entry) for entry in shelf.entries)
    head = "".join(f'<th scope="col">{name}</th>' for name in HEAD)
    return (
        RESULTS
        + summary(shelf)
        + block(f'<p class="ouikit-made"><span>{KEY}</span></p>')
        + block(
            f'<table class="ouikit-table ouikit-headlines"><thead><tr>{head}</tr></thead>{bodies}</table>'
        )
        + "\n## Every claim, paper by paper\n"
        + block("".join(_folded(entry) for entry in shelf.entries))
        + block(f'<ul class="ouikit-legend">{legend}</ul>')
    )


HEAD = ("Claim", "The paper", "Ours", "Verdict")


def _headline_rows(entry: Entry) -> str:
    """One paper's part of the table: a line with its title, and its headline claims."""
    paper = entry.paper
    judged = [headline.widest(entry, claim) for claim in paper.headlines]
    shown = {one.shown.scale: one.shown for one in judged if one.shown}
    scales = " ".join(f"{heading(scale)} scale {older(one)}" for scale, one in shown.items())
    title = f'<a href="chapters/{paper.slug}.html">{escape(paper.title)}</a>'
    row = f'<tr><th colspan="4" scope="rowgroup">{title} <small>{scales or "not run yet"}</small></th></tr>'
    return f"<tbody>{row}{''.join(_row(headline.cells(one)) for one in judged)}</tbody>"


def _row(cells: Sequence[str]) -> str:
    return (
        "<tr>" + "".join(f'<td data-label="{h}">{c}</td>' for h, c in zip(HEAD, cells, strict=True)) + "</tr>"
    )


def _folded(entry: Entry) -> str:
    """Everything about one paper's claims, closed until a reader opens it."""
    paper = entry.paper
    inside = "".join(_record_claims(one, entry) for one in reversed(headline.by_scale(entry)))
    ran = {one.scale for one in entry.published}
    for scale in paper.scales:
        if scale not in ran:
            command = f"ouikit run {paper.slug} --scale {scale}"
            inside += f"<p><b>{heading(scale)} scale</b>: not run yet: <code>{command}</code></p>"
    if paper.not_tested:
        items = "".join(f"<li>{escape(what)}</li>" for what in paper.not_tested)
        inside += f"<p><b>Not tested at any scale</b></p><ul>{items}</ul>"
    papers, ours = counted([entry])
    words = f"{len(papers)} claims of the paper, {len(ours)} controls and checks of ours"
    return (
        f'<details class="ouikit-folded ouikit-paper"><summary><b>{escape(paper.title)}</b> '
        f'{verdicts_at(entry)} <span class="ouikit-who">{words}</span></summary>{inside}'
        f'<p><a href="chapters/{paper.slug}.html">Read the chapter</a></p></details>'
    )


def _record_claims(one: Published, entry: Entry) -> str:
    """A record's claims: what the paper says, then, apart, what we added."""
    own = {claim.id for claim in entry.paper.claims if claim.source in OUR_OWN}
    text = f'<p class="ouikit-made"><span><b>{heading(one.scale)} scale</b>: {facts(one)}</span></p>'
    for name, chosen in (
        ("", [claim for claim in one.claims if claim["id"] not in own]),
        ("Controls and checks of our own", [claim for claim in one.claims if claim["id"] in own]),
    ):
        if chosen:
            text += f"<p><b>{name}</b></p>" if name else ""
            text += tables.claims(chosen, one.scale, entry.paper.names).html
    return text


def head_of(entry: Entry) -> str:
    """The end of "In one minute": one figure and the headline claims; empty where nothing was run."""
    judged = [headline.widest(entry, claim) for claim in entry.paper.headlines]
    shown = [one.shown for one in judged if one.shown]
    if not shown:
        return ""
    found = headline.figure(entry)
    picture = _figure(*found, "../") if found else ""
    rows = "".join(_row(headline.cells(one)) for one in judged)
    head = "".join(f'<th scope="col">{name}</th>' for name in HEAD)
    records = {one.scale: one for one in [*shown, *([found[0]] if found else [])]}
    lines = " ".join(f"<b>{heading(scale)} record</b>: {facts(one)}" for scale, one in records.items())
    return block(
        f'<div class="ouikit-answer">{picture}<table class="ouikit-table ouikit-headlines"><thead><tr>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table>"
        f'<p class="ouikit-made"><span>{KEY}</span></p>'
        f'<p class="ouikit-made"><span>{lines}</span></p></div>'
    )


def beside(entry: Entry) -> str:
    """The committed records of the larger scales, for the chapter's page; empty where there is none."""
    if not entry.beside:
        return ""
    text = BESIDE
    for one in entry.beside:
        text += f"\n### {heading(one.scale)} scale\n" + block(f'<p class="ouikit-made">{facts(one)}</p>')
        words = f"All {len(one.claims)} lines at {escape(one.scale)} scale"
        table = tables.claims(one.claims, one.scale, entry.paper.names).html
        text += block(f'<details class="ouikit-folded"><summary>{words}</summary>{table}</details>')
        text += block(_thumbnails(one, "../"))
    return text


def status(shelf: Shelf) -> str:
    """When each record was made, how long it took, with what, and on which machine."""
    made = [(entry.paper, one) for entry in shelf.entries for one in entry.published]
    rows = []
    for paper, one in made:
        result, by = one.record["result"], one.record["made_by"]
        cells = result["cells"]
        rows.append(
            (
                f'<a href="chapters/{one.slug}.html">{escape(paper.title)}</a> {older(one)}',
                escape(one.scale),
                escape(by["time"][:16].replace("T", " ") or "undated"),
                cost(result),
                f"{cells['total']}, {cells['diverged']} diverged",
                f"<code>{escape(one.record['run']['key'])}</code>",
            )
        )
    head = ("Chapter", "Scale", "Made (UTC)", "Took", "Cells", "Key")
    table = tables.grid(head, rows, "ouikit-status") if rows else "<p>Nothing has been run yet.</p>"
    text = STATUS + block(table)
    for paper, one in made:
        text += f"\n## {paper.title}, {one.scale} scale\n" + block(tables.provenance(one.record).html)
    return text


def gallery(shelf: Shelf) -> str:
    """Every figure of every record, small, with its chapter."""
    text = GALLERY
    for entry in shelf.entries:
        text += f"\n## {entry.paper.title}\n\n[Read the chapter](chapters/{entry.paper.slug}.ipynb)\n"
        shown = [
            block(f'<p class="ouikit-made">{heading(one.scale)} scale</p>{small}')
            for one in reversed(headline.by_scale(entry))
            if (small := _thumbnails(one, ""))
        ]
        text += "".join(shown) or "\nNo figures yet.\n"
    return text


def _thumbnails(one: Published, up: str) -> str:
    """A grid of a record's figures; each links to the full image of its theme, without any script."""
    figures = one.record["result"]["figures"]
    if not figures:
        return ""
    small = "".join(_thumbnail(one, figure, up) for figure in figures)
    return f'<div class="ouikit-gallery">{small}</div>'


def _thumbnail(one: Published, figure: Mapping[str, Any], up: str) -> str:
    place = f"{up}figures/{one.slug}/{one.scale}/{figure['name']}"
    links = "".join(
        f'<a class="only-{theme}"{style} href="{place}-{theme}.svg">'
        f'<img loading="lazy" alt="{escape(figure["alt"])}" src="{place}-{theme}.svg"></a>'
        for theme, style in (("light", ""), ("dark", ' style="display:none"'))
    )
    caption = f"<figcaption>{escape(tables.plain(figure['title']))}</figcaption>"
    return f'<figure class="ouikit-figure ouikit-thumbnail">{links}{caption}</figure>'


def _figure(one: Published, figure: Mapping[str, Any], up: str) -> str:
    caption = f"<figcaption>{escape(tables.plain(figure['title']))}</figcaption>"
    return f'<figure class="ouikit-figure">{_images(one, figure, up)}{caption}</figure>'


def _images(one: Published, figure: Mapping[str, Any], up: str, hidden: bool = False) -> str:
    """Both themes of a figure; `hidden` where the words beside it already say what it shows."""
    alt = "" if hidden else escape(figure["alt"])
    folder = f"{up}figures/{one.slug}/{one.scale}"
    return "".join(
        f'<img class="only-{theme}" alt="{alt}"{style} src="{folder}/{figure["name"]}-{theme}.svg">'
        for theme, style in (("light", ""), ("dark", ' style="display:none"'))
    )


def benchmarks(shelf: Shelf) -> str:
    """What `ouikit bench` measured, against the target that each figure was given."""
    text = BENCHMARKS
    for name, bench in shelf.benchmarks.items():
        made = bench["made_by"]
        words = f"{made['time'][:10] or 'undated'} · {made['cpu']} · {tables.threads(made)}"
        table = _bench_table([row for row in bench["rows"] if not row.get("detail")])
        if details := [row for row in bench["rows"] if row.get("detail")]:
            more = f"<summary>In detail: {len(details)} more rows</summary>{_bench_table(details)}"
            table += f'<details class="ouikit-folded">{more}</details>'
        text += f"\n## {name}\n" + block(table) + block(f'<p class="ouikit-made">{escape(words)}</p>')
    return text if shelf.benchmarks else text + "\nNone has been recorded yet.\n"


def _bench_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("Measure", "Value", "Target", "Met", "Note")
    return tables.grid(head, [_bench_row(row) for row in rows], "ouikit-bench")


def _bench_row(row: Mapping[str, Any]) -> Sequence[str]:
    plain = tables.number(row.get("value"))
    value = tables.ours(row).replace(plain, f"{plain} {row.get('unit') or ''}".strip(), 1)
    met = "–" if row.get("met") is None else "yes" if row["met"] else "no"
    target = row.get("target")
    goal = tables.number(target) if isinstance(target, int | float) else str(target or "–")
    return [escape(str(cell)) for cell in (row["name"], value, goal, met, row.get("note") or "")]
