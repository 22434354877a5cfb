"""The house style: a palette in two themes, colour-blind safe, and colours asked for by name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

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
_active: Theme = "light"


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
    """`#rrggbb` of a palette name under the active theme; `#rrggbb` itself passes through.

    Raises KeyError for any other name, with the nearest one that is known.
    """
    known = PALETTE[_active]
    if name.startswith("#"):
        return name
    if name not in known:
        near = get_close_matches(name, known) or known
        raise KeyError(f"no colour {name!r}: did you mean {', '.join(near)}?")
    return known[name]


Colours = Mapping[Any, str] | Sequence[str]


def colours_of(levels: Sequence[Any], wanted: Colours | None = None) -> dict[Any, str]:
    """One colour per level: the one in `wanted` (level to palette name or `#rrggbb`), or a default.

    A sequence `wanted` goes to the levels in their order.

    Defaults: `sequential` for three numbers or more, else the palette's cycle in the order of the levels.
    """
    if len(levels) > 2 and all(isinstance(level, (int, float)) for level in levels):
        default = sequential(levels)
    else:
        default = {level: colour(CYCLE[i % len(CYCLE)]) for i, level in enumerate(levels)}
    if not isinstance(wanted, Mapping):
        wanted = dict(zip(levels, wanted or (), strict=False))
    return default | {level: colour(name) for level, name in wanted.items()}


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
