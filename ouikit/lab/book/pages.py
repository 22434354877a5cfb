"""Records to pages: pure functions from the shelf to MyST Markdown."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ouikit.lab import tables
from ouikit.lab.book.badges import cost, older, pill, verdict_counts
from ouikit.lab.book.cite import family_name
from ouikit.lab.book.shelf import Entry, Published, Shelf
from ouikit.lab.claims import VERDICTS
from ouikit.lab.paper import AREAS, Planned

MEANING = {
    "reproduced": "the whole interval supports the claim",
    "weaker": "the direction holds, the size does not",
    "inconclusive": "the interval allows both",
    "contradicted": "the interval excludes the claim",
    "not run": "not tested at this scale",
}
RESULTS = """# Results

Every claim of every paper, at every scale that was run: the value in the paper, ours with its 95 % interval
and the number n of independent repetitions, the test with its reason, the verdict.
"""
BESIDE = """## Published beside

The reduced run above shows the mechanism. These runs of the same notebook took longer; they are kept with the
sources.
"""
STATUS = """# Status

What was run, when, and with what. A run's *key* is a hash of its code, parameters, sources, lock and data: as
long as the key is the same, the run is not repeated.
"""
GALLERY = """# Gallery

Every figure of the book. Each exists for light and for dark pages.
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
    """How far the collection is: papers done and planned, and each claim's verdict at its largest scale."""
    claims = [claim for entry in shelf.entries for claim in _widest(entry)]
    done, total = len(shelf.entries), len(shelf.entries) + len(shelf.planned)
    count = f"<b>{done}</b> of {total} papers · <b>{len(claims)}</b> claim{'' if len(claims) == 1 else 's'}"
    return block(f'<p class="ouikit-summary"><span>{count}</span> {verdict_counts(claims)}</p>')


def _widest(entry: Entry) -> list[dict[str, Any]]:
    """Each claim once, from the largest scale that tested it."""
    best: dict[str, dict[str, Any]] = {}
    scales = list(entry.paper.scales)
    for one in sorted(entry.published, key=lambda p: scales.index(p.scale) if p.scale in scales else -1):
        for claim in one.claims:
            if claim["verdict"] != "not run" or claim["id"] not in best:
                best[claim["id"]] = claim
    return list(best.values())


def cards(shelf: Shelf) -> str:
    """A card per paper, by area: chapters with their figure, papers to come with what they will test."""
    text = ""
    for area in AREAS:
        done = [_card(entry) for entry in shelf.entries if entry.paper.area == area]
        todo = [_planned_card(plan) for plan in shelf.planned if plan.area == area]
        if done or todo:
            text += f"\n### {area.capitalize()}\n"
            text += block(f'<div class="ouikit-cards" role="list">{"".join(done + todo)}</div>')
    return text


def _card(entry: Entry) -> str:
    paper = entry.paper
    shown = next((one for one in entry.published if one.record["result"]["figures"]), None)
    picture = _images(shown, shown.record["result"]["figures"][0], "", hidden=True) if shown else ""
    who = f"{family_name(paper.authors[0])} {'et al. ' if len(paper.authors) > 1 else ''}{paper.year}"
    verdicts = verdict_counts(_widest(entry)) or pill("not run yet")
    return (
        f'<div class="ouikit-card ouikit-done" role="listitem">{picture}<p class="ouikit-card-title">'
        f'<a href="chapters/{paper.slug}.html">{escape(paper.title)}</a></p>'
        f'<p class="ouikit-who">{escape(who)}</p><p>{escape(paper.idea)}</p>'
        f'<p class="ouikit-card-foot">{verdicts}</p></div>'
    )


def _planned_card(plan: Planned) -> str:
    return (
        f'<div class="ouikit-card" role="listitem"><p class="ouikit-card-title">{escape(plan.title)}</p>'
        f"<p>{escape(plan.tests)}</p>"
        f'<p class="ouikit-card-foot">{pill("planned")} {pill(str(plan.year))}</p></div>'
    )


def results(shelf: Shelf) -> str:
    """Every claim of every paper at every scale, the paper's value beside ours."""
    legend = "".join(f"<li>{tables.verdict(name)} {MEANING[name]}</li>" for name in VERDICTS)
    text = RESULTS + block(f'<ul class="ouikit-legend">{legend}</ul>') + summary(shelf)
    for entry in shelf.entries:
        text += f"\n## {entry.paper.title}\n\n[Read the chapter](chapters/{entry.paper.slug}.ipynb)\n"
        text += "".join(_record_claims(one, entry) for one in entry.published)
        ran = {one.scale for one in entry.published}
        for scale in entry.paper.scales:
            if scale not in ran:
                command = f"ouikit run {entry.paper.slug} --scale {scale}"
                text += f"\n### {scale.replace('_', ' ').capitalize()} scale\n\nNot run yet: `{command}`.\n"
        if entry.paper.not_tested:
            text += "\n### Not tested at any scale\n\n"
            text += "".join(f"- {what}\n" for what in entry.paper.not_tested)
    return text


def _heading(scale: str) -> str:
    """`Paper imagenet scale` of `paper_imagenet`."""
    return f"{scale.replace('_', ' ').capitalize()} scale"


def _record_claims(one: Published, entry: Entry) -> str:
    """A record's claims below a heading with scale and date."""
    made = f"{one.date} · {cost(one.record['result'])} · {one.record['made_by']['cpu']}"
    facts = f"{verdict_counts(one.claims)} <span>{escape(made)}</span> {older(one)}"
    return (
        f"\n### {one.scale.replace('_', ' ').capitalize()} scale\n"
        + block(f'<p class="ouikit-made">{facts}</p>')
        + block(tables.claims(one.claims, one.scale, entry.paper.names).html)
    )


def beside(entry: Entry) -> str:
    """The committed records of the larger scales, for the chapter's page; empty where there is none."""
    if not entry.beside:
        return ""
    text = BESIDE
    for one in entry.beside:
        text += _record_claims(one, entry)
        text += "".join(block(_figure(one, figure, "../")) for figure in one.record["result"]["figures"])
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
    """Every figure of every record, with its chapter."""
    text = GALLERY
    for entry in shelf.entries:
        text += f"\n## {entry.paper.title}\n\n[Read the chapter](chapters/{entry.paper.slug}.ipynb)\n"
        shown = [(one, figure) for one in entry.published for figure in one.record["result"]["figures"]]
        figures = "".join(_figure(one, figure, "", links=True) for one, figure in shown)
        text += block(f'<div class="ouikit-gallery">{figures}</div>') if figures else "\nNo figures yet.\n"
    return text


def _figure(one: Published, figure: Mapping[str, Any], up: str, links: bool = False) -> str:
    words = escape(tables.plain(figure["title"]))
    if links:
        place = f"{up}figures/{one.slug}/{one.scale}/{figure['name']}"
        words += f' <span class="ouikit-who">{one.scale} scale · ' + " · ".join(
            f'<a href="{place}-{theme}.svg">SVG, {theme}</a>' for theme in ("light", "dark")
        )
        words += "</span>"
    caption = f"<figcaption>{words}</figcaption>"
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
