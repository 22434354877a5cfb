"""Gates: the registry that users extend, and the warning that names what was passed over."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ouikit import gates as registry
from ouikit import record_patterns, register_gate
from ouikit.gates import gate_modules, is_gate, registered_gates


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() ** 2


class Wrapped(nn.Module):
    """x · σ(βx), with β learnt and the sigmoid a module."""

    def __init__(self) -> None:
        super().__init__()
        self.beta, self.inner = nn.Parameter(torch.ones(1)), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.inner(self.beta * x)


class PerChannel(nn.Module):
    """A slope for each of 8 channels below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((8,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.slope * x)


class Saturating(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


class RowNorm(nn.Module):
    """Not element by element, although every shape is kept."""

    def forward(self, x: Tensor) -> Tensor:
        return (x / (x.norm(dim=-1, keepdim=True) + 1)).relu()


class Whole(nn.Module):
    """Moves with its elements, but hangs on all of them."""

    def forward(self, x: Tensor) -> Tensor:
        return (x / x.norm()).relu()


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() * torch.rand_like(x)


class Residual(nn.Module):
    """Small, with children, and of a shape of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.first(x).relu()


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).relu()


def with_gate(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), *modules)


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What a test registers is forgotten behind it."""
    before = [*registry._REGISTERED]
    yield
    registry._REGISTERED[:] = before
    registry._is_gate_class.cache_clear()


@pytest.mark.parametrize("kind", [Squared, Wrapped, PerChannel])
def test_gates_that_are_not_registered_are_named(kind: type[nn.Module]) -> None:
    model = with_gate(kind(), nn.Linear(8, 8), kind())
    message = rf"Sequential has modules.*: {kind.__name__} \(2, 4\)\. They are not watched.*register_gate"
    with pytest.warns(UserWarning, match=message) as caught, record_patterns(model) as patterns:
        model(torch.randn(5, 3))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert [*patterns] == ["1"]


def test_without_a_registered_gate_the_error_names_the_others() -> None:
    with pytest.raises(ValueError, match=r"Squared \(1\)\. .*register_gate"):
        record_patterns(nn.Sequential(nn.Linear(3, 8), Squared())).__enter__()


@pytest.mark.parametrize(
    "module",
    [
        Saturating(),
        Scale(),
        RowNorm(),
        Whole(),
        Noisy(),
        Attends(),
        nn.Sigmoid(),
        nn.LayerNorm(8),
        Residual(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_that_are_no_gates_are_passed_over_in_silence(module: nn.Module) -> None:
    model, state = with_gate(module), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with record_patterns(model) as patterns:
            pass
    assert patterns == {}
    assert torch.equal(torch.get_rng_state(), state)


def test_naming_the_layers_asks_for_nothing_else() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with record_patterns(with_gate(Squared()), layers=["0"]):
            pass


@pytest.mark.usefixtures("forgetful")
def test_a_registered_gate_is_watched_at_its_input() -> None:
    model = with_gate(Wrapped())
    with pytest.warns(UserWarning, match="Wrapped"), record_patterns(model):
        pass
    assert register_gate(Wrapped) is Wrapped
    register_gate(Wrapped)
    assert registered_gates().count(Wrapped) == 1
    assert [*gate_modules(model)] == ["1", "2"]
    assert is_gate(type("Derived", (Wrapped,), {})())
    z = torch.tensor([[-1.0, 0.0, 1e-30, 2.0]])
    only = nn.Sequential(Wrapped())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with record_patterns(only) as patterns:
            only(z)
    assert patterns["0"].tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("wrong", [nn.ReLU(), torch.relu, int])
def test_only_classes_of_modules_are_gates(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"derived from torch\.nn\.Module"):
        register_gate(wrong)


def test_activations_of_transformers_are_gates() -> None:
    """All classes but the identity and one that saturates on both sides."""
    activations = pytest.importorskip("transformers.activations")
    own = {
        kind for kind in vars(activations).values() if isinstance(kind, type) and issubclass(kind, nn.Module)
    }
    own = {kind for kind in own if kind.__module__ == activations.__name__}
    others = {kind.__name__ for kind in own if not is_gate(kind.__new__(kind))}
    assert others == {"LinearActivation", "LaplaceActivation"}
    model = nn.Sequential(nn.Linear(3, 8), activations.ACT2FN["gelu_new"], nn.Linear(8, 8), nn.ReLU())
    with record_patterns(model) as patterns:
        model(torch.randn(5, 3))
    assert [*patterns] == ["1", "3"]
