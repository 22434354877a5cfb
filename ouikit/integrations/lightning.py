"""Callbacks for Lightning: log an indicator every epoch, steer weight decay by it.

::

    class Net(LightningModule):
        def training_step(self, batch, _):
            return functional.cross_entropy(self(batch[0]), batch[1])      # calls the module

        def configure_optimizers(self):
            return torch.optim.AdamW(decay_groups(self, 1e-2), lr=3e-4)    # for OUIDecay alone

    Trainer(callbacks=[OUICallback(kind="pairwise"), OUIDecayCallback(gap=256)])

Only calls of a module are read, and Lightning does not call the LightningModule itself: where
`training_step` calls a part of it, as `self.net(x)`, say `module="net"`. Both callbacks keep their state in
Lightning's checkpoints: a resumed run continues as the uninterrupted one would have.
"""

from typing import Any

import torch
from torch import nn

from ouikit.optim import OUIDecay
from ouikit.oui import OUI, Kind, check_kind

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("this module needs Lightning: pip install 'ouikit[integrations]'") from error


class OUICallback(Callback):
    """Logs an epoch's mean indicator as "balance_oui" or "pairwise_oui", at the end of every epoch.

    It is a metric like any other: loggers, progress bar, `monitor=` of early stopping see it. With several
    processes it is the mean of theirs. `oui` is the running `ouikit.OUI`, for `per_layer()`.

    Args:
        kind: "pairwise" or "balance", as for `ouikit.OUI`; required.
        module: name of the submodule whose calls are read; "" is the LightningModule.
        settings: the other keywords of `ouikit.OUI` (layers, pairs, every, mode, seed).

    Raises for its kind at once, and at the start of training as `OUI`; AttributeError for a module that does
    not exist; RuntimeError at the end of an epoch without a reading.
    """

    def __init__(self, kind: Kind | None = None, *, module: str = "", **settings: Any) -> None:
        check_kind(kind)
        self.module, self.settings = module, {"kind": kind, **settings}
        self.oui: OUI | None = None
        self._saved: dict[str, Any] = {}

    @property
    def state_key(self) -> str:
        """One trainer may have several of these, with different settings."""
        return self._generate_state_key(module=self.module, **self.settings)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._detach()
        self.oui = OUI(pl_module.get_submodule(self.module), **self.settings)
        if self._saved:
            self.oui.load_state_dict(self._saved)
            self._saved = {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0 and self.oui:  # not in on_train_epoch_end: a checkpoint may be older than that
            self.oui.reset()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.oui:
            pl_module.log(f"{self.oui.kind}_oui", self.oui.compute(), sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._detach()

    def state_dict(self) -> dict[str, Any]:
        return self.oui.state_dict() if self.oui else self._saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict

    def _detach(self) -> None:
        if self.oui:
            self.oui.close()


class OUIDecayCallback(Callback):
    """Steers the optimiser's weight decay by `ouikit.optim.OUIDecay`, one step per optimiser step.

    Build the optimiser in `configure_optimizers` from `decay_groups(self, weight_decay)`. Logs
    "decay_multiplier", the mean over steered layers, at the end of every epoch. `decay` is the running
    OUIDecay, with its `log`.

    Args:
        module: name of the submodule whose calls are read; "" is the LightningModule. Every steered layer
            must lie in it.
        settings: keywords of `OUIDecay` (window, gap, memory, mapping, seed).

    Raises at the start of training as `OUIDecay`, ValueError for several processes or optimisers.
    """

    def __init__(self, *, module: str = "", **settings: Any) -> None:
        self.module, self.settings = module, settings
        self.decay: OUIDecay | None = None
        self._saved: dict[str, Any] = {}
        self._hook: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            raise ValueError(
                f"OUIDecay reads the batches of one process: {trainer.world_size} of them would decay their "
                "copies of the model differently; use devices=1"
            )
        if len(trainer.optimizers) != 1:
            raise ValueError(f"OUIDecay steers one optimiser: the module has {len(trainer.optimizers)}")
        self._detach()
        self.decay = self._attached(pl_module.get_submodule(self.module), trainer.optimizers[0])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.decay:
            scales = self.decay.scales.values()
            pl_module.log("decay_multiplier", sum(scales) / len(scales))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._detach()

    def state_dict(self) -> dict[str, Any]:
        return self.decay.state_dict() if self.decay else self._saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict

    def _attached(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> OUIDecay:
        decay = OUIDecay(module, optimiser, **self.settings)
        if self._saved:
            decay.load_state_dict(self._saved)
            self._saved = {}
        # Lightning has no event between an optimiser's step and the next batch; torch has.
        self._hook = optimiser.register_step_post_hook(self._after_step)
        return decay

    def _after_step(self, *_: Any) -> None:
        if self.decay:
            self.decay.step()

    def _detach(self) -> None:
        if self.decay:
            self._hook.remove()
            self.decay.close()
