"""The house style: themes differ in colours only, bytes repeat, and every eye can read the colours."""

import io
import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from ouikit import plots
from ouikit.plots import CYCLE, PALETTE, colour, contrast, readable, sequential, style, themed

THEMES = ("light", "dark")
# Machado, Oliveira and Fernandes (2009), severity 1, applied to linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.fixture
def rows() -> pd.DataFrame:
    values = np.random.default_rng(0).normal(0, 0.02, (2, 4, 6)) + [[[0.0]], [[0.3]]] + 0.1 * np.arange(6)
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "step": step, "metric": "oui", "value": values[i, seed, step]}
        for i, arm in enumerate(("plain", "decayed"))
        for seed in range(4)
        for step in range(6)
    )  # fmt: skip


def without_colours(svg: str) -> str:
    """The drawing alone: colours blanked, ids numbered (matplotlib hashes a marker's colour into its id)."""
    blank = re.sub(r"#[0-9a-f]{6}\b", "COLOUR", svg)
    numbers: dict[str, str] = {}
    return re.sub(r"\b[mp][0-9a-f]{10}\b", lambda m: numbers.setdefault(m[0], f"id{len(numbers)}"), blank)


def a_figure(rows: pd.DataFrame) -> plt.Figure:
    figure, ax = plots.canvas()
    plots.mean_line(ax, rows, "step", metric="oui", hue="arm", marker="o")
    plots.band(ax, 0.2, 0.4, "the paper's band")
    plots.heading(ax, "Decay lifts the indicator", "mean of 4 seeds")
    return figure


def test_the_themes_differ_in_colours_only(rows: pd.DataFrame) -> None:
    both = themed(lambda: a_figure(rows))
    assert both.light != both.dark
    assert without_colours(both.light) == without_colours(both.dark)
    used = set(re.findall(r"#[0-9a-f]{6}\b", both.light)) & set(re.findall(r"#[0-9a-f]{6}\b", both.dark))
    assert used <= set(PALETTE["light"].values()) & set(PALETTE["dark"].values())


def test_the_same_figure_gives_the_same_bytes_and_leaves_nothing_open(rows: pd.DataFrame) -> None:
    plt.close("all")
    assert themed(lambda: a_figure(rows)) == themed(lambda: a_figure(rows))
    assert plt.get_fignums() == []


def test_an_svg_is_self_contained(rows: pd.DataFrame) -> None:
    svg = themed(lambda: a_figure(rows)).light
    assert svg.startswith("<svg")
    assert "<text" not in svg, "glyphs are paths: the reader's fonts do not matter"
    assert not re.findall(r'(?:href|src)="(?!#)', svg)
    assert "date" not in svg.lower()


def test_draw_must_return_its_figure() -> None:
    with pytest.raises(TypeError, match="Figure, not NoneType"):
        themed(lambda: None)  # type: ignore[arg-type,return-value]


def test_style_is_undone_and_unknown_names_are_answered() -> None:
    before = dict(plt.rcParams)
    with style("dark"):
        assert colour("ink") == PALETTE["dark"]["ink"]
    assert dict(plt.rcParams) == before
    assert colour("ink") == PALETTE["light"]["ink"]
    with pytest.raises(KeyError, match="orange"):
        colour("ornage")
    with pytest.raises(ValueError, match="'light' or 'dark'"), style("sepia"):  # type: ignore[arg-type]
        pass


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_lines_have_contrast_3_and_text_4_5(theme: str) -> None:
    paper = PALETTE[theme]["paper"]
    for name in CYCLE:
        assert contrast(PALETTE[theme][name], paper) >= 3, name
    for name in ("ink", "muted"):
        assert contrast(PALETTE[theme][name], paper) >= 4.5, name
    with style(theme):  # type: ignore[arg-type]
        levels = sequential(range(9)).values()
        assert all(contrast(level, paper) >= 2.5 for level in levels)
        for name in [*map(colour, CYCLE), *levels]:
            assert contrast(readable(name), paper) >= 4.5
        assert contrast(readable(colour("green")), colour("band")) >= 3.5


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB."""
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ np.clip(
        linear, 0, 1
    )
    f = np.where((t := xyz / [0.95047, 1, 1.08883]) > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("eyes", DEFICIENCIES)
def test_the_cycle_stays_apart_for_every_eye(theme: str, eyes: str) -> None:
    def seen(name: str) -> np.ndarray:
        rgb = np.array(to_rgb(PALETTE[theme][name]))
        return lab(
            np.array(DEFICIENCIES[eyes])
            @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        )

    for one, other in itertools.combinations(CYCLE, 2):
        assert np.linalg.norm(seen(one) - seen(other)) > 15, (one, other)


def test_sequential_gives_each_level_one_colour_in_order() -> None:
    levels = sequential([0.1, 1e-3, 0.1, 1e-2])
    assert list(levels) == [1e-3, 1e-2, 0.1]
    assert len(set(levels.values())) == 3


def test_mean_line_draws_the_mean_of_the_seeds(rows: pd.DataFrame) -> None:
    _, ax = plots.canvas()
    plots.mean_line(ax, rows, "step", metric="oui", hue="arm", names={"plain": "no decay"})
    drawn = ax.get_lines()[0].get_ydata()
    assert drawn == pytest.approx(rows[rows.arm == "plain"].groupby("step")["value"].mean())
    assert [text.get_text() for text in ax.texts] == ["no decay", "decayed"]
    plt.close("all")


def test_a_diverged_seed_leaves_a_gap(rows: pd.DataFrame) -> None:
    rows.loc[(rows.seed == 2) & (rows.step == 3) & (rows.arm == "plain"), "value"] = np.nan
    _, ax = plots.canvas()
    plots.mean_line(ax, rows[rows.arm == "plain"], "step", metric="oui")
    assert np.isnan(ax.get_lines()[0].get_ydata()).tolist() == [False] * 3 + [True] + [False] * 2
    plt.close("all")


def test_wrong_columns_and_metrics_are_named(rows: pd.DataFrame) -> None:
    _, ax = plots.canvas()
    with pytest.raises(KeyError, match="did you mean step"):
        plots.mean_line(ax, rows, "stpe", metric="oui")
    with pytest.raises(ValueError, match="did you mean oui"):
        plots.mean_line(ax, rows, "step", metric="ouii")
    plt.close("all")


def test_a_figure_is_drawn_once_for_each_theme_with_what_savefig_would_write(
    rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw() -> plt.Figure:
        return plots.curves(rows, "step", metric="oui", hue="arm", panel="seed", sharey=False)

    text = io.StringIO()
    with style("light"):
        figure = draw()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    drawn, times = plt.Figure.draw, []
    monkeypatch.setattr(plt.Figure, "draw", lambda *args: times.append(args) or drawn(*args))
    svg = themed(draw).light
    assert len(times) == len(THEMES)
    numbers = [
        [float(n) for n in re.findall(r"[ (](-?\d+\.\d+)", one)]
        for one in (svg, text.getvalue().partition("<svg")[2])
    ]
    assert len(numbers[0]) > 500
    assert numbers[0] == pytest.approx(numbers[1], abs=0.01)  # hundredths of a point


def test_labels_of_equal_ends_do_not_collide() -> None:
    figures = []

    def draw() -> plt.Figure:
        figure, ax = plots.canvas()
        plots.label_ends(ax, {name: (0.5, colour("blue")) for name in ("a", "b", "c")})
        figures.append(figure)
        return figure

    themed(draw)
    offsets = sorted(text.get_position()[1] for text in figures[0].axes[0].texts)
    assert np.diff(offsets) == pytest.approx([12.5, 12.5])
    assert sum(offsets) == pytest.approx(0)


@pytest.mark.parametrize("theme", THEMES)
def test_numbers_in_a_heat_map_can_be_read(theme: str) -> None:
    with style(theme):  # type: ignore[arg-type]
        _, ax = plots.canvas()
        plots.heat(ax, pd.DataFrame(np.linspace(0, 1, 12).reshape(3, 4)))
        cells = np.asarray(ax.collections[0].get_facecolor())
        assert len(ax.texts) == 12
        for text, cell in zip(ax.texts, cells, strict=True):
            assert contrast(text.get_color(), to_hex(cell)) >= 4.5
    plt.close("all")


def test_a_figure_with_nothing_to_draw_is_empty_in_both_themes(rows) -> None:
    """Nothing else is: a column that is not there stays an error."""
    nothing = rows.iloc[:0]
    for draw in (
        lambda: plots.curves(nothing, "step", hue="arm", panel="metric"),
        lambda: plots.forest(nothing.assign(low=0, high=0), "arm"),
        lambda: plots.forest(
            pd.DataFrame({"arm": ["a"], "value": [0.0], "low": [0.0], "high": [0.0], "n": [0]}), "arm"
        ),
        lambda: plots.panels([], print),
    ):
        assert themed(draw) == plots.Themed("", "")
    with pytest.raises(KeyError, match="stpe"):
        themed(lambda: plots.curves(rows, "stpe"))


def test_an_estimate_of_nothing_takes_no_row() -> None:
    gains = pd.DataFrame(
        {"arm": ["a", "b"], "value": [0.1, np.nan], "low": [0, -np.inf], "high": [1, np.inf], "n": [3, 0]}
    )
    (axis,) = plots.forest(gains, "arm").axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a"]
