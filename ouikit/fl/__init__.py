"""Federated learning on Flower: one pair of apps, strategies that drop into any Flower project.

`ouikit.fl.weights` and `ouikit.fl.partition` need no Flower. Importing this package first keeps Flower from
sending telemetry and from looking for updates, unless the environment already says otherwise.
"""

import os

from ouikit.fl.weights import alignment_weights, fedoui_alignment_weights, fedoui_weights, typicality

# Flower reads them once, when it is imported.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

__all__ = ["alignment_weights", "fedoui_alignment_weights", "fedoui_weights", "typicality"]
