"""Reinforcement learning: PPO with Stable-Baselines3 on Gymnasium, watched by the indicators."""

from ouikit.rl.callback import OUICallback
from ouikit.rl.pruner import OUIPruner, TrialCallback

__all__ = ["OUICallback", "OUIPruner", "TrialCallback"]
