"""Stable-Baselines3: neighbouring seeds train on the same random environments.

A model with `seed=s` and n environments seeds them with s, s + 1, …, s + n − 1. With n = 4 the runs of seeds
0 and 1 therefore share the random numbers of three of their four environments. They are not independent,
and intervals over seeds may come out too narrow. The cure is a seed that steps by the number of environments,
`PPO(…, seed=run * n)`, as in `ouikit.rl.ppo.model_of`.

Run: `python findings/sb3_seeds_share_environments.py` (needs stable-baselines3; no network).
"""

import stable_baselines3
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

ENVIRONMENTS = 4


def first_states(seed: int) -> set[tuple[float, ...]]:
    """The states in which the environments of a fresh model start."""
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", n_envs=ENVIRONMENTS), seed=seed, device="cpu")
    return {tuple(state) for state in model.env.reset().tolist()}


print(f"stable-baselines3 {stable_baselines3.__version__}, {ENVIRONMENTS} environments per model")
for seeds in [(0, 1), (0, ENVIRONMENTS)]:
    first, second = map(first_states, seeds)
    print(
        f"seeds {seeds[0]} and {seeds[1]}: {len(first & second)} of {ENVIRONMENTS} first states are the same"
    )
