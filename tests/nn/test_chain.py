"""Chains without a tape: the bits of autograd in every case, and no chain where anything would be missed."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ouikit import OUI
from ouikit.data.dataset import Dataset, Images
from ouikit.nn import chain
from ouikit.nn.chain import Chain, chain_of, gate_patterns
from ouikit.nn.gated import DualCopy
from ouikit.nn.models import build
from ouikit.probe import Probe
from ouikit.train import Recipe, evaluate, fit


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images_of(count: int, channels: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=draw)
    return torch.rand(count, channels, 8, 8, generator=draw), labels


def mlp(channels: int = 1) -> nn.Module:
    torch.manual_seed(3)
    return build("mlp", 10, channels)


def dual() -> DualCopy:
    """Two copies whose weights differ."""
    found = DualCopy(mlp(), images_of(2)[0])
    other = {name: tensor + 0.02 for name, tensor in found.quantity.state_dict().items()}
    return found.load(found.structure.state_dict(), other)


def data_of(count: int = 71, channels: int = 1) -> Dataset:
    """71 images: two full batches of 32, and one of 7."""
    split = Images(*images_of(count, channels))
    return Dataset("toy", tuple("0123456789"), split, split, (0.4,) * channels, (0.3,) * channels, "none")


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "colour": lambda: mlp(3), "dual": dual}


@pytest.mark.parametrize("batch", [1, 7, 32])
@pytest.mark.parametrize("name", MODELS)
def test_loss_gradients_and_logits_have_the_bits_of_autograd(name: str, batch: int) -> None:
    model = MODELS[name]()
    twin = deepcopy(model)
    found = chain_of(model)
    assert found is not None
    for seed in range(3):  # the room of the step before is used again
        images, labels = images_of(batch, 3 if name == "colour" else 1, seed)
        loss = functional.cross_entropy(twin(images), labels)
        twin.zero_grad()
        loss.backward()
        assert torch.equal(found.backward(images, labels), loss.detach())
        expected = [p.grad for p in twin.parameters() if p.requires_grad]
        assert all(map(torch.equal, found.gradients, expected))
        assert torch.equal(found.forward(images), twin(images))


def without_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ouikit.train.chain_of", lambda model: None)


def anchored(model: nn.Module) -> dict[str, Any]:
    """FedProx's pull-back."""
    starts = [p.detach().clone() for p in model.parameters()]

    def pull() -> None:
        for p, start in zip(model.parameters(), starts, strict=True):
            if p.grad is not None:
                p.grad.add_(p.detach() - start, alpha=0.1)

    return {"on_backward": pull}


PLAIN = {"lr": 0.05, "schedule": "constant", "drop_last": False}
CASES: dict[str, tuple[dict[str, Any], Callable[[nn.Module], dict[str, Any]]]] = {
    "sgd": (PLAIN, lambda model: {}),
    "no momentum": ({**PLAIN, "momentum": 0.0}, lambda model: {}),
    "cosine and decay": ({"lr": 0.05, "weight_decay": 1e-3, "per_step": True}, lambda model: {}),
    "decay of weights": ({"lr": 0.05, "weight_decay": 1e-3, "decay": "weights"}, lambda model: {}),
    "adam": ({"lr": 1e-3, "optimiser": "adam"}, lambda model: {}),
    "clipped": ({**PLAIN, "clip": 0.1}, lambda model: {}),
    "smoothed": ({**PLAIN, "label_smoothing": 0.1}, lambda model: {}),
    "pulled back": (PLAIN, anchored),
    "augmented": (PLAIN, lambda model: {"augment": lambda x, draw: x + 0.1 * torch.rand(x.shape)}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_training_has_the_bits_of_the_general_loop(
    name: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, weights, the last gradients, the mode, and what the global generator gives next."""
    recipe, options = Recipe(3, 32, **CASES[case][0]), CASES[case][1]
    data, ends = data_of(channels=3 if name == "colour" else 1), []
    for fast in (True, False):
        if not fast:
            without_chains(monkeypatch)
        model = MODELS[name]()
        torch.manual_seed(5)
        rows = list(fit(model, data, recipe, seed=1, **options(model)))
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        modes = model.training
        ends.append((rows, [*model.state_dict().values(), *grads, torch.rand(3)], modes))
    (rows, tensors, modes), (others, general, their_modes) = ends
    assert rows == others
    assert modes == their_modes
    assert all(map(torch.equal, tensors, general))


def test_a_watch_that_comes_and_goes_between_epochs_sees_what_it_would_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The momentum goes with the training from the chain's steps to torch's optimiser."""
    ends = []
    for fast in (True, False):
        if not fast:
            without_chains(monkeypatch)
        model, read = mlp(), []
        for number, _ in enumerate(fit(model, data_of(), Recipe(3, 32, **PLAIN))):
            if number == 0:
                oui = OUI(model, kind="pairwise")
            if number == 1:
                read = [oui.readings, oui.compute()]
                oui.close()
        ends.append((read, [*model.state_dict().values()]))
    assert ends[0][0] == ends[1][0]
    assert ends[0][0][0] == 3
    assert all(map(torch.equal, ends[0][1], ends[1][1]))


def test_gradients_that_are_kept_are_not_written_over() -> None:
    model, kept = mlp(), []

    def keep() -> None:
        kept.append(next(model.parameters()).grad)

    list(fit(model, data_of(), Recipe(1, 32, **PLAIN), on_backward=keep))
    assert len({tensor.data_ptr() for tensor in kept}) == 3
    last = next(model.parameters()).grad.clone()
    plain = next(model.parameters()).grad
    list(fit(model, data_of(), Recipe(1, 32, **PLAIN)))
    assert torch.equal(plain, last)


def test_a_chain_that_trains_without_a_tape_does_so(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    step = Chain.backward
    monkeypatch.setattr(Chain, "backward", lambda *given: calls.append(1) or step(*given))
    list(fit(mlp(), data_of(), Recipe(2, 32, **PLAIN)))
    assert len(calls) == 6


@pytest.mark.parametrize("name", MODELS)
def test_patterns_and_evaluation_are_those_with_hooks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = MODELS[name](), images_of(20, 3 if name == "colour" else 1)[0]
    layers = ["structure.5", "structure.3"] if name == "dual" else None
    found, expected = gate_patterns(model, inputs, layers), Probe(model, inputs, layers=layers).patterns()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[layer], expected[layer]) for layer in expected)
    assert gate_patterns(
        model, inputs, ["2" if name != "dual" else "quantity.2"]
    ).keys()  # no gate of a chain
    data = data_of(channels=3 if name == "colour" else 1)
    value = evaluate(model, data)
    without_chains(monkeypatch)
    assert evaluate(model, data) == value


class Doubled(nn.ReLU):
    """No ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def hooked(model: nn.Sequential) -> None:
    model[4].register_forward_hook(lambda *given: None)


def replaced(model: nn.Sequential) -> None:
    model[4].forward = lambda x: x


STANDING_AGAINST: dict[str, Callable[[Any], Any]] = {
    "a hook": hooked,
    "a hook before": lambda m: m.register_forward_pre_hook(lambda *given: None),
    "a hook of backward": lambda m: m[2].register_full_backward_hook(lambda *given: None),
    "a hook of a tensor": lambda m: m[2].weight.register_hook(lambda grad: grad),
    "an OUI": lambda m: OUI(m, kind="pairwise"),
    "another forward": replaced,
    "a frozen parameter": lambda m: m[2].bias.requires_grad_(False),
    "double precision": lambda m: m.double(),
    "another gate": lambda m: m.__setitem__(3, nn.GELU()),
    "a subclass": lambda m: m.__setitem__(3, Doubled()),
    "a layer without bias": lambda m: m.__setitem__(2, nn.Linear(64, 256, bias=False)),
    "a shared layer": lambda m: m.append(nn.ReLU()) and m.append(m[6]),
    "dropout": lambda m: m.insert(4, nn.Dropout(0.5)),
    "a norm of weights": lambda m: nn.utils.parametrizations.weight_norm(m[2]),
    "other memory": lambda m: setattr(m[4].weight, "data", m[4].weight.data.t().contiguous().t()),
}


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("what", STANDING_AGAINST)
def test_where_anything_stands_against_it_there_is_no_chain(what: str, known: bool) -> None:
    model = mlp()
    if known:
        assert chain_of(model) is not None
    STANDING_AGAINST[what](model)
    assert chain_of(model) is None


def test_what_stands_against_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    with torch.autocast("cpu"):
        assert chain_of(model) is None
    with torch.autograd.detect_anomaly(check_nan=False):
        assert chain_of(model) is None
    handle = nn.modules.module.register_module_forward_hook(lambda *given: None)
    assert chain_of(model) is None
    handle.remove()
    assert chain_of(model) is not None
    assert chain_of(DualCopy(mlp(), images_of(2)[0], gate="own")) is None
    assert chain_of(build("convnet3", 10, 1)) is None
    assert chain_of(nn.Linear(3, 2)) is None


def test_a_model_that_moved_in_memory_is_another_chain() -> None:
    model = mlp()
    first = chain_of(model)
    assert chain_of(model) is first
    model[2].weight.data = model[2].weight.data.clone()
    second = chain_of(model)
    assert second is not None
    assert second is not first
    assert len(chain._KNOWN) >= 1
    images, labels = images_of(5)
    assert torch.equal(second.backward(images, labels), functional.cross_entropy(model(images), labels))
