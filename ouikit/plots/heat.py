"""Heat map of a table, with its numbers in the cells."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

from ouikit.plots.style import colour, contrast


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
