"""Watch the actor and the critic of any Stable-Baselines3 on-policy model on a frozen probe of states.

    from stable_baselines3 import PPO
    from ouikit.rl import OUICallback

    nets = dict(net_arch=dict(pi=[64, 64], vf=[64, 64]))
    model = PPO("MlpPolicy", "CartPole-v1", policy_kwargs=nets, seed=0, device="cpu")
    watch = OUICallback()                        # freezes 256 states of the first rollout
    model.learn(20_000, callback=watch)          # SB3's logger gets oui/actor, oui/critic, …
    for row in watch.history:
        print(row["updates"], row["actor"], row["critic"], row["critic_moved"])

Measurement after arXiv 2603.09950; its text was not available, so that probe size, states and the mean over
hidden layers are inferred.
"""

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space, maybe_transpose
from torch import Tensor

from ouikit.oui import balance_oui
from ouikit.patterns import flip_rate, record_patterns
from ouikit.rl.policies import evaluation, features, hidden, networks

Row = dict[str, float]
TRAINING = {"clipped": "train/clip_fraction", "kl": "train/approx_kl", "entropy": "train/entropy_loss"}


class OUICallback(BaseCallback):
    """Measures balance OUI and flipped bits of actor and critic, before the first update and after each.

    A reading is taken at the end of each rollout, so that the first one sees the initial networks, and once
    more at the end of training. A reading costs two forward passes of the probe. A `learn` that goes on with
    the model and its time steps, `reset_num_timesteps=False`, goes on with the history: the rows are those of
    one long `learn`.

    Args:
        probe: states `[B, …]` as the environment gives them, B ≥ 2, the same for both networks (of discrete
            observations the numbers `[B]`); None takes `size` states evenly from the first rollout, those of
            the initial policy. Balance OUI depends on B: compare at equal B.
        size: B where the probe is None; a shorter rollout gives all its states.

    `history` has one row per reading, a mapping with

    * updates, step: rollouts that were learnt from, environment steps taken;
    * actor, critic: balance OUI in [0, 1], the mean over hidden layers (bits are pre-activation > 0);
    * actor_flips, critic_flips: share of bits that changed since the reading before (nan in the first);
    * actor_moved, critic_moved: share of bits that differ from the first reading;
    * clipped, kl, entropy: clip fraction, approximate KL and mean entropy of the last update, as SB3 logs
      them (nan before the first);
    * return: mean return of the last episodes, as SB3's rollout/ep_rew_mean (nan before one has ended).

    All but the counts go to SB3's logger under `oui/`. Where a network's output is not finite, its indicator
    and its flips are nan.

    The hidden layers are the linear ones of the policy's `mlp_extractor`, in evaluation mode; a features
    extractor before them, as of images, is not read.

    Raises:
        ValueError: when training starts, for a probe of fewer than two states, of another shape than the
            environment's or with states that it does not have, or a network without hidden layers.
        TypeError: when training starts, for a policy without an actor and a critic of their own, with other
            layers in them, or with a stage between features and them (recurrent policies); for dictionary
            observations; for a masked probe.
    """

    def __init__(self, probe: ArrayLike | None = None, *, size: int = 256, verbose: int = 0) -> None:
        super().__init__(verbose)
        if size < 2:
            raise ValueError(f"size = {size}: an indicator compares states, so a probe needs at least 2")
        self.size = size
        if np.ma.is_masked(probe):
            raise TypeError("the probe is a masked array: leave out the states with masked values")
        self.probe = None if probe is None else np.asarray(probe)
        self.history: list[Row] = []
        self._first: dict[str, dict[str, Tensor]] = {}
        self._last: dict[str, dict[str, Tensor]] = {}
        self._earlier: dict[str, dict[str, Tensor]] = {}  # the reading before the last
        self._at_the_end: Row = {}  # the row of a finished training
        self._watched: object = None

    def _on_training_start(self) -> None:
        policy = self.model.policy
        if not isinstance(policy, ActorCriticPolicy):
            raise TypeError(
                f"{type(self.model).__name__} has no actor-critic policy; OUICallback watches PPO and A2C"
            )
        space = self.model.observation_space
        if not isinstance(space.shape, tuple):
            raise TypeError(f"observations must be arrays, not {space}")
        self._nets = networks(policy)
        self._layers = {name: hidden(name, net) for name, net in self._nets.items()}
        self._go_on() if self._goes_on() else self._start_anew()
        self._watched = self.model
        if self.probe is not None:
            self.probe = _checked(self.probe, space)

    def _goes_on(self) -> bool:
        return self.model is self._watched and self.model.num_timesteps > 0 and bool(self.history)

    def _start_anew(self) -> None:
        self.history, self._first, self._last, self._at_the_end = [], {}, {}, {}

    def _go_on(self) -> None:
        """The reading at the end is taken again after the next rollout: the networks are still the same."""
        if self._at_the_end:
            self.history.pop()
            self._last = self._earlier

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self.probe is None:
            states = self.model.rollout_buffer.observations  # type: ignore[attr-defined]
            self.probe = _spread(states, self.size, self.model.observation_space)
        row = self._read()
        for name, value in row.items():
            if name not in ("updates", "step"):
                self.logger.record(f"oui/{name}", value)

    def _on_training_end(self) -> None:
        if self.history:  # not where training was stopped inside the first rollout
            self._at_the_end = self._read()

    def _read(self) -> Row:
        self._earlier = dict(self._last)
        row: Row = {"updates": float(len(self.history)), "step": float(self.num_timesteps)}
        for name, (finite, patterns) in self._patterns().items():
            before, first = self._last.get(name), self._first.setdefault(name, patterns)
            self._last[name] = patterns
            known = 1.0 if finite else math.nan
            row[name] = known * balance_oui(patterns)
            row[f"{name}_flips"] = known * flip_rate(before, patterns) if before else math.nan
            row[f"{name}_moved"] = known * flip_rate(first, patterns)
        logged = self.logger.name_to_value  # the last update's, until the logger is dumped
        row |= {name: float(logged.get(key, math.nan)) for name, key in TRAINING.items()}
        row["entropy"] *= -1  # SB3 logs its negative, the loss
        row |= {name: self._at_the_end[name] for name in TRAINING if self._at_the_end}  # its logger is gone
        self._at_the_end = {}
        ended = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        row["return"] = float(np.mean(ended)) if ended else math.nan
        self.history.append(row)
        return row

    @torch.no_grad()
    def _patterns(self) -> dict[str, tuple[bool, dict[str, Tensor]]]:
        """Each network's bits on the probe, and whether what it gives is finite."""
        policy: Any = self.model.policy
        found = {}
        with evaluation(policy):
            states, _ = policy.obs_to_tensor(self.probe)
            for (name, net), given in zip(self._nets.items(), features(policy, states), strict=True):
                with record_patterns(net, self._layers[name]) as patterns:
                    out = net(given)
                found[name] = (bool(out.isfinite().all()), dict(patterns))
        return found


def _checked(probe: np.ndarray, space: spaces.Space) -> np.ndarray:
    """States of this space, images with their channels first."""
    shape = space.shape or ()
    states = maybe_transpose(probe, space) if is_image_space(space) and probe.ndim == 4 else probe
    if states.shape[1:] != shape or len(states.shape) == 0 or len(states) < 2:
        raise ValueError(f"the probe must be [{', '.join(map(str, ('B ≥ 2', *shape)))}], not {probe.shape}")
    if not isinstance(space, spaces.Box):
        whole = states.astype(space.dtype)
        if (whole != states).any() or not all(map(space.contains, whole)):
            raise ValueError(f"the probe has states that are not in {space}")
    return states


def _spread(observations: np.ndarray, size: int, space: spaces.Space) -> np.ndarray:
    """`size` states evenly from a rollout `[steps, environments, …]`, as many of each environment."""
    states = observations.swapaxes(0, 1).reshape(-1, *(space.shape or ()))
    if len(states) < 2:
        raise ValueError("the first rollout has a single state: raise n_steps, or give a probe")
    return states[evenly(len(states), size)].copy()


def evenly(count: int, size: int) -> np.ndarray:
    """At most `size` of so many places, from the first to the last."""
    return np.linspace(0, count - 1, min(size, count)).round().astype(int)
