"""PPO with every constant written down, for Stable-Baselines3 and for `ouikit.rl.lockstep`; tables of runs.

No constant of arXiv 2603.09950 is known. Those here are CleanRL's for classic control, with a constant
learning rate, separate networks, and rewards that are scaled for learning only.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import gymnasium as gym
import pandas as pd
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from ouikit.rl.callback import OUICallback
from ouikit.rl.policies import features

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


@dataclass(frozen=True)
class Settings:
    """Everything that a training depends on, besides its seed.

    Attributes:
        env: a Gymnasium name with a discrete action space.
        lr: of Adam, constant.
        steps: environment steps in all; rounded up to whole rollouts.
        envs, rollout: environments side by side, steps of each per rollout.
        epochs, minibatches: passes over a rollout, parts that it is cut into.
        gamma, gae_lambda, clip, entropy_weight, value_weight, grad_norm, adam_eps: as in SB3's PPO.
        hidden, depth: units of a hidden layer and number of such layers, of the actor and of the critic.
        activation: "tanh" or "relu".
        reward_scale: what the learner's rewards are multiplied by; reported returns are unscaled.
        probe: states on which the networks are read.
    """

    env: str = "CartPole-v1"
    lr: float = 1e-3
    steps: int = 50_000
    envs: int = 4
    rollout: int = 128
    epochs: int = 4
    minibatches: int = 4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy_weight: float = 0.01
    value_weight: float = 0.5
    grad_norm: float = 0.5
    adam_eps: float = 1e-5
    hidden: int = 64
    depth: int = 2
    activation: str = "tanh"
    reward_scale: float = 0.02
    probe: int = 256

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}: got {self.activation!r}")
        if self.envs * self.rollout % self.minibatches:
            raise ValueError(
                f"a rollout of {self.envs} · {self.rollout} steps cannot be cut into {self.minibatches} "
                "equal minibatches"
            )
        if not self.lr > 0 or not self.reward_scale > 0:
            raise ValueError(f"lr and reward_scale must be > 0: got {self.lr} and {self.reward_scale}")

    @property
    def updates(self) -> int:
        """Rollouts that are collected and learnt from."""
        return math.ceil(self.steps / (self.envs * self.rollout))


@dataclass(frozen=True)
class Run:
    """What one training leaves: a reading per update (0 … updates), the episodes, and whether it diverged.

    history: columns as in `OUICallback`; where a run diverged, the readings after that are nan.
    episodes: columns step (environment steps taken when it ended) and return (unscaled).
    """

    history: pd.DataFrame
    episodes: pd.DataFrame
    diverged: bool


def model_of(settings: Settings, seed: int) -> PPO:
    """A fresh PPO model with its environments; seeds that differ share no environment stream.

    SB3 seeds the global generators of Python, numpy and torch here.
    """

    def scaled(env: gym.Env) -> gym.Env:
        return gym.wrappers.TransformReward(env, lambda reward: settings.reward_scale * float(reward))

    s = settings
    return PPO(
        "MlpPolicy",
        make_vec_env(s.env, n_envs=s.envs, wrapper_class=scaled),  # Monitor is inside: it sees real rewards
        learning_rate=s.lr,
        n_steps=s.rollout,
        batch_size=s.envs * s.rollout // s.minibatches,
        n_epochs=s.epochs,
        gamma=s.gamma,
        gae_lambda=s.gae_lambda,
        clip_range=s.clip,
        ent_coef=s.entropy_weight,
        vf_coef=s.value_weight,
        max_grad_norm=s.grad_norm,
        seed=seed * s.envs,  # SB3 gives environment i the seed + i
        device="cpu",
        policy_kwargs={
            "activation_fn": ACTIVATIONS[s.activation],
            "net_arch": {"pi": [s.hidden] * s.depth, "vf": [s.hidden] * s.depth},
            "optimizer_kwargs": {"eps": s.adam_eps},
        },
    )


def first_update(
    settings: Settings, seed: int
) -> tuple[nn.Sequential, torch.Tensor, dict[str, torch.Tensor]]:
    """What the first update does to a real actor: (its hidden layers before, states, change of each weight).

    All in float64, as `ouikit.signals.flip_bounds` wants them; the states are the frozen probe, `[B, n]` as
    the actor is given it, and the change, after less before, is named as in `named_parameters()`.
    """
    model = model_of(settings, seed)
    net = model.policy.mlp_extractor.policy_net
    before, watch = copy.deepcopy(net).double(), OUICallback(size=settings.probe)
    model.learn(settings.envs * settings.rollout, callback=watch)
    model.env.close()  # type: ignore[union-attr]
    old = dict(before.named_parameters())
    change = {name: (new.double() - old[name]).detach() for name, new in net.named_parameters()}
    states, _ = model.policy.obs_to_tensor(watch.probe)  # type: ignore[arg-type]
    return before, features(model.policy, states)[0].double(), change


def final_return(run: Run, settings: Settings, share: float = 0.1) -> float:
    """Mean return of the episodes that ended in the last `share` of training.

    nan where the run diverged or no episode ended there.
    """
    total = settings.updates * settings.envs * settings.rollout
    late = run.episodes["return"][run.episodes["step"] > (1 - share) * total]
    return math.nan if run.diverged or late.empty else float(late.mean())


def long_rows(run: Run, settings: Settings, points: int = 20) -> Iterator[dict[str, float | str]]:
    """A run as a long table: {step, metric, value}, the step being a share of training, 0, 1/points … 1.

    OUI, the share of moved bits and the running return are those of update ⌈step · updates⌉; flips, clipped,
    kl and entropy are means over the updates since the step before. `slack` is the largest excess of `|ΔOUI|`
    over twice the flips in that time, both networks, every update; it cannot be positive. A return is left
    out until an episode has ended; nan stands for what a diverged run does not have. At step 1 also
    `final`, the final return, and `diverged`, 0 or 1.
    """
    history, updates = run.history.assign(slack=_slack(run.history)), settings.updates
    state = ["actor", "critic", "actor_moved", "critic_moved", "return"]
    means = ["actor_flips", "critic_flips", "clipped", "kl", "entropy"]
    before = -1
    for point in range(points + 1):
        now = math.ceil(round(point * updates / points, 9))
        between, step = history.iloc[before + 1 : now + 1], point / points
        values = history.loc[now, state].to_dict() | between[means].mean(skipna=point == 0).to_dict()
        values["slack"] = between["slack"].max()
        if math.isnan(values["return"]) and not run.diverged:
            del values["return"]  # no episode has ended yet
        for metric, value in values.items():
            if point or metric in state:  # nothing has moved before the first update
                yield {"step": step, "metric": str(metric), "value": float(value)}
        before = now
    yield {"step": 1.0, "metric": "final", "value": final_return(run, settings)}
    yield {"step": 1.0, "metric": "diverged", "value": float(run.diverged)}


def _slack(history: pd.DataFrame) -> pd.Series:
    """`|ΔOUI|` − 2 · flips, the larger of the two networks', at each reading; B is even."""
    nets = [history[net].diff().abs() - 2 * history[f"{net}_flips"] for net in ("actor", "critic")]
    return pd.concat(nets, axis=1).max(axis=1, skipna=False)
