"""Callbacks for the Trainer of Transformers: log an indicator with the loss, steer weight decay by it.

::

    optimizer = torch.optim.AdamW(decay_groups(model, 1e-2), lr=3e-4)      # for OUIDecay alone
    Trainer(model, args, train_dataset=data, optimizers=(optimizer, None),
            callbacks=[OUICallback(kind="pairwise"), OUIDecayCallback(gap=256)])

The activation classes of Transformers (GELUActivation, NewGELUActivation, …) are gates and need no naming.
Where a model calls its activations as functions, name the linear layers before them, as
`layers=[n for n, _ in model.named_modules() if n.endswith("fc1")]`.

Both callbacks keep their state in the checkpoint's `trainer_state.json`, and a resumed run continues from it
whether or not `restore_callback_states_from_checkpoint` is set. Use one of each per Trainer.
"""

from typing import Any

import torch

from ouikit.optim import OUIDecay
from ouikit.oui import OUI, Kind, check_kind

try:
    from transformers import TrainerCallback, TrainerState
    from transformers.trainer_callback import ExportableState
except ImportError as error:
    raise ImportError("this module needs Transformers: pip install 'ouikit[integrations]'") from error


class OUICallback(TrainerCallback, ExportableState):
    """Logs the mean indicator since the last logging step, as "balance_oui" or "pairwise_oui".

    It joins the log entry that has the loss, in `state.log_history` and for the callbacks after this one;
    reporters (TensorBoard, …) come before it unless they are put back:
    `trainer.add_callback(trainer.pop_callback(TensorBoardCallback))`. With several processes it is
    the first one's. `oui` is the running `ouikit.OUI`, for `per_layer()`.

    Args:
        kind: "pairwise" or "balance", as for `ouikit.OUI`; required.
        module: name of the submodule whose calls are read; "" is the model.
        settings: the other keywords of `ouikit.OUI` (layers, pairs, every, mode, seed).

    Raises for its kind at once, and at the start of training as `OUI`; AttributeError for a module that does
    not exist; RuntimeError at a logging step without a reading.
    """

    def __init__(self, kind: Kind | None = None, *, module: str = "", **settings: Any) -> None:
        check_kind(kind)
        self.module, self.settings = module, {"kind": kind, **settings}
        self.oui: OUI | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **event: Any) -> None:
        self._detach()
        self.oui = OUI(event["model"].get_submodule(self.module), **self.settings)
        if saved := _saved(state, self):
            self.oui.load_state_dict(saved)

    def on_log(self, args: Any, state: TrainerState, control: Any, **event: Any) -> None:
        if self.oui and "loss" in event["logs"]:
            _join(state, event["logs"], {f"{self.oui.kind}_oui": self.oui.compute()})
            self.oui.reset()

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **event: Any) -> None:
        self._detach()

    def state(self) -> dict[str, Any]:
        """What Transformers writes into a checkpoint."""
        running = self.oui.state_dict() if self.oui else {}
        return {"args": {"module": self.module, **self.settings}, "attributes": {"saved": running}}

    def _detach(self) -> None:
        if self.oui:
            self.oui.close()
        self.oui = None


class OUIDecayCallback(TrainerCallback, ExportableState):
    """Steers the optimiser's weight decay by `ouikit.optim.OUIDecay`, one step per optimiser step.

    Give the Trainer an optimiser made from `decay_groups(model, weight_decay)`; `weight_decay` of the
    TrainingArguments then has no effect. Logs "decay_multiplier", the mean over steered layers, with the
    loss. `decay` is the running OUIDecay. After training the optimiser has its first weight
    decay back, so that `train()` can be called again; `decay.log` stays.

    Args:
        module: name of the submodule whose calls are read; "" is the model. Every steered layer must lie in
            it.
        settings: keywords of `OUIDecay` (window, gap, memory, seed), but not mapping: a function cannot be
            written into a checkpoint (TypeError).

    Raises at the start of training as `OUIDecay`, ValueError for several processes.
    """

    def __init__(self, *, module: str = "", **settings: Any) -> None:
        if "mapping" in settings:
            raise TypeError(
                "mapping is a function, and Transformers' checkpoints hold JSON: use OUIDecay itself"
            )
        self.module, self.settings = module, settings
        self.decay: OUIDecay | None = None
        self._attached = False

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **event: Any) -> None:
        if args.world_size > 1:
            raise ValueError(
                f"OUIDecay reads the batches of one process: {args.world_size} of them would decay their "
                "copies of the model differently; use one"
            )
        self._detach()
        self.decay = OUIDecay(event["model"].get_submodule(self.module), event["optimizer"], **self.settings)
        self._attached = True
        if saved := _saved(state, self):
            self.decay.load_state_dict({**saved, "generator": _from_hex(saved["generator"])})

    def on_optimizer_step(self, args: Any, state: TrainerState, control: Any, **event: Any) -> None:
        if self.decay:
            self.decay.step()

    def on_log(self, args: Any, state: TrainerState, control: Any, **event: Any) -> None:
        if self.decay and "loss" in event["logs"]:
            scales = self.decay.scales.values()
            _join(state, event["logs"], {"decay_multiplier": sum(scales) / len(scales)})

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **event: Any) -> None:
        self._detach()

    def state(self) -> dict[str, Any]:
        """What Transformers writes into a checkpoint."""
        running: dict[str, Any] = {}
        if self.decay and self._attached:
            running = self.decay.state_dict()
            running["generator"] = bytes(running["generator"].tolist()).hex()
        return {"args": {"module": self.module, **self.settings}, "attributes": {"saved": running}}

    def _detach(self) -> None:
        """A Trainer keeps its optimiser: the next OUIDecay must not take scaled decay for the first one."""
        if self.decay and self._attached:
            state = self.decay.state_dict()
            self.decay.load_state_dict({**state, "scales": dict.fromkeys(state["scales"], 1.0)})
            self.decay.close()
        self._attached = False


def _saved(state: TrainerState, callback: TrainerCallback) -> dict[str, Any]:
    """The callback's part of a checkpoint; empty where training starts anew."""
    kept: Any = state.stateful_callbacks  # by class, whatever its annotation says
    # A checkpoint that was written without this callback has no place for it, and Transformers asks for one.
    exported = kept.setdefault(type(callback).__name__, {})
    if isinstance(exported, list):
        raise ValueError(f"a Trainer takes one {type(callback).__name__}: this one has {len(exported)}")
    return exported.get("attributes", {}).get("saved", {})


def _join(state: TrainerState, logs: dict[str, float], numbers: dict[str, float]) -> None:
    """Put numbers into the log entry that is being written; the history has a copy of it already."""
    logs.update(numbers)
    state.log_history[-1].update(numbers)


def _from_hex(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
