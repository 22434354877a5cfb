"""Stop an Optuna trial on structural grounds: the critic has not moved, or the actor has collapsed.

    import optuna
    from stable_baselines3 import PPO
    from ouikit.rl import OUIPruner, TrialCallback

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-6, 1.0, log=True)
        watch = TrialCallback(trial)
        PPO("MlpPolicy", "CartPole-v1", learning_rate=lr, device="cpu").learn(20_000, callback=watch)
        return watch.history[-1]["return"]

    study = optuna.create_study(direction="maximize", pruner=OUIPruner())
    study.optimize(objective, n_trials=20)

The grounds are those of arXiv 2603.09950 as far as its abstract goes; the thresholds are ours.
"""

import math
from typing import Any

import optuna

from ouikit.rl.callback import OUICallback, Row

READ = ("actor", "critic_moved", "progress")


class TrialCallback(OUICallback):
    """An `OUICallback` that reports its readings to a trial, and ends the training where the trial is pruned.

    After each reading the running return is reported as the trial's intermediate value (any pruner can use
    it), and the actor's OUI, the share of the critic's bits that moved and the progress in [0, 1] become
    attributes of the trial, `oui/actor`, `oui/critic_moved`, `oui/progress`.

    Args:
        trial: the running trial.
        options: as `OUICallback`.

    Raises:
        optuna.TrialPruned: out of `model.learn`, where the study's pruner says so.
    """

    def __init__(self, trial: optuna.Trial, **options: Any) -> None:
        super().__init__(**options)
        self.trial = trial

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        row = self.history[-1] | {"progress": self._progress()}
        for name in READ:
            self.trial.set_user_attr(f"oui/{name}", row[name])
        if not math.isnan(row["return"]):
            self.trial.report(row["return"], int(row["step"]))
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"after {row['step']:.0f} steps, {_said(row)}")

    def _progress(self) -> float:
        """Share of the training that the networks have learnt from: nothing before the first update."""
        learnt = self.history[-2]["step"] if len(self.history) > 1 else 0.0
        return learnt / self.model._total_timesteps


class OUIPruner(optuna.pruners.BasePruner):
    """Prunes a trial of a `TrialCallback`, at any reading after a share of its training.

    The learning rate counts as too small where the critic's bits are still where they started, and as too
    large where the actor's units no longer distinguish states. **Both thresholds depend on the environment,
    the network and the scale of the rewards**: the defaults separate the two ends on CartPole-v1 with tanh
    units, and the values between them prove nothing. Some hopeless trials pass: a collapsed actor is not
    always low, and with unscaled rewards the critic moves at rates that teach the actor nothing.

    Args:
        after: share of training before which nothing is pruned.
        frozen: too small: fewer of the critic's bits than this moved since the initial networks.
        collapsed: too large: the actor's OUI is below this.

    A trial whose indicators are nan (its weights are not finite) is pruned.

    Raises:
        ValueError: for a share outside [0, 1], or, while a study runs, a trial without a `TrialCallback`.
    """

    def __init__(self, *, after: float = 0.1, frozen: float = 0.02, collapsed: float = 0.2) -> None:
        for name, share in (("after", after), ("frozen", frozen), ("collapsed", collapsed)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share in [0, 1]: got {share}")
        self.after, self.frozen, self.collapsed = after, frozen, collapsed

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether this trial should stop now; Optuna calls it from `trial.should_prune()`."""
        try:
            actor, moved, progress = (trial.user_attrs[f"oui/{name}"] for name in READ)
        except KeyError:
            raise ValueError(
                f"trial {trial.number} has no indicators: pass TrialCallback(trial) to model.learn"
            ) from None
        if progress == 0 or progress < self.after:
            return False
        return not (moved >= self.frozen and actor >= self.collapsed)


def _said(row: Row) -> str:
    return f"actor OUI {row['actor']:.3f}, {row['critic_moved']:.1%} of the critic's bits moved"
