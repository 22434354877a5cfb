"""Forest plots draw every estimate where it belongs, and what cannot be known as such."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from ouikit import plots
from ouikit.stats import mean_interval


@pytest.fixture
def table() -> pd.DataFrame:
    lines = [
        {"set": s, "arm": a, "lr": r, "value": i + r, "low": i + r - 0.2, "high": i + r + 0.3}
        for i, s in enumerate(("digits", "glyphs"))
        for a in ("plain", "decayed")
        for r in (0.1, 0.5)
    ]
    return pd.DataFrame(lines)


def dots(ax: Axes, marker: str = "o") -> list[tuple[float, float]]:
    """(x, y) of the markers, without the empty ones that serve the legend."""
    found = [line for line in ax.get_lines() if line.get_marker() == marker and len(line.get_xdata())]
    return sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in found)


def intervals(ax: Axes) -> list[tuple[float, float]]:
    lines = [line for line in ax.get_lines() if line.get_marker() == "None" and line.get_linewidth() >= 1.5]
    return sorted((float(line.get_xdata()[0]), float(line.get_xdata()[1])) for line in lines)


def test_every_estimate_is_a_dot_with_its_interval(table: pd.DataFrame) -> None:
    figure = plots.forest(table[table["lr"] == 0.1], "arm", panel="set", titles={"glyphs": "Glyphs"})
    assert [ax.get_title() for ax in figure.axes] == ["Glyphs", "digits"], "a mapping gives the order"
    assert dots(figure.axes[0]) == [(1.1, 0), (1.1, 1)]
    assert np.array(intervals(figure.axes[1])) == pytest.approx(np.array([(-0.1, 0.4)] * 2))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["plain", "decayed"]
    assert figure.axes[0].get_ylim() == (1.5, -0.5), "the first row is on top"


def test_estimates_of_a_row_stand_apart_with_one_legend(table: pd.DataFrame) -> None:
    tints = {0.1: "plum", 0.5: "#123456"}
    figure = plots.forest(table, "arm", hue="lr", panel="set", colours=tints, names={"decayed": "decay"})
    heights = [y for _, y in dots(figure.axes[0])]
    assert len(set(heights)) == 4
    assert all(abs(y - round(y)) < 0.5 for y in heights)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0.1", "0.5"]
    drawn = {to_hex(line.get_color()) for line in figure.axes[0].get_lines()}
    assert drawn == {plots.colour("plum"), "#123456"}
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["decay", "plain"]


def test_a_series_of_estimates_and_rows_of_several_columns() -> None:
    values = pd.DataFrame({"net": list("aabb"), "opt": list("xxyy"), "value": [1.0, 3.0, 5.0, 7.0]})
    figure = plots.forest(values.groupby(["net", "opt"])["value"].agg(mean_interval), ["net", "opt"])
    assert dots(figure.axes[0]) == [(2, 0), (6, 1)]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a, x", "b, y"]


def test_rings_papers_values_references_and_bands(table: pd.DataFrame) -> None:
    table = table[table["set"] == "digits"].assign(in_sample=[True, False] * 2)
    figure = plots.forest(
        table, "arm", hollow="in_sample", paper={"decayed": 0.25}, reference=[0, 0.4],
        shaded=(0.1, 0.2, "band"),
    )  # fmt: skip
    (ax,) = figure.axes
    rings = [line for line in ax.get_lines() if line.get_marker() == "o" and len(line.get_xdata())]
    assert [line.get_markerfacecolor() == plots.colour("paper") for line in rings] == [
        True,
        True,
        False,
        False,
    ]
    assert dots(ax, "D") == [(0.25, 1)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["in sample", "paper"]
    upright = {
        line.get_xdata()[0]: line.get_linestyle()
        for line in ax.get_lines()
        if list(line.get_ydata()) == [0, 1]
    }
    assert upright[0] == "-"
    assert upright[0.4] == ":"
    assert [text.get_text() for text in ax.texts] == ["band"]


def test_a_reference_and_a_papers_value_for_each_panel(table: pd.DataFrame) -> None:
    figure = plots.forest(
        table[table["lr"] == 0.1], "arm", panel="set", reference={"digits": 0.7},
        paper={("glyphs", "plain"): 2},
    )  # fmt: skip
    lines = [[line.get_xdata() for line in ax.get_lines()] for ax in figure.axes]
    assert [any(list(x) == [0.7, 0.7] for x in drawn) for drawn in lines] == [True, False]
    assert [dots(ax, "D") for ax in figure.axes] == [[], [(2, 0)]]


def test_an_end_that_is_unknown_reaches_the_edge(table: pd.DataFrame) -> None:
    table = table[table["lr"] == 0.1].assign(
        low=[-np.inf, 0.05, 0.9, np.nan], high=[np.inf, 0.2, np.inf, np.nan]
    )
    first, second = plots.forest(table, "arm", panel="set").axes
    assert intervals(first)[0] == first.get_xlim()
    assert intervals(second)[0] == pytest.approx((0.9, second.get_xlim()[1]))
    assert np.isnan([x for pair in intervals(second)[1:] for x in pair]).all()
    (ax,) = plots.forest(table.assign(low=-1.0, high=2.0), ["set", "arm"], xscale="log").axes
    assert {low for low, _ in intervals(ax)} == {ax.get_xlim()[0]}


def test_own_scales_own_ticks_and_a_last_word(table: pd.DataFrame) -> None:
    ticks = {0.5: "½", 1: "1"}
    figure = plots.forest(
        table, "arm", hue="lr", panel="set", sharex=False, xticks=ticks, legend=False,
        each=lambda ax, level: ax.set(xlabel=f"gain on {level}"),
    )  # fmt: skip
    assert [ax.get_xlabel() for ax in figure.axes] == ["gain on digits", "gain on glyphs"]
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["½", "1"]
    assert not figure.legends


def test_what_is_missing_is_named(table: pd.DataFrame) -> None:
    with pytest.raises(KeyError, match="no column 'amr' in the estimates: did you mean arm"):
        plots.forest(table, "amr")
    with pytest.raises(KeyError, match="'high'"):
        plots.forest(table.drop(columns="high"), "arm")
    with pytest.raises(ValueError, match="at least one estimate"):
        plots.forest(table.iloc[:0], "arm")


def test_same_bytes_twice(table: pd.DataFrame) -> None:
    def both() -> plots.Themed:
        return plots.themed(lambda: plots.forest(table, "arm", hue="lr", panel="set", reference=0))

    assert both() == both()
