"""One drawing repeated over a grid of panels, with one legend for all of them."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ouikit.plots.canvas import NothingToDrawError, canvas
from ouikit.plots.labels import Names, text_of

LEGEND_ROW = 0.26  # inches


def panels(
    levels: Iterable[Hashable],
    draw: Callable[[Axes, Any], object],
    *,
    titles: Names | None = None,
    columns: int = 2,
    width: float = 6.4,
    height: float = 2.9,
    xlabel: str = "",
    ylabel: str = "",
    sharex: bool = False,
    sharey: bool = False,
    legend: bool = True,
    legend_title: str = "",
    **axes: Any,
) -> Figure:
    """Call `draw(axis, level)` for each level, each on a panel of its own: the whole figure.

    - levels: one hashable value per panel, filled in row by row, `columns` abreast;
    - titles: what stands above each panel, a mapping or a function of the level (default: the level, but
      nothing above a single panel);
    - width: inches of the whole figure; height: inches of each row of panels;
    - xlabel, ylabel: one label for all panels; `draw` sets labels that differ;
    - sharex, sharey: the same limits in all panels;
    - legend: above the panels, one entry for each distinct `label=` that was drawn in any of them;
    - axes: keywords of `Axes.set` for every panel before it is drawn (`xscale`, `ylim`, ...).

    Raises NothingToDrawError when there is no level.

    >>> figure = panels(["relu", "tanh"], lambda axis, gate: axis.plot([0, 1], label=gate), xlabel="epoch")
    >>> [axis.get_title() for axis in figure.axes], len(figure.legends)
    (['relu', 'tanh'], 1)
    """
    levels = list(levels)
    if not levels:
        raise NothingToDrawError("panels needs at least one level")
    columns = min(columns, len(levels))
    rows = -(-len(levels) // columns)
    shared = {"sharex": sharex, "sharey": sharey, "squeeze": False}
    figure, grid = canvas(width, height * rows, nrows=rows, ncols=columns, **shared)
    for ax in grid.flat:
        ax.set(**axes)  # all before the first drawing: a scale that is set later would undo ticks
    for ax, level in zip(grid.flat, levels, strict=False):
        draw(ax, level)
        if titles is not None or len(levels) > 1:
            ax.set_title(text_of(level, titles))
    _remove_empty(grid, len(levels))
    _label_once(figure, grid, xlabel, ylabel)
    if legend:
        _legend(figure, legend_title)
    return figure


def _remove_empty(grid: Any, used: int) -> None:
    """Take away the panels behind the last; those above them then show the ticks of a shared axis."""
    empty = grid.flat[used:]
    for ax in empty:
        ax.remove()
    if len(empty):
        for ax in grid[-2, -len(empty) :]:
            ax.tick_params(labelbottom=True)


def _label_once(figure: Figure, grid: Any, xlabel: str, ylabel: str) -> None:
    if grid.size == 1:
        labels = {name: text for name, text in (("xlabel", xlabel), ("ylabel", ylabel)) if text}
        grid[0, 0].set(**labels)
        return
    if xlabel:
        figure.supxlabel(xlabel, fontsize=9.5)
    if ylabel:
        figure.supylabel(ylabel, fontsize=9.5)


def _legend(figure: Figure, title: str) -> None:
    """One legend above the panels, in as many columns as fit, in space that is added to the figure."""
    entries: dict[str, Any] = {}
    for ax in figure.axes:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    if not entries:
        return
    width, height = figure.get_size_inches()
    across = max(1, min(len(entries), int(width * 72 / (5.4 * max(map(len, entries)) + 36))))
    deep = -(-len(entries) // across)
    figure.legend(
        list(entries.values()), list(entries), title=title or None, loc="outside upper center", ncols=across
    )
    figure.set_size_inches(width, height + LEGEND_ROW * (deep + bool(title)))
