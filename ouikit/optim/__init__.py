"""What changes an optimiser's step: weight decay steered by OUI, Adam's memory, and the scale of gradients.

Imports the root modules of `ouikit` only; `integrations`, `bench` and chapters may import it.
"""

from ouikit.optim.adadecay import adadecay_
from ouikit.optim.balanced_adam import (
    decompose,
    normalised_update,
    refresh_beta,
    refresh_boundaries,
    same_sign,
    scale_lag,
)
from ouikit.optim.ouidecay import (
    OUIDecay,
    decay_groups,
    dynamic_layers,
    ouidecay_scales,
    permuted_scales,
    reversed_scales,
)
from ouikit.optim.stablegrad import StableGrad

__all__ = [
    "OUIDecay",
    "StableGrad",
    "adadecay_",
    "decay_groups",
    "decompose",
    "dynamic_layers",
    "normalised_update",
    "ouidecay_scales",
    "permuted_scales",
    "refresh_beta",
    "refresh_boundaries",
    "reversed_scales",
    "same_sign",
    "scale_lag",
]
