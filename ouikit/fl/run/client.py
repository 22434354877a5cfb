"""One client's part of a round: train the global weights on its own samples, then read its own OUI.

Plain torch; `ouikit.fl.run.apps` sends it through Flower.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ouikit.data.augment import policy
from ouikit.data.dataset import Dataset, Images
from ouikit.fl.run.remembered import Answer, Remembered, Weights, question_of
from ouikit.fl.run.steps import limited
from ouikit.fl.setting.federation import Federation
from ouikit.fl.setting.gates import FrozenGates
from ouikit.fl.setting.networks import build
from ouikit.gates import gate_modules
from ouikit.nn.chain import chain_of, gate_patterns, live_state
from ouikit.nn.gated import DualCopy
from ouikit.nn.weights import load
from ouikit.oui import balance_oui
from ouikit.train import fit, nothing, one_thread

_answers = Remembered()


def local_update(
    federation: Federation,
    client: int,
    server_round: int,
    weights: Weights,
    proximal_mu: float = 0.0,
    structure: Weights | None = None,
) -> Answer:
    """One client's answer in one round.

    Args:
        federation: says how to train.
        client: 0 … clients − 1.
        server_round: 1, 2, …; with the federation's seed and the client it seeds order and augmentation.
        weights: the global model, a state dict.
        proximal_mu: FedProx's μ; the loss then has μ/2 ‖θ − θ_t‖² over all parameters.
        structure: if given, gates are frozen: those of this state dict hold whatever the weights (FedSQ).

    Returns:
        The new state dict, and num-examples, oui (`balance_oui` of the penultimate layer, which is the input
        of the last gate, on the client's probe, in evaluation mode; of the structure where gates are frozen)
        and loss (mean cross-entropy on the client's samples after training).

    Raises:
        ValueError: the client does not exist. RuntimeError: the weights are another network's.

    Torch has one thread. The last answers are remembered: the same question is not trained for twice.
    """
    question = question_of(federation, client, server_round, proximal_mu)
    sent = [weights] if structure is None else [weights, structure]
    with one_thread():
        return _answers.answer(
            question,
            sent,
            lambda: _trained(federation, client, server_round, weights, proximal_mu, structure),
        )


def _trained(
    federation: Federation,
    client: int,
    server_round: int,
    weights: Weights,
    proximal_mu: float,
    structure: Weights | None,
) -> Answer:
    own = federation.client_data(client, server_round)
    model: nn.Module
    network = model = _network(federation.model, len(own.classes), own.channels)
    gate = _last_gate(federation.model, len(own.classes), own.channels)
    if structure is None:
        load(network, weights, live_state(network))
    else:
        model = dual_network(federation, own).load(structure, weights)
        network, gate = model.quantity, f"structure.{gate}"
    seed = client_seed(federation.seed, server_round, client)
    work, augment = own, None
    if federation.augment == "none":
        work = own.standardised
    else:
        augment = policy(federation.augment)
    work, recipe = limited(work, federation.steps), federation.recipe()
    rows = fit(
        model,
        work,
        recipe,
        seed=seed,
        augment=augment,
        on_backward=_pull_back(model, proximal_mu) if proximal_mu else nothing,
        validate_all=False,
    )
    *_, last = rows
    patterns = gate_patterns(model, _probe(federation, client, server_round, seed), [gate])
    chain = chain_of(model)
    after = network.state_dict() if chain is None else chain.state
    state = {name: tensor.detach().clone() for name, tensor in after.items()}
    return state, {
        "num-examples": len(own.train),
        "oui": balance_oui(patterns),
        "loss": last["val_loss"],
    }


def _pull_back(model: nn.Module, mu: float) -> Callable[[], None]:
    """The gradient of FedProx's term, to be added to that of the loss; θ_t is what the model has now."""
    anchor = [p.detach().clone() for p in model.parameters()]

    def add() -> None:
        for parameter, start in zip(model.parameters(), anchor, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=mu)

    return add


@lru_cache(maxsize=4096)
def client_seed(seed: int, server_round: int, client: int) -> int:
    """One seed for each (seed, round, client), without collisions by sums."""
    return int(np.random.SeedSequence([seed, server_round, client]).generate_state(1)[0])


def probe_positions(federation: Federation, client: int) -> Tensor:
    """Positions among the client's own samples that its probe holds: drawn once, the same every round.

    From `default_rng(seed + 10007 · client)`, with replacement where the client has fewer samples (authors'
    code).
    """
    count = len(federation.client_data(client).train)
    return _positions(federation.seed + 10007 * client, count, federation.probe)


@lru_cache(maxsize=1024)
def _positions(seed: int, count: int, probe: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.choice(count, probe, replace=count < probe))


def _probe(federation: Federation, client: int, server_round: int, seed: int) -> Tensor:
    """The probe as the network takes it; in the released protocol it is read through the augmentation."""
    before_or_after = min(server_round, federation.anomaly.onset + 1)
    if federation.population.protocol == "as_released" and federation.augment != "none":
        images = policy(federation.augment)(
            _probe_images(federation, client, before_or_after), torch.Generator().manual_seed(seed)
        )
        return federation.client_data(client, server_round).normalised(images)
    return _still_probe(federation, client, before_or_after)


def _probe_images(federation: Federation, client: int, server_round: int) -> Tensor:
    split = federation.client_data(client, server_round).train
    assert isinstance(split, Images)
    chosen = probe_positions(federation, client)
    held = Images(split.images[chosen], split.labels[chosen], split.size)
    return next(iter(held.batches(len(chosen))))[0]


@lru_cache(maxsize=256)
def _still_probe(federation: Federation, client: int, server_round: int) -> Tensor:
    """A probe that is the same every round, kept."""
    images = _probe_images(federation, client, server_round)
    return federation.client_data(client, server_round).normalised(images)


def dual_network(federation: Federation, images: Dataset) -> DualCopy:
    """The federation's network with frozen gates, for images of this size; `load` gives it weights."""
    shape = tuple(images.standardised.probe(2).shape)
    return _dual(federation.model, len(images.classes), shape, federation.gates)


@lru_cache(maxsize=1)
def _dual(name: str, classes: int, shape: tuple[int, ...], gates: FrozenGates) -> DualCopy:
    """One per process, as `_network`."""
    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return DualCopy(_network(name, classes, shape[1]), example, **vars(gates))


@lru_cache(maxsize=1)
def _network(name: str, classes: int, channels: int) -> nn.Module:
    """One network per process, whose weights every message replaces."""
    return build(name, classes, channels)


@lru_cache
def _last_gate(name: str, classes: int, channels: int) -> str:
    return [*gate_modules(_network(name, classes, channels))][-1]
