"""FedProx, gradient alignment, FedOUI, their product, and a control, on top of `PairedFedAvg`.

The weights are the functions of `ouikit.fl.strategies.weights`.
"""

import random
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ouikit.fl.flower import ArrayRecord, ConfigRecord, Grid, Message
from ouikit.fl.strategies.paired import PairedFedAvg
from ouikit.fl.strategies.replies import Reply
from ouikit.fl.strategies.weights import (
    EPSILON,
    Vector,
    alignment_weights,
    fedoui_alignment_weights,
    fedoui_weights,
)


class PairedFedProx(PairedFedAvg):
    """FedProx (arXiv 1812.06127): clients find μ as `proximal-mu` in their configuration and add the term.

    That term is μ/2 ‖θ − θ_t‖², with the square that the sample in Flower's own docstring lacks.
    """

    def __init__(self, *, proximal_mu: float = 0.01, **paired: Any) -> None:
        if not proximal_mu >= 0:
            raise ValueError(f"proximal_mu must be ≥ 0: got {proximal_mu}")
        super().__init__(**paired)
        self.proximal_mu = proximal_mu

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As `PairedFedAvg`, with μ in the configuration."""
        config["proximal-mu"] = self.proximal_mu
        return super().configure_train(server_round, arrays, config, grid)


class GradientAlignment(PairedFedAvg):
    """Weights by agreement with the mean update (`alignment_weights`); η and ε as there."""

    def __init__(self, *, eta: float = 1.0, epsilon: float = EPSILON, **paired: Any) -> None:
        alignment_weights([[0.0]], [1], eta=eta, epsilon=epsilon)  # raises now for wrong values
        super().__init__(**paired)
        self.eta, self.epsilon = eta, epsilon

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """As `alignment_weights`."""
        return alignment_weights(_updates(replies), _sizes(replies), eta=self.eta, epsilon=self.epsilon)


class FedOUI(PairedFedAvg):
    """FedOUI (arXiv 2605.11571): weights by the typicality of the clients' `oui` (`fedoui_weights`).

    Every reply carries a metric `oui` in [0, 1]; γ and ε as in `fedoui_weights`.
    """

    needs: ClassVar[tuple[str, ...]] = ("oui",)

    def __init__(self, *, gamma: float = 1.0, epsilon: float = EPSILON, **paired: Any) -> None:
        fedoui_weights([0.5], [1], gamma=gamma, epsilon=epsilon)  # raises now for wrong values
        super().__init__(**paired)
        self.gamma, self.epsilon = gamma, epsilon

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """As `fedoui_weights`."""
        oui = self.oui(replies, server_round)
        return fedoui_weights(oui, _sizes(replies), gamma=self.gamma, epsilon=self.epsilon)

    def oui(self, replies: list[Reply], server_round: int) -> list[float]:
        """The value by which each client is judged: its own."""
        return [reply.metrics["oui"] for reply in replies]


class ShuffledFedOUI(FedOUI):
    """A control: FedOUI with the round's OUI values dealt to the wrong clients, by the seed and the round.

    As much weight moves, and none of it for a reason.
    """

    def oui(self, replies: list[Reply], server_round: int) -> list[float]:
        """The values of the round in random order."""
        values = super().oui(replies, server_round)
        random.Random(f"{self.seed}/{server_round}").shuffle(values)
        return values


class FedOUIAlignment(FedOUI):
    """The product of both factors (`fedoui_alignment_weights`)."""

    def __init__(self, *, eta: float = 1.0, **fedoui: Any) -> None:
        super().__init__(**fedoui)
        alignment_weights([[0.0]], [1], eta=eta, epsilon=self.epsilon)  # raises now for wrong values
        self.eta = eta

    def weights(self, replies: list[Reply], server_round: int) -> Vector:
        """As `fedoui_alignment_weights`."""
        powers = {"gamma": self.gamma, "eta": self.eta, "epsilon": self.epsilon}
        oui = self.oui(replies, server_round)
        return fedoui_alignment_weights(oui, _updates(replies), _sizes(replies), **powers)


def _updates(replies: list[Reply]) -> NDArray[np.float64]:
    return np.stack([reply.update for reply in replies])


def _sizes(replies: list[Reply]) -> list[float]:
    return [reply.metrics["num-examples"] for reply in replies]
