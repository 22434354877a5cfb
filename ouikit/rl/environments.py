"""Many copies of one Gymnasium environment, each with random numbers of its own, stepped together.

An episode that ends is followed at once by the first state of the next; the state that it ended in is given
beside it. Copy i with seed s meets the states that `gym.make(env)` meets after `reset(seed=s)`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Step(NamedTuple):
    """What one step of n environments gives.

    states: float32 `[n, inputs]` to act on next; rewards: float `[n]`; terminated, truncated: bool `[n]`;
    reached: float32 `[n, inputs]`, as `states`, but the episode's last state where it ended.
    """

    states: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    reached: np.ndarray


class Environments(Protocol):
    """n environments; `inputs` numbers in a state, `actions` to choose from."""

    inputs: int
    actions: int

    def reset(self) -> np.ndarray:
        """The first states, float32 `[n, inputs]`; called once."""

    def step(self, actions: np.ndarray) -> Step:
        """Take one action, int64 `[n]`, in each."""

    def close(self) -> None:
        """Free what they hold."""


def make(env: str, seeds: Sequence[int]) -> Environments:
    """One environment per seed; CartPole in one array, others one after the other.

    Raises TypeError where actions are not discrete or states are no plain vectors.
    """
    entry = gym.spec(env).vector_entry_point
    if isinstance(entry, str) and entry.endswith(f":{CartPoleVectorEnv.__name__}"):
        return CartPoles(env, seeds)
    return Each(env, seeds)


class Each:
    """Any environment with discrete actions, by Gymnasium's SyncVectorEnv."""

    def __init__(self, env: str, seeds: Sequence[int]) -> None:
        def one() -> gym.Env:
            return gym.make(env, disable_env_checker=True)

        self._envs = SyncVectorEnv([one] * len(seeds), autoreset_mode=AutoresetMode.SAME_STEP)
        self._seeds: list[int | None] = list(seeds)
        states, actions = self._envs.single_observation_space, self._envs.single_action_space
        discrete = isinstance(actions, gym.spaces.Discrete) and actions.start == 0
        if not (discrete and isinstance(states, gym.spaces.Box) and len(states.shape) == 1):
            raise TypeError(
                f"{env}: actions must be discrete, from 0 on, and states vectors, not {actions} and {states}"
            )
        self.inputs, self.actions = states.shape[0], int(actions.n)  # type: ignore[attr-defined]

    def reset(self) -> np.ndarray:
        return self._envs.reset(seed=self._seeds)[0].astype(np.float32)

    def step(self, actions: np.ndarray) -> Step:
        found, rewards, terminated, truncated, infos = self._envs.step(actions)
        states = found.astype(np.float32)
        reached = states
        if (ended := terminated | truncated).any():
            reached = states.copy()
            reached[ended] = np.stack(infos["final_obs"][ended])
        return Step(states, rewards, terminated, truncated, reached)

    def close(self) -> None:
        self._envs.close()


class CartPoles:
    """Gymnasium's CartPole for many carts in one array.

    There all carts draw their first states from one generator, a step after their episode's end. Here each
    has the generator that a cart alone would have, and starts anew at once.
    """

    inputs, actions = 4, 2

    def __init__(self, env: str, seeds: Sequence[int]) -> None:
        made = gym.make_vec(env, len(seeds), vectorization_mode="vector_entry_point")
        self._carts: Any = made.unwrapped  # whose state is declared as None
        self._streams = [np_random(seed)[0] for seed in seeds]

    def reset(self) -> np.ndarray:
        self._carts.reset()
        self._restart(np.arange(len(self._streams)))
        return self._states()

    def step(self, actions: np.ndarray) -> Step:
        reached, rewards, terminated, truncated, _ = self._carts.step(actions)
        states = reached
        if (ended := terminated | truncated).any():
            self._restart(ended.nonzero()[0])
            states = self._states()
        return Step(states, rewards, terminated, truncated, reached)

    def close(self) -> None:
        self._carts.close()

    def _restart(self, which: np.ndarray) -> None:
        carts = self._carts
        carts.state[:, which] = np.stack(
            [self._streams[i].uniform(carts.low, carts.high, size=4) for i in which], axis=1
        )
        carts.steps[which] = 0
        carts.prev_done[which] = False

    def _states(self) -> np.ndarray:
        return self._carts.state.T.astype(np.float32)
