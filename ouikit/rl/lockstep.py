"""Many trainings of PPO at once, in one batched program: the same algorithm as Stable-Baselines3's.

Trainings that differ in learning rate and seed only have networks of one shape. Every weight is then one
tensor `[R, in, out]` with a training's own in each slice, and one call multiplies for all R. Nothing passes
from one training to another: each has its own environments, random numbers, gradient norm and optimiser, and
gives the same numbers, but for rounding, whichever others run beside it.

An update equals that of SB3's `PPO.train` on the same rollout and minibatches (`tests/rl/test_lockstep.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ouikit.nn.lockstep import Stack
from ouikit.optim.lockstep import Adam
from ouikit.rl import environments
from ouikit.rl.callback import evenly
from ouikit.rl.ppo import Run, Settings

RECENT = 100  # episodes in the running return, as SB3's stats_window_size


def train(settings: Settings, rates: Sequence[float], seeds: Sequence[int]) -> list[Run]:
    """Train once per pair of a learning rate and a seed, all side by side; `settings.lr` is not used.

    Returns a run per pair, with the readings of `OUICallback`. One whose policy or values stop being finite,
    on the probe or on the states it meets, is recorded as diverged; the others go on as if it were not there.

    Raises:
        ValueError: for rates and seeds of different numbers, or a rate that is not > 0.
        TypeError: as `environments.make`.
    """
    if len(rates) != len(seeds) or not all(rate > 0 for rate in rates):
        raise ValueError(f"one rate > 0 for each seed: got {list(rates)} and {list(seeds)}")
    s, batch = settings, settings.envs * settings.rollout
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    envs = environments.make(s.env, [seed * s.envs + i for seed in seeds for i in range(s.envs)])
    agents = Agents(envs.inputs, envs.actions, s, generators)
    adam = Adam(agents.stack, [*rates, *rates], eps=s.adam_eps)
    episodes = _Episodes(len(rates), s.envs)
    learnt = {name: torch.full((len(rates),), torch.nan) for name in ("clipped", "kl", "entropy")}
    states, readings = envs.reset(), []
    for update in range(s.updates):
        uniform = torch.stack([torch.rand(s.rollout, s.envs, envs.actions, generator=g) for g in generators])
        rollout = collect(agents, envs, states, uniform, s, episodes)
        states = rollout.following
        if not update:
            watch = _Watch(agents, rollout.states[:, evenly(batch, s.probe)])
        readings.append(watch.read(rollout.finite) | learnt | {"return": episodes.recent()})
        orders = [
            torch.stack([torch.randperm(batch, generator=g) for g in generators]) for _ in range(s.epochs)
        ]
        learnt = learn(agents, adam, rollout, orders, s)
    envs.close()
    met = torch.cat([rollout.states, agents.split(states)], 1)
    readings.append(watch.read(_finite(*agents(met))) | learnt | {"return": episodes.recent()})
    return [_run(r, readings, episodes.ended[r], batch) for r in range(len(rates))]


class Agents:
    """R actors and R critics with orthogonal weights, as SB3 draws them, from a generator each.

    One stack of 2R networks, the actors first. A critic has as many outputs as an actor; the first is the
    value, the others are zero and stay so.

    Attributes:
        stack: the networks.
    """

    def __init__(
        self, inputs: int, actions: int, settings: Settings, generators: Sequence[torch.Generator]
    ) -> None:
        widths = [inputs, *[settings.hidden] * settings.depth, actions]
        self.runs, self.envs = len(generators), settings.envs
        self.stack = Stack(widths, 2 * self.runs, settings.activation)
        for net, (outputs, last_gain) in enumerate(((actions, 0.01), (1, 1.0))):
            gains = [2**0.5] * settings.depth + [last_gain]
            for n, (weight, _), gain in zip(widths, self.stack.layers, gains, strict=False):
                used = outputs if gain is gains[-1] else weight.shape[2]
                for own, generator in zip(weight[net * self.runs :], generators, strict=False):
                    own[:, :used] = nn.init.orthogonal_(torch.empty(used, n), gain, generator).T

    def split(self, states: np.ndarray) -> Tensor:
        """States of all environments, `[R · envs, n]` -> `[R, envs, n]`."""
        return torch.from_numpy(states).view(self.runs, self.envs, -1)

    def act(self, x: Tensor) -> Tensor:
        """States `[R, B, n]` -> logits of the actions `[R, B, A]`."""
        return self.stack.outputs(x, first=self.runs)[-1]

    def outputs(self, x: Tensor) -> list[Tensor]:
        """States `[R, B, n]` -> what every layer of the stack gives, `[2R, B, …]`, the states first."""
        return self.stack.outputs(torch.cat([x, x]))

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """States `[R, B, n]` -> logits of the actions `[R, B, A]`, values `[R, B]`."""
        return self.heads(self.outputs(x)[-1])

    def heads(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """The stack's last outputs as logits and values."""
        return last[: self.runs], last[self.runs :, :, 0]

    def clip(self, largest: float) -> None:
        """Cut the gradients to the largest norm over both networks of a training."""
        grad = self.stack.grad
        norm = torch.linalg.vecdot(grad, grad).view(2, -1).sum(0).sqrt()
        grad.mul_((largest / (norm + 1e-6)).clamp(max=1).repeat(2)[:, None])


@dataclass(frozen=True)
class Rollout:
    """What R agents met and did, N = envs · rollout steps each, environment after environment as in SB3.

    states `[R, N, n]`; actions, int64, log_probs, advantages, returns `[R, N]`; following: the states to act
    on next, as the environments give them; finite: bool `[R]`, whether all policies and values were.
    """

    states: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    following: np.ndarray
    finite: Tensor


def collect(
    agents: Agents,
    envs: environments.Environments,
    states: np.ndarray,
    uniform: Tensor,
    settings: Settings,
    episodes: "_Episodes",
) -> Rollout:
    """Act from `states` on; uniform numbers `[R, steps, envs, A]` draw the actions, by the Gumbel trick.

    Only the actor works step by step: weights stand still, so that values and probabilities follow for all
    states at once.
    """
    runs, steps, each, _ = uniform.shape
    seen = np.empty((steps, *states.shape), np.float32)
    reached = np.zeros_like(seen)  # the last states of episodes that a time limit cut off
    actions = np.empty((steps, runs * each), np.int64)
    rewards = np.empty((steps, runs * each), np.float32)
    ended, cut = np.zeros((2, steps, runs * each), bool)
    noise = -(-uniform.movedim(1, 0).log()).log()
    for t in range(steps):
        seen[t] = states
        actions[t] = agents.act(agents.split(states)).add_(noise[t]).argmax(2).flatten()
        found = envs.step(actions[t])
        states, rewards[t], ended[t] = found.states, found.rewards, found.terminated | found.truncated
        if found.truncated.any():
            cut[t] = found.truncated & ~found.terminated
            reached[t, cut[t]] = found.reached[cut[t]]
        episodes.enter(found.rewards, ended[t])

    def own(array: np.ndarray) -> Tensor:
        """`[steps, R · envs, …]` -> `[R, envs · steps, …]`."""
        return torch.as_tensor(array).unflatten(1, (runs, each)).movedim(0, 2).flatten(1, 2)

    x, a, gain = own(seen), own(actions), own(rewards) * settings.reward_scale
    (logits, values), (_, last) = agents(x), agents(agents.split(states))
    if cut.any():  # as in SB3: beyond a time limit the value of the state that was reached counts on
        gain += settings.gamma * own(cut) * agents(own(reached))[1]
    value, reward, end = (t.unflatten(1, (each, steps)) for t in (values, gain, own(ended)))
    advantage = advantages(settings, value, reward, end, last).flatten(1)
    log_probs = logits.log_softmax(2).gather(2, a[:, :, None]).squeeze(2)
    finite = _finite(logits, values) & last.isfinite().all(1)
    return Rollout(x, a, log_probs, advantage, advantage + values, states, finite)


def advantages(s: Settings, values: Tensor, rewards: Tensor, ended: Tensor, last: Tensor) -> Tensor:
    """Generalised advantage estimation, backwards in time (the last dimension).

    values, rewards, ended `[…, steps]`, where `ended[t]` says that step t was an episode's last; last `[…]`:
    the value of the state after the last step.
    """
    after = s.gamma * (~ended)
    errors = rewards + after * torch.cat([values[..., 1:], last[..., None]], -1) - values
    carried, found = torch.zeros_like(last), []
    for error, share in zip(errors.unbind(-1)[::-1], (s.gae_lambda * after).unbind(-1)[::-1], strict=True):
        carried = torch.addcmul(error, share, carried)
        found.append(carried)
    return torch.stack(found[::-1], -1)


def learn(
    agents: Agents, adam: Adam, rollout: Rollout, orders: Iterable[Tensor], s: Settings
) -> dict[str, Tensor]:
    """One update: a pass over the rollout per order, int64 `[R, N]`, cut into minibatches.

    Returns `[R]` each: clipped and entropy, means over all minibatches, and kl, over the last pass's (as SB3
    logs them).
    """
    own = torch.arange(agents.runs)[:, None]
    columns = (rollout.states, rollout.actions, rollout.log_probs, rollout.advantages, rollout.returns)
    clipped, entropies = [], []
    for order in orders:
        kls = []
        shuffled = (column[own, order].chunk(s.minibatches, 1) for column in columns)
        for x, action, old, advantage, target in zip(*shuffled, strict=True):
            outputs = agents.outputs(x)
            logits, values = agents.heads(outputs[-1])
            log_policy = logits.log_softmax(2)
            log_ratio = log_policy.gather(2, action[:, :, None]).squeeze(2) - old
            ratio = log_ratio.exp()
            spread, mean = torch.std_mean(advantage, 1, keepdim=True)
            advantage = (advantage - mean) / (spread + 1e-8)
            far = (ratio - 1).abs() > s.clip
            # the loss, with means over the minibatch: value_weight · (values − target)²
            # − min(advantage · ratio, advantage · clipped ratio) − entropy_weight · entropy
            gain = advantage * ratio
            gain = gain * (
                gain <= advantage * ratio.clamp(1 - s.clip, 1 + s.clip)
            )  # flat where the clip holds
            policy = log_policy.exp()
            entropy = -(policy * log_policy).sum(2)
            slope = torch.zeros_like(outputs[-1])
            on_logits, on_values = agents.heads(slope)
            on_logits.addcmul_(
                policy, s.entropy_weight * (log_policy + entropy[:, :, None]) + gain[:, :, None]
            )
            on_logits.scatter_add_(2, action[:, :, None], -gain[:, :, None])
            torch.mul(values - target, 2 * s.value_weight, out=on_values)
            agents.stack.backward(outputs, slope.div_(x.shape[1]))
            agents.clip(s.grad_norm)
            adam.step()
            clipped.append(far.float().mean(1))
            entropies.append(entropy.mean(1))
            kls.append((ratio - 1 - log_ratio).mean(1))
    logged = {"clipped": clipped, "kl": kls, "entropy": entropies}
    return {name: torch.stack(values).mean(0) for name, values in logged.items()}


def _finite(logits: Tensor, values: Tensor) -> Tensor:
    return logits.isfinite().all(2).all(1) & values.isfinite().all(1)


class _Watch:
    """The readings of `OUICallback`, of all networks at once, on a probe `[R, B, n]`."""

    def __init__(self, agents: Agents, probe: Tensor) -> None:
        self._agents, self._probe = agents, probe
        self._first: list[Tensor] = []
        self._last: list[Tensor] = []

    def read(self, finite: Tensor) -> dict[str, Tensor]:
        """OUI and flips `[R]`, and whether all is finite: what the caller knows, and the probe's outputs."""
        _, *hidden, last = self._agents.outputs(self._probe)
        bits = [h > 0 for h in hidden]  # the sign of tanh and ReLU is that of what they are given
        self._first = self._first or bits
        row = {"finite": finite & _finite(*self._agents.heads(last))}
        read = {"": _mean([_balance(layer) for layer in bits])}
        read |= {"_flips": _flips(self._last, bits), "_moved": _flips(self._first, bits)}
        self._last = bits
        for what, values in read.items():
            row |= dict(zip([f"actor{what}", f"critic{what}"], values.chunk(2), strict=True))
        return row


def _balance(bits: Tensor) -> Tensor:
    """`balance_oui` of each slice of a layer `[2R, B, h]`."""
    on, size = bits.sum(1), bits.shape[1]
    return torch.minimum(on, size - on).double().mean(1) / (size // 2)


def _flips(before: list[Tensor], after: list[Tensor]) -> Tensor:
    """`flip_rate` of each of 2R networks, nan where there is no reading before."""
    if not before:
        return torch.full((len(after[0]),), torch.nan)
    return _mean([(a ^ b).double().mean((1, 2)) for a, b in zip(before, after, strict=True)])


def _mean(layers: list[Tensor]) -> Tensor:
    return torch.stack(layers).mean(0)


class _Episodes:
    """When each training's episodes ended, in environment steps, and their returns, unscaled."""

    def __init__(self, runs: int, envs: int) -> None:
        self.ended: list[list[tuple[int, float]]] = [[] for _ in range(runs)]
        self._envs, self._steps, self._running = envs, 0, np.zeros(runs * envs)

    def enter(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """One step of all environments."""
        self._steps += self._envs
        self._running += rewards
        for i in ended.nonzero()[0]:
            self.ended[i // self._envs].append((self._steps, float(self._running[i])))
        self._running[ended] = 0

    def recent(self) -> Tensor:
        """Mean return of the last episodes `[R]`, nan where none has ended."""
        last = [[value for _, value in ended[-RECENT:]] for ended in self.ended]
        return torch.tensor([np.mean(values) if values else np.nan for values in last])


def _run(r: int, readings: list[dict[str, Tensor]], ended: list[tuple[int, float]], batch: int) -> Run:
    history = pd.DataFrame([{name: value[r].item() for name, value in row.items()} for row in readings])
    finite = history.pop("finite").astype(bool).cummin()
    updates = len(history) - 1
    history.insert(0, "step", np.minimum(np.arange(1.0, updates + 2), updates) * batch)
    history = history.where(finite)
    history.insert(0, "updates", np.arange(updates + 1.0))
    return Run(history, pd.DataFrame(ended, columns=["step", "return"]), not finite.all())
