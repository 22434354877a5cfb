"""A Flower strategy that watches how far each client's model leaves the global one, on a shared probe."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ouikit.fl.flower import ArrayRecord, ConfigRecord, Grid, Message
from ouikit.fl.strategies.arrays import Arrays
from ouikit.fl.strategies.paired import PairedFedAvg
from ouikit.fl.strategies.replies import Reply
from ouikit.fl.strategies.risk import TEMPERATURE, THRESHOLD, risk_factors, robust_z
from ouikit.fl.strategies.weights import Vector, cosine_to_mean
from ouikit.nn.chain import gate_patterns, live_state
from ouikit.nn.weights import load
from ouikit.patterns import Pattern
from ouikit.probe import Probe
from ouikit.signals.divergence import DIVERGENCES, reading

LENGTH = "L2"  # the score that is no divergence


class AtypicalClientMonitor(PairedFedAvg):
    """FedAvg that scores every client by its divergence from the global model, on the server.

    The server puts each received model on one probe of its own and compares its activation patterns with
    those of the global model that the client was sent: no labels, no other data, nothing that a client
    reports about itself. The scores join `contributions`:

    * pairwise, direct, cells: as in `ouikit.signals.divergence.DIVERGENCES`;
    * z: `robust_z` of the round's `score`, two-sided;
    * cosine: `cosine_to_mean` of the update, for comparison.

    It excludes nobody. With `risk_aware` the weights are multiplied by `risk_factors`, so that
    clients beyond `threshold` count for less.

    It combines with any other strategy of `ouikit.fl.strategies`, and then starts from its weights::

        class MonitoredFedOUI(AtypicalClientMonitor, FedOUI): ...

    Args:
        network: builds the model that the arrays belong to, with at least one gate, or with named `layers`.
        probe: inputs [m, …], m ≥ 2, as that model takes them; typical ones, on the CPU.
        layers: as in `ouikit.record_patterns`.
        score: what z and the weights are made of: a divergence, or "L2", the length of the update.
        risk_aware: whether scores change weights.
        threshold, temperature: as in `ouikit.fl.risk_weights`.
        strategy: keywords of the strategy that it extends, `PairedFedAvg` by itself.

    Raises ValueError for another score, or as `ouikit.record_patterns` where there is nothing to watch.

    Source: arXiv 2605.22266, reconstruction; the abstract describes monitoring and risk-aware aggregation.
    """

    def __init__(
        self,
        *,
        network: Callable[[], nn.Module],
        probe: Tensor,
        layers: Iterable[str] | None = None,
        score: str = "pairwise",
        risk_aware: bool = False,
        threshold: float = THRESHOLD,
        temperature: float = TEMPERATURE,
        **strategy: object,
    ) -> None:
        super().__init__(**strategy)  # type: ignore[arg-type]
        known = (*DIVERGENCES, LENGTH)
        if score not in known:
            raise ValueError(f"score must be one of {', '.join(known)}: got {score!r}")
        risk_factors([0.0], threshold=threshold, temperature=temperature)  # raises now for wrong values
        self.score, self.risk_aware = score, risk_aware
        self.threshold, self.temperature = threshold, temperature
        self._probe = Probe(network(), probe, layers=layers)
        self._probe.patterns()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy that it extends. Raises RuntimeError, too, for arrays of another network."""
        messages = super().configure_train(server_round, arrays, config, grid)
        if self.global_arrays:
            self._before = reading(self._patterns(self.global_arrays))
        return messages

    def scores(self, replies: list[Reply], server_round: int) -> list[dict[str, float]]:
        """Every client's divergences, z and cosine, after the scores of the strategy that it extends."""
        found = []
        for reply in replies:
            after = reading(self._patterns(reply.arrays))
            found.append({name: divergence(after, self._before) for name, divergence in DIVERGENCES.items()})
        z = robust_z(self._judged(replies, found))
        sizes = [reply.metrics["num-examples"] for reply in replies]
        cosines = cosine_to_mean([reply.update for reply in replies], sizes)
        inner = super().scores(replies, server_round)
        return [
            {**others, **own, "z": float(away), "cosine": float(cosine)}
            for others, own, away, cosine in zip(inner, found, z, cosines, strict=True)
        ]

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """Those of the strategy that it extends, times the risk factors if `risk_aware`."""
        weights = super().weights(replies, server_round)
        if not self.risk_aware:
            return weights
        scores = self._judged(replies, [reply.scores for reply in replies])
        risky = weights * risk_factors(scores, threshold=self.threshold, temperature=self.temperature)
        return risky / risky.sum()

    def _judged(self, replies: list[Reply], found: list[dict[str, float]]) -> list[float]:
        """What `score` names, of every reply."""
        if self.score == LENGTH:
            return [float(np.linalg.norm(reply.update)) for reply in replies]
        return [scores[self.score] for scores in found]

    def _patterns(self, arrays: Arrays) -> Pattern:
        model = self._probe.model
        load(
            model, {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, live_state(model)
        )
        return gate_patterns(model, self._probe.inputs, self._probe.layers)
