"""Trainings side by side: each update against Stable-Baselines3's, each training against itself alone."""

import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from stable_baselines3.common.callbacks import CallbackList

from ouikit import balance_oui
from ouikit.patterns import flip_rate, record_patterns
from ouikit.rl import environments, lockstep, ppo
from ouikit.rl.ppo import Settings
from ouikit.train import one_thread

SMALL = Settings(steps=512, envs=2, rollout=64, epochs=2, hidden=8, probe=32)
RATES = (1e-3, 1e-2, 1e-1)


@pytest.fixture(scope="module", autouse=True)
def alone():
    """Networks this small lose time to a second thread."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def run():
    return lockstep.train(SMALL, [1e-3], [0])[0]


def columns(table, names):
    return table[list(names)].to_numpy(float)


def collected(settings, seed):
    """A model of SB3 that has collected a rollout, and learnt nothing yet."""
    model = ppo.model_of(settings, seed)
    _, callback = model._setup_learn(settings.steps, CallbackList([]))
    model.collect_rollouts(model.env, callback, model.rollout_buffer, settings.rollout)
    return model


def linears(model):
    """The linear layers of SB3's actor and critic, heads included."""
    layers = model.policy.mlp_extractor
    actor = [*layers.policy_net[::2], model.policy.action_net]
    return actor, [*layers.value_net[::2], model.policy.value_net]


def agents_of(models, settings):
    """The networks of some models as one stack."""
    inputs, actions = models[0].observation_space.shape[0], int(models[0].action_space.n)
    agents = lockstep.Agents(inputs, actions, settings, [torch.Generator() for _ in models])
    agents.flat.zero_()
    for slot, nets in enumerate(zip(*map(linears, models), strict=True)):
        for run, net in enumerate(nets):
            for (weight, bias), layer in zip(agents.layers, net, strict=True):
                outputs = layer.out_features
                weight[slot * len(models) + run, :, :outputs] = layer.weight.detach().T
                bias[slot * len(models) + run, 0, :outputs] = layer.bias.detach()
    return agents


def flat(array):
    """`[steps, envs, …]` of SB3's buffer -> `[envs · steps, …]`."""
    return torch.as_tensor(array).swapaxes(0, 1).flatten(0, 1)


def rollout_of(models):
    buffers = [model.rollout_buffer for model in models]
    found = {
        name: torch.stack([flat(getattr(buffer, name)) for buffer in buffers])
        for name in ("observations", "actions", "log_probs", "advantages", "returns")
    }
    return lockstep.Rollout(
        found["observations"], found["actions"].long().squeeze(2), found["log_probs"], found["advantages"],
        found["returns"], buffers[0].observations[-1], torch.ones(len(models), dtype=torch.bool),
    )  # fmt: skip


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("units", ["tanh", "relu"])
def test_an_update_is_that_of_sb3(runs, units):
    """Same weights, same rollout, same minibatches: same weights after 16 steps, and the same is logged."""
    settings = replace(SMALL, epochs=4, activation=units, reward_scale=1.0)
    models = [collected(replace(settings, lr=rate), seed) for seed, rate in enumerate(RATES[:runs])]
    agents, rollout = agents_of(models, settings), rollout_of(models)
    before = agents.flat.clone()
    orders = []
    for seed, model in enumerate(models):
        np.random.seed(seed)
        orders.append([np.random.permutation(128) for _ in range(settings.epochs)])
        np.random.seed(seed)
        model.train()
    orders = [torch.as_tensor(np.stack(order)) for order in zip(*orders, strict=True)]
    adam = lockstep.Adam(agents, torch.tensor(RATES[:runs]), settings.adam_eps)
    logged = lockstep.learn(agents, adam, rollout, orders, settings)
    after = agents_of(models, settings)
    assert ((after.flat - before).abs().amax(1) > 1e-3).all()  # something was learnt
    for (weight, bias), (theirs, their_bias) in zip(agents.layers, after.layers, strict=True):
        torch.testing.assert_close(weight, theirs, rtol=1e-3, atol=2e-5)
        torch.testing.assert_close(bias, their_bias, rtol=1e-3, atol=2e-5)
    for name, key, sign in (
        ("clipped", "clip_fraction", 1), ("kl", "approx_kl", 1), ("entropy", "entropy_loss", -1)
    ):  # fmt: skip
        theirs = [sign * float(model.logger.name_to_value[f"train/{key}"]) for model in models]
        assert logged[name].tolist() == pytest.approx(theirs, rel=1e-3, abs=1e-6)
    assert logged["clipped"][-1] > 0 or runs == 1  # the clip was at work


def test_gradients_are_those_of_the_loss_by_autograd():
    """One step of the loss of PPO as it is written, with a clip that holds for some."""
    s = replace(SMALL, epochs=1, minibatches=1, clip=0.01, grad_norm=1e9)
    models = [collected(s, seed) for seed in (0, 1)]
    agents, rollout = agents_of(models, s), rollout_of(models)
    old = rollout.log_probs + 0.05 * torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    adam = lockstep.Adam(agents, torch.tensor([0.0, 0.0]), s.adam_eps)
    order = [torch.arange(128).expand(2, -1)]
    logged = lockstep.learn(agents, adam, replace(rollout, log_probs=old), order, s)
    assert (logged["clipped"] > 0.5).all()
    for run, model in enumerate(models):
        policy, x, action = model.policy, rollout.states[run], rollout.actions[run]
        values, log_prob, entropy = policy.evaluate_actions(x, action)
        ratio = (log_prob - old[run]).exp()
        advantage = rollout.advantages[run]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        gain = torch.min(advantage * ratio, advantage * ratio.clamp(1 - s.clip, 1 + s.clip)).mean()
        error = (values.flatten() - rollout.returns[run]).square().mean()
        loss = s.value_weight * error - gain - s.entropy_weight * entropy.mean()
        policy.zero_grad()
        loss.backward()
        for slot, net in enumerate(linears(model)):
            for (weight, bias), layer in zip(agents.grads, net, strict=True):
                mine = weight[2 * slot + run].T[: layer.out_features]
                torch.testing.assert_close(mine, layer.weight.grad, rtol=1e-3, atol=1e-6)
                torch.testing.assert_close(
                    bias[2 * slot + run, 0, : layer.out_features], layer.bias.grad, rtol=1e-3, atol=1e-6
                )


def test_advantages_are_those_of_sb3():
    model = collected(SMALL, 0)
    buffer = model.rollout_buffer
    shape = (SMALL.rollout, SMALL.envs)
    values, rewards, starts = (torch.rand(shape), torch.rand(shape), (torch.rand(shape) < 0.1).float())
    last, done = torch.rand(SMALL.envs), np.array([0.0, 1.0])
    buffer.values, buffer.rewards, buffer.episode_starts = (t.numpy() for t in (values, rewards, starts))
    buffer.compute_returns_and_advantage(last, done)
    ended = torch.cat([starts[1:], torch.as_tensor(done).float()[None]]).bool()
    mine = lockstep.advantages(SMALL, values.T, rewards.T, ended.T, last)
    assert np.allclose(mine.T, buffer.advantages, atol=1e-5)


def test_first_weights_are_orthogonal_with_the_gains_of_sb3():
    agents = lockstep.Agents(4, 2, SMALL, [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    for net, last_gain in ((0, 0.01), (1, 1.0)):
        for run in (0, 1):
            for (weight, bias), gain in zip(agents.layers, (2**0.5, 2**0.5, last_gain), strict=True):
                own = weight[2 * net + run]
                own = own[:, :1] if net and own.shape[1] == 2 else own
                small = own.T @ own if own.shape[0] >= own.shape[1] else own @ own.T
                torch.testing.assert_close(small, gain**2 * torch.eye(len(small)), atol=1e-5, rtol=1e-5)
                assert not bias.any()
    assert not torch.equal(agents.layers[0][0][0], agents.layers[0][0][1])


def test_readings_are_those_of_the_callback():
    """OUI and flips of three networks before and after an update, on the same probe as `OUICallback`'s."""
    models = [collected(replace(SMALL, lr=rate), seed) for seed, rate in enumerate(RATES)]
    probe = torch.randn(3, 32, 4, generator=torch.Generator().manual_seed(0))

    def patterns():
        for model, states in zip(models, probe, strict=True):
            nets = model.policy.mlp_extractor
            for net in (nets.policy_net, nets.value_net):
                with record_patterns(net, ["0", "2"]) as found:
                    net(states)
                yield dict(found)

    agents, fine = agents_of(models, SMALL), torch.ones(3, dtype=torch.bool)
    watch = lockstep._Watch(agents, probe)
    first, before = watch.read(fine), [*patterns()]
    for model in models:
        model.train()
    agents.flat.copy_(agents_of(models, SMALL).flat)
    second, after = watch.read(fine), [*patterns()]
    for net, start in (("actor", 0), ("critic", 1)):
        assert first[net].tolist() == pytest.approx([balance_oui(b) for b in before[start::2]])
        assert second[net].tolist() == pytest.approx([balance_oui(b) for b in after[start::2]])
        flips = [flip_rate(a, b) for a, b in zip(before[start::2], after[start::2], strict=True)]
        assert max(flips) > 0
        assert second[f"{net}_flips"].tolist() == second[f"{net}_moved"].tolist() == pytest.approx(flips)
        assert first[f"{net}_flips"].isnan().all()
        assert not first[f"{net}_moved"].any()


def test_a_reading_before_the_first_update_and_after_each(run):
    history = run.history
    assert SMALL.updates == 4
    assert history.updates.tolist() == [0, 1, 2, 3, 4]
    assert history.step.tolist() == [128, 256, 384, 512, 512]
    assert history.loc[0, ["actor_flips", "critic_flips", "clipped", "kl", "entropy"]].isna().all()
    assert (history.loc[0, ["actor_moved", "critic_moved"]] == 0).all()
    assert history.loc[1:].notna().all(axis=None)
    assert (history.loc[1:, "entropy"] > 0).all()
    assert history.loc[1, "actor_moved"] == history.loc[1, "actor_flips"]


def test_a_training_does_not_depend_on_its_neighbours():
    """Alone, among others, or beside one that diverges: same actions, same numbers but for rounding."""
    alone = lockstep.train(SMALL, [1e-2], [1])[0]
    for rates, seeds in (([1e-3, 1e-2, 1e-1], [0, 1, 2]), ([1e30, 1e-2], [1, 1])):
        beside = lockstep.train(SMALL, rates, seeds)[1]
        pd.testing.assert_frame_equal(beside.episodes, alone.episodes)
        pd.testing.assert_frame_equal(beside.history, alone.history, rtol=1e-3, atol=1e-5)
    other = lockstep.train(SMALL, [1e-2], [2])[0]
    assert not other.history.equals(alone.history)


def test_the_same_seed_gives_the_same_bits(run):
    again = lockstep.train(SMALL, [1e-3], [0])[0]
    pd.testing.assert_frame_equal(again.history, run.history, check_exact=True)
    pd.testing.assert_frame_equal(again.episodes, run.episodes, check_exact=True)


def test_a_training_that_diverges_is_recorded_with_nan_from_there_on():
    settings = Settings(steps=1024, envs=2, rollout=64, hidden=8, activation="relu", reward_scale=1.0)
    gone, fine = lockstep.train(settings, [1e30, 1e-3], [0, 0])
    assert gone.diverged
    assert not fine.diverged
    assert gone.history.drop(columns="updates").loc[0, ["actor", "critic", "step"]].notna().all()
    assert gone.history.drop(columns="updates").loc[1:].isna().all(axis=None)
    assert gone.history.updates.tolist() == fine.history.updates.tolist() == [*range(9)]
    tables = [pd.DataFrame(ppo.long_rows(one, settings)) for one in (gone, fine)]
    last = tables[0][tables[0].step == 1.0].set_index("metric").value
    assert last.diverged == 1
    assert last.drop("diverged").isna().all()
    assert set(tables[0].metric) == set(tables[1].metric)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("net", [0, 1])
def test_whatever_is_not_finite_is_a_divergence(monkeypatch, value, net):
    """In the policy or in the values, and even where it comes with the last update."""
    learn, calls = lockstep.learn, []

    def poison(agents, *rest):
        logged = learn(agents, *rest)
        calls.append(logged)
        if len(calls) == SMALL.updates:
            agents.layers[-1][1][net * agents.runs, 0, 0] = value
        return logged

    monkeypatch.setattr(lockstep, "learn", poison)
    runs = lockstep.train(SMALL, [1e-3, 1e-3], [0, 1])
    assert [one.diverged for one in runs] == [True, False]
    assert runs[0].history.actor.isna().tolist() == [False] * 4 + [True]


def test_the_report_has_real_returns(run):
    assert (run.episodes["return"] == run.episodes["return"].round()).all()
    assert run.episodes["return"].min() >= 8  # CartPole pays 1 a step and lasts so long
    assert run.history["return"].iloc[-1] == pytest.approx(run.episodes["return"].tail(100).mean())


def rolled(env, settings, seeds):
    """A rollout, and the environments' own account of what was done in it."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    envs = environments.make(env, [seed * settings.envs + i for seed in seeds for i in range(settings.envs)])
    agents = lockstep.Agents(envs.inputs, envs.actions, settings, generators)
    uniform = torch.rand(len(seeds), settings.rollout, settings.envs, envs.actions, generator=generators[0])
    episodes = lockstep._Episodes(len(seeds), settings.envs)
    return agents, lockstep.collect(agents, envs, envs.reset(), uniform, settings, episodes), episodes


def test_beyond_a_time_limit_the_value_of_the_state_that_was_reached_counts_on():
    """MountainCar stops after 200 steps: the return there, by hand, from the car that takes those actions."""
    settings = Settings("MountainCar-v0", envs=1, rollout=256, gae_lambda=1.0)
    agents, rollout, episodes = rolled("MountainCar-v0", settings, [7])
    env = gym.make("MountainCar-v0")
    state, rewards = env.reset(seed=7)[0], []
    for step, action in enumerate(rollout.actions[0, :200].tolist()):
        assert np.allclose(state, rollout.states[0, step])
        state, reward, terminated, truncated, _ = env.step(action)
        rewards.append(reward)
    assert truncated
    assert not terminated
    assert episodes.ended == [[(200, -200.0)]]
    value = agents(torch.as_tensor(state)[None, None])[1].item()
    assert abs(value) > 1e-3
    expected = settings.reward_scale * rewards[-1] + settings.gamma * value
    assert rollout.returns[0, 199].item() == pytest.approx(expected, abs=1e-6)
    after = settings.reward_scale * rewards[-2] + settings.gamma * expected
    assert rollout.returns[0, 198].item() == pytest.approx(after, abs=1e-6)


def test_actions_are_drawn_as_the_policy_says():
    """Shares of actions over many draws in one state, and their probabilities as they are kept."""
    settings = replace(SMALL, envs=2, rollout=4000)
    agents, rollout, _ = rolled("CartPole-v1", settings, [0, 1])
    agents.layers[-1][0].zero_()
    agents.layers[-1][1][:2, 0] = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    envs = environments.make("CartPole-v1", range(4))
    uniform = torch.rand(2, 4000, 2, 2, generator=torch.Generator().manual_seed(0))
    rollout = lockstep.collect(agents, envs, envs.reset(), uniform, settings, lockstep._Episodes(2, 2))
    wanted = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]).softmax(1)
    shares = rollout.actions.float().mean(1)
    assert torch.allclose(shares, wanted[:, 1], atol=0.02)
    assert torch.allclose(rollout.log_probs.exp(), wanted.gather(1, rollout.actions), atol=1e-6)


def balanced(states):
    """A hand that keeps the pole up for hundreds of steps."""
    return (states @ np.array([0.1, 0.5, 5.0, 1.5]) > 0).astype(np.int64)


@pytest.mark.parametrize("hand", ["balanced", "random"])
def test_carts_in_one_array_are_carts_alone(hand):
    """Same seeds, same actions, same everything, beyond falls and beyond the time limit."""
    seeds, rng = [3, 4, 11], np.random.default_rng(0)
    carts, alone = environments.CartPoles("CartPole-v1", seeds), environments.Each("CartPole-v1", seeds)
    states = carts.reset()
    assert np.array_equal(states, alone.reset())
    ends = np.zeros(2, int)
    for _ in range(1100):
        actions = balanced(states) if hand == "balanced" else rng.integers(0, 2, 3)
        one, other = carts.step(actions), alone.step(actions)
        for mine, theirs in zip(one, other, strict=True):
            assert np.allclose(mine, theirs, atol=1e-5)
        states = one.states
        ends += one.terminated.sum(), one.truncated.sum()
    assert ends[int(hand == "balanced")] > 5
    carts.close(), alone.close()


def test_every_environment_of_the_study_can_be_made():
    for name in ("CartPole-v1", "Acrobot-v1", "LunarLander-v3", "MountainCar-v0"):
        envs = environments.make(name, [0, 1])
        assert isinstance(envs, environments.CartPoles) is (name == "CartPole-v1")
        states = envs.reset()
        assert states.shape == (2, envs.inputs)
        assert states.dtype == np.float32
        assert envs.step(np.full(2, envs.actions - 1)).states.shape == states.shape
        envs.close()


@pytest.mark.parametrize(
    ("states", "actions"),
    [
        (gym.spaces.MultiDiscrete([3, 4]), gym.spaces.Discrete(2)),  # numbers that name things
        (gym.spaces.MultiBinary(4), gym.spaces.Discrete(2)),
        (gym.spaces.Box(-1, 1, (2, 2)), gym.spaces.Discrete(2)),
        (gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2, start=1)),  # whose actions are 1 and 2
    ],
)
def test_spaces_that_a_network_of_vectors_would_misread_are_refused(states, actions):
    class Other(gym.Env):
        observation_space, action_space = states, actions

    gym.register("Other-v0", Other)
    try:
        with pytest.raises(
            TypeError, match="Other-v0: actions must be discrete, from 0 on, and states vectors"
        ):
            environments.make("Other-v0", [0])
    finally:
        del gym.registry["Other-v0"]


def test_what_cannot_be_trained_says_why():
    with pytest.raises(TypeError, match="discrete"):
        lockstep.train(replace(SMALL, env="Pendulum-v1"), [1e-3], [0])
    with pytest.raises(ValueError, match="one rate > 0"):
        lockstep.train(SMALL, [1e-3], [0, 1])
    with pytest.raises(ValueError, match="one rate > 0"):
        lockstep.train(SMALL, [0.0], [0])


def test_lockstep_solves_cartpole():
    settings = Settings(steps=20_480)
    runs = lockstep.train(settings, [1e-5, 3e-3, 1e-2], [0, 0, 1])
    idle, *learnt = (ppo.final_return(one, settings) for one in runs)
    assert idle < 50  # an untrained policy reaches 20
    assert min(learnt) > 195  # the threshold of CartPole-v0
