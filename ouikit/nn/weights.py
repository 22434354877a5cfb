"""Initial weights that the papers' networks share."""

from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def he_normal_(model: Network) -> Network:
    """Convolutions of `model` from He's normal distribution, scaled by fan-out (He et al., arXiv 1502.01852,
    equation 14), their biases zero; every other layer keeps what torch gives it."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
