"""One house style for every figure: light and dark, colour-blind safe, labelled on the line.

A chapter writes one function that draws; `themed` runs it once per theme:

>>> def draw():
...     figure, axis = canvas()
...     mean_line(axis, rows, "weight_decay", metric="accuracy", hue="arm")
...     heading(axis, "Accuracy falls when decay is too strong", "mean of 10 seeds, 95 % interval")
...     return figure
>>> both = themed(draw)          # doctest: +SKIP
>>> both.light[:4]               # doctest: +SKIP
'<svg'

Inside such a function colours are asked for by name, `colour("orange")`: each theme answers with its own.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from ouikit.stats import mean_interval

Theme = Literal["light", "dark"]

# Five hues that stay apart for normal, protan, deutan and tritan eyes, on their own background.
# "paper" is the background of the page in the book, so that a figure has no visible edge.
PALETTE: dict[str, dict[str, str]] = {
    "light": {
        "paper": "#ffffff", "ink": "#1c2530", "muted": "#596675", "grid": "#e6eaef", "band": "#dcebe5",
        "blue": "#2a7de1", "orange": "#d4610a", "green": "#007a5a", "plum": "#5b2470", "grey": "#6b7785",
    },
    "dark": {
        "paper": "#14181e", "ink": "#e8edf3", "muted": "#a3afbd", "grid": "#29313b", "band": "#1d332e",
        "blue": "#4590f2", "orange": "#ef8f35", "green": "#49d3a4", "plum": "#d9b8f5", "grey": "#8b98a6",
    },
}  # fmt: skip
CYCLE = ("blue", "orange", "green", "plum", "grey")
VERDICTS = {
    "reproduced": "green",
    "weaker": "blue",
    "inconclusive": "grey",
    "contradicted": "orange",
    "not run": "muted",
}
END = "line-end"  # marks the labels that label_ends wrote
_active: Theme = "light"


@dataclass(frozen=True)
class Themed:
    """One figure as two SVG documents that differ in colours only."""

    light: str
    dark: str


def themed(draw: Callable[[], Figure]) -> Themed:
    """Run `draw` once per theme and keep the two SVGs; equal figures give equal bytes.

    Raises TypeError when `draw` does not return the figure that it drew.
    """
    return Themed(_svg(draw, "light"), _svg(draw, "dark"))


def _svg(draw: Callable[[], Figure], theme: Theme) -> str:
    with style(theme):
        figure = draw()
        if not isinstance(figure, Figure):
            raise TypeError(f"draw() must return a matplotlib Figure, not {type(figure).__name__}")
        figure.draw_without_rendering()
        for ax in figure.axes:
            _spread_labels(ax)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)  # a notebook would otherwise show it a third time
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


@contextmanager
def style(theme: Theme) -> Iterator[None]:
    """Everything drawn inside has the house style; ValueError for a theme that is not light or dark."""
    global _active
    if theme not in PALETTE:
        raise ValueError(f"unknown theme {theme!r}: use 'light' or 'dark'")
    before, _active = _active, theme
    try:
        with mpl.rc_context(_rc(PALETTE[theme])):
            yield
    finally:
        _active = before


def _rc(c: Mapping[str, str]) -> dict[Any, Any]:
    return {
        "figure.figsize": (6.4, 3.4), "figure.facecolor": c["paper"], "savefig.facecolor": c["paper"],
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.09, "figure.constrained_layout.w_pad": 0.09,
        "font.family": ["DejaVu Sans"], "font.size": 9.5, "text.color": c["ink"],
        "mathtext.fontset": "dejavusans",
        "axes.facecolor": c["paper"], "axes.edgecolor": c["grey"], "axes.linewidth": 0.7,
        "axes.labelcolor": c["ink"], "axes.labelsize": 9.5, "axes.labelpad": 6,
        "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 12,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
        "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True,
        "grid.color": c["grid"], "grid.linewidth": 0.9,
        "axes.prop_cycle": cycler(color=[c[name] for name in CYCLE]),
        "xtick.color": c["grey"], "xtick.labelcolor": c["muted"], "xtick.labelsize": 9,
        "xtick.major.size": 3.5, "xtick.major.width": 0.7, "xtick.minor.size": 0,
        "ytick.color": c["grey"], "ytick.labelcolor": c["muted"], "ytick.labelsize": 9, "ytick.major.size": 0,
        "ytick.minor.size": 0,
        "lines.linewidth": 2.0, "lines.markersize": 5, "lines.solid_capstyle": "round",
        "patch.edgecolor": c["paper"],
        "legend.frameon": False, "legend.fontsize": 9,
        # Same figure, same bytes: no random ids, and glyphs as paths so that no reader's font matters.
        "svg.hashsalt": "ouikit", "svg.fonttype": "path",
    }  # fmt: skip


def colour(name: str) -> str:
    """`#rrggbb` of a palette name (or of a verdict) under the active theme; KeyError names the nearest."""
    known = PALETTE[_active]
    key = VERDICTS.get(name, name)
    if key not in known:
        names = [*known, *VERDICTS]
        near = get_close_matches(str(name), names) or names
        raise KeyError(f"no colour {name!r}: did you mean {', '.join(near)}?")
    return known[key]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, from 1 to 21 (WCAG 2.2, definition of relative luminance)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(name: str) -> float:
    rgb = np.array(to_rgb(name))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def readable(name: str) -> str:
    """The colour, moved towards the ink until text in it has a contrast of 4.5 to the background."""
    paper, ink = colour("paper"), np.array(to_rgb(colour("ink")))
    for share in np.linspace(0, 1, 41):
        mixed = to_hex((1 - share) * np.array(to_rgb(name)) + share * ink)
        if contrast(mixed, paper) >= 4.5:
            return mixed
    raise AssertionError("the ink itself is readable")


def ramp() -> LinearSegmentedColormap:
    """Sequential colour map of the active theme; every colour of it shows up against the background."""
    stops = {
        "light": ["#e08a1e", "#d2542f", "#a52a64", "#5b2470", "#221a52"],
        "dark": ["#fbe38e", "#f5a742", "#e8657b", "#b478e0", "#6d86e8"],
    }
    return LinearSegmentedColormap.from_list(f"ouikit-{_active}", stops[_active])


def sequential(values: Iterable[Any]) -> dict[Any, str]:
    """One colour per level of an ordered factor (a learning-rate grid, say), evenly spaced by rank."""
    levels = sorted(set(values))
    return {
        level: to_hex(ramp()(at)) for level, at in zip(levels, np.linspace(0, 1, len(levels)), strict=True)
    }


def canvas(width: float = 6.4, height: float = 3.4, **subplots: Any) -> tuple[Figure, Any]:
    """`plt.subplots` with the width and height in inches; 6.4 fills the book's column."""
    return plt.subplots(figsize=(width, height), **subplots)


def heading(ax: Axes, text: str, sub: str = "") -> None:
    """Title that says what the figure shows, and below it, smaller, how it was measured."""
    ax.set_title(text, pad=24 if sub else 12)
    if sub:
        ax.annotate(
            sub, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points",
            fontsize=9, color=colour("muted"), va="bottom",
        )  # fmt: skip


def mean_line(
    ax: Axes,
    rows: pd.DataFrame,
    x: str,
    *,
    metric: str | None = None,
    hue: str | None = None,
    colours: Mapping[Any, str] | None = None,
    names: Mapping[Any, str] | None = None,
    label: bool = True,
    **line: Any,
) -> None:
    """Mean over seeds of `value` against column `x`, with a 95 % interval as a band.

    rows: the long table (factors, seed, step, metric, value); `metric` chooses the rows to draw.
    One line per level of column `hue`, labelled at its end with `names[level]` (default: the level).
    `colours` maps levels to colours; numbers default to `sequential`, anything else to the cycle.
    Further keywords go to `Axes.plot`. A diverged seed (value not finite) leaves a gap, it is not dropped.
    Raises KeyError for a missing column and ValueError for a metric that is not in the table.
    """
    data = _rows_of(rows, metric, [x, "value", *([hue] if hue else [])])
    lines = dict(list(data.groupby(hue, sort=False))) if hue else {None: data}
    colours = colours or _colours(list(lines))
    ends = {}
    for level, part in lines.items():
        mean, low, high = _over_seeds(part, x)
        ax.plot(mean, color=colours[level], **line)
        ax.fill_between(mean.index, low, high, color=colours[level], alpha=0.16, linewidth=0)
        ends[str((names or {}).get(level, level))] = (float(mean.iloc[-1]), colours[level])
    ax.set(xlabel=x.replace("_", " "), ylabel=(metric or "value").replace("_", " "))
    if hue and label:
        label_ends(ax, ends)


def _colours(levels: Sequence[Any]) -> dict[Any, str]:
    if len(levels) > 2 and all(isinstance(level, (int, float)) for level in levels):
        return sequential(levels)
    return {level: colour(CYCLE[i % len(CYCLE)]) for i, level in enumerate(levels)}


def _over_seeds(rows: pd.DataFrame, x: str) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Mean and interval at each x; no interval where one seed, or a diverged one, leaves it unknown."""
    at = rows.groupby(x)["value"].agg(mean_interval)
    mean = at.map(lambda e: e.value)
    low, high = (at.map(lambda e, end=end: getattr(e, end)) for end in ("low", "high"))
    known = np.isfinite(low) & np.isfinite(high)
    return mean, low.where(known), high.where(known)


def _rows_of(rows: pd.DataFrame, metric: str | None, columns: Sequence[str]) -> pd.DataFrame:
    for column in [*columns, *(["metric"] if metric else [])]:
        if column not in rows:
            near = get_close_matches(column, list(rows.columns)) or list(rows.columns)
            raise KeyError(f"no column {column!r} in the rows: did you mean {', '.join(map(str, near))}?")
    if metric is None:
        return rows
    chosen = rows[rows["metric"] == metric]
    if chosen.empty:
        known = sorted(rows["metric"].unique())
        near = get_close_matches(metric, known) or known
        raise ValueError(f"no rows of metric {metric!r}: did you mean {', '.join(near)}?")
    return chosen


def label_ends(ax: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Write each label beside the right end of its line; `themed` then moves apart those that collide.

    ends: label -> (y of the line's last point in data units, colour of the line).
    """
    for label, (y, line) in ends.items():
        ax.annotate(
            label, (1, y), (6, 0), xycoords=ax.get_yaxis_transform(), textcoords="offset points",
            va="center", fontsize=9, color=readable(line), gid=END,
        )  # fmt: skip


def _spread_labels(ax: Axes, gap: float = 12.5) -> None:
    """Keep the end labels `gap` points apart; possible only once limits and layout are final."""
    labels = [text for text in ax.texts if isinstance(text, Annotation) and text.get_gid() == END]
    points = 72 / ax.figure.dpi
    wanted = np.array([ax.transData.transform((1, text.xy[1]))[1] * points for text in labels])
    placed = wanted.copy()
    order = np.argsort(wanted)
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    for text, shift in zip(labels, placed - wanted - (placed - wanted).mean() if labels else (), strict=True):
        text.set_position((6, float(shift)))


def band(
    ax: Axes,
    low: float,
    high: float,
    label: str = "",
    axis: Literal["x", "y"] = "y",
    corner: str = "top left",
) -> None:
    """Shade the interval [low, high] of one axis, behind everything, and name it at one of its corners.

    corner: "top left", "top right", "bottom left" or "bottom right". The name of a horizontal band stands
    just outside it, where the lines that it holds do not cross it.
    """
    (ax.axhspan if axis == "y" else ax.axvspan)(low, high, color=colour("band"), zorder=0, linewidth=0)
    top, right = corner.startswith("top"), corner.endswith("right")
    outside = top == (axis == "y")
    spot = (float(right), high if top else low) if axis == "y" else (high if right else low, float(top))
    ax.annotate(
        label, spot, (-5 if right else 5, 4 if outside else -4), textcoords="offset points",
        xycoords=ax.get_yaxis_transform() if axis == "y" else ax.get_xaxis_transform(),
        ha="right" if right else "left", va="bottom" if outside else "top",
        fontsize=8.5, color=readable(colour("green")), zorder=1,
    )  # fmt: skip


def heat(ax: Axes, table: pd.DataFrame, form: str = ".2f") -> None:
    """Heat map of a sweep with the numbers in the cells; rows and columns as the table has them."""
    paper, strong = colour("paper"), colour("blue")
    shades = LinearSegmentedColormap.from_list("ouikit-heat", [to_hex(_mix(strong, paper, 0.06)), strong])
    sns.heatmap(
        table, ax=ax, cmap=shades, annot=True, fmt=form, linewidths=2, linecolor=paper, cbar=False,
        annot_kws={"fontsize": 9},
    )  # fmt: skip
    cells = np.asarray(ax.collections[0].get_facecolor())
    for text, cell in zip(ax.texts, map(to_hex, cells), strict=True):
        text.set_color(max("#ffffff", "#000000", key=partial(contrast, cell)))
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)
    ax.grid(False)


def _mix(one: str, other: str, share: float) -> Any:
    return share * np.array(to_rgb(one)) + (1 - share) * np.array(to_rgb(other))


def claims_strip(claims: Sequence[Mapping[str, Any]]) -> Figure:
    """Forest plot of a record's claims: our value with its interval, what it is tested against, the verdict.

    Every row has its own scale, because claims differ in units; the numbers stand beside it. Claims without
    a value show their verdict alone. Raises ValueError when there is no claim.
    """
    if not claims:
        raise ValueError("claims_strip needs at least one claim")
    fig, ax = canvas(6.4, 0.42 * len(claims) + 0.5)
    ax.set(xlim=(0, 1), ylim=(len(claims) - 0.4, -0.6), xticks=[])
    ax.grid(False)
    ax.spines["bottom"].set_visible(False)
    ax.set_yticks(range(len(claims)), [str(c["id"]).replace("_", " ") for c in claims])
    ax.tick_params(axis="y", labelcolor=colour("ink"))
    for row, claim in enumerate(claims):
        _claim_row(ax, row, claim)
    return fig


def _claim_row(ax: Axes, row: int, claim: Mapping[str, Any]) -> None:
    tint = colour(claim["verdict"])
    value, low, high = (_number(claim.get(key)) for key in ("value", "low", "high"))
    paper = _number((claim.get("paper") or {}).get("value"))
    zone = np.array(_accepted(claim.get("predicate"), claim.get("against"), paper))
    seen = [v for v in (value, low, high, paper, *zone) if np.isfinite(v)] or [0.0]
    ax.axhline(row, color=colour("grid"), linewidth=0.9, zorder=0)

    def at(number: Any) -> Any:
        return 0.06 + 0.88 * (number - min(seen)) / ((max(seen) - min(seen)) or 1.0)

    # What is unknown is nan, and matplotlib draws nothing there.
    ax.fill_betweenx([row - 0.28, row + 0.28], *at(zone), color=colour("band"), lw=0)
    ax.vlines(at(zone), row - 0.28, row + 0.28, color=colour("muted"), lw=1)
    ax.plot(at(np.array([low, high])), [row, row], color=tint, linewidth=3, alpha=0.55)
    ax.plot(at(paper), row, "D", color=colour("ink"), markersize=5, markerfacecolor=colour("paper"))
    ax.plot(at(value), row, "o", color=tint, markersize=7, markeredgecolor=colour("paper"))
    ax.annotate(
        claim["verdict"] if np.isnan(value) else f"{value:.3g}  {claim['verdict']}", (1, row), (8, 0),
        xycoords=ax.get_yaxis_transform(), textcoords="offset points", va="center", fontsize=9,
        color=readable(tint),
    )  # fmt: skip


def _number(thing: Any) -> float:
    known = isinstance(thing, (int, float)) and not isinstance(thing, bool) and np.isfinite(thing)
    return float(thing) if known else np.nan


def _accepted(predicate: Any, against: Any, paper: float) -> tuple[float, float]:
    """The range that a predicate accepts (twice its margin where one end is open); nan where it has none."""
    if predicate == "within" and isinstance(against, list):
        return _number(against[0]), _number(against[1])
    if predicate == "trend" and isinstance(against, Mapping):
        ((direction, margin),) = against.items()
        against = margin if direction == "rising" else -margin
    half = {"within": _number(against), "ratio": _number(against) * abs(paper)}.get(predicate)
    return (paper - half, paper + half) if half is not None else (_number(against), _number(against))
