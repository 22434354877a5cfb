"""AdaDecay: weight decay that follows the size of each gradient; a baseline of the OUIDecay paper."""

import torch
from torch import nn

EPSILON = 1e-8


def adadecay_(model: nn.Module, weight_decay: float, alpha: float = 4.0) -> None:
    """Add AdaDecay's term to the gradients, in place: more decay where a weight's gradient is large.

    For every weight tensor w of two or more dimensions that has a gradient g,
    g ← g + λ₀ · 2 / (1 + exp(−α g̃)) · w with g̃ = (`|g|` − mean `|g|`) / max(std `|g|`, 1e-8), population
    standard deviation. The optimiser's own weight decay must be 0.

    Called before gradient clipping it is the paper's AdaDecay, `fit(on_backward=…)`; after it, AdaDecayG:
    `optimiser.register_step_pre_hook`. Without clipping the two are one.

    Source: arXiv 2605.10161 (authors' code), after Nakamura and Hong (2019); that tensors of one
    dimension are spared, as with fixed decay, is inferred.
    """
    for weight in model.parameters():
        if weight.ndim < 2 or weight.grad is None:
            continue
        size = weight.grad.abs()
        deviation, mean = torch.std_mean(size, correction=0)
        share = torch.sigmoid(alpha * (size - mean) / deviation.clamp(min=EPSILON))
        weight.grad.add_(share * weight.detach(), alpha=2 * weight_decay)
