"""Initial weights: their structure, their variance, and where they may be written."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from ouikit.nn.init import activation_gain, aware_, sinusoidal_, zero_row_sum_

FILLS = {
    "sinusoidal": lambda w, **k: sinusoidal_(w, **k),
    "zero_row_sum": lambda w, **k: zero_row_sum_(w, **k),
    "aware": lambda w, variance="he": aware_(w, "relu", input_moment=1.0),
}
f64 = {"dtype": torch.float64}


def test_it_is_the_formula():
    m, n, v = 5, 7, 0.5
    weight = sinusoidal_(torch.empty(m, n, **f64))
    a = math.sqrt(2 / ((m + n) * v))
    by_hand = [[a * math.sin(2 * math.pi * (i * j / n + i / m)) for j in range(n)] for i in range(1, m + 1)]
    found = torch.tensor(by_hand, **f64)
    torch.testing.assert_close(weight, found * (weight[0, 0] / found[0, 0]), atol=1e-14, rtol=1e-12)
    assert weight.var().item() == pytest.approx(2 / (m + n))
    assert (weight[0, 0] / found[0, 0]).item() == pytest.approx(1, abs=0.02)  # v is sampled: about a half
    shifted = sinusoidal_(torch.empty(m, n, **f64), first=1)
    torch.testing.assert_close(shifted[:, :-1], weight[:, 1:])


@pytest.mark.parametrize(("m", "n"), [(3, 4), (60, 64), (299, 300), (100, 2000)])
@pytest.mark.parametrize("fill", ["sinusoidal", "zero_row_sum"])
def test_rows_sum_to_zero_and_the_rank_is_full_where_rows_are_fewer_than_columns(m, n, fill):
    weight = FILLS[fill](torch.empty(m, n, **f64))
    assert weight.sum(1).abs().max().item() < 1e-13
    assert torch.linalg.matrix_rank(weight) == m


@pytest.mark.parametrize(("m", "n", "rank"), [(64, 64, 31), (300, 300, 149), (128, 64, 32)])
def test_a_square_or_tall_layer_warns_of_the_rank_that_is_left(m, n, rank):
    with pytest.warns(UserWarning, match=f"{m} rows and {n} columns has rank {rank}, of {n}"):
        weight = sinusoidal_(torch.empty(m, n, **f64))
    assert torch.linalg.matrix_rank(weight) == rank
    unit = nn.functional.normalize(weight[weight.norm(dim=1) > 1e-6])
    twins = ((unit @ unit.T).abs() > 1 - 1e-9).sum(1) > 1
    assert twins.sum() == {64: 62, 300: 298, 128: 126}[m]


@pytest.mark.parametrize("fill", ["sinusoidal", "zero_row_sum"])
@pytest.mark.parametrize(("variance", "expected"), [("glorot", 2 / (200 + 360)), ("he", 2 / 360)])
def test_both_variances_and_convolutions_by_all_their_inputs(fill, variance, expected):
    weight = FILLS[fill](torch.empty(200, 40, 3, 3), variance=variance)
    assert weight.var().item() == pytest.approx(expected, rel=0.02)
    assert weight.sum((1, 2, 3)).abs().max().item() < 1e-4


def test_the_convolutions_behind_the_papers_numbers_do_not_cancel():
    flat = sinusoidal_(torch.empty(6, 2, 2, 2, **f64))
    legacy = sinusoidal_(torch.empty(6, 2, 2, 2, **f64), convolutions="released_2025")
    i, j = torch.arange(1, 7)[:, None], torch.arange(8)
    waves = torch.sin(2 * math.pi * (i * j + i - 1).double() / 6).view(6, 2, 2, 2)
    torch.testing.assert_close(legacy, waves * math.sqrt(2 / 14) / waves.std())
    assert flat.sum((1, 2, 3)).abs().max() < 1e-13 < legacy.sum((1, 2, 3)).abs().max()
    linear = [sinusoidal_(torch.empty(6, 8), convolutions=c) for c in ("flat", "released_2025")]
    assert torch.equal(*linear)


def test_a_large_layer_keeps_its_digits_and_needs_no_second_one():
    weight = sinusoidal_(torch.empty(4096, 4097))
    rows = torch.tensor([1, 1000, 4096])[:, None]
    columns = torch.arange(4097)
    exact = torch.sin(2 * math.pi * ((rows * columns % 4097).double() / 4097 + (rows % 4096).double() / 4096))
    torch.testing.assert_close(
        weight[rows[:, 0] - 1].double(), exact * math.sqrt(4 / 8193), atol=2e-8, rtol=1e-4
    )


def test_generators_give_the_same_weights_and_leave_the_global_one_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for fill in (zero_row_sum_, lambda w, generator: aware_(w, "gelu", generator=generator)):
        a, b = (fill(torch.empty(4, 9), generator=torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(a, b)
    sinusoidal_(torch.empty(4, 9))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_strides_hold_the_rounded_values(dtype):
    exact = sinusoidal_(torch.empty(30, 50))
    assert torch.equal(sinusoidal_(torch.empty(30, 50, dtype=dtype)), exact.to(dtype))
    assert torch.equal(sinusoidal_(torch.empty(50, 30).T), exact)


@pytest.mark.parametrize(
    ("name", "sigma"),
    [
        ("relu", 2**0.5),
        ("gelu", 1.4680),
        ("silu", 1.5588),
        ("elu", 1.2780),
        ("selu", 1.0),
        ("mish", 1.4515),
        ("softplus", 1.0831),
    ],
)
def test_an_activation_keeps_second_moment_one_through_depth(name, sigma):
    assert activation_gain(name) == pytest.approx(sigma, abs=1e-4)
    generator = torch.Generator().manual_seed(0)
    f = getattr(nn.functional, name)
    x = torch.randn(200, 512, generator=generator)
    for _ in range(4):
        x = f(x @ aware_(torch.empty(512, 512), name, generator=generator).T)
    assert x.square().mean().item() == pytest.approx(1, rel=0.25)


def test_a_bounded_activation_aims_at_the_middle_of_its_reach():
    z = torch.randn(10**6, generator=torch.Generator().manual_seed(0), **f64)
    assert torch.tanh(activation_gain("tanh") * z).square().mean().item() == pytest.approx(0.5, abs=2e-3)
    weight = aware_(torch.empty(400, 400), "tanh", generator=torch.Generator().manual_seed(0))
    assert weight.std().item() == pytest.approx(activation_gain("tanh") / math.sqrt(400 * 0.5), rel=0.01)
    first = aware_(
        torch.empty(400, 400), "tanh", input_moment=1.0, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(first, weight * 0.5**0.5, rtol=1e-3, atol=0)
    assert activation_gain(lambda x: 2 * x) == pytest.approx(0.5)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(5, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.layers = nn.Sequential(nn.Conv1d(3, 4, 5), nn.Linear(9, 4))


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_a_module_is_initialised_layer_by_layer(fill):
    block = Block()
    kept = block.embedding.weight.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # attention is square
        assert fill(block) is block
    assert torch.equal(block.embedding.weight, kept)
    assert torch.equal(block.norm.weight, torch.ones(8))
    for layer in (*block.layers, block.attention.out_proj):
        assert not layer.bias.any()
        assert layer.weight.requires_grad
        assert layer.weight.is_leaf
    assert not block.attention.in_proj_bias.any()


def test_the_projections_of_attention_are_three_matrices():
    attention = nn.MultiheadAttention(8, 2)
    with pytest.warns(UserWarning, match="8 rows and 8 columns"):
        sinusoidal_(attention)
    with pytest.warns(UserWarning, match="rank 3"):
        alone = sinusoidal_(torch.empty(8, 8))
    for block in attention.in_proj_weight.chunk(3):
        assert torch.equal(block, alone)
    apart = nn.MultiheadAttention(6, 2, kdim=9, vdim=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sinusoidal_(apart)
    assert torch.equal(apart.k_proj_weight, sinusoidal_(torch.empty(6, 9)))


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_a_parametrised_weight_is_written_through_or_refused(fill):
    torch.manual_seed(0)
    scaled = parametrizations.weight_norm(nn.Linear(8, 4))
    fill(scaled)
    torch.manual_seed(0)
    plain = nn.Linear(8, 4)
    assert scaled.weight.shape == plain.weight.shape
    if fill is FILLS["sinusoidal"]:
        torch.testing.assert_close(scaled.weight, fill(plain).weight)
    rotation = parametrizations.orthogonal(nn.Linear(8, 4))
    before = rotation.weight.clone()
    with pytest.raises(
        ValueError, match=r"weight of ParametrizedLinear .*Orthogonal.* cannot hold these values"
    ):
        fill(rotation)
    assert torch.equal(rotation.weight, before)
    with pytest.raises(ValueError, match="give its module"):
        fill(rotation.weight)
    old = nn.Linear(8, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(old)
    with pytest.raises(ValueError, match="parametrise it then"):
        fill(old)


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
@pytest.mark.parametrize(
    ("target", "words"),
    [
        (lambda: torch.empty(3), r"two or more dimensions.*\(3,\)"),
        (lambda: torch.tensor(1.0), "two or more dimensions"),
        (lambda: torch.empty(0, 4), "and entries"),
        (lambda: torch.empty(2, 3, dtype=torch.int64), "int64"),
        (lambda: torch.empty(2, 3, dtype=torch.complex64), "complex64"),
        (lambda: [[1.0]], "got list"),
        (lambda: nn.LayerNorm(4), "LayerNorm holds no Linear"),
    ],
)
def test_bad_targets_are_named(fill, target, words):
    with pytest.raises((ValueError, TypeError), match=words):
        fill(target())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: sinusoidal_(w, "xavier"), "variance is one of 'glorot', 'he': got 'xavier'"),
        (lambda w: sinusoidal_(w, first=2), "first is one of 0, 1"),
        (lambda w: sinusoidal_(w, convolutions="new"), "convolutions is one of"),
        (lambda w: zero_row_sum_(w, "HE"), "variance is one of"),
        (lambda w: zero_row_sum_(w[:, :1]), "cannot sum to zero"),
        (lambda w: aware_(w, "swish"), "no activation 'swish'"),
        (lambda w: aware_(w, "relu", input_moment=0.0), "input_moment"),
        (lambda w: aware_(w, torch.cos), "does not grow"),
        (lambda w: aware_(w, torch.ones_like), "does not grow"),
    ],
)
def test_bad_options_are_named_and_change_nothing(call, words):
    weight = torch.arange(6.0).view(2, 3)
    with pytest.raises(ValueError, match=words):
        call(weight)
    assert torch.equal(weight, torch.arange(6.0).view(2, 3))
