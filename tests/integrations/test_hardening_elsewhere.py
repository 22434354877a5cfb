"""λ-GELU inside other trainers: a BERT of Transformers and a module of Lightning end as ReLUs."""

import os

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ouikit import OUI
from ouikit.nn.lambda_gelu import LambdaGELU, Schedule, harden, hardness_groups, hardnesses
from ouikit.nn.swap import to_lambda_gelu, to_relu

os.environ["HF_HUB_OFFLINE"] = "1"

import lightning.pytorch as pl
import transformers

pytestmark = pytest.mark.filterwarnings("ignore")  # advice on workers and loggers, deprecations within
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}


class Hardening(transformers.TrainerCallback):
    """The whole of the example: a callback for the Trainer."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        self.hardening = harden(model, Schedule(state.max_steps, tolerance=0.05))

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.hardening.step()


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=16, **SIZES)
    return transformers.BertForSequenceClassification(config)


def test_a_bert_is_hardened_by_its_trainer_and_saved_with_relus(tmp_path):
    model, tokens = bert(), torch.randint(20, (16, 9), generator=torch.Generator().manual_seed(0))
    gates = to_lambda_gelu(model)
    assert list(gates) == [f"bert.encoder.layer.{i}.intermediate.intermediate_act_fn" for i in range(2)]
    adam = torch.optim.Adam(hardness_groups(model, torch.optim.Adam, lr=1e-3))
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True, max_steps=8,
        per_device_train_batch_size=4, save_strategy="no",
    )  # fmt: skip
    rows = [{"input_ids": t, "labels": int(t[0] > 9)} for t in tokens]
    callback = Hardening()
    trainer = transformers.Trainer(
        model, arguments, train_dataset=rows, optimizers=(adam, None), callbacks=[callback]
    )
    trainer.train()
    assert callback.hardening.steps == 8
    assert all(1 < value < 2 for value in callback.hardening.learnt.values())
    assert [*hardnesses(model).values()] == pytest.approx([15.9577] * 2, rel=1e-4)
    report = to_relu(model, {"input_ids": tokens})
    assert report.gates.keys() == gates.keys()
    assert 0 < report.largest < 1e-3
    with OUI(model, kind="balance") as oui:
        model(input_ids=tokens)
    assert oui.per_layer().keys() == gates.keys()
    # The config still says GELU; without this line the saved model would come back with GELUs.
    model.config.hidden_act = "relu"
    model.save_pretrained(tmp_path / "saved")
    again = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(tokens).logits, model.eval()(tokens).logits)


def test_the_gates_of_a_gpt_are_found():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=20, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    tokens = torch.randint(20, (4, 9))
    gates = to_lambda_gelu(model, init=4.0)
    assert list(gates) == [f"transformer.h.{i}.mlp.act" for i in range(2)]
    report = to_relu(model, {"input_ids": tokens})
    assert 0 < report.gates["transformer.h.0.mlp.act"].largest <= 0.1700 / 4


class Hardens(pl.Callback):
    """The same for Lightning; with accumulated gradients, step once per optimiser step."""

    def on_train_start(self, trainer, pl_module):
        self.hardening = harden(pl_module, Schedule(int(trainer.estimated_stepping_batches)))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.hardening.step()


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        to_lambda_gelu(self.net)

    def training_step(self, batch, _):
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(hardness_groups(self, torch.optim.AdamW, lr=1e-2, weight_decay=0.1))


def test_a_lightning_module_is_hardened_by_a_callback(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 6, generator=generator), torch.randint(3, (48,), generator=generator)
    module, callback = Module(), Hardens()
    start = hardnesses(module)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=4,
        default_root_dir=tmp_path, enable_checkpointing=False, callbacks=[callback],
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=8))
    assert callback.hardening.steps == trainer.global_step == 24
    assert all(callback.hardening.learnt[name] != value for name, value in start.items())  # it was learnt
    assert [*hardnesses(module).values()] == pytest.approx([15.9577] * 2, rel=1e-4)
    before = module.net(x).argmax(1)
    assert list(to_relu(module.net, x).gates) == ["1", "3"]
    assert not [m for m in module.modules() if isinstance(m, LambdaGELU)]
    assert float((module.net(x).argmax(1) == before).double().mean()) > 0.9
