"""What changes an optimiser's step: weight decay steered by OUI, and its rivals.

Imports the root modules of `ouikit` only; `integrations`, `bench` and chapters may import it.
"""

from ouikit.optim.adadecay import adadecay_
from ouikit.optim.ouidecay import (
    OUIDecay,
    decay_groups,
    dynamic_layers,
    ouidecay_scales,
    permuted_scales,
    reversed_scales,
)

__all__ = [
    "OUIDecay",
    "adadecay_",
    "decay_groups",
    "dynamic_layers",
    "ouidecay_scales",
    "permuted_scales",
    "reversed_scales",
]
