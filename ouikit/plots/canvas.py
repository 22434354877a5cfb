"""A figure to draw on, its heading, and the finished drawing in both themes."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ouikit.plots.labels import spread_labels, text_of
from ouikit.plots.style import Theme, colour, style

Ticks = Sequence[float] | Mapping[float, str]


class NothingToDrawError(ValueError):
    """A figure without a level, an estimate or a row."""


@dataclass(frozen=True)
class Themed:
    """One figure as two SVG documents that differ in colours only."""

    light: str
    dark: str


def themed(draw: Callable[[], Figure]) -> Themed:
    """Run `draw` once per theme and keep the two SVGs; equal figures give equal bytes.

    Both are empty where there is nothing to draw (`forest` without estimates, `curves` without rows, `panels`
    without levels).

    Raises TypeError when `draw` does not return the figure that it drew.
    """
    try:
        return Themed(_svg(draw, "light"), _svg(draw, "dark"))
    except NothingToDrawError:
        return Themed("", "")


def _svg(draw: Callable[[], Figure], theme: Theme) -> str:
    with style(theme):
        figure = draw()
        if not isinstance(figure, Figure):
            raise TypeError(f"draw() must return a matplotlib Figure, not {type(figure).__name__}")
        text = io.StringIO()
        _settle(figure)
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
        plt.close(figure)  # a notebook would otherwise show it a third time
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _settle(figure: Figure) -> None:
    """Work out the layout, texts as wide as in the file, and hold it; `savefig` would do so twice more."""
    FigureCanvasSVG(figure)
    layout, dpi = figure.get_layout_engine(), figure.dpi
    figure.dpi = FigureCanvasSVG.fixed_dpi
    if layout:
        layout.execute(figure)
    moved = [spread_labels(ax) for ax in figure.axes]
    if layout and any(moved):
        layout.execute(figure)
    figure.set_layout_engine("none")
    figure.dpi = dpi  # of parts that are pixels


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


def set_ticks(ax: Axes, ticks: Ticks, axis: Literal["x", "y"] = "x") -> None:
    """Ticks at these places and no others, labelled with the numbers (or `{number: label}`), on any scale."""
    labels = ticks if isinstance(ticks, Mapping) else {place: text_of(place) for place in ticks}
    line = ax.xaxis if axis == "x" else ax.yaxis
    line.set_ticks(list(labels), labels=list(labels.values()))
    line.set_ticks([], minor=True)
