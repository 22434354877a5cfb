"""Reinforcement learning: PPO with Stable-Baselines3 on Gymnasium, watched by the indicators.

The only room that imports them; `bench` and chapters may import it.
"""

from ouikit.rl.callback import OUICallback
from ouikit.rl.pruner import OUIPruner, TrialCallback

__all__ = ["OUICallback", "OUIPruner", "TrialCallback"]
