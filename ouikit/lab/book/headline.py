"""What stands for a chapter: three claims with their intervals drawn to scale, and one figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from math import isfinite
from typing import Any

from ouikit.lab import tables
from ouikit.lab.book.shelf import Entry, Published
from ouikit.lab.claims import supported
from ouikit.lab.paper import Claim

WIDTH, HEIGHT, EDGE = 150, 22, 5  # of a strip, in px of its own


@dataclass(frozen=True)
class Judged:
    """One claim as the largest scale that tested it found it; `result` is None where none did."""

    claim: Claim
    result: Mapping[str, Any] | None
    shown: Published | None

    @property
    def verdict(self) -> str:
        return self.result["verdict"] if self.result else "not run"

    @property
    def scale(self) -> str | None:
        return self.shown.scale if self.shown else None


def widest(entry: Entry, claim: Claim) -> Judged:
    """The claim's line in the record of the largest scale that tested it."""
    for one in reversed(by_scale(entry)):
        for found in one.claims:
            if found["id"] == claim.id and found["verdict"] != "not run":
                return Judged(claim, found, one)
    return Judged(claim, None, None)


def by_scale(entry: Entry) -> list[Published]:
    """The chapter's records, the largest scale last."""
    scales = list(entry.paper.scales)
    return sorted(entry.published, key=lambda one: scales.index(one.scale) if one.scale in scales else -1)


def figure(entry: Entry) -> tuple[Published, Mapping[str, Any]] | None:
    """The one figure, from the largest scale that has it; where the YAML names none, the first."""
    wanted = entry.paper.headline and entry.paper.headline.figure
    for one in reversed(by_scale(entry)):
        for found in one.record["result"]["figures"]:
            if wanted in (None, found["name"]):
                return one, found
    return None


def cells(judged: Judged) -> tuple[str, str, str, str]:
    """Claim, the paper's value, ours over its strip, verdict: one row of a table, as HTML."""
    claim, result = judged.claim, judged.result
    if result is None:
        return escape(claim.says), escape(tables.papers(vars(claim))), "–", tables.verdict("not run")
    ours = escape(tables.ours(result)).replace("n = ", "n&nbsp;=&nbsp;")
    return (
        escape(claim.says),
        escape(tables.papers(result)),
        f"<span>{ours}<br>{strip(result)}</span>",
        tables.verdict(result["verdict"], result.get("fragile", False)),
    )


def strip(result: Mapping[str, Any]) -> str:
    """An interval to scale: shaded where the test would say *reproduced*, a diamond for the paper's value.

    Its colours are classes of the style sheet, so that one drawing serves both themes. Empty where a number
    has no interval, or where the test compares several numbers.
    """
    value, low, high = (result.get(name) for name in ("value", "low", "high"))
    paper = (result.get("paper") or {}).get("value")
    region = supported(result.get("predicate"), result.get("against"), paper)
    if value is None or region is None or low == high:
        return ""
    ends = [x for x in (value, low, high, paper, *region) if x is not None and isfinite(x)]
    left, right = min(ends), max(ends)
    span = (right - left) or 1.0
    left, right = left - 0.12 * span, right + 0.12 * span

    def at(x: float) -> float:
        place = EDGE + (WIDTH - 2 * EDGE) * (min(max(x, left), right) - left) / (right - left)
        return round(place, 1)

    start, end = at(region[0]), at(region[1])
    middle = HEIGHT / 2
    parts = [f'<rect class="holds" x="{start}" y="2" width="{round(end - start, 1)}" height="{HEIGHT - 4}"/>']
    parts += [
        f'<line class="bound" x1="{at(x)}" x2="{at(x)}" y1="2" y2="{HEIGHT - 2}"/>'
        for x in region
        if isfinite(x)
    ]
    if low is not None and high is not None:
        kind = result["verdict"].replace(" ", "-")
        parts.append(
            f'<line class="interval {kind}" x1="{at(low)}" x2="{at(high)}" y1="{middle}" y2="{middle}"/>'
            f'<circle class="{kind}" cx="{at(value)}" cy="{middle}" r="4"/>'
        )
    if paper is not None:
        x = at(paper)
        diamond = f"{x},{middle - 5} {x + 5},{middle} {x},{middle + 5} {x - 5},{middle}"
        parts.append(f'<polygon class="paper" points="{diamond}"/>')
    words = tables.in_words(result["predicate"], result["against"])
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return (
        f'<svg class="ouikit-strip" {size} role="img" '
        f'aria-label="{escape(tables.ours(result))}; the test: {escape(words)}">{"".join(parts)}</svg>'
    )
