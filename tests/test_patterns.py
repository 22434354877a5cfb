"""Recording of activation patterns, Hamming distances and flip rates."""

import copy
import io
import pickle
import sys
from typing import Any

import pytest
import torch
from conftest import hooks_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ouikit import flip_rate, hamming_distances, record_patterns
from ouikit.gates import registered_gates
from ouikit.patterns import _compiled_hamming, _distances_by_popcount, positive

torch.set_num_threads(1)

GATE_MODULES = [gate() for gate in registered_gates()] + [
    nn.ReLU(inplace=True),
    nn.GELU(approximate="tanh"),
    nn.SiLU(inplace=True),
]


def naive_distances(bits: Tensor) -> list[list[int]]:
    rows = bits.flatten(1).tolist()
    return [[sum(x != y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]


class Functional(nn.Module):
    """A network whose activations are functions, used twice, one layer by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        return functional.silu(self.again(functional.gelu(self.again(input=x))))


class Repeated(nn.Module):
    """One gate module used `times` times, each time on a shifted input."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.times = 3

    def forward(self, x: Tensor) -> Tensor:
        for step in range(self.times):
            x = self.relu(x - step)
        return x


@pytest.mark.parametrize("gate", GATE_MODULES, ids=repr)
def test_the_bit_of_a_gate_is_its_input_above_zero(gate: nn.Module) -> None:
    z = torch.tensor([[-7.0, -1e-30, -0.0, 0.0], [1e-30, 0.5, 7.0, float("nan")]])
    expected = [[False, False, False, False], [True, True, True, False]]
    with record_patterns(nn.Sequential(gate)) as patterns:
        gate_model_output = gate(z.clone())  # a gate run outside a call of the model is not recorded
        assert patterns == {}
    model = nn.Sequential(gate)
    with record_patterns(model) as patterns:
        out = model(z.clone())
    assert patterns["0"].tolist() == expected
    assert patterns["0"].dtype == torch.bool
    if not isinstance(gate, nn.RReLU):  # random slopes
        torch.testing.assert_close(out, gate_model_output, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gate", [nn.ReLU(), nn.GELU(), nn.SiLU()], ids=repr)
def test_half_precision_does_not_lose_small_bits(gate: nn.Module, dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    z = torch.tensor([[tiny, -tiny], [1.0, 0.0]], dtype=dtype)
    model = nn.Sequential(gate)
    with record_patterns(model) as patterns:
        model(z)
    assert patterns["0"].tolist() == [[True, False], [True, False]]


def test_half_precision_output_would_lose_a_bit() -> None:
    """Why gates are read at their input: the smallest halves are rounded away at the output."""
    z = torch.full((1, 1), 2.0**-24, dtype=torch.float16)
    assert not (functional.gelu(z) > 0).item()
    assert positive(z).item()


def test_reading_does_not_depend_on_memory_layout_or_strides() -> None:
    z = torch.randn(4, 3, 5, 6).to(memory_format=torch.channels_last)
    for view in (z, z[:, ::2], z.transpose(1, 3), z.expand(2, 4, 3, 5, 6)):
        assert torch.equal(positive(view), view > 0)


def test_pattern_keeps_the_shape_of_a_convolution() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.SiLU()
    )
    x = torch.randn(5, 3, 8, 8)
    with record_patterns(model) as patterns:
        model(x)
    assert {name: tuple(bits.shape) for name, bits in patterns.items()} == {
        "2": (5, 6, 6, 6),
        "4": (5, 6, 3, 3),
    }
    with record_patterns(model, layers=["1"]) as norm:
        model.train()(x)
    assert torch.equal(norm["1"], patterns["2"])  # the in-place ReLU has not spoilt its input


def test_functional_activations_are_watched_through_their_layers() -> None:
    model, x = Functional(), torch.randn(6, 3)
    first = model.first(x)
    second = model.again(functional.relu(first))
    third = model.again(functional.gelu(second))
    with record_patterns(model, layers=["first", "again"]) as patterns:
        model(x)
    assert list(patterns) == ["first", "again", "again#2"]
    for bits, z in zip(patterns.values(), (first, second, third), strict=True):
        assert torch.equal(bits, z > 0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_transformer_feed_forward(training: bool, grad: bool) -> None:
    """In evaluation mode torch has a fused path around the inner layers: it must not hide them."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).train(training)
    with (
        torch.set_grad_enabled(grad),
        record_patterns(model, ["layers.1.linear1", "layers.0.linear1"]) as patterns,
    ):
        model(torch.randn(3, 5, 8))
    assert list(patterns) == ["layers.0.linear1", "layers.1.linear1"]  # in the order of the calls
    assert all(bits.shape == (3, 5, 16) for bits in patterns.values())


def test_a_module_used_again_has_an_entry_per_use() -> None:
    model = Repeated()
    with record_patterns(model) as patterns:
        model(torch.tensor([[0.5, 1.5, 3.5]]))
        assert {k: v.tolist() for k, v in patterns.items()} == {
            "relu": [[True, True, True]],
            "relu#2": [[False, True, True]],
            "relu#3": [[False, False, True]],
        }
        taken = patterns["relu"]
        model.times = 1
        model(torch.tensor([[-1.0, 2.0, -1.0]]))  # the last forward pass wins, and wins wholly
        assert {k: v.tolist() for k, v in patterns.items()} == {"relu": [[False, True, False]]}
        assert taken.tolist() == [[True, True, True]]


def test_one_module_under_two_names_is_one_layer() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(relu, nn.Linear(2, 2), relu)
    with record_patterns(model) as patterns:
        model(torch.randn(2, 2))
    assert list(patterns) == ["0", "0#2"]
    with record_patterns(model, layers=["2"]) as patterns:  # its other name works too
        model(torch.randn(2, 2))
    assert list(patterns) == ["2", "2#2"]


def test_a_model_that_is_itself_a_gate() -> None:
    model = nn.ReLU()
    with record_patterns(model) as patterns:
        model(input=torch.tensor([[1.0, -1.0]]))
    assert {k: v.tolist() for k, v in patterns.items()} == {"": [[True, False]]}


def test_checkpointing_does_not_record_twice() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 4), nn.ReLU())

        def forward(self, x: Tensor) -> Any:
            return checkpoint(self.body, x, use_reentrant=False)

    model = Checkpointed()
    with record_patterns(model) as patterns:
        model(torch.randn(2, 3)).sum().backward()
    assert list(patterns) == ["body.1"]


def test_gradients_and_outputs_are_untouched() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.GELU())
    x = torch.randn(5, 3)
    plain = model(x)
    plain.sum().backward()
    gradients = [p.grad for p in model.parameters()]
    model.zero_grad()  # sets new ones
    with record_patterns(model) as patterns:
        watched = model(x)
        watched.sum().backward()
    assert torch.equal(plain, watched)
    torch.testing.assert_close([p.grad for p in model.parameters()], gradients, rtol=0, atol=0)
    assert not any(bits.requires_grad for bits in patterns.values())
    with torch.inference_mode(), record_patterns(model) as patterns:
        model(x)
    assert len(patterns) == 2


def test_hooks_are_gone_after_the_block_even_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with pytest.raises(RuntimeError), record_patterns(model, layers=["0", "1"]):
        model(torch.randn(2, 99))
    assert hooks_of(model) == 0
    with record_patterns(model) as patterns:  # a failed pass leaves nothing behind
        model(torch.randn(2, 3))
    assert list(patterns) == ["1"]
    torch.save(model, io.BytesIO())
    assert hooks_of(copy.deepcopy(model)) == 0


def test_a_copy_of_a_watched_model_does_not_record_into_the_original() -> None:
    model = nn.Sequential(nn.ReLU())
    with record_patterns(model) as patterns:
        model(torch.ones(1, 1))
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            twin(-torch.ones(1, 1))
    assert patterns["0"].tolist() == [[True]]


def test_unknown_layer_names_the_nearest() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    with (
        pytest.raises(ValueError, match="no layer 'encodr'; nearest: encoder"),
        record_patterns(model, ["encodr"]),
    ):
        pass
    with pytest.raises(ValueError, match="no layer 7"), record_patterns(model, [7]):  # type: ignore[list-item]
        pass


def test_no_gate_and_no_layers_are_errors() -> None:
    with (
        pytest.raises(ValueError, match=r"Linear has no gate module.*layers="),
        record_patterns(nn.Linear(2, 2)),
    ):
        pass
    with pytest.raises(ValueError, match="layers is empty"), record_patterns(nn.ReLU(), []):
        pass
    for saturating in (nn.Sigmoid(), nn.Tanh(), nn.GLU()):
        with pytest.raises(ValueError, match="no gate module"), record_patterns(saturating):
            pass


def test_a_layer_that_returns_no_tensor_is_named_at_the_end_of_the_block() -> None:
    model = nn.Sequential(nn.LSTM(2, 3))
    message = "not recorded: 0: a tuple, not a tensor"
    with pytest.warns(UserWarning, match=message), record_patterns(model, "0") as patterns:
        model(torch.randn(4, 5, 2))
    assert not patterns


masks = st.tuples(st.integers(1, 9), st.integers(1, 150), st.integers(0, 2**32)).map(
    lambda t: torch.rand(t[0], t[1], generator=torch.Generator().manual_seed(t[2])) > 0.3
)


@settings(max_examples=40, deadline=None)
@given(masks)
def test_distances_agree_with_the_naive_twin(bits: Tensor) -> None:
    expected = naive_distances(bits)
    assert hamming_distances(bits).tolist() == expected
    assert _distances_by_popcount(bits).tolist() == expected


@pytest.mark.parametrize("shape", [(2, 40_000), (130, 2_049), (257, 65), (129, 1)])
def test_distances_agree_across_block_edges(shape: tuple[int, int]) -> None:
    bits = torch.rand(shape) > 0.5
    bits[0], bits[-1] = True, False  # the largest possible distance, where a narrow counter overflows
    expected = torch.cdist(bits.double(), bits.double(), p=1).round().long()
    assert torch.equal(_distances_by_popcount(bits), expected)
    assert torch.equal(hamming_distances(bits), expected)


@pytest.mark.parametrize("installed", [True, False])
def test_the_compiled_package_counts_where_it_is_installed(monkeypatch, installed: bool) -> None:
    ouigemm, calls = pytest.importorskip("ouigemm"), []

    def counted(bits, threads):
        calls.append(threads)
        return real(bits, threads=threads)

    real = ouigemm.hamming
    monkeypatch.setattr(ouigemm, "hamming", counted)
    if not installed:
        monkeypatch.setitem(sys.modules, "ouigemm", None)
    _compiled_hamming.cache_clear()
    try:
        bits = torch.rand(7, 100) > 0.5
        assert hamming_distances(bits).tolist() == naive_distances(bits)
    finally:
        _compiled_hamming.cache_clear()
    assert calls == ([torch.get_num_threads()] if installed else [])


def test_distances_of_a_strided_view_and_of_many_axes() -> None:
    bits = torch.rand(4, 3, 5, 7) > 0.5
    assert hamming_distances(bits[:, :, ::2]).tolist() == naive_distances(bits[:, :, ::2])
    assert hamming_distances(bits[:, 0, 0, ::2]).tolist() == naive_distances(bits[:, 0, 0, ::2])


def test_flip_rate_by_hand() -> None:
    before = torch.tensor([[True, False, False, False]])
    after = torch.tensor([[True, True, False, False]])
    assert flip_rate(before, after) == 0.25
    assert flip_rate(before, ~before) == 1
    wide = torch.zeros(1, 100, dtype=torch.bool)
    assert flip_rate({"a": before, "b": wide}, {"a": after, "b": wide}) == 0.125  # equal weight
    assert flip_rate([before], [before]) == 0


def test_flip_rate_rejects_what_does_not_match() -> None:
    bits = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"only one has \['b'\]"):
        flip_rate({"a": bits}, {"a": bits, "b": bits})
    with pytest.raises(ValueError, match=r"layer 'a': shapes \(2, 3\) and \(2, 2\)"):
        flip_rate({"a": bits}, {"a": bits[:, :2]})


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        (torch.ones(2, 3), TypeError, "must be boolean, not torch.float32: pass z > 0"),
        (torch.ones(3, dtype=torch.bool), ValueError, r"must be \[B, units…\]"),
        (torch.ones(2, 0, dtype=torch.bool), ValueError, r"not \(2, 0\)"),
        (torch.ones(0, 2, dtype=torch.bool), ValueError, r"not \(0, 2\)"),
        ([[True]], TypeError, "must be a torch.Tensor, not list"),
    ],
)
def test_wrong_patterns_are_clear_errors(pattern: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hamming_distances(pattern)
