"""PPO for discrete actions in one readable file, after the manner of CleanRL: a yardstick, not a dependency.

The same algorithm and constants as `ouikit.rl.ppo` gives to Stable-Baselines3, in a plain loop. It differs
in one thing, as CleanRL does: an episode cut off by its time limit counts as ended, without bootstrapping.
"""

from itertools import pairwise

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn
from torch.distributions import Categorical

from ouikit.rl.ppo import ACTIVATIONS, Settings


class Agent(nn.Module):
    """Separate actor and critic with orthogonal weights."""

    def __init__(self, inputs: int, actions: int, settings: Settings) -> None:
        super().__init__()
        self.actor = _net([inputs, *[settings.hidden] * settings.depth, actions], 0.01, settings.activation)
        self.critic = _net([inputs, *[settings.hidden] * settings.depth, 1], 1.0, settings.activation)

    def forward(self, states: Tensor) -> tuple[Categorical, Tensor]:
        """States `[B, n]` -> the policy and the values `[B]`."""
        return Categorical(logits=self.actor(states)), self.critic(states).squeeze(1)


def train(settings: Settings, seed: int) -> list[float]:
    """Train an agent for `settings.steps`; returns the unscaled returns of the episodes, as they ended."""
    s = settings
    torch.manual_seed(seed)
    same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}  # else a step is lost at each reset
    envs = gym.make_vec(s.env, s.envs, vectorization_mode="sync", vector_kwargs=same_step)
    agent = Agent(envs.single_observation_space.shape[0], envs.single_action_space.n, s)  # type: ignore[index, attr-defined]
    adam = torch.optim.Adam(agent.parameters(), lr=s.lr, eps=s.adam_eps)
    states = envs.reset(seed=seed * s.envs)[0]
    returns: list[float] = []
    running = np.zeros(s.envs)
    for _ in range(s.updates):
        rollout: list[tuple[Tensor, ...]] = []
        for _ in range(s.rollout):
            seen = torch.as_tensor(states, dtype=torch.float32)
            with torch.no_grad():
                policy, value = agent(seen)
                action = policy.sample()
                log_prob = policy.log_prob(action)
            states, reward, terminated, truncated, _ = envs.step(action.numpy())
            ended = terminated | truncated
            running += reward
            returns += running[ended].tolist()
            running[ended] = 0
            scaled = torch.as_tensor(reward * s.reward_scale, dtype=torch.float32)
            rollout.append((seen, action, log_prob, value, scaled, torch.as_tensor(ended)))
        with torch.no_grad():
            last = agent(torch.as_tensor(states, dtype=torch.float32))[1]
        _learn(agent, adam, s, [torch.stack(column) for column in zip(*rollout, strict=True)], last)
    envs.close()
    return returns


def _learn(agent: Agent, adam: torch.optim.Adam, s: Settings, rollout: list[Tensor], last: Tensor) -> None:
    """One update: `epochs` passes over a rollout of tensors `[steps, environments, …]`."""
    seen, action, log_prob, value, reward, ended = rollout
    advantage = _advantages(s, value, reward, ended, last)
    flat = [t.flatten(0, 1) for t in (seen, action, log_prob, advantage, advantage + value)]
    for _ in range(s.epochs):
        for index in torch.randperm(len(flat[0])).chunk(s.minibatches):
            x, a, old, adv, target = (t[index] for t in flat)
            policy, v = agent(x)
            ratio = (policy.log_prob(a) - old).exp()
            adv = (adv - adv.mean()) / (adv.std() + 1e-8)
            gain = torch.min(adv * ratio, adv * ratio.clamp(1 - s.clip, 1 + s.clip)).mean()
            loss = (
                s.value_weight * (v - target).square().mean()
                - gain
                - s.entropy_weight * policy.entropy().mean()
            )
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), s.grad_norm)
            adam.step()


def _advantages(s: Settings, value: Tensor, reward: Tensor, ended: Tensor, last: Tensor) -> Tensor:
    """Generalised advantage estimation, backwards in time; `ended[t]`: step t was an episode's last."""
    advantage, carried = torch.zeros_like(reward), torch.zeros_like(last)
    for t in reversed(range(len(reward))):
        alive = (~ended[t]).float()
        carried = reward[t] + s.gamma * alive * last - value[t] + s.gamma * s.gae_lambda * alive * carried
        advantage[t], last = carried, value[t]
    return advantage


def _net(sizes: list[int], last_gain: float, activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n, m in pairwise(sizes):
        layers += [nn.Linear(n, m), ACTIVATIONS[activation]()]
        nn.init.orthogonal_(layers[-2].weight, 2**0.5)  # type: ignore[arg-type]
        nn.init.zeros_(layers[-2].bias)  # type: ignore[arg-type]
    nn.init.orthogonal_(layers[-2].weight, last_gain)  # type: ignore[arg-type]
    return nn.Sequential(*layers[:-1])
