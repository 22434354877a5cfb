"""How far the outputs of an averaged model are from the average of the models' outputs.

Both would be the same if outputs were linear in the weights.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def mean_state(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Σ w_k θ_k over state dicts, added up in double precision; what is no float is that of the first.

    Raises:
        ValueError: not one weight per state dict, or none.
    """
    if not states or len(states) != len(weights):
        raise ValueError(f"one weight per state dict: got {len(weights)} for {len(states)}")
    mean = {name: tensor.clone() for name, tensor in states[0].items()}
    for name, tensor in mean.items():
        if tensor.is_floating_point() or tensor.is_complex():
            double = torch.promote_types(tensor.dtype, torch.float64)
            parts = [weight * state[name].to(double) for weight, state in zip(weights, states, strict=True)]
            mean[name] = torch.stack(parts).sum(0).to(tensor.dtype)
    return mean


def averaging_gap(of_mean: Tensor, of_clients: Tensor, weights: Sequence[float]) -> float:
    """How far the averaged model is from the average of the models, as a share of their spread.

    √(‖f(θ̄) − f̄‖² / Σ_k w_k ‖f(θ_k) − f̄‖²) with f̄ = Σ w_k f(θ_k) and norms over samples and classes.

    Args:
        of_mean: outputs of the averaged model, [N, C].
        of_clients: those of the clients, [K, N, C].
        weights: K weights that sum to 1.

    Returns:
        A number ≥ 0; 0 for models that are linear in their weights, nan where all clients are alike.
    """
    shares = torch.as_tensor(weights, dtype=torch.float64)[:, None, None]
    mean = (shares * of_clients.double()).sum(0)
    spread = (shares * (of_clients.double() - mean).square()).sum()
    return float(((of_mean.double() - mean).square().sum() / spread).sqrt())
