"""Curves: mean and interval over seeds against a column of the long table, and bands behind them."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ouikit.plots.canvas import NothingToDrawError, Ticks, set_ticks
from ouikit.plots.labels import Names, in_order, label_ends, text_of
from ouikit.plots.panels import panels
from ouikit.plots.style import Colours, colour, colours_of, readable
from ouikit.stats import Estimate, mean_interval

Summary = Callable[[Any], Estimate]
Shaded = tuple[float, float, str]
Reference = float | Sequence[float]
References = Reference | Mapping[Any, Reference] | None


def curves(
    rows: pd.DataFrame,
    x: str,
    *,
    metric: str | Sequence[str] | None = None,
    hue: str | None = None,
    panel: str | Sequence[str] | None = None,
    titles: Names | None = None,
    names: Names | None = None,
    colours: Colours | None = None,
    dashes: Mapping[Any, str] | None = None,
    summary: Summary = mean_interval,
    ends: bool | None = None,
    reference: References = None,
    mark: References = None,
    shaded: Shaded | Mapping[Any, Shaded] | None = None,
    line: Mapping[str, Any] | None = None,
    xticks: Ticks | None = None,
    each: Callable[[Axes, Any], object] | None = None,
    columns: int = 2,
    **layout: Any,
) -> Figure:
    """Mean over seeds of `value` against column `x`, with its interval as a band: the whole figure.

    - rows: the long table (factors, seed, step, metric, value);
    - metric: the metric, or several, to draw; with several, `hue` or `panel` is usually "metric";
    - hue: one line per level of this column; panel: one panel per level of this column (of several columns:
      per combination; levels are then tuples);
    - titles: of the panels; names: of the lines (a mapping, which also gives the order, or a function);
    - colours: level of hue to palette name or `#rrggbb`, or a sequence for the levels in order;
    - dashes: level of hue to line style;
    - summary: values at one point to their Estimate (`interquartile_mean`, `median_range`, ...);
    - ends: names at the ends of the lines, not in a legend (default: where there is one panel);
    - reference: where horizontal lines stand: one y, several (the first solid, the others dotted), or a
      mapping from panel to one of these; mark: the same for vertical lines, all of them dotted;
    - shaded: low, high and name of a range of y, or a mapping from panel to one of these;
    - line: keywords of `Axes.plot`;
    - xticks: places of the ticks, or `{place: label}`;
    - each: called with (axis, level) after a panel was drawn, for what is particular to it;
    - the rest goes to `panels`: `columns`, `width`, `height`, `xlabel`, `ylabel`, `sharex` (default True),
      `sharey` (default True unless the panels are metrics), `xscale`, `ylim`.

    Raises KeyError for a missing column, ValueError for a metric that is not in the table, and
    NothingToDrawError for a table without rows.

    >>> rows = pd.DataFrame({"lr": [0.1, 0.2] * 4, "seed": [0, 0, 1, 1] * 2,
    ...                      "metric": ["loss"] * 4 + ["oui"] * 4,
    ...                      "value": [1.0, 2.0, 1.2, 2.2, 0.5, 0.6, 0.5, 0.7]})
    >>> figure = curves(rows, "lr", metric=["oui", "loss"], panel="metric", titles={"oui": "OUI"})
    >>> [axis.get_title() for axis in figure.axes]
    ['OUI', 'loss']
    """
    by = [panel] if isinstance(panel, str) else list(panel or [])
    rows = _rows_of(rows, metric, [x, "value", *by, *([hue] if hue else [])])
    parts: dict[Hashable, pd.DataFrame] = {None: rows}
    if by:
        parts = dict(list(rows.groupby(by if len(by) > 1 else by[0], sort=False)))
    at_ends = len(parts) == 1 if ends is None else ends
    tints = colours_of(in_order(rows[hue], names), colours) if hue else None

    look: dict[str, Any] = {"names": names, "colours": tints, "dashes": dashes, "summary": summary}

    def draw(ax: Axes, level: Hashable) -> None:
        mean_line(ax, parts[level], x, hue=hue, label=at_ends, **look, **(line or {}))
        ax.set(xlabel="", ylabel="")
        references(ax, mark, level, axis="x", style=":")
        references(ax, reference, level, axis="y")
        if zone := shaded.get(level) if isinstance(shaded, Mapping) else shaded:
            band(ax, *zone)
        if xticks is not None:
            set_ticks(ax, xticks)
        if each:
            each(ax, level)

    ordered = in_order(parts, titles)
    usual: dict[str, Any] = {
        "xlabel": x.replace("_", " "), "ylabel": metric.replace("_", " ") if isinstance(metric, str) else "",
        "sharex": True, "sharey": "metric" not in by, "titles": (titles or {}) if by else None,
    }  # fmt: skip
    return panels(ordered, draw, columns=columns, **usual | layout)


def mean_line(
    ax: Axes,
    rows: pd.DataFrame,
    x: str,
    *,
    metric: str | Sequence[str] | None = None,
    hue: str | None = None,
    colours: Colours | None = None,
    names: Names | None = None,
    dashes: Mapping[Any, str] | None = None,
    summary: Summary = mean_interval,
    label: bool = True,
    **line: Any,
) -> None:
    """Mean over seeds of `value` against column `x`, with a 95 % interval as a band, on one axis.

    - rows: the long table (factors, seed, step, metric, value); `metric` chooses the rows to draw;
    - hue: one line per level of this column, called `names[level]` (default: the level);
    - colours: level to palette name or `#rrggbb`; by default three numbers or more get `sequential` colours,
      anything else the palette's cycle; dashes: level to line style;
    - summary: values at one x to their Estimate;
    - label: names at the ends of the lines; where False they are left to a legend;
    - line: further keywords of `Axes.plot`.

    A diverged seed (value not finite) leaves a gap, it is not dropped.
    Raises KeyError for a missing column and ValueError for a metric that is not in the table.
    """
    data = _rows_of(rows, metric, [x, "value", *([hue] if hue else [])])
    lines = dict(list(data.groupby(hue, sort=False))) if hue else {None: data}
    levels = in_order(lines, names)
    tints = colours_of(levels, colours)
    ends = {}
    for level in levels:
        mean, low, high = _over_seeds(lines[level], x, summary)
        name = text_of(level, names)
        look = {"color": tints[level], "linestyle": (dashes or {}).get(level, "-")}
        ax.plot(mean, **look | ({"label": name} if hue and not label else {}) | line)
        ax.fill_between(mean.index, low, high, color=tints[level], alpha=0.16, linewidth=0)
        ends[name] = (float(mean.iloc[-1]), tints[level])
    ax.set(
        xlabel=x.replace("_", " "), ylabel=(metric if isinstance(metric, str) else "value").replace("_", " ")
    )
    if hue and label:
        label_ends(ax, ends)


def references(
    ax: Axes, at: References, level: Any = None, axis: Literal["x", "y"] = "x", style: str = "-"
) -> None:
    """Lines across the axis at these places: the first in this style, the others dotted.

    A mapping gives the places by panel, and panels that it leaves out have none.
    """
    places = at.get(level) if isinstance(at, Mapping) else at
    if places is None:
        return
    line = ax.axvline if axis == "x" else ax.axhline
    for number, place in enumerate(places if isinstance(places, Sequence) else [places]):
        line(place, color=colour("muted"), linestyle=":" if number else style, linewidth=1, zorder=1)


def median_range(values: Any) -> Estimate:
    """Median of the values, with the smallest and the largest as the ends: a `summary` without inference."""
    values = np.asarray(values, dtype=float)
    return Estimate(float(np.median(values)), float(values.min()), float(values.max()), len(values))


def _over_seeds(rows: pd.DataFrame, x: str, summary: Summary) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Mean and interval at each x; no interval where one seed, or a diverged one, leaves it unknown."""
    at = rows.groupby(x)["value"].agg(summary)
    mean = at.map(lambda e: e.value)
    low, high = (at.map(lambda e, end=end: getattr(e, end)) for end in ("low", "high"))
    known = np.isfinite(low) & np.isfinite(high)
    return mean, low.where(known), high.where(known)


def _rows_of(rows: pd.DataFrame, metric: str | Sequence[str] | None, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of the metrics asked for, in the order in which they were asked for."""
    if rows.empty:
        raise NothingToDrawError("a line needs at least one row")
    for column in [*columns, *(["metric"] if metric else [])]:
        if column not in rows:
            near = get_close_matches(column, list(rows.columns)) or list(rows.columns)
            raise KeyError(f"no column {column!r} in the rows: did you mean {', '.join(map(str, near))}?")
    if metric is None:
        return rows
    known = sorted(rows["metric"].unique())
    chosen = []
    for one in [metric] if isinstance(metric, str) else metric:
        if one not in known:
            near = get_close_matches(one, known) or known
            raise ValueError(f"no rows of metric {one!r}: did you mean {', '.join(near)}?")
        chosen.append(rows[rows["metric"] == one])
    return pd.concat(chosen)


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
