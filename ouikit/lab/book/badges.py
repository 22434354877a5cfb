"""The line under a chapter's title: evidence, verdicts, scale, date, and what a reader can take home."""

from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from ouikit.lab import tables
from ouikit.lab.book.shelf import Entry, Published, Repository
from ouikit.lab.claims import VERDICTS

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


def verdict_counts(claims: Iterable[Mapping[str, Any]]) -> str:
    """`6 reproduced` `1 weaker`, in the fixed order of the verdicts."""
    counted = Counter(claim["verdict"] for claim in claims)
    return " ".join(
        tables.verdict(name).replace(f">{name}<", f">{counted[name]} {name}<")
        for name in VERDICTS
        if counted[name]
    )


def older(one: Published) -> str:
    """The warning on a record whose code is no longer today's, or nothing."""
    hint = "the science that this record ran has changed since; its numbers may differ today"
    return pill(OLDER, "ouikit-older", hint) if one.outdated else ""


def badge_line(entry: Entry, repository: Repository) -> str:
    """The generated block below a chapter's title, as one HTML block without blank lines."""
    labels = [pill(entry.paper.evidence, "ouikit-evidence", EVIDENCE[entry.paper.evidence])]
    if entry.fresh:
        labels += [verdict_counts(entry.fresh.claims), *_facts(entry.fresh), older(entry.fresh)]
    else:
        labels.append(pill("not run yet"))
    return (
        f'<div class="ouikit-badges"><p>{" ".join(label for label in labels if label)}</p>'
        f'<p class="ouikit-links">{" ".join(_links(entry, repository))}</p></div>'
    )


def _facts(one: Published) -> list[str]:
    made = one.record["made_by"]
    commit = (
        f"commit {made['commit'][:7]}" + ("+" if made["dirty"] else "") if made["commit"] else "no commit"
    )
    hint = "with local changes" if made["dirty"] else ""
    price = cost(one.record["result"])
    return [pill(f"{one.scale} scale"), pill(one.date), pill(price), pill(commit, title=hint)]


def cost(result: Mapping[str, Any]) -> str:
    """What a run costs, also when its cells were there already: their computing time on one core.

    A run without cells costs its wall time.
    """
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
