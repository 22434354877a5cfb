"""The actor and the critic inside a policy of Stable-Baselines3, and what they are given.

Policies may be built in any way. What is read is what SB3's own do: features of the states, then a network of
linear layers for the actor and one for the critic, then a head each. Anything else is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ATTRIBUTES = {"actor": "policy_net", "critic": "value_net"}


def networks(policy: Any) -> dict[str, nn.Module]:
    """The hidden layers of "actor" and "critic", one network each.

    Raises TypeError where they are not there, share weights, or are not given the features and nothing else
    when the policy acts.
    """
    extractor = policy.mlp_extractor
    nets: dict[str, nn.Module] = {}
    for name, attribute in ATTRIBUTES.items():
        net = getattr(extractor, attribute, None)
        if not isinstance(net, nn.Module):
            raise TypeError(
                f"{type(extractor).__name__} keeps no {name} of its own: it has no network {attribute!r}"
            )
        nets[name] = net
    actor, critic = ({id(p) for p in net.parameters()} for net in nets.values())
    if actor & critic:
        raise TypeError(
            f"actor and critic of {type(extractor).__name__} share weights: they must be separate"
        )
    _check_inputs(policy, nets)
    return nets


def hidden(name: str, net: nn.Module) -> list[str]:
    """The linear layers of such a network: all are hidden, the heads are elsewhere.

    Raises ValueError where there are none, TypeError where there are layers with weights of another kind.
    """
    layers = [layer for layer, module in net.named_modules() if isinstance(module, nn.Linear)]
    for layer, module in net.named_modules():
        if layer not in layers and any(True for _ in module.parameters(recurse=False)):
            raise TypeError(
                f"the {name} has a {type(module).__name__} at {layer!r}: only linear layers are read"
            )
    if not layers:
        raise ValueError(
            f"the {name} has no hidden layers of its own: give "
            "policy_kwargs=dict(net_arch=dict(pi=[…], vf=[…]))"
        )
    return layers


def features(policy: Any, states: Any) -> tuple[Tensor, Tensor]:
    """What the actor and the critic are given for these states, a tensor each: one, or two extractors'."""
    found = policy.extract_features(states)
    return found if isinstance(found, tuple) else (found, found)


@contextmanager
def evaluation(policy: Any) -> Iterator[None]:
    """Evaluation mode, in which SB3 collects rollouts, whichever mode the policy is in."""
    before = policy.training
    policy.set_training_mode(False)
    try:
        yield
    finally:
        policy.set_training_mode(before)


@torch.no_grad()
def _check_inputs(policy: Any, nets: dict[str, nn.Module]) -> None:
    given: dict[str, list[Any]] = {name: [] for name in nets}
    handles = [
        net.register_forward_pre_hook(lambda _, args, name=name: given[name].append(args[0]))
        for name, net in nets.items()
    ]
    space = policy.observation_space
    try:
        with evaluation(policy):
            states, _ = policy.obs_to_tensor(np.zeros((2, *space.shape), space.dtype))
            policy(states, deterministic=True)
            wanted = features(policy, states)
    except TypeError as error:
        raise TypeError(f"{type(policy).__name__} acts on more than states: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    for (name, found), own in zip(given.items(), wanted, strict=True):
        if len(found) != 1 or not _same(found[0], own):
            raise TypeError(
                f"{type(policy).__name__} gives its {name} something else than the features, once"
            )


def _same(a: Any, b: Tensor) -> bool:
    return isinstance(a, Tensor) and a.shape == b.shape and torch.allclose(a, b, equal_nan=True)
