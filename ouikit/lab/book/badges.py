"""The line under a chapter's title: evidence, verdicts, scale, date, and what a reader can take home."""

from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from ouikit.lab import tables
from ouikit.lab.book import headline
from ouikit.lab.book.shelf import Entry, Published, Repository
from ouikit.lab.claims import VERDICTS
from ouikit.lab.paper import OUR_OWN

EVIDENCE = {
    "measured": "measured: every number comes from running code on the machine named below",
    "simulated": "simulated: the hardware is absent, a model of it was run",
    "analytic": "analytic: numbers follow from formulas",
}
OLDER = "made with older code"


def pill(text: str, kind: str = "", title: str = "") -> str:
    """A small label; `title` is its longer form."""
    hint = f' title="{escape(title)}"' if title else ""
    return f'<span class="ouikit-pill {kind}"{hint}>{escape(text)}</span>'


def verdict_counts(verdicts: Iterable[str]) -> str:
    """`6 reproduced` `1 weaker`, in the fixed order of the verdicts."""
    counted = Counter(verdicts)
    return " ".join(
        tables.verdict(name).replace(f">{name}<", f">{counted[name]} {name}<")
        for name in VERDICTS
        if counted[name]
    )


def verdicts_at(entry: Entry) -> str:
    """The verdicts on the paper's claims, at the widest scale that was run, by its name.

    What that scale does not test follows, by the name of the widest that does.
    """
    if not entry.published:
        return pill("not run yet")
    judged = [headline.widest(entry, claim) for claim in entry.paper.claims if claim.source not in OUR_OWN]
    scales = [one.scale for one in reversed(headline.by_scale(entry))]
    at = {scale: [one.verdict for one in judged if (one.scale or scales[0]) == scale] for scale in scales}
    return " ".join(
        f"{pill(f'{scale_words(scale)} scale')} {verdict_counts(found)}"
        for scale, found in at.items()
        if found
    )


def older(one: Published) -> str:
    """The warning on a record whose code is no longer today's, or nothing."""
    hint = (
        "the science that this record ran, or a record that it reads, has changed since; its numbers may "
        "differ today"
    )
    return pill(OLDER, "ouikit-older", hint) if one.outdated else ""


def badge_line(entry: Entry, repository: Repository) -> str:
    """The generated block below a chapter's title, as one HTML block without blank lines.

    The verdicts are those of the widest scale that was run; then a line for every record says what the page
    shows of it.
    """
    labels = [pill(entry.paper.evidence, "ouikit-evidence", EVIDENCE[entry.paper.evidence])]
    labels.append(verdicts_at(entry))
    lines = [_record_line(one, one is entry.fresh) for one in entry.published]
    if not entry.fresh:
        lines.insert(0, "<span><b>Reduced record</b>: run <code>make book</code></span>")
    lines += _reads(entry.published)
    records = "".join(f'<p class="ouikit-made">{line}</p>' for line in lines)
    return (
        f'<div class="ouikit-badges"><p>{" ".join(label for label in labels if label)}</p>{records}'
        f'<p class="ouikit-links">{" ".join(_links(entry, repository))}</p></div>'
    )


def counted(entries: Iterable[Entry]) -> tuple[list[str], list[str]]:
    """The verdicts on what papers say, and apart from them those on our own controls and checks.

    Each is that of the widest scale that tested the claim.
    """
    found = [headline.widest(entry, claim) for entry in entries for claim in entry.paper.claims]
    papers = [one.verdict for one in found if one.claim.source not in OUR_OWN]
    return papers, [one.verdict for one in found if one.claim.source in OUR_OWN]


def _record_line(one: Published, fresh: bool) -> str:
    shown = "in the sections below" if fresh else "under “Published beside”"
    return f"<span><b>{heading(one.scale)} record</b> ({shown}): {facts(one)}</span>"


def _reads(published: Iterable[Published]) -> list[str]:
    """One line with links to the chapters whose records a chapter reads; none where it reads none."""
    read = sorted({tuple(name.split("/")) for one in published for name in one.record["run"]["reads"]})
    links = ", ".join(
        f'<a href="{slug}.html">{escape(slug)}</a> ({escape(scale_words(scale).lower())} scale)'
        for slug, scale in read
    )
    return [f"<span><b>Reads the records of</b> {links}</span>"] if links else []


def scale_words(scale: str) -> str:
    """`Paper imagenet` of `paper_imagenet`."""
    return scale.replace("_", " ").capitalize()


def heading(scale: str) -> str:
    """`scale_words` as HTML."""
    return escape(scale_words(scale))


def facts(one: Published) -> str:
    """When a record was made, from which commit, at what cost, and whether its code is still today's."""
    made = one.record["made_by"]
    commit = f"commit {made['commit'][:7]}" if made["commit"] else "no commit"
    commit += " with local changes" if made["commit"] and made["dirty"] else ""
    words = f"{one.date} · {commit} · {cost(one.record['result'])}"
    return f"{escape(words)} {older(one)}".strip()


def cost(result: Mapping[str, Any]) -> str:
    """What a run costs: CPU-seconds of all its processes, cells that were there already included.

    Records that do not say it have the time of their cells, and without cells their wall time.
    """
    seconds = result.get("cpu_seconds")
    if seconds is not None and seconds == seconds:
        return f"{seconds:,.0f} CPU-seconds"
    cells = result["cells"]
    return f"{duration(cells['seconds'])} of computing" if cells.get("total") else duration(result["seconds"])


def duration(seconds: float) -> str:
    """`48 s`, `3.2 min` or `1.5 h`; `time unknown` where the record does not say."""
    if seconds != seconds:
        return "time unknown"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _links(entry: Entry, repository: Repository) -> list[str]:
    """Downloads lie beside the site's pages; launch links exist only where the sources are published."""
    slug, paper = entry.paper.slug, entry.paper
    places = {
        "Paper": f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else None,
        "Notebook": f"../downloads/{slug}.ipynb",
        "Executed notebook": entry.fresh and f"../downloads/{slug}-executed.ipynb",
        "Record": entry.fresh and f"../downloads/{slug}-record.json",
        "BibTeX": f"../downloads/{slug}.bib",
        "Colab": repository.colab(slug),
        "Binder": repository.binder(slug),
    }
    return [
        f'<a href="{escape(place)}"{" download" if place.startswith("..") else ""}>{name}</a>'
        for name, place in places.items()
        if place
    ]
