"""Panels and curves: one drawing per level, shared labels, one legend."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from ouikit import plots
from ouikit.stats import interquartile_mean


@pytest.fixture(autouse=True)
def _closed() -> object:
    yield
    plt.close("all")


@pytest.fixture
def rows() -> pd.DataFrame:
    keys = product(
        ("digits", "glyphs", "faces"), ("plain", "decayed"), ("loss", "oui"), range(4), (1, 10, 100)
    )
    table = pd.DataFrame(keys, columns=["set", "arm", "metric", "seed", "step"])
    noise = np.random.default_rng(0).normal(0, 0.1, len(table))
    return table.assign(
        value=noise + table["step"] / 50 + 2 * (table["arm"] == "plain") + 5 * (table["metric"] == "loss")
    )


def line(ax: Axes, level: str) -> None:
    ax.plot([0, 1], label="shared")
    ax.plot([1, 0], label=f"only {level}" if level == "b" else "_hidden")


def test_one_panel_per_level_and_one_legend() -> None:
    figure = plots.panels("abc", line, titles={"b": "the second"}, xlabel="epoch", ylabel="loss", ylim=(0, 3))
    assert [ax.get_title() for ax in figure.axes] == ["a", "the second", "c"]
    assert {ax.get_ylim() for ax in figure.axes} == {(0, 3)}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["shared", "only b"]
    assert figure.get_supxlabel() == "epoch"
    assert figure.get_supylabel() == "loss"


def test_a_single_panel_has_its_labels_and_no_title() -> None:
    figure = plots.panels(["a"], line, xlabel="epoch", legend=False)
    (ax,) = figure.axes
    assert (ax.get_title(), ax.get_xlabel(), figure.get_supxlabel(), figure.legends) == ("", "epoch", "", [])
    assert plots.panels(["a"], line, titles=str.upper).axes[0].get_title() == "A"


def test_an_incomplete_last_row_leaves_ticks_above_the_gap() -> None:
    figure = plots.panels("abc", line, sharex=True)
    assert len(figure.axes) == 3
    shown = [ax.xaxis.get_tick_params()["labelbottom"] for ax in figure.axes]
    assert shown == [False, True, True]


def test_the_legend_gets_space_of_its_own() -> None:
    bare, full = (plots.panels("ab", line, legend=legend) for legend in (False, True))
    assert full.get_size_inches()[1] > bare.get_size_inches()[1]
    many = plots.panels("a", lambda ax, _: [ax.plot([0], label=f"a very long label {i}") for i in range(9)])
    assert many.legends[0]._ncols < 9


def test_no_level_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one level"):
        plots.panels([], line)


def test_curves_are_means_over_seeds_in_the_right_panels(rows: pd.DataFrame) -> None:
    figure = plots.curves(rows, "step", metric="oui", hue="arm", panel="set", names={"decayed": "decay"})
    assert [ax.get_title() for ax in figure.axes] == ["digits", "glyphs", "faces"]
    mean = (
        rows.query("metric == 'oui' and set == 'glyphs' and arm == 'decayed'").groupby("step")["value"].mean()
    )
    first = figure.axes[1].get_lines()[0]
    assert first.get_ydata() == pytest.approx(mean)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["decay", "plain"], "a mapping gives the order"
    assert not figure.axes[0].texts
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("step", "oui")


def test_metrics_as_panels_keep_their_order_and_scale(rows: pd.DataFrame) -> None:
    figure = plots.curves(
        rows, "step", metric=["oui", "loss"], panel="metric", hue="arm", titles={"loss": "Loss"}
    )
    assert [ax.get_title() for ax in figure.axes] == ["Loss", "oui"]
    figure = plots.curves(rows, "step", metric=["oui", "loss"], panel="metric", hue="arm")
    assert [ax.get_title() for ax in figure.axes] == ["oui", "loss"]
    assert figure.axes[0].get_ylim() != figure.axes[1].get_ylim()


def test_one_panel_is_labelled_at_the_ends(rows: pd.DataFrame) -> None:
    figure = plots.curves(rows[rows["set"] == "faces"], "step", metric="oui", hue="arm")
    assert not figure.legends
    assert [text.get_text() for text in figure.axes[0].texts] == ["plain", "decayed"]
    both = plots.curves(rows, "step", metric="oui", hue="arm", panel="set", ends=True)
    assert [len(ax.texts) for ax in both.axes] == [2, 2, 2]


def test_looks_ticks_bands_and_a_last_word(rows: pd.DataFrame) -> None:
    figure = plots.curves(
        rows, "step", metric="oui", hue="arm", panel=["set", "metric"], titles=lambda level: "/".join(level),
        colours={"plain": "plum"}, dashes={"decayed": ":"}, line={"marker": "s"}, xscale="log",
        xticks={1: "one", 100: "hundred"}, shaded=(0, 1, "band"),
        each=lambda ax, level: ax.set(ylabel=level[0]),
    )  # fmt: skip
    ax = figure.axes[0]
    plain, decayed = ax.get_lines()
    assert (to_hex(plain.get_color()), plain.get_linestyle()) == (plots.colour("plum"), "-")
    assert (decayed.get_linestyle(), decayed.get_marker()) == (":", "s")
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["one", "hundred"]
    assert list(ax.get_xticks(minor=True)) == []
    assert [text.get_text() for text in ax.texts] == ["band"]
    assert [a.get_ylabel() for a in figure.axes] == ["digits", "glyphs", "faces"]
    assert ax.get_title() == "digits/oui"


def test_references_marks_and_bands_by_panel(rows: pd.DataFrame) -> None:
    figure = plots.curves(
        rows, "step", metric=["oui", "loss"], panel="metric", hue="arm", colours=("plum", "green"),
        reference=[0, 1], mark={"loss": 10}, shaded={"oui": (0, 1, "band")},
    )  # fmt: skip
    oui, loss = figure.axes
    across = [
        [(list(line.get_xdata()), line.get_linestyle()) for line in ax.get_lines()] for ax in figure.axes
    ]
    assert [([10, 10], ":") in lines for lines in across] == [False, True]
    assert [([0, 1], style) in lines for lines in across for style in "-:"] == [True] * 4
    assert [[text.get_text() for text in ax.texts] for ax in (oui, loss)] == [["band"], []]
    assert [to_hex(line.get_color()) for line in oui.get_lines()[:2]] == [
        *map(plots.colour, ("plum", "green"))
    ]


def test_other_summaries(rows: pd.DataFrame) -> None:
    one = rows.query("metric == 'oui' and set == 'faces' and arm == 'plain'")
    at = one.groupby("step")["value"]
    (ax,) = plots.curves(one, "step", metric="oui", summary=plots.median_range).axes
    assert ax.get_lines()[0].get_ydata() == pytest.approx(at.median())
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(at.max().max())
    (ax,) = plots.curves(one, "step", metric="oui", summary=interquartile_mean).axes
    assert ax.get_lines()[0].get_ydata() == pytest.approx(at.agg(interquartile_mean).map(lambda e: e.value))


def test_names_of_what_is_not_there(rows: pd.DataFrame) -> None:
    with pytest.raises(KeyError, match="did you mean arm"):
        plots.curves(rows, "step", panel="amr")
    with pytest.raises(ValueError, match="did you mean loss"):
        plots.curves(rows, "step", metric=["oui", "los"], hue="metric")


def test_same_bytes_twice_and_no_figure_left_open(rows: pd.DataFrame) -> None:
    def both() -> plots.Themed:
        return plots.themed(lambda: plots.curves(rows, "step", metric="oui", hue="arm", panel="set"))

    assert both() == both()
    assert both().light != both().dark
