"""Both callbacks inside the real trainers of Lightning and Transformers, against plain loops and by hand."""

import importlib
import os
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import hooks_of
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ouikit import OUI, balance_oui, pairwise_oui
from ouikit.optim import OUIDecay, StableGrad, decay_groups

os.environ["HF_HUB_OFFLINE"] = "1"

import lightning.pytorch as pl
import transformers

from ouikit.integrations import lightning as for_lightning
from ouikit.integrations import transformers as for_transformers

pytestmark = pytest.mark.filterwarnings("ignore")  # advice on workers and loggers, deprecations within
LAMBDA = 0.5
GAP = 3


class Network(nn.Sequential):
    """Five linear layers, of which OUIDecay steers the middle three; keeps its own readings, by hand."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        wide = [part for _ in range(4) for part in (nn.Linear(12, 12), nn.ReLU())]
        super().__init__(*wide, nn.Linear(12, 3))
        self.readings = []

    def forward(self, x):
        bits = []
        for layer in self:
            bits += [x > 0] if isinstance(layer, nn.ReLU) else []
            x = layer(x)
        if self.training:
            self.readings.append((balance_oui(bits), pairwise_oui(bits)))
        return x


def optimiser_of(model):
    return torch.optim.AdamW(decay_groups(model, LAMBDA), lr=1e-2)


def data(count=48):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 12, generator=generator), torch.randint(3, (count,), generator=generator)


def averages(readings, length, kind=0):
    """Means of consecutive pieces of the hand-made readings."""
    values = [reading[kind] for reading in readings]
    return [sum(values[i : i + length]) / length for i in range(0, len(values), length)]


# --- Lightning


class Module(pl.LightningModule):
    """`whole`: calls itself, as most modules do; otherwise calls its network."""

    def __init__(self, whole=True, optimisers=1):
        super().__init__()
        self.net, self.whole, self.optimisers = Network(), whole, optimisers
        self.logged = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        x, y = batch
        return functional.cross_entropy(self(x) if self.whole else self.net(x), y)

    def validation_step(self, batch, _):
        self(batch[0])

    def configure_optimizers(self):
        return optimiser_of(self)


class Spy(pl.Callback):
    """What an epoch's logged numbers are, and how many batches the callback had read."""

    def __init__(self):
        self.metrics, self.counts = [], []

    def on_train_epoch_end(self, trainer, pl_module):
        self.counts += [c.oui.readings for c in trainer.callbacks if isinstance(c, for_lightning.OUICallback)]

    def on_train_epoch_start(self, trainer, pl_module):
        self._keep(trainer)

    def on_fit_end(self, trainer, pl_module):
        self._keep(trainer)

    def _keep(self, trainer):
        if trainer.callback_metrics:
            self.metrics.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def fit(folder, callbacks, *, module=None, epochs=3, resume=None, validate=False, **options):
    """A trained Module, its Trainer and the Spy: 6 batches of 8 an epoch."""
    module, spy = module or Module(), Spy()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=[*callbacks, spy],
        **{"enable_checkpointing": False, **options},
    )
    loader = DataLoader(TensorDataset(*data()), batch_size=8)
    trainer.fit(module, loader, loader if validate else None, ckpt_path=resume)
    return module, trainer, spy


def test_lightning_logs_every_epochs_mean(tmp_path):
    both = [for_lightning.OUICallback(kind="balance"), for_lightning.OUICallback(kind="pairwise", pairs=None)]
    module, trainer, spy = fit(tmp_path, both, validate=True)
    for kind, name in enumerate(("balance_oui", "pairwise_oui")):
        assert [row[name] for row in spy.metrics] == pytest.approx(averages(module.net.readings, 6, kind))
    assert "balance_oui" in trainer.callback_metrics  # early stopping and checkpoints can monitor it
    assert hooks_of(module) == 0


def test_lightning_reads_the_named_part(tmp_path):
    module, _, spy = fit(
        tmp_path, [for_lightning.OUICallback(kind="balance", module="net")], module=Module(whole=False)
    )
    assert [row["balance_oui"] for row in spy.metrics] == pytest.approx(averages(module.net.readings, 6))
    with pytest.raises(RuntimeError, match="no reading yet: 0 forward passes"):
        fit(tmp_path, [for_lightning.OUICallback(kind="balance")], module=Module(whole=False))
    with pytest.raises(AttributeError, match="nett"):
        fit(tmp_path, [for_lightning.OUICallback(kind="balance", module="nett")])


def by_hand(epochs, accumulate):
    """The same training as a plain loop."""
    module = Module()
    optimiser = optimiser_of(module)
    control = OUIDecay(module, optimiser, gap=GAP)
    x, y = data()
    for _ in range(epochs):
        for number, (a, b) in enumerate(zip(x.split(8), y.split(8), strict=True), 1):
            (functional.cross_entropy(module(a), b) / accumulate).backward()
            if number % accumulate == 0:
                optimiser.step()
                control.step()
                optimiser.zero_grad()
    return module, control


class Levelled(Module):
    """Its optimiser sees gradients of one scale."""

    def configure_optimizers(self):
        sgd = torch.optim.SGD(self.net.named_parameters(), lr=0.5, momentum=0.9)
        return StableGrad(sgd, reference=self.net)


def test_lightning_steps_with_stablegrad_as_a_plain_loop_does(tmp_path):
    module, _, _ = fit(tmp_path, [], module=Levelled(), epochs=2)
    alone = Levelled()
    optimiser = alone.configure_optimizers()
    for _ in range(2):
        for batch in zip(*(tensor.split(8) for tensor in data()), strict=True):
            optimiser.zero_grad()
            alone.training_step(batch, 0).backward()
            optimiser.step()
    assert all(map(torch.equal, module.parameters(), alone.parameters()))
    assert not torch.equal(module.net[0].weight, Network()[0].weight)
    assert len(optimiser.factors) == 5


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_steers_decay_once_per_optimiser_step(tmp_path, accumulate):
    callback = for_lightning.OUIDecayCallback(gap=GAP)
    module, trainer, spy = fit(tmp_path, [callback], accumulate_grad_batches=accumulate)
    assert callback.decay.steps == trainer.global_step == 18 // accumulate
    plain, control = by_hand(3, accumulate)
    assert callback.decay.log == control.log
    assert len(control.log) == 6 // accumulate
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], weight, rtol=0, atol=0)
    decay = [group["weight_decay"] for group in trainer.optimizers[0].param_groups if "layer" in group]
    assert decay == list(control.log[-1].weight_decay.values())
    assert spy.metrics[-1]["decay_multiplier"] == pytest.approx(sum(decay) / 3 / LAMBDA)


def test_lightning_resumes_bit_for_bit(tmp_path):
    def callbacks():
        return [for_lightning.OUICallback(kind="balance", every=2), for_lightning.OUIDecayCallback(gap=4)]

    def saving(**when):
        return pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **when)

    whole, trainer, spy = fit(tmp_path, callbacks(), epochs=4)
    _, first, _ = fit(
        tmp_path, [*callbacks(), saving(every_n_epochs=1)], epochs=2, enable_checkpointing=True, validate=True
    )
    again = callbacks()
    resumed, second, late = fit(tmp_path, again, epochs=4, resume=tmp_path / "step=12.ckpt", validate=True)
    assert first.global_step == 12
    assert second.global_step == trainer.global_step == 24
    assert [update.step for update in again[1].decay.log] == [16, 20, 24]
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name
    assert late.counts == [3, 3]  # nothing of the epoch before the checkpoint
    assert late.metrics[-1] == spy.metrics[-1]
    fit(tmp_path, again, epochs=1)
    assert again[1].decay.steps == 6  # a checkpoint is loaded once


def test_lightning_goes_on_within_an_epoch(tmp_path):
    saving = pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    fit(tmp_path, [for_lightning.OUICallback(kind="balance"), saving], epochs=1, enable_checkpointing=True)
    _, _, spy = fit(
        tmp_path, [for_lightning.OUICallback(kind="balance")], epochs=1, resume=tmp_path / "step=4.ckpt"
    )
    assert spy.counts == [6]  # four before, two after


def test_lightning_a_second_fit_starts_from_the_first_decay(tmp_path):
    callback = for_lightning.OUIDecayCallback(gap=GAP)
    for _ in range(2):
        module, trainer, _ = fit(tmp_path, [callback], epochs=1)
        assert callback.decay.steps == 6
        assert set(callback.decay.state_dict()["base"].values()) == {LAMBDA}
    assert hooks_of(module) == 0
    assert not trainer.optimizers[0]._optimizer_step_post_hooks


def test_lightning_lets_go_after_an_error(tmp_path):
    class Breaks(pl.Callback):
        def on_train_batch_end(self, *_):
            raise ArithmeticError

    module = Module()
    callbacks = [for_lightning.OUICallback(kind="balance"), for_lightning.OUIDecayCallback(), Breaks()]
    with pytest.raises(ArithmeticError):
        fit(tmp_path, callbacks, module=module)
    assert hooks_of(module) == 0


def test_lightning_refuses_what_would_go_wrong():
    callback, module = for_lightning.OUIDecayCallback(), Module()
    with pytest.raises(ValueError, match="2 of them would decay"):
        callback.on_train_start(SimpleNamespace(world_size=2, optimizers=[None]), module)
    with pytest.raises(ValueError, match="one optimiser: the module has 2"):
        callback.on_train_start(SimpleNamespace(world_size=1, optimizers=[None, None]), module)
    plain = torch.optim.AdamW(module.parameters())
    with pytest.raises(ValueError, match="decay_groups"):
        callback.on_train_start(SimpleNamespace(world_size=1, optimizers=[plain]), module)


# --- Transformers


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Network()

    def forward(self, x, labels):
        logits = self.net(x)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class Later(transformers.TrainerCallback):
    """A reporter that comes after ours."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs, **kwargs):
        self.seen.append(dict(logs))


def trainer_of(folder, callbacks, model=None, steered=True, dataset=None, **options):
    """A Trainer: 6 micro-batches of 8 an epoch, logging every second step."""
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        per_device_train_batch_size=8,
        lr_scheduler_type="constant",
        **{"logging_steps": 2, "save_strategy": "no", "max_steps": 12, **options},
    )
    model = model or Classifier()
    dataset = dataset or [{"x": a, "labels": b} for a, b in zip(*data(), strict=True)]
    return transformers.Trainer(
        model,
        arguments,
        train_dataset=dataset,
        eval_dataset=dataset,
        optimizers=(optimiser_of(model) if steered else None, None),
        callbacks=callbacks,
    )


def losses(trainer):
    """Log entries of training steps."""
    return [row for row in trainer.state.log_history if "loss" in row]


def test_transformers_logs_with_the_loss(tmp_path):
    later = Later()
    callbacks = [for_transformers.OUICallback(kind="balance", module="net"), later]
    trainer = trainer_of(tmp_path, callbacks, steered=False, eval_strategy="steps", eval_steps=3)
    trainer.train()
    assert sum("eval_loss" in row for row in later.seen) == 4
    wanted = averages(trainer.model.net.readings, 2)
    assert [row["balance_oui"] for row in losses(trainer)] == pytest.approx(wanted)
    assert [row["balance_oui"] for row in later.seen if "loss" in row] == pytest.approx(wanted)
    assert not any("balance_oui" in row for row in later.seen if "loss" not in row)
    assert hooks_of(trainer.model) == 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_transformers_steers_decay_once_per_optimiser_step(tmp_path, accumulate):
    callback = for_transformers.OUIDecayCallback(gap=GAP)
    trainer = trainer_of(
        tmp_path,
        [callback],
        gradient_accumulation_steps=accumulate,
        max_steps=6,
        logging_steps=3,
        max_grad_norm=0,
    )
    seen = []
    trainer.optimizer.register_step_pre_hook(
        lambda optimiser, *_: seen.append([g["weight_decay"] for g in optimiser.param_groups if "layer" in g])
    )
    trainer.train()
    assert callback.decay.steps == trainer.state.global_step == 6
    assert len(trainer.model.net.readings) == 6 * accumulate
    assert [update.step for update in callback.decay.log] == [3, 6]
    assert seen[:3] == [[LAMBDA] * 3] * 3
    assert seen[3:] == [list(callback.decay.log[0].weight_decay.values())] * 3
    assert seen[3] != seen[0]
    scales = [value / LAMBDA for value in seen[3]]
    assert losses(trainer)[0]["decay_multiplier"] == pytest.approx(sum(scales) / 3)


@pytest.mark.parametrize("restore", [False, True], ids=["plain", "restored"])
def test_transformers_resumes_bit_for_bit(tmp_path, restore):
    def trainer(**options):
        callbacks = [
            for_transformers.OUICallback(kind="balance", every=2),
            for_transformers.OUIDecayCallback(gap=4),
        ]
        return trainer_of(
            tmp_path,
            callbacks,
            logging_steps=4,
            restore_callback_states_from_checkpoint=restore,
            **{"save_strategy": "steps", "save_steps": 6, **options},
        )

    whole = trainer()
    whole.train()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert resumed.state.global_step == 12
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    for key in ("step", "balance_oui", "decay_multiplier"):  # the window from step 5 to 8 was cut in two
        assert [row[key] for row in losses(resumed)] == [row[key] for row in losses(whole)]
    (callback,) = (c for c in resumed.callback_handler.callbacks if hasattr(c, "decay"))
    assert [update.step for update in callback.decay.log] == [8, 12]


def test_transformers_a_second_training_starts_from_the_first_decay(tmp_path):
    callback = for_transformers.OUIDecayCallback(gap=GAP)
    trainer = trainer_of(tmp_path, [callback])
    for _ in range(2):
        trainer.train()
        assert callback.decay.steps == 12
        assert set(callback.decay.state_dict()["base"].values()) == {LAMBDA}
        assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {LAMBDA, 0}
    assert hooks_of(trainer.model) == 0


def test_transformers_callbacks_join_a_checkpoint_that_was_written_without_them(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 4}
    trainer_of(tmp_path, [], max_steps=4, **saving).train()
    callbacks = [for_transformers.OUICallback(kind="balance"), for_transformers.OUIDecayCallback(gap=2)]
    resumed = trainer_of(tmp_path, callbacks, max_steps=8, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert callbacks[1].decay.steps == 4
    again = for_transformers.OUIDecayCallback(gap=2)
    trainer_of(tmp_path, [again], max_steps=12, **saving).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-8")
    )
    assert again.decay.steps == 8


@pytest.mark.parametrize("library", [for_lightning, for_transformers])
def test_a_callback_without_a_kind_is_refused_at_once(library):
    with pytest.raises(TypeError, match=r"needs a kind.*'pairwise'.*'balance'"):
        library.OUICallback(every=2)
    with pytest.raises(ValueError, match="kind = 'pair' is unknown"):
        library.OUICallback("pair")


def test_activations_of_a_transformer_need_no_naming():
    """GPT-2's are NewGELUActivation."""
    config = transformers.GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    model = transformers.GPT2LMHeadModel(config).train()
    with OUI(model, kind="balance") as oui:
        model(torch.randint(20, (4, 9)))
    assert oui.per_layer().keys() == {f"transformer.h.{i}.mlp.act" for i in range(2)}


def test_transformers_reads_a_transformer(tmp_path):
    """OPT, whose feed-forward gates are ReLUs, with the names that the module's text gives."""
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        vocab_size=20,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        word_embed_proj_dim=16,
    )
    model = transformers.OPTForCausalLM(config)
    layers = [name for name, _ in model.named_modules() if name.endswith("fc1")]
    assert len(layers) == 2
    tokens = torch.randint(20, (16, 9))
    callbacks = [
        for_transformers.OUICallback(kind="balance", layers=layers),
        for_transformers.OUIDecayCallback(gap=2),
    ]
    trainer = trainer_of(
        tmp_path, callbacks, model=model, dataset=[{"input_ids": t, "labels": t} for t in tokens], max_steps=4
    )
    trainer.train()
    assert [0 < row["balance_oui"] < 1 for row in losses(trainer)] == [True, True]
    steered = callbacks[1].decay.log[-1].oui
    assert set(layers) < set(steered)
    assert len(steered) == 2 * 6 - 1  # six a block and the head, less the first and the last


def test_transformers_refuses_what_would_go_wrong(tmp_path):
    with pytest.raises(TypeError, match="mapping is a function"):
        for_transformers.OUIDecayCallback(mapping=sorted)
    with pytest.raises(ValueError, match="2 of them would decay"):
        for_transformers.OUIDecayCallback().on_train_begin(SimpleNamespace(world_size=2), None, None)
    with pytest.raises(ValueError, match="decay_groups"):
        trainer_of(tmp_path, [for_transformers.OUIDecayCallback()], steered=False).train()
    two = [for_transformers.OUICallback(kind="balance"), for_transformers.OUICallback(kind="pairwise")]
    with pytest.raises(ValueError, match="one OUICallback: this one has 2"):
        trainer_of(tmp_path, two, steered=False).train()


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_a_missing_library_is_named_with_its_cure(monkeypatch, library):
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"ouikit.integrations.{library}")
    with pytest.raises(ImportError, match=r"needs \w+: pip install 'ouikit\[integrations\]'"):
        importlib.import_module(f"ouikit.integrations.{library}")
