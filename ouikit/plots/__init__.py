"""One house style for every figure: light and dark, colour-blind safe, with intervals and labels.

A chapter asks for a whole figure in one call; `themed` runs it once per theme:

>>> import pandas as pd
>>> from ouikit import plots
>>> rows = pd.DataFrame({"arm": ["plain"] * 4 + ["decayed"] * 4, "seed": [0, 0, 1, 1] * 2, "step": [1, 2] * 4,
...                      "value": [0.5, 0.6, 0.4, 0.6, 0.6, 0.8, 0.7, 0.8]})
>>> both = plots.themed(lambda: plots.curves(rows, "step", hue="arm", ylabel="accuracy"))
>>> both.light[:4], both.dark[:4]
('<svg', '<svg')

- `curves`: mean and interval over seeds against a column, one line per level, over as many panels as needed;
- `forest`: estimates with their intervals, one row each, with groups and references;
- `panels`: any function that draws on one axis, repeated over a grid with one legend;
- `heat`: a table as a heat map; `mean_line`, `band`, `label_ends`, `heading`: parts for drawing by hand.

Colours are asked for by palette name ("orange"), and each theme answers with its own. The base install has
what this room needs, except matplotlib and seaborn, which come with the laboratory.
"""

from ouikit.plots.canvas import Themed, canvas, heading, set_ticks, themed
from ouikit.plots.forest import forest
from ouikit.plots.heat import heat
from ouikit.plots.labels import label_ends
from ouikit.plots.lines import band, curves, mean_line, median_range
from ouikit.plots.panels import panels
from ouikit.plots.style import CYCLE, PALETTE, Theme, colour, contrast, ramp, readable, sequential, style

__all__ = [
    "CYCLE", "PALETTE", "Theme", "Themed", "band", "canvas", "colour", "contrast", "curves", "forest",
    "heading", "heat", "label_ends", "mean_line", "median_range", "panels", "ramp", "readable", "sequential",
    "set_ticks", "style", "themed",
]  # fmt: skip
