"""What a run shows: claims, figures, provenance, as small HTML with a plain-text twin for terminals."""

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ouikit.lab.claims import is_literal

if TYPE_CHECKING:
    import pandas as pd

    from ouikit.lab.chapter import Settings
    from ouikit.lab.paper import Paper


def uncoloured(text: str) -> str:
    r"""Text without the escape sequences that colour it on a terminal.

    >>> uncoloured("\x1b[31mno\x1b[0m")
    'no'
    """
    return re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", text)


class Shown:
    """Something to display: HTML for notebooks and the book, plain text elsewhere."""

    def __init__(self, html: str, text: str) -> None:
        self.html, self.text = html, text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def number(x: float | None) -> str:
    """Three significant digits, whole numbers as they are; an absent number is a dash."""
    if x is None or x != x:
        return "–"
    if math.isinf(x):
        text = "∞" if x > 0 else "-∞"
    elif float(x).is_integer() and abs(x) < 1e6:
        text = f"{int(x)}"
    else:
        text = f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"
    return text.replace("-", "−")


def ours(claim: Mapping[str, Any]) -> str:
    """`0.71 [0.66, 0.75], n = 10`; an end that misses zero by rounding alone is shown as 0."""
    if claim.get("value") is None:
        return "–"
    text = number(claim["value"])
    low, high = claim.get("low"), claim.get("high")
    if low is None or high is None or math.isinf(low) or math.isinf(high):
        text += " (no interval)"
    elif low != high:
        low, high = (0.0 if abs(end) < 1e-12 * (high - low) else end for end in (low, high))
        text += f" [{number(low)}, {number(high)}]"
    return text + (f", n = {claim['n']}" if claim.get("n") else "")


_SYMBOLS = {"alpha": "α", "beta": "β", "eta": "η", "lambda": "λ", "theta": "θ", "Delta": "Δ"}


def plain(title: str) -> str:
    """A figure's title as words: `$\\lambda_0$`, which only the figure itself can set, becomes λ₀."""

    def words(formula: re.Match[str]) -> str:
        text = re.sub(r"\\([A-Za-z]+)", lambda m: _SYMBOLS.get(m[1], m[0]), formula[1])
        return re.sub(r"_(\d)", lambda m: "₀₁₂₃₄₅₆₇₈₉"[int(m[1])], text)

    return re.sub(r"\$([^$]+)\$", words, title)


def papers(claim: Mapping[str, Any]) -> str:
    """What the paper says, as a number or a few words."""
    source = claim.get("paper") or {}
    return str(source.get("text") or number(source.get("value")))


def in_words(predicate: str, against: Any, names: Mapping[str, str] | None = None) -> str:
    """A test in words: `interval above 0.1`.

    Args:
        names: words for the metrics of an `order` of several; a name that is not there stands as it is.
    """
    if predicate == "within" and isinstance(against, list):
        return f"within {number(against[0])} to {number(against[1])}"
    if predicate == "trend":
        ((direction, margin),) = against.items()
        return f"{direction}, rank correlation beyond {number(margin)}"
    if predicate == "order":
        return _order_text(against, names or {})
    words = {
        "exact": "exactly {}",
        "within": "within ± {} of the paper's",
        "greater": "interval above {}",
        "ratio": "ratio to the paper's within 1 ± {}",
    }
    return words[predicate].format(number(against))


def _order_text(order: str, names: Mapping[str, str]) -> str:
    """An order of several metrics by their names, with `>` and `<`; one of a single metric by its bounds."""
    parts = re.split(r"\s*([<>])\s*", order.strip())
    metrics, signs = parts[::2], parts[1::2]
    literal = [is_literal(metric) for metric in metrics]
    if literal.count(False) > 1:
        shown = [
            number(float(m)) if fixed else names.get(m, m) for m, fixed in zip(metrics, literal, strict=True)
        ]
        return shown[0] + "".join(f" {sign} {name}" for sign, name in zip(signs, shown[1:], strict=True))
    at = literal.index(False)
    bounds = []
    if at > 0:
        bounds.append(("above" if signs[at - 1] == "<" else "below", metrics[at - 1]))
    if at < len(signs):
        bounds.append(("above" if signs[at] == ">" else "below", metrics[at + 1]))
    return "interval " + " and ".join(f"{side} {number(float(bound))}" for side, bound in bounds)


def verdict(name: str, fragile: bool = False) -> str:
    """A verdict as a coloured label; the word carries the meaning, the colour only helps."""
    label = f'<span class="verdict verdict-{name.replace(" ", "-")}">{name}</span>'
    return label + (
        f' <span class="ouikit-pill ouikit-fragile" title="{FRAGILE}">fragile</span>' if fragile else ""
    )


FRAGILE = "an interval moved by a tenth of its width would change this verdict"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """An HTML table whose cells carry their column's name, so that a phone can stack them."""
    top = "".join(f'<th scope="col">{h}</th>' for h in head)
    body = "".join(
        "<tr>" + "".join(f'<td data-label="{h}">{c}</td>' for h, c in zip(head, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<table class="ouikit-table {kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def promises(paper: "Paper") -> Shown:
    """What the paper claims, before anything is run; folded, as the lines come with verdicts later."""
    from ouikit.lab.paper import OUR_OWN

    rows = [
        (f"{escape(c.says)}<br><small>{escape(c.where)}</small>", escape(papers(vars(c))))
        for c in paper.claims
    ]
    text = "\n".join(f"- {c.says} ({c.where})" for c in paper.claims)
    own = sum(c.source in OUR_OWN for c in paper.claims)
    words = f"All {len(paper.claims) - own} claims of the paper" + (
        f", and {own} controls and checks of our own" if own else ""
    )
    table = grid(("Claim, and where", "The paper"), rows, "ouikit-promises")
    return Shown(f'<details class="ouikit-folded"><summary>{words}</summary>{table}</details>', text)


def settings(found: "Settings") -> Shown:
    """Which scale the parameters are."""
    apart = ", ".join(f"{k} = {v}" for k, v in found.differences.items())
    text = f"scale: {found.scale}"
    if apart:
        text += f" ({found.nearest} with {apart}); its verdicts guard nothing"
    return Shown(f'<p class="ouikit-scale">{escape(text)}</p>', text)


def _unbroken(text: str) -> str:
    """HTML of a number with its n, which stays on one line."""
    return escape(text).replace("n = ", "n&nbsp;=&nbsp;")


def claims(judged: Sequence[Mapping[str, Any]], scale: str, names: Mapping[str, str] | None = None) -> Shown:
    """The paper's numbers beside ours, with verdict and reason; what this scale does not test is folded.

    Args:
        judged: the claims as a record holds them.
        names: words for metrics, as the chapter's YAML gives them.
    """
    rows = [
        (
            escape(c["says"]) + (f'<br><small class="note">{escape(c["note"])}</small>' if c["note"] else ""),
            escape(papers(c)),
            _unbroken(ours(c)),
            escape(in_words(c["predicate"], c["against"], names))
            + f"<br><small>{escape(c['why'] or '')}</small>",
            verdict(c["verdict"], c.get("fragile", False)),
        )
        for c in judged
        if c["predicate"]
    ]
    head = ("Claim", "The paper", f"Ours ({scale})", "Test, and why", "Verdict")
    untested = [
        (escape(c["says"]), escape(papers(c)), _unbroken(ours(c))) for c in judged if not c["predicate"]
    ]
    html = grid(head, rows, "ouikit-claims") if rows else ""
    if untested:
        html += (
            '<details class="ouikit-folded"><summary>'
            f"Not tested at this scale: {len(untested)} of {len(judged)} claims</summary>"
            f"{grid(head[:3], untested, 'ouikit-untested')}</details>"
        )
    return Shown(html, "\n".join(map(line, judged)))


def line(claim: Mapping[str, Any]) -> str:
    """A judged claim in a line of plain text."""
    mark = ", fragile" if claim.get("fragile") else ""
    return f"{claim['verdict']:>13}  {claim['id']}: {ours(claim)} (paper: {papers(claim)}){mark}"


def figure(light: str, dark: str, title: str, alt: str, numbers: "pd.DataFrame") -> Shown:
    """Both themes in one output; the page shows the one that fits, a plain notebook the light one."""
    images = "".join(
        f'<img class="only-{theme}" {hidden}alt="{escape(alt)}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(svg.encode()).decode()}">'
        for theme, svg, hidden in (("light", light, ""), ("dark", dark, 'style="display:none" '))
    )
    rows = (
        [escape(number(x) if isinstance(x, float) else str(x)) for x in row] for row in numbers.to_numpy()
    )
    table = grid([escape(str(c)) for c in numbers.columns], rows, "ouikit-numbers")
    html = (
        f'<figure class="ouikit-figure">{images}<figcaption>{escape(plain(title))}</figcaption>'
        "<details><summary>The numbers of this figure</summary>"
        f'<div class="ouikit-scroll">{table}</div></details>'
        "</figure>"
    )
    return Shown(html, f"{plain(title)}: {alt}")


def left_out(title: str) -> Shown:
    """What stands in the place of a figure for which nothing was run."""
    text = f"Left out, because these parameters give nothing to draw: {plain(title)}."
    return Shown(f'<p class="ouikit-left-out">{escape(text)}</p>', text)


def threads(made: Mapping[str, Any]) -> str:
    """`1 thread`, `2 threads`."""
    return f"{made['threads']} thread" + ("" if made["threads"] == 1 else "s")


def _is_known(seconds: float | None) -> bool:
    """Records that were made before computing time was counted in all processes lack it."""
    return seconds is not None and not math.isnan(seconds)


def _computing(seconds: float | None) -> str:
    return f"{seconds:,.0f} CPU-seconds in all processes" if _is_known(seconds) else "not recorded"


def provenance(record: Mapping[str, Any]) -> Shown:
    """What made a run."""
    run, result, made = record["run"], record["result"], record["made_by"]
    cells = result["cells"]
    rows = {
        "Scale": run["scale"],
        "Run key": run["key"],
        "Engine": run.get("engine", "local"),
        "Seeds": ", ".join(map(str, run["seeds"])),
        "Finished": made["time"],
        "Time": f"{result['seconds']:.0f} s here; {cells['seconds'] / 60:.1f} minutes of workers in "
        f"{cells['total']} trainings or simulations",
        "Computing": _computing(result.get("cpu_seconds")),
        "Peak memory": f"{result['peak_memory_mb']:.0f} MB "
        + ("in all processes" if _is_known(result.get("cpu_seconds")) else "in the process of the notebook"),
        "Commit": f"{(made['commit'] or 'none')[:10]}{' with local changes' if made['dirty'] else ''}",
        "Hardware": f"{made['cpu']}, {made['cores']} cores, {threads(made)} a worker"
        + (f", {made['gpu']}" if made["gpu"] else ""),
        "Versions": ", ".join(f"{k} {v}" for k, v in made["versions"].items()) + f"; Python {made['python']}",
        "System": made["os"],
        "Lock": made["lock"],
        "Data": ", ".join(f"{k} ({v[:12]}…)" for k, v in made["data"].items()) or "none",
    }
    if reads := run.get("reads"):
        rows["Reads"] = "; ".join(f"{k} (run {v['key']}, code {v['code']})" for k, v in reads.items())
    text = "\n".join(f"{k}: {v}" for k, v in rows.items())
    pairs = "".join(f'<tr><th scope="row">{k}</th><td>{escape(v)}</td></tr>' for k, v in rows.items())
    return Shown(f'<table class="ouikit-table ouikit-provenance"><tbody>{pairs}</tbody></table>', text)
