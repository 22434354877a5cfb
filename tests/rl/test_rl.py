"""The callback, the trainings and the pruner, on real environments with real Stable-Baselines3 and Optuna."""

import math
import re
from dataclasses import replace

import gymnasium as gym
import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from conftest import hooks_of
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from ouikit import balance_oui
from ouikit.rl import OUICallback, OUIPruner, TrialCallback, callback, ppo, pruner
from ouikit.rl.ppo import Settings
from ouikit.signals import flip_bounds

SMALL = Settings(steps=512, envs=2, rollout=64, epochs=2, hidden=8, probe=32)
optuna.logging.set_verbosity(optuna.logging.WARNING)


def small_ppo(env="CartPole-v1", **options):
    defaults = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu"}
    nets = {"net_arch": {"pi": [8, 8], "vf": [8]}}
    return PPO("MlpPolicy", env, **{**defaults, "policy_kwargs": nets, **options})


def frozen_lake():
    return small_ppo("FrozenLake-v1")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small lose time to a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_learning_piece_by_piece_is_learning_in_one_go():
    def learn(pieces):
        watch, model = OUICallback(size=16), small_ppo(ent_coef=0.01)
        for _ in range(pieces):
            model.learn(384 // pieces, callback=watch, reset_num_timesteps=False)
        return watch, model

    (whole, _), (watch, model) = learn(1), learn(3)
    assert [int(row["updates"]) for row in whole.history] == list(range(7))
    assert len(watch.history) == len(whole.history)
    for row, wanted in zip(watch.history, whole.history, strict=True):
        assert row == pytest.approx(wanted, nan_ok=True)
    model.learn(64, callback=watch)  # time starts again, and so does the history
    assert [row["step"] for row in watch.history] == [64, 64]
    assert watch.history[0]["critic_moved"] == 0


def test_oui_is_that_of_the_signs_at_the_linear_layers():
    model, probe = small_ppo(), np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    watch = OUICallback(probe)
    model.learn(64, callback=watch)  # the last reading sees the networks as they are now
    x, found = torch.as_tensor(probe), {}
    for name, net in (
        ("actor", model.policy.mlp_extractor.policy_net),
        ("critic", model.policy.mlp_extractor.value_net),
    ):
        z = {layer: zs > 0 for layer, zs in flip_bounds.pre_activations(net, x).items()}
        found[name] = balance_oui(z)
    assert {name: watch.history[-1][name] for name in found} == pytest.approx(found)
    assert len(z) == 1  # the critic has one hidden layer, the actor two


def test_flips_are_counted_by_hand():
    """Turning every sign of the actor's only hidden layer flips all its bits, and none of the critic's."""
    model, watch = (
        small_ppo(policy_kwargs={"net_arch": {"pi": [8], "vf": [8]}}, learning_rate=1e-12),
        OUICallback(),
    )

    class Turn(callback.BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            layer = self.model.policy.mlp_extractor.policy_net[0]
            layer.weight.data.neg_(), layer.bias.data.neg_()

    model.learn(192, callback=[Turn(), watch])
    assert [row["actor_flips"] for row in watch.history[1:]] == [1.0, 1.0, 0.0]  # no rollout before the last
    assert [row["actor_moved"] for row in watch.history] == [0.0, 1.0, 0.0, 0.0]
    assert all(row["critic_flips"] == 0 for row in watch.history[1:])


def test_watching_changes_nothing():
    plain = small_ppo().learn(256)  # a model seeds the global generators when it is made
    watched = small_ppo().learn(256, callback=OUICallback(size=16))
    for a, b in zip(plain.policy.parameters(), watched.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert hooks_of(watched.policy) == 0


def test_the_probe_is_the_first_rollout_and_stays(monkeypatch):
    model, watch = small_ppo(), OUICallback(size=64)
    model.learn(64, callback=watch)
    first = watch.probe.copy()
    assert first.shape == (64, 4)
    assert np.array_equal(first[0], small_ppo().env.reset()[0])  # it starts with the first state of all
    model.learn(128, callback=watch)
    assert np.array_equal(watch.probe, first)


def test_readings_go_to_the_logger(tmp_path):
    model = small_ppo()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(192, callback=OUICallback())
    logged = pd.read_csv(tmp_path / "progress.csv")
    assert {f"oui/{net}{what}" for net in ("actor", "critic") for what in ("", "_flips", "_moved")} < set(
        logged
    )
    assert logged["oui/actor"].between(0, 1).all()
    assert len(logged) == 3


def test_what_sb3_logs_is_what_is_kept(tmp_path):
    model, watch = small_ppo(), OUICallback()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(256, callback=watch)
    logged = pd.read_csv(tmp_path / "progress.csv")
    for mine, theirs in (("clipped", "clip_fraction"), ("kl", "approx_kl")):
        kept = [row[mine] for row in watch.history][1:4]
        assert kept == pytest.approx(logged[f"train/{theirs}"].dropna().tolist(), abs=1e-6)


def test_networks_that_are_not_finite_have_no_indicator():
    model, watch = small_ppo(), OUICallback()
    model.learn(64, callback=watch)
    nn.init.constant_(model.policy.mlp_extractor.value_net[0].weight, math.nan)
    row = watch._read()
    assert math.isnan(row["critic"])
    assert math.isnan(row["critic_flips"])
    assert not math.isnan(row["actor"])


@pytest.mark.parametrize(
    ("model", "watch", "error", "message"),
    [
        (small_ppo, lambda: OUICallback(np.zeros((5, 3))), ValueError, "must be"),
        (small_ppo, lambda: OUICallback(np.zeros((1, 4))), ValueError, "must be"),
        (lambda: small_ppo(policy_kwargs={"net_arch": []}), OUICallback, ValueError, "no hidden layers"),
        (lambda: DQN("MlpPolicy", "CartPole-v1", device="cpu"), OUICallback, TypeError, "no actor-critic"),
        (small_ppo, lambda: OUICallback(size=1), ValueError, "at least 2"),
        (small_ppo, lambda: OUICallback(np.ma.masked_less(np.eye(4), 1)), TypeError, "masked"),
        (frozen_lake, lambda: OUICallback([3, 16]), ValueError, r"not in Discrete\(16\)"),
        (frozen_lake, lambda: OUICallback([3, 0.5]), ValueError, r"not in Discrete\(16\)"),
        (frozen_lake, lambda: OUICallback([[3], [4]]), ValueError, r"\[B ≥ 2\], not \(2, 1\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_watched_says_why(model, watch, error, message):
    with pytest.raises(error, match=message):
        model().learn(64, callback=watch())


class Random(gym.Env):
    """States and actions of any space; an episode has five steps."""

    def __init__(self, states, actions=None):
        self.observation_space, self.action_space = states, actions or spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.time += 1
        return self.observation_space.sample(), 1.0, self.time == 5, False, {}


BOX = spaces.Box(-1, 1, (4,), np.float32)
IMAGES = spaces.Box(0, 255, (36, 36, 3), np.uint8)


@pytest.mark.parametrize(
    ("states", "probe", "shape"),
    [
        (spaces.Discrete(7), np.arange(7), (16,)),
        (spaces.MultiDiscrete([3, 4]), np.array([[2, 0], [0, 3], [1, 1]]), (16, 2)),
        (spaces.MultiBinary((2, 3)), np.eye(6).reshape(6, 2, 3), (16, 2, 3)),
        (BOX, np.linspace(-1, 1, 12).reshape(3, 4), (16, 4)),
        (IMAGES, np.arange(3 * 36 * 36 * 3).reshape(3, 36, 36, 3).astype(np.uint8), (16, 3, 36, 36)),
    ],
)
def test_states_of_every_kind_of_array(states, probe, shape):
    """Of the first rollout, and given; a reading is the sign of what the policy's own pass computes."""
    options = {"features_extractor_class": Pixels} if states is IMAGES else {}
    nets = {"net_arch": {"pi": [8], "vf": [8]}, **options}
    for given in (None, probe):
        model, watch = small_ppo(Random(states), policy_kwargs=nets), OUICallback(given, size=16)
        model.learn(64, callback=watch)
        assert watch.probe.shape == (shape if given is None else (len(probe), *shape[1:]))
        assert [watch.history[-1][net] for net in ("actor", "critic")] == pytest.approx(
            as_the_policy_acts(model, watch.probe if given is None else given)
        )


def as_the_policy_acts(model, states):
    """Balance OUI of the first layers of actor and critic in a pass of the whole policy."""
    bits, extractor = [], model.policy.mlp_extractor
    for net in (extractor.policy_net, extractor.value_net):
        net[0].register_forward_hook(lambda module, args, out: bits.append(out > 0))
    model.policy.set_training_mode(False)
    with torch.no_grad():
        model.policy(model.policy.obs_to_tensor(states)[0])
    return [balance_oui(layer) for layer in bits]


class Pixels(BaseFeaturesExtractor):
    """A features extractor with a mode: what it gives in training is random."""

    def __init__(self, space):
        super().__init__(space, 12)
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5)
        )

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize(
    "options",
    [
        {"share_features_extractor": False},
        {"squash_output": True},
        {"net_arch": [8]},
        {"ortho_init": False, "activation_fn": nn.ReLU},
    ],
)
def test_policies_of_sb3_in_all_their_forms(options):
    nets = {"net_arch": {"pi": [8], "vf": [8]}, **options}
    squashed = "squash_output" in options
    model = small_ppo(Random(BOX, BOX if squashed else None), policy_kwargs=nets, use_sde=squashed)
    model.learn(128, callback=(watch := OUICallback(size=16)))
    assert all(0 <= row[net] <= 1 for row in watch.history for net in ("actor", "critic"))


class Own(nn.Module):
    """An extractor as users write them; subclasses do what cannot be read."""

    latent_dim_pi = latent_dim_vf = 8

    def __init__(self, width):
        super().__init__()
        self.policy_net, self.value_net = (nn.Sequential(nn.Linear(width, 8), nn.Tanh()) for _ in range(2))

    def forward(self, x):
        return self.forward_actor(x), self.forward_critic(x)

    def forward_actor(self, x):
        return self.policy_net(x)

    def forward_critic(self, x):
        return self.value_net(x)


class Trunk(Own):
    """Neither has a network of its own."""

    def __init__(self, width):
        super().__init__(width)
        self.trunk = self.policy_net
        del self.policy_net, self.value_net

    def forward_actor(self, x):
        return self.trunk(x)

    forward_critic = forward_actor


class Shared(Own):
    def __init__(self, width):
        super().__init__(width)
        self.value_net = self.policy_net


class Before(Own):
    """A stage between the features and the critic."""

    def forward_critic(self, x):
        return self.value_net(torch.tanh(x) + 1)


class Twice(Own):
    def forward_actor(self, x):
        return self.policy_net(x) + self.policy_net(x)


class Normalised(Own):
    def __init__(self, width):
        super().__init__(width)
        self.policy_net.insert(1, nn.LayerNorm(8))


class WithMemory(ActorCriticPolicy):
    """Acts on more than the state, as recurrent policies do."""

    def forward(self, obs, memory, deterministic=False):
        return super().forward(obs, deterministic)


def policy_with(extractor):
    class Policy(ActorCriticPolicy):
        def _build_mlp_extractor(self):
            self.mlp_extractor = extractor(self.features_dim)

    return Policy


def test_an_extractor_of_ones_own_is_read():
    model = PPO(policy_with(Own), "CartPole-v1", n_steps=64, batch_size=32, device="cpu")
    model.learn(64, callback=(watch := OUICallback(size=16)))
    assert len(watch.history) == 2


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (policy_with(Trunk), "Trunk keeps no actor of its own: it has no network 'policy_net'"),
        (policy_with(Shared), "Shared share weights"),
        (policy_with(Before), "gives its critic something else than the features"),
        (policy_with(Twice), "gives its actor something else than the features, once"),
        (policy_with(Normalised), "the actor has a LayerNorm at '1'"),
        (WithMemory, "WithMemory acts on more than states: .*'memory'"),
    ],
)
def test_other_policies_are_refused_when_training_starts(policy, message):
    model = PPO(policy, "CartPole-v1", n_steps=64, batch_size=32, device="cpu")
    with pytest.raises(TypeError, match=message):
        model.learn(64, callback=OUICallback())
    assert model.num_timesteps == 0
    assert hooks_of(model.policy) == 0


def test_readings_leave_a_policys_mode_and_statistics_alone():
    def learn(callback):
        options = {"features_extractor_class": Pixels, "net_arch": {"pi": [8], "vf": [8]}}
        model = small_ppo(Random(IMAGES), policy_kwargs=options)
        model.env.seed(0)
        model.env.envs[0].observation_space.seed(0)
        return model.learn(128, callback=callback).policy

    plain, watched = learn(None), learn(OUICallback(size=16))
    assert watched.training == plain.training
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_seeds_share_no_environment_stream():
    first, second = (ppo.model_of(SMALL, seed).env.reset() for seed in (0, 1))
    assert not {tuple(state) for state in first} & {tuple(state) for state in second}


def test_separate_networks_with_the_constants_asked_for():
    model = ppo.model_of(SMALL, 0)
    shared = {id(p) for p in model.policy.mlp_extractor.policy_net.parameters()} & {
        id(p) for p in model.policy.mlp_extractor.value_net.parameters()
    }
    assert not shared
    assert isinstance(model.policy.mlp_extractor.policy_net[1], nn.Tanh)
    assert model.policy.optimizer.defaults["eps"] == 1e-5
    model.learn(512)
    assert model.policy.optimizer.param_groups[0]["lr"] == SMALL.lr  # nothing anneals it


def test_the_long_table_by_hand():
    history = pd.DataFrame(
        {name: np.arange(5.0) for name in ("updates", "step", "actor", "critic", "return")}
    )
    history = history.assign(**{
        name: [np.nan, 1, 3, 5, 7] for name in ("actor_flips", "critic_flips", "clipped", "kl", "entropy")
    }, actor_moved=0.0, critic_moved=0.0)  # fmt: skip
    episodes = pd.DataFrame({"step": [100, 470, 512], "return": [1.0, 10.0, 20.0]})
    rows = pd.DataFrame(ppo.long_rows(ppo.Run(history, episodes, False), SMALL, points=2))
    table = rows.pivot(index="metric", columns="step", values="value")
    assert table.loc["actor"].tolist() == [0, 2, 4]
    assert table.loc["kl"].tolist()[1:] == [2, 6]  # means of 1, 3 and of 5, 7
    assert table.loc["slack"].tolist()[1:] == [-1, -9]  # |ΔOUI| = 1 less twice the flips
    assert table.loc["final", 1.0] == 15.0  # of the episodes that ended in the last tenth, after step 460
    assert table.loc["diverged", 1.0] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"activation": "gelu"}, "activation"),
        ({"minibatches": 7}, "cannot be cut"),
        ({"lr": 0.0}, "must be > 0"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


def test_the_first_update_is_the_difference_of_two_networks():
    net, states, change = ppo.first_update(SMALL, 0)
    model = ppo.model_of(SMALL, 0)
    model.learn(128)
    for name, after in model.policy.mlp_extractor.policy_net.named_parameters():
        torch.testing.assert_close(net.get_parameter(name) + change[name], after.double())
    assert states.shape == (32, 4)
    radius = flip_bounds.certified_radius(net, states, change)
    assert (radius > 0).all()
    assert (flip_bounds.flips(net, states, change, 0.99 * radius) == 0).all()


def test_the_actor_of_discrete_states_is_given_one_of_them():
    net, states, _ = ppo.first_update(replace(SMALL, env="FrozenLake-v1"), 0)
    assert states.shape == (32, net[0].in_features)
    assert (states.sum(1) == 1).all()


class Fake:
    """What a pruner sees of a trial."""

    number = 3

    def __init__(self, **read):
        self.user_attrs = {f"oui/{name}": value for name, value in read.items()}


@pytest.mark.parametrize(
    ("read", "stops"),
    [
        ({"actor": 0.8, "critic_moved": 0.3, "progress": 0.5}, False),
        ({"actor": 0.8, "critic_moved": 0.01, "progress": 0.5}, True),  # frozen
        ({"actor": 0.1, "critic_moved": 0.3, "progress": 0.5}, True),  # collapsed
        ({"actor": 0.1, "critic_moved": 0.0, "progress": 0.05}, False),  # too early to say
        ({"actor": 0.8, "critic_moved": 0.0, "progress": 0.0}, False),  # nothing was learnt yet
        ({"actor": math.nan, "critic_moved": math.nan, "progress": 0.5}, True),  # not finite
    ],
)
def test_the_pruner_stops_for_structure_alone(read, stops):
    assert OUIPruner().prune(None, Fake(**read)) is stops


def test_the_pruner_needs_its_callback_and_sane_thresholds():
    with pytest.raises(ValueError, match="TrialCallback"):
        OUIPruner().prune(None, Fake())
    with pytest.raises(ValueError, match="collapsed"):
        OUIPruner(collapsed=2.0)


def example(module):
    """The indented example of a module's docstring."""
    lines = module.__doc__.splitlines()
    code = [line[4:] for line in lines if line.startswith("    ") or not line]
    return re.sub(r"20_000", "2_048", "\n".join(code)).strip()


def test_the_callbacks_example_runs():
    names = {}
    exec(example(callback), names)
    assert len(names["watch"].history) == 2
    assert len(example(callback).splitlines()) <= 10


@pytest.mark.slow
def test_the_pruners_example_stops_what_does_not_move_and_nothing_else():
    code = example(pruner).replace("n_trials=20", "n_trials=2").replace("2_048", "1_536")
    code = code.replace("learning_rate=lr", "learning_rate=lr, n_steps=512, seed=0")  # faster, and repeatable
    assert len([line for line in code.splitlines() if line]) <= 10
    sampler = "optuna.create_study(sampler=optuna.samplers.GridSampler({'lr': [1e-6, 3e-3]}, seed=0), "
    names = {}
    exec(code.replace("optuna.create_study(", sampler), names)
    states = {trial.params["lr"]: trial.state.name for trial in names["study"].trials}
    assert states == {1e-6: "PRUNED", 3e-3: "COMPLETE"}


def test_a_trial_reports_its_return_to_any_pruner():
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())

    def objective(trial):
        small_ppo().learn(256, callback=TrialCallback(trial, size=16))
        return 0.0

    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert list(trial.intermediate_values) == [64, 128, 192, 256]
    assert trial.user_attrs["oui/progress"] == 0.75  # of the last rollout nothing was learnt yet


def test_every_environment_of_the_study_exists():
    for name in ("CartPole-v1", "Acrobot-v1", "LunarLander-v3", "MountainCar-v0"):
        assert isinstance(gym.make(name).action_space, gym.spaces.Discrete)
