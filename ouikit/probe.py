"""Fixed inputs on which a model's patterns are read again and again while it trains."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ouikit.oui import balance_oui, fixed_pairs, pairwise_oui
from ouikit.patterns import flat_bits, flip_rate, record_patterns


class Probe:
    """Reads both indicators, a control, and the share of flipped bits, in evaluation mode.

    The same inputs each time, batch normalisation with its running statistics, no gradient, no effect on
    training: what changes between two readings is the network.

    Args:
        model: any module; each of its layers is put back into the mode it was in.
        inputs: one batch `[B, …]`, B ≥ 2, on the model's device.
        layers: as in `ouikit.record_patterns`.
        pairs: how many pairs the pairwise indicator compares: `fixed_pairs(B, pairs)`, the same for every
            model.
    """

    def __init__(
        self, model: nn.Module, inputs: Tensor, *, layers: Iterable[str] | None = None, pairs: int = 28
    ) -> None:
        self.model, self.inputs = model, inputs
        self.layers = None if layers is None else list(layers)
        self.pairs = fixed_pairs(len(inputs), pairs)
        self._last: dict[str, Tensor] | None = None

    @torch.no_grad()
    def patterns(self) -> dict[str, Tensor]:
        """The patterns now: layer name -> bool `[B, units…]`."""
        modes = {module: module.training for module in self.model.modules()}  # some may be frozen
        self.model.eval()
        try:
            with record_patterns(self.model, self.layers) as patterns:
                self.model(self.inputs)
        finally:
            for module, training in modes.items():
                module.training = training
        return dict(patterns)

    def read(self) -> dict[str, float]:
        """Means over layers: `probe_oui`, `probe_balance`, `probe_shuffled`, and, from the second reading on,
        `probe_flips`, the share of bits that changed since the one before."""
        now = self.patterns()
        before, self._last = self._last, now
        flips = {"probe_flips": flip_rate(before, now)} if before else {}
        return {
            "probe_oui": pairwise_oui(now, self.pairs),
            "probe_balance": balance_oui(now),
            "probe_shuffled": pairwise_oui(shuffle_samples(now), self.pairs),
            **flips,
        }


def shuffle_samples(patterns: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """A control: turn each unit's bits over the samples by an offset of its own, layer by layer.

    Every unit keeps how often it is on; which samples share a pattern is lost. `balance_oui` cannot see the
    difference (exactly); nor, over all pairs and without its cap, can `pairwise_oui`. Units of equal
    offset (one in B) stay aligned.

    Returns bool `[B, d]` per layer. Raises TypeError, ValueError as `pairwise_oui`.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = {}
    for name, pattern in patterns.items():
        flat = flat_bits(pattern, name)
        # Offsets along one random order: as good as a permutation per unit, without sorting d times.
        order = torch.randperm(len(flat), generator=generator)
        offsets = torch.randint(len(flat), (flat.shape[1],), generator=generator)
        chosen = order[(torch.arange(len(flat)).unsqueeze(1) + offsets) % len(flat)]
        shuffled[name] = flat.gather(0, chosen.to(flat.device))
    return shuffled
