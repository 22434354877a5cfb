"""What the levels of a factor are called, and labels at the ends of lines that keep clear of each other."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from ouikit.plots.style import readable

# What the levels of a factor are called: a mapping that may leave some out, or a function for all of them.
Names = Mapping[Any, str] | Callable[[Any], str]
END = "line-end"  # marks the labels that label_ends wrote


def text_of(level: Any, names: Names | None = None) -> str:
    """What a level is called: its name where there is one; numbers in short, several levels with commas."""
    if callable(names):
        return names(level)
    if names and level in names:
        return names[level]
    if isinstance(level, tuple):
        return ", ".join(text_of(part, names) for part in level)
    return f"{level:g}" if isinstance(level, float) else str(level)


def in_order(levels: Iterable[Hashable], names: Names | None = None) -> list[Any]:
    """Each level once: first those of a mapping `names`, in its order, then the others as they come."""
    present = list(dict.fromkeys(levels))
    first = [level for level in names if level in present] if isinstance(names, Mapping) else []
    return first + [level for level in present if level not in first]


def label_ends(ax: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Write each label beside the right end of its line; `themed` then moves apart those that collide.

    ends: label -> (y of the line's last point in data units, `#rrggbb` of the line).
    """
    for label, (y, line) in ends.items():
        ax.annotate(
            label, (1, y), (6, 0), xycoords=ax.get_yaxis_transform(), textcoords="offset points",
            va="center", fontsize=9, color=readable(line), gid=END,
        )  # fmt: skip


def spread_labels(ax: Axes, gap: float = 12.5) -> bool:
    """Keep the end labels `gap` points apart, once the layout is known; returns whether there are any."""
    labels = [text for text in ax.texts if isinstance(text, Annotation) and text.get_gid() == END]
    points = 72 / ax.figure.dpi
    wanted = np.array([ax.transData.transform((1, text.xy[1]))[1] * points for text in labels])
    placed = wanted.copy()
    order = np.argsort(wanted)
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    for text, shift in zip(labels, placed - wanted - (placed - wanted).mean() if labels else (), strict=True):
        text.set_position((6, float(shift)))
    return bool(labels)
