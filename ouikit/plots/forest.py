"""Forest plot: estimates with their intervals, one row each, in groups, over as many panels as needed."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ouikit.plots.canvas import NothingToDrawError, Ticks, set_ticks
from ouikit.plots.labels import Names, in_order, text_of
from ouikit.plots.lines import References, band, references
from ouikit.plots.panels import panels
from ouikit.plots.style import Colours, colour, colours_of

SPREAD = 0.7  # share of a row's height over which the estimates of the row are spread
Column = str | Sequence[str]


def forest(
    estimates: pd.DataFrame | pd.Series,
    row: Column,
    *,
    hue: Column | None = None,
    panel: Column | None = None,
    hollow: str | None = None,
    titles: Names | None = None,
    names: Names | None = None,
    colours: Colours | None = None,
    reference: References = None,
    shaded: tuple[float, float, str] | None = None,
    paper: Mapping[Any, float] | None = None,
    xticks: Ticks | None = None,
    each: Callable[[Axes, Any], object] | None = None,
    **layout: Any,
) -> Figure:
    """A dot with its interval for each estimate, rows from the top down: the whole figure.

    - estimates: a table with columns `value`, `low`, `high` (those of an Estimate), or a series of Estimates
      whose index levels are the columns, as `groupby(...).agg(mean_interval)` gives it;
    - row, hue, panel: a column, or several whose combinations count (levels are then tuples). Estimates of a
      row that differ in hue stand one below the other, each in its colour. All panels have the same rows;
    - hollow: column of truth values; true ones are rings, and the legend has the column's name for them;
    - titles: of the panels; names: of rows and hues (a mapping, which also gives the order, or a function);
    - colours: hue to palette name or `#rrggbb`, or a sequence for the hues in order;
    - reference: where vertical lines stand: one x, several (the first solid, the others dotted), or a mapping
      from panel to one of these;
    - shaded: low, high and name of a range of x;
    - paper: row, or (panel, row), to the paper's value, drawn as a diamond;
    - xticks: places of the ticks, or `{place: label}`;
    - each: called with (axis, level) after a panel was drawn, for what is particular to it;
    - the rest goes to `panels`: `columns`, `width`, `height`, `xlabel`, `sharex`, `xscale`, `xlim`, `legend`.

    An interval whose end is infinite, or not positive on a logarithmic axis, reaches the edge of the panel;
    what is nan is not drawn, and an estimate of n = 0 values takes no row. Raises KeyError for a missing
    column and NothingToDrawError when there is no estimate.

    >>> from ouikit.stats import mean_interval
    >>> gains = pd.DataFrame({"arm": ["a", "a", "b", "b"], "value": [0.1, 0.2, 0.4, 0.5]})
    >>> figure = forest(gains.groupby("arm").value.agg(mean_interval), "arm", reference=0, xlabel="gain")
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['a', 'b']
    """
    table = _table(estimates, {"row": row, "hue": hue, "panel": panel, "hollow": hollow})
    rows, hues = in_order(table["row"], names), in_order(table["hue"], names)
    tints = colours_of(hues, colours) if hue else {None: colour("blue")}
    places = _places(table, rows, hues)

    def draw(ax: Axes, level: Any) -> None:
        references(ax, reference, level)
        if shaded:
            band(ax, *shaded, axis="x")
        for one in _rows_of(table, level):
            _dot(ax, one, places[one.row, one.hue], tints[one.hue])
        ax.set(ylim=(len(rows) - 0.5, -0.5))
        set_ticks(ax, {place: text_of(name, names) for place, name in enumerate(rows)}, "y")
        if xticks is not None:
            set_ticks(ax, xticks)
        if hue:
            for name in hues:
                ax.plot([], [], "o", color=tints[name], label=text_of(name, names))
        if hollow and table["hollow"].any():
            _ring(ax, hollow)
        _paper(ax, [(paper or {}).get((level, name), (paper or {}).get(name)) for name in rows])
        if each:
            each(ax, level)

    levels = in_order(table["panel"], titles)
    usual: dict[str, Any] = {"sharex": True, "sharey": True, "height": _height(table)}
    usual |= {"titles": (titles or {}) if panel else None}
    figure = panels(levels, draw, **usual | layout)
    # Only now are the limits known that an interval without an end reaches to.
    for ax, level in zip(figure.axes, levels, strict=True):
        for one in _rows_of(table, level):
            _interval(ax, one, places[one.row, one.hue], tints[one.hue])
    return figure


def _table(estimates: pd.DataFrame | pd.Series, by: Mapping[str, Column | None]) -> pd.DataFrame:
    """Columns row, hue, panel (levels, or None), hollow, value, low, high; one line per estimate."""
    if isinstance(estimates, pd.Series):
        estimates = pd.DataFrame([vars(e) for e in estimates], index=estimates.index).reset_index()
    if "n" in estimates:
        estimates = estimates[estimates["n"] != 0]
    if estimates.empty:
        raise NothingToDrawError("forest needs at least one estimate")
    asked = [
        name for column in by.values() if column for name in ([column] if isinstance(column, str) else column)
    ]
    for name in [*asked, "value", "low", "high"]:
        if name not in estimates:
            near = get_close_matches(name, list(estimates.columns)) or list(estimates.columns)
            raise KeyError(f"no column {name!r} in the estimates: did you mean {', '.join(map(str, near))}?")

    def levels(column: Column | None) -> list[Any]:
        if column is None:
            return [None] * len(estimates)
        if isinstance(column, str):
            return estimates[column].tolist()
        return list(estimates[list(column)].itertuples(index=False, name=None))

    table = pd.DataFrame({name: pd.Series(levels(column), dtype=object) for name, column in by.items()})
    return table.assign(
        hollow=table["hollow"].fillna(False).astype(bool),
        **{name: estimates[name].to_numpy(dtype=float) for name in ("value", "low", "high")},
    )


def _rows_of(table: pd.DataFrame, level: Any) -> list[Any]:
    """The estimates of a panel, rings first, so that a dot in the same place stays visible."""
    here = table[[one == level for one in table["panel"]]]
    return list(here.sort_values("hollow", ascending=False, kind="stable").itertuples())


def _places(table: pd.DataFrame, rows: Sequence[Any], hues: Sequence[Any]) -> dict[tuple[Any, Any], float]:
    """(row, hue) -> height on the axis: whole numbers for the rows, the hues of a row spread about it."""
    present = set(zip(table["row"], table["hue"], strict=True))
    places = {}
    for place, row in enumerate(rows):
        mine = [hue for hue in hues if (row, hue) in present]
        for at, hue in enumerate(mine):
            places[row, hue] = place + SPREAD * ((at + 0.5) / len(mine) - 0.5)
    return places


def _height(table: pd.DataFrame) -> float:
    """Inches of a panel: enough for its title, and for every estimate of every row."""
    pairs = set(zip(table["row"], table["hue"], strict=True))
    hues = pd.Series([row for row, _ in pairs], dtype=object).value_counts()
    return 0.85 + sum(max(0.28, 0.19 * int(count)) for count in hues)


def _ends(ax: Axes, one: Any) -> list[float]:
    """Both ends of the interval where they can be drawn on this axis, else the infinity that they mean."""
    return [-np.inf if ax.get_xscale() == "log" and x <= 0 else x for x in (one.low, one.high)]


def _dot(ax: Axes, one: Any, y: float, tint: str) -> None:
    """The dot alone; the interval's ends only count for the limits of the axis."""
    face = colour("paper") if one.hollow else tint
    ax.plot(
        one.value, y, "o", color=tint, markerfacecolor=face, markersize=7.5 if one.hollow else 6, zorder=4
    )
    finite = [(x, y) for x in _ends(ax, one) if np.isfinite(x)]
    if finite:
        ax.update_datalim(finite)
        ax.autoscale_view(scaley=False)


def _interval(ax: Axes, one: Any, y: float, tint: str) -> None:
    low, high = sorted(ax.get_xlim())
    look: dict[str, Any] = (
        {"linewidth": 1.5, "alpha": 0.6} if one.hollow else {"linewidth": 3.0, "alpha": 0.5}
    )
    ax.plot(
        np.clip(_ends(ax, one), low, high),
        [y, y],
        color=tint,
        solid_capstyle="butt",
        scalex=False,
        scaley=False,
        zorder=3,
        **look,
    )


def _ring(ax: Axes, column: str) -> None:
    """Legend entry for the hollow dots."""
    ax.plot([], [], "o", color=colour("muted"), mfc="none", label=column.replace("_", " "))


def _paper(ax: Axes, values: Sequence[float | None]) -> None:
    for place, value in enumerate(values):
        if value is not None:
            ax.plot(
                value, place, "D", ms=5.5, color=colour("ink"), mfc=colour("paper"), zorder=5, label="paper"
            )
