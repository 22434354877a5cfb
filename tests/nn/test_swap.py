"""Activations exchanged inside networks of torch and of users: what is found, refused, and reported."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional

from ouikit.nn.lambda_gelu import OUTPUT_GAP, LambdaGELU, hardnesses, lambda_gelu
from ouikit.nn.swap import to_lambda_gelu, to_relu


def chain(*activations):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 12), activations[0], nn.Linear(12, 12), activations[-1], nn.Linear(12, 2)
    )


def batch(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


class Named(nn.Module):
    """One module under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.act = self.again = nn.GELU()

    def forward(self, x):
        return self.again(self.second(self.act(self.first(x))))


def test_gelu_and_relu_are_found_and_the_outputs_are_as_computed_by_hand():
    model = chain(nn.GELU(), nn.ReLU(inplace=True))
    assert list(to_lambda_gelu(model, init=3.0)) == ["1", "3"]
    x = batch(7, 5)
    by_hand = model[4](lambda_gelu(model[2](lambda_gelu(model[0](x), 3.0)), 3.0))
    torch.testing.assert_close(model(x), by_hand)


def test_a_gelu_stays_what_it_is():
    plain = chain(nn.GELU(), nn.GELU())
    model = deepcopy(plain)
    to_lambda_gelu(model, init=1, constrained=False)
    torch.testing.assert_close(model(batch(7, 5)), plain(batch(7, 5)))


def test_a_shared_module_becomes_one_gate():
    shared = nn.GELU()
    for model in (chain(shared, shared), Named()):
        gates = to_lambda_gelu(model)
        assert len(gates) == 1
        assert sum(isinstance(m, LambdaGELU) for m in model.modules()) == 1
    model.act.set_hardness(9.0)
    assert model.again.hardness.item() == pytest.approx(9.0)
    assert len(to_relu(model, batch(4, 5)).gates) == 1
    assert model.act is model.again
    assert isinstance(model.act, nn.ReLU)


def test_other_gates_stay():
    model = chain(nn.SiLU(), nn.GELU())
    assert list(to_lambda_gelu(model)) == ["3"]
    assert isinstance(model[1], nn.SiLU)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Linear(2, 2), "none; a function becomes a module first"),
        (chain(nn.SiLU()), "only SiLU"),
        (nn.GELU(), "the model itself is a GELU"),
        (chain(LambdaGELU(), nn.GELU()), "λ-GELUs already"),
    ],
)
def test_what_cannot_be_replaced_is_refused(model, says):
    before = repr(model)
    with pytest.raises(ValueError, match=says):
        to_lambda_gelu(model)
    assert repr(model) == before


def test_a_wrong_hardness_changes_nothing():
    model = chain(nn.GELU())
    with pytest.raises(ValueError, match="at least 1"):
        to_lambda_gelu(model, init=0.5)
    assert isinstance(model[1], nn.GELU)


# --- the swap to ReLU


def test_the_report_by_hand():
    model, x = chain(nn.GELU(), nn.ReLU()), batch(64, 5)
    to_lambda_gelu(model, init=4.0)
    z = model[0](x).detach()
    change = (lambda_gelu(z, 4.0) - z.relu()).abs()
    before = model(x)
    report = to_relu(model, x)
    first = report.gates["1"]
    assert first.hardness == pytest.approx(4.0)
    assert first.largest == pytest.approx(float(change.max()), rel=1e-5)
    assert first.mean == pytest.approx(float(change.mean()), rel=1e-5)
    assert first.spread == pytest.approx(4 * float(z.std()), rel=1e-5)
    assert first.bound == pytest.approx(OUTPUT_GAP / 4)
    assert 0 < first.largest <= first.bound
    moved = (model(x) - before).abs()
    assert (report.largest, report.mean) == pytest.approx((float(moved.max()), float(moved.mean())), rel=1e-5)
    assert [line.split()[0] for line in str(report).splitlines()] == ["gate", "1", "3", "output"]


def test_without_a_batch_only_the_bound_is_known():
    model = chain(nn.GELU())
    to_lambda_gelu(model)
    report = to_relu(model)
    assert math.isnan(report.largest)
    assert math.isnan(report.gates["1"].mean)
    assert report.gates["1"].bound > 0


@pytest.mark.parametrize(("value", "says"), [(math.nan, "diverged"), (0.3, "below 1")])
def test_a_lost_hardness_is_refused_and_a_second_swap_too(value, says):
    model = chain(nn.GELU())
    to_lambda_gelu(model, constrained=False)
    model[1].raw.data.fill_(value)
    with pytest.raises(ValueError, match=says):
        to_relu(model, batch(3, 5))
    assert isinstance(model[1], LambdaGELU)
    model[1].set_hardness(2.0)
    to_relu(model)
    with pytest.raises(ValueError, match="has no LambdaGELU"):
        to_relu(model)


def test_a_batch_that_does_not_fit_changes_nothing():
    model = chain(nn.GELU())
    to_lambda_gelu(model)
    with pytest.raises(RuntimeError):
        to_relu(model, batch(3, 4))
    assert isinstance(model[1], LambdaGELU)
    assert model.training
    assert not model[1]._forward_pre_hooks


def test_dropout_is_off_for_the_report_and_on_again():
    model = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Dropout(0.5))
    to_lambda_gelu(model, init=1e4)
    assert to_relu(model, batch(50, 5)).largest < 1e-4
    assert model[2].training


# --- torch's encoder layers, whose fused path would ignore what was put in


def encoder(activation):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, activation=activation, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval()


@pytest.mark.parametrize("activation", ["relu", "gelu", functional.gelu, nn.GELU(), nn.ReLU()])
def test_encoder_layers_use_what_was_put_in(activation):
    model, x = encoder(activation), batch(3, 4, 8)
    plain = deepcopy(model)
    padding = torch.tensor([[False] * 4, [False] * 3 + [True], [False] * 2 + [True] * 2])
    gates = to_lambda_gelu(model, init=1, constrained=False)
    assert len(gates) == 2
    with torch.no_grad():
        for gate in gates.values():
            gate.set_hardness(2.0)
        soft = model(x)
        for gate in gates.values():
            gate.set_hardness(1e5)
        hard = model(x)
        assert float((soft - hard).abs().max()) > 1e-4  # the fused path would give one and the same
        keep = ~padding
        padded = model(x, src_key_padding_mask=padding)[keep]
        report = to_relu(model, x)
        assert report.largest < 1e-5
        torch.testing.assert_close(model(x), hard, rtol=0, atol=1e-5)
        torch.testing.assert_close(model(x, src_key_padding_mask=padding)[keep], padded, rtol=0, atol=1e-5)
        if activation == "relu":
            torch.testing.assert_close(model(x), plain(x), rtol=0, atol=1e-5)
    assert not [m for m in model.modules() if isinstance(m, LambdaGELU)]


def test_decoder_layers_as_well():
    model = nn.TransformerDecoderLayer(8, 2, 16, activation="gelu")
    to_lambda_gelu(model)
    assert hardnesses(model)["activation"] == pytest.approx(1 + math.log(2))
