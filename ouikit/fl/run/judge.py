"""How the server judges a global model: on the test split, and by how its gates have changed."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ouikit.fl.run.client import dual_network
from ouikit.fl.setting.federation import Federation
from ouikit.nn.chain import live_state
from ouikit.nn.gated import DualCopy
from ouikit.nn.weights import load
from ouikit.patterns import flip_rate
from ouikit.probe import Probe
from ouikit.train import evaluate

PROBE = 128  # test images on which gates are read


class Judge:
    """The global model as it would be used: the plain network, or with the gates of its initial weights.

    Args:
        federation: of a run.
        frozen: gates stay those of the initial weights, as under `ouikit.fl.FedSQ`.

    Attributes:
        initial: state dict of the initial weights.
    """

    def __init__(self, federation: Federation, *, frozen: bool = False) -> None:
        self.data, self._watches = federation.data(), federation.source.domain != "none"
        self.model: nn.Module = federation.network()
        self.initial = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        if frozen:
            self.model = dual_network(federation, self.data).load(self.initial, self.initial)
        self._inputs = self.data.probe(PROBE)
        self._before = self._gates()[0] if self._watches else {}

    def __call__(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """accuracy and loss on the test split, and, of a pretrained network, how its gates have changed:

        flips, the share of them that differs from the initial model's on test images, mean over layers; and
        disagreement, the share that the weights of now would set otherwise: the same if gates are free.
        """
        self._load(weights)
        loss, accuracy = evaluate(self.model, self.data.standardised)
        found = {"accuracy": accuracy, "loss": loss}
        if not self._watches:
            return found
        before, now, wanted = self._before, *self._gates()
        return {**found, "flips": flip_rate(before, now), "disagreement": flip_rate(before, wanted)}

    @torch.no_grad()
    def outputs(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Logits on the test images, float32 [N, classes], in evaluation mode."""
        self._load(weights)
        return self.model.eval()(self.data.probe(len(self.data.validation)))

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        if isinstance(self.model, DualCopy):
            self.model.load(self.initial, weights)
        else:
            load(self.model, weights, live_state(self.model))

    def _gates(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The masks in force on the probe, and those that the weights of now would give."""
        if not isinstance(self.model, DualCopy):
            masks = Probe(self.model, self._inputs).patterns()
            return masks, masks
        wanted = self.model.wanted(self._inputs)
        return (self.model.regime(self._inputs).masks if self.model.gate == "structure" else wanted), wanted
