"""The two indicators: definitions, identities, bounds, and the streaming object."""

import copy
import io
import itertools
import json
import math
import pickle
from typing import Any

import pytest
import torch
from conftest import hooks_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ouikit import OUI, balance_oui, fixed_pairs, hamming_distances, pairwise_oui, record_patterns
from ouikit.bench import oui as bench
from ouikit.bench.timing import median_interval, ratio_row

torch.set_num_threads(1)


def bits(*rows: str) -> Tensor:
    """'1100', '0000' -> a pattern with one row per sample."""
    return torch.tensor([[mark == "1" for mark in row] for row in rows])


def random_bits(samples: int, units: int, seed: int, share: float = 0.5) -> Tensor:
    return torch.rand(samples, units, generator=torch.Generator().manual_seed(seed)) < share


def naive_pairwise(pattern: Tensor, pairs: list[tuple[int, int]]) -> float:
    rows = pattern.flatten(1).tolist()
    cap = max(len(rows[0]) // 2, 1)
    terms = [min(sum(x != y for x, y in zip(rows[i], rows[j], strict=True)), cap) / cap for i, j in pairs]
    return sum(terms) / len(terms)


def naive_balance(pattern: Tensor) -> float:
    columns = list(zip(*pattern.flatten(1).tolist(), strict=True))
    half = len(columns[0]) // 2
    return sum(min(sum(column), len(column) - sum(column)) / half for column in columns) / len(columns)


masks = st.builds(
    random_bits,
    samples=st.integers(2, 12),
    units=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]),
)
quick = settings(max_examples=60, deadline=None)


# --- Values by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "value"),
    [
        (["1", "1", "0", "0"], 1),
        (["1", "0", "0", "0"], 0.5),
        (["1", "1", "1", "1"], 0),
        (["0", "0", "0", "0"], 0),
        (["1", "0", "0"], 1),  # odd B: ⌊3/2⌋ = 1
        (["10", "10", "01", "00"], (1 + 0.5) / 2),
    ],
)
def test_balance_by_hand(rows: list[str], value: float) -> None:
    assert balance_oui(bits(*rows)) == value


@pytest.mark.parametrize(
    ("rows", "value"),
    [
        (["1100", "1100"], 0),
        (["1100", "0011"], 1),  # complementary: capped
        (["1100", "0000"], 1),  # exactly d/2
        (["1100", "0100"], 0.5),
        (["11000", "01000"], 0.5),  # odd d: ⌊5/2⌋ = 2
        (["1", "0"], 1),  # one unit
        (["1", "1"], 0),
        (["1111", "1111", "0000"], 2 / 3),
    ],
)
def test_pairwise_by_hand(rows: list[str], value: float) -> None:
    assert pairwise_oui(bits(*rows)) == pytest.approx(value)


def test_the_cap_is_applied_before_averaging() -> None:
    """Distances 4, 4, 0 of 4 units: capped first 2/3; the mean 8/3 capped afterwards would give 1."""
    pattern = bits("1111", "1111", "0000")
    distances = hamming_distances(pattern)[*torch.triu_indices(3, 3, 1)].double()
    assert min(float(distances.mean()), 2) / 2 == 1
    assert pairwise_oui(pattern) == pytest.approx(2 / 3)


def test_an_exactly_zero_pre_activation_is_off() -> None:
    """With >= instead of >, every unit would be on for every sample and both would be 0."""
    z = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert balance_oui(z >= 0) == pairwise_oui(z >= 0) == 0
    with record_patterns(model := nn.Sequential(nn.ReLU())) as patterns:
        model(z)
    assert balance_oui(patterns) == pairwise_oui(patterns) == 1


def test_layers_have_equal_weight_whatever_their_width() -> None:
    narrow, wide = bits("1", "0"), torch.zeros(2, 1000, dtype=torch.bool)
    for indicator in (balance_oui, pairwise_oui):
        assert indicator({"a": narrow, "b": wide}) == indicator([narrow, wide]) == 0.5


def test_units_may_have_any_shape() -> None:
    pattern = random_bits(6, 24, 0)
    for indicator in (balance_oui, pairwise_oui):
        assert indicator(pattern.reshape(6, 2, 3, 4)) == indicator(pattern)


# --- Twins, identities and bounds -----------------------------------------------------------------


@quick
@given(masks)
def test_naive_twins(pattern: Tensor) -> None:
    every_pair = list(itertools.combinations(range(len(pattern)), 2))
    assert pairwise_oui(pattern) == pytest.approx(naive_pairwise(pattern, every_pair), abs=1e-12)
    assert balance_oui(pattern) == pytest.approx(naive_balance(pattern), abs=1e-12)
    some = fixed_pairs(len(pattern), k=5)
    expected = naive_pairwise(pattern, [(i, j) for i, j in some.tolist()])
    assert pairwise_oui(pattern, some) == pytest.approx(expected, abs=1e-12)
    assert 0 <= pairwise_oui(pattern) <= 1
    assert 0 <= balance_oui(pattern) <= 1


@pytest.mark.parametrize("samples", [254, 255, 256, 511, 600])
def test_balance_counts_beyond_a_byte(samples: int) -> None:
    pattern = torch.zeros(samples, 3, dtype=torch.bool)
    pattern[: samples // 2, 0] = True
    pattern[:, 1] = True
    pattern[: samples // 4, 2] = True
    assert balance_oui(pattern) == pytest.approx((1 + 0 + (samples // 4) / (samples // 2)) / 3)


def test_many_pairs_give_the_same_as_all_pairs() -> None:
    pattern = random_bits(20, 30, 0)
    every_pair = torch.tensor(list(itertools.combinations(range(20), 2)))
    assert pairwise_oui(pattern, every_pair) == pytest.approx(pairwise_oui(pattern), abs=1e-12)


@quick
@given(masks)
def test_all_pairs_identity(pattern: Tensor) -> None:
    """The uncapped mean distance follows from the counts alone, and bounds the capped one."""
    samples, units = pattern.shape
    on = pattern.sum(0)
    uncapped = float((2 * on * (samples - on)).sum()) / (samples * (samples - 1))
    distances = hamming_distances(pattern)
    assert float(distances.sum()) / (samples * (samples - 1)) == pytest.approx(uncapped)
    cap = max(units // 2, 1)
    assert pairwise_oui(pattern) <= uncapped / cap + 1e-12
    if int(distances.max()) <= cap:  # no pair is capped
        assert pairwise_oui(pattern) == pytest.approx(uncapped / cap)


@pytest.mark.parametrize(
    ("minority", "pair", "batch"), [(0.1838, 0.600, 0.368), (0.2764, 0.800, 0.553), (0.2, 0.64, 0.40)]
)
def test_the_bands_do_not_transfer(minority: float, pair: float, batch: float) -> None:
    """Wide layer, the same minority share in every unit: 4m(1−m) against 2m."""
    samples, units = 500, 2000
    on = torch.rand(samples, units, generator=torch.Generator().manual_seed(1)).argsort(0)
    pattern = on < round(minority * samples)
    m = round(minority * samples) / samples
    assert balance_oui(pattern) == pytest.approx(2 * m)
    assert balance_oui(pattern) == pytest.approx(batch, abs=0.002)
    assert pairwise_oui(pattern) == pytest.approx(pair, abs=0.003)


def binomial(n: int, k: int) -> float:
    return math.comb(n, k) / 2**n


@pytest.mark.parametrize(
    ("samples", "value"), [(8, 0.727), (16, 0.804), (32, 0.860), (64, 0.901), (256, 0.950)]
)
def test_fair_bits_bias_balance_by_batch_size(samples: int, value: float) -> None:
    exact = sum(binomial(samples, s) * min(s, samples - s) for s in range(samples + 1)) / (samples // 2)
    assert exact == pytest.approx(value, abs=5e-4)
    units = 20_000  # the units are independent: standard error below 1/(2 √units)
    assert balance_oui(random_bits(samples, units, 0)) == pytest.approx(exact, abs=4 / (2 * units**0.5))


@pytest.mark.parametrize(("units", "value"), [(8, 0.8633), (32, 0.9300), (128, 0.9648)])
def test_fair_bits_bias_pairwise_by_width(units: int, value: float) -> None:
    exact = sum(binomial(units, h) * min(h, units // 2) for h in range(units + 1)) / (units // 2)
    assert exact == pytest.approx(value, abs=5e-5)
    samples = 4000  # disjoint pairs are independent
    pairs = torch.arange(samples).reshape(-1, 2)
    measured = pairwise_oui(random_bits(samples, units, 0), pairs)
    assert measured == pytest.approx(exact, abs=4 * 0.2 / (samples / 2) ** 0.5)


@quick
@given(masks, st.integers(0, 2**32))
def test_invariances(pattern: Tensor, seed: int) -> None:
    """Order of samples and units, the polarity of a unit, positive scale of its pre-activation."""
    generator = torch.Generator().manual_seed(seed)
    samples, units = pattern.shape
    z = torch.where(pattern, 1.0, -1.0) * (0.1 + torch.rand(units, generator=generator))
    transformed = [
        pattern[torch.randperm(samples, generator=generator)],
        pattern[:, torch.randperm(units, generator=generator)],
        pattern ^ random_bits(1, units, seed),
        z * (0.01 + 100 * torch.rand(units, generator=generator)) > 0,
    ]
    for other in transformed:
        assert balance_oui(other) == pytest.approx(balance_oui(pattern), abs=1e-12)
        assert pairwise_oui(other) == pytest.approx(pairwise_oui(pattern), abs=1e-12)
    if samples % 2 == 0:
        assert balance_oui(torch.cat([pattern, pattern])) == pytest.approx(balance_oui(pattern), abs=1e-12)


@settings(max_examples=300, deadline=None)
@given(masks, st.integers(0, 2**32), st.floats(0, 1))
def test_balance_moves_at_most_as_much_as_the_bits(pattern: Tensor, seed: int, share: float) -> None:
    """|ΔOUI| ≤ f B / ⌊B/2⌋ for a fraction f of flipped bits."""
    samples, units = pattern.shape
    flips = random_bits(samples, units, seed, share)
    moved = abs(balance_oui(pattern ^ flips) - balance_oui(pattern))
    assert moved <= float(flips.double().mean()) * samples / (samples // 2) + 1e-12


# --- Pairs ----------------------------------------------------------------------------------------


@quick
@given(st.integers(2, 200), st.integers(1, 60), st.integers(0, 99))
def test_fixed_pairs_are_different_pairs_inside_the_batch(batch: int, k: int, seed: int) -> None:
    pairs = fixed_pairs(batch, k, seed)
    assert pairs.shape == (min(k, math.comb(batch, 2)), 2)
    assert pairs.dtype == torch.int64
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)
    assert (pairs[:, 0] >= 0).all()
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert (pairs[:, 1] < batch).all()
    assert torch.equal(pairs, fixed_pairs(batch, k, seed))


def test_fixed_pairs_default_to_28_and_reach_every_pair() -> None:
    assert len(fixed_pairs(64)) == 28
    assert {tuple(p) for p in fixed_pairs(8).tolist()} == set(itertools.combinations(range(8), 2))
    assert not torch.equal(fixed_pairs(64, seed=0), fixed_pairs(64, seed=1))
    drawn = torch.cat([fixed_pairs(5, 1, seed) for seed in range(2000)])
    counts = [int((drawn == torch.tensor(pair)).all(1).sum()) for pair in itertools.combinations(range(5), 2)]
    assert sum(counts) == 2000
    assert min(counts) > 140  # 200 expected of each; 4.5 standard deviations
    assert max(counts) < 260


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: balance_oui(bits("1")), ValueError, "B = 1"),
        (lambda: pairwise_oui(bits("1")), ValueError, "at least 2"),
        (lambda: balance_oui({}), ValueError, "no layers"),
        (lambda: pairwise_oui([]), ValueError, "no layers"),
        (lambda: balance_oui({"conv": torch.ones(2, 2)}), TypeError, "'conv' must be boolean"),
        (lambda: balance_oui({"conv": torch.ones(2, 0).bool()}), ValueError, r"'conv' must be \[B, units…\]"),
        (lambda: balance_oui(7), TypeError, "not int"),  # type: ignore[arg-type]
        (lambda: balance_oui("fc"), TypeError, "not str"),  # type: ignore[arg-type]
        (lambda: balance_oui([bits("1", "0"), bits("1", "0", "1")]), ValueError, "has 3 samples"),
        (lambda: pairwise_oui(bits("1", "0"), torch.tensor([[0, 2]])), ValueError, "the batch has 0 to 1"),
        (lambda: pairwise_oui(bits("1", "0"), torch.tensor([[-1, 0]])), ValueError, "positions -1"),
        (lambda: pairwise_oui(bits("1", "0"), torch.tensor([[1, 1]])), ValueError, "with itself"),
        (lambda: pairwise_oui(bits("1", "0"), torch.tensor([0, 1])), ValueError, r"not \(2,\)"),
        (lambda: pairwise_oui(bits("1", "0"), torch.zeros(0, 2).long()), ValueError, "P ≥ 1"),
        (lambda: pairwise_oui(bits("1", "0"), torch.ones(1, 2)), TypeError, r"fixed_pairs\(2\)"),
        (lambda: fixed_pairs(1), ValueError, "B = 1"),
        (lambda: fixed_pairs(8, 0), ValueError, "k = 0"),
        (
            lambda: OUI(nn.ReLU()),
            TypeError,
            r"needs a kind.*'pairwise'.*2504\.17160.*0\.6–0\.8.*'balance'.*2605",
        ),
        (
            lambda: OUI(nn.ReLU(), kind="pair"),  # type: ignore[arg-type]
            ValueError,
            r"kind = 'pair' is unknown.*'pairwise'.*Definition A\.1.*'balance'.*no band",
        ),
        (lambda: OUI(nn.ReLU(), "balance", mode="both"), ValueError, "mode = 'both'"),  # type: ignore[arg-type]
        (lambda: OUI(nn.ReLU(), "balance", every=0), ValueError, "every = 0"),
        (lambda: OUI(nn.ReLU(), "balance", pairs=0), ValueError, "pairs = 0"),
        (lambda: OUI(nn.ReLU(), "balance", first=0), ValueError, "first = 0"),
        (lambda: OUI(nn.Linear(2, 2), "balance"), ValueError, "no gate module"),
        (lambda: OUI(nn.Linear(2, 2), "balance", layers=["fc"]), ValueError, "no layer 'fc'"),
    ],
)
def test_wrong_input_is_a_clear_error(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- Streaming ------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(108, 9), nn.GELU()
    )


def batches(*sizes: int) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(size, 1, 8, 8) for size in sizes]


def patterns_of(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    with torch.no_grad(), record_patterns(model) as patterns:
        model(batch)
    return patterns


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("options", "indicator"),
    [
        ({"kind": "balance"}, balance_oui),
        ({"kind": "pairwise"}, lambda p: pairwise_oui(p, fixed_pairs(len(p["1"])))),
        (
            {"kind": "pairwise", "pairs": 5, "seed": 3},
            lambda p: pairwise_oui(p, fixed_pairs(len(p["1"]), 5, 3)),
        ),
        ({"kind": "pairwise", "pairs": None}, pairwise_oui),
    ],
)
def test_streaming_is_the_mean_of_the_functional_values(options: dict[str, Any], indicator: Any) -> None:
    """Also with an odd, a small and a single-sample last batch; the latter is passed over."""
    model, data = network(), batches(16, 16, 7, 2, 1)
    recorded = [patterns_of(model, batch) for batch in data[:-1]]
    with OUI(model, **options) as oui:
        for batch in data:
            model(batch)
    assert oui.readings == 4
    assert oui.compute() == pytest.approx(mean([indicator(p) for p in recorded]))
    layers = {name: mean([indicator({"1": p[name]}) for p in recorded]) for name in ("1", "4")}
    assert oui.per_layer() == pytest.approx(layers)


def test_the_protocol_of_the_weight_decay_paper() -> None:
    """Training mode only, the batches 10, 20, …, the same 28 pairs, mean of the readings."""
    model, data = network(), batches(*[16] * 25)
    pairs = fixed_pairs(16)
    expected = mean([pairwise_oui(patterns_of(model, data[step]), pairs) for step in (9, 19)])
    with OUI(model, kind="pairwise", every=10) as oui:
        for step, batch in enumerate(data):
            model.train()(batch)
            if step % 3 == 0:
                with torch.no_grad():
                    model.eval()(batch)  # a validation pass neither counts nor shifts the count
        assert oui.compute() == pytest.approx(expected)
        assert oui.readings == 2
        assert oui.take() == pytest.approx(expected)
        assert oui.readings == 0
        for batch in data[:10]:  # the count starts again with the next epoch
            model.train()(batch)
        assert oui.compute() == pytest.approx(pairwise_oui(patterns_of(model, data[9]), pairs))


@pytest.mark.parametrize(
    ("every", "first", "read"),
    [(3, None, [2, 5, 8]), (3, 1, [0, 3, 6, 9]), (3, 2, [1, 4, 7]), (4, 7, [6]), (1, None, range(10))],
)
def test_which_passes_are_read(every: int, first: int | None, read: Any) -> None:
    model, data = network(), batches(*[8] * 10)
    expected = mean([balance_oui(patterns_of(model, data[step])) for step in read])
    with OUI(model, "balance", every=every, first=first) as oui:
        for batch in data:
            model(batch)
    assert oui.compute() == pytest.approx(expected)


@pytest.mark.parametrize(("mode", "readings"), [("train", 2), ("eval", 3), ("any", 5)])
def test_mode_chooses_the_passes(mode: Any, readings: int) -> None:
    model, (batch,) = network(), batches(4)
    with OUI(model, "balance", mode=mode) as oui:
        for training in (True, False, True, False, False):
            model.train(training)(batch)
    assert oui.readings == readings


def test_every_counts_passes_of_both_modes_in_mode_any() -> None:
    model, (batch,) = network(), batches(4)
    with OUI(model, "balance", mode="any", every=2) as oui:
        for training in (True, False, True, False, False):
            model.train(training)(batch)
    assert oui.readings == 2


def test_no_reading_says_why() -> None:
    model, (batch, single) = network(), batches(4, 1)
    with OUI(model, kind="balance") as oui:
        model.eval()(batch)
        model.train()(single)
        model.forward(batch)
        for question in (oui.compute, oui.per_layer):
            with pytest.raises(
                RuntimeError, match=r"1 forward passes in training mode and 1 in evaluation.*'train'"
            ):
                question()


def test_a_compiled_model_is_read_when_watched_before_its_first_call() -> None:
    torch.manual_seed(0)
    model, batches = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(3, 16, 8)
    with OUI(model, kind="balance") as plain:
        for x in batches:
            model(x)
    compiled = torch.compile(model, backend="eager")
    with OUI(compiled, kind="balance") as oui:
        for x in batches:
            compiled(x).sum().backward()
        assert (oui.readings, oui.compute()) == (3, plain.compute())
    torch.compiler.reset()
    compiled(batches[0])
    with OUI(model, kind="balance") as late:
        compiled(batches[0])
        with pytest.raises(RuntimeError, match="no reading yet"):
            late.compute()


def test_training_is_untouched_and_nothing_stays_behind() -> None:
    def train(watch: bool) -> tuple[list[Tensor], nn.Module]:
        model = network()
        oui = OUI(model, kind="pairwise") if watch else None
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        for batch in batches(8, 8, 8):
            optimiser.zero_grad()
            model(batch).square().sum().backward()
            optimiser.step()
        if oui:
            assert oui.readings == 3
            oui.close()
            oui.close()  # once more is harmless
            model(batch)
            assert oui.readings == 3
        return list(model.parameters()), model

    (plain, _), (watched, model) = train(False), train(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert hooks_of(model) == 0
    torch.save(model, io.BytesIO())
    assert hooks_of(copy.deepcopy(model)) == 0


def test_two_watches_do_not_meet() -> None:
    model, (batch,) = network(), batches(6)
    with OUI(model, kind="balance") as outer:
        with OUI(model, kind="pairwise", layers=["3"]) as inner, record_patterns(model) as patterns:
            model(batch)
        model(batch)
    assert (outer.readings, inner.readings) == (2, 1)
    assert outer.compute() == pytest.approx(balance_oui(patterns))
    assert list(inner.per_layer()) == ["3"]


def test_a_copy_of_the_model_does_not_feed_the_original() -> None:
    """An exponential moving average deep-copies the model in the middle of training."""
    model, (batch,) = network(), batches(6)
    with OUI(model, kind="balance") as oui:
        model(batch)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            twin(batch)
        assert oui.readings == 1


def test_a_failed_pass_is_no_reading() -> None:
    model, (batch,) = network(), batches(6)
    with OUI(model, kind="balance") as oui:
        with pytest.raises(RuntimeError):
            model(torch.randn(6, 1, 9, 9))  # the convolution and its ReLU run, the linear layer fails
        model(batch)
    assert oui.readings == 1
    assert oui.compute() == pytest.approx(balance_oui(patterns_of(model, batch)))


def test_layers_that_are_not_always_used() -> None:
    """compute() is the mean over batches; per_layer() over the batches in which the layer ran."""

    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.twice = nn.ReLU(), nn.ReLU(), False

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.second(x - 0.5) if self.twice else x

    model = Sometimes()
    with OUI(model, kind="balance") as oui:
        model(torch.tensor([[1.0], [2.0]]))
        model.twice = True
        model(torch.tensor([[1.0], [-1.0]]))
    assert oui.compute() == (0 + (1 + 1) / 2) / 2
    assert oui.per_layer() == {"first": 0.5, "second": 1}


def test_each_layer_is_read_on_the_rows_of_its_own_input() -> None:
    model, x = nn.Sequential(nn.ReLU(), nn.Flatten(0, 1), nn.ReLU()), torch.randn(4, 3, 5)
    with OUI(model, kind="balance") as oui:
        model(x)
    assert oui.per_layer() == {"0": balance_oui(x > 0), "2": balance_oui((x > 0).flatten(0, 1))}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_inference_mode(dtype: torch.dtype) -> None:
    model = network().to(dtype).eval()
    (batch,) = batches(6)
    with OUI(model, "balance", mode="eval") as oui, torch.inference_mode():
        model(batch.to(dtype))
        model(batch.to(dtype))
    assert oui.compute() == pytest.approx(balance_oui(patterns_of(model, batch.to(dtype))))


def test_state_survives_a_checkpoint_and_json() -> None:
    model, data = network(), batches(8, 8, 8, 5, 8)
    with OUI(model, kind="pairwise", every=2) as whole:
        for batch in data:
            model(batch)
    with OUI(model, kind="pairwise", every=2) as first:
        for batch in data[:3]:
            model(batch)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    for state in (torch.load(buffer, weights_only=True), json.loads(json.dumps(first.state_dict()))):
        with OUI(model, kind="pairwise", every=2) as second:
            second.load_state_dict(state)
            assert second.compute() == first.compute()
            for batch in data[3:]:
                model(batch)
        assert second.compute() == pytest.approx(whole.compute(), abs=1e-15)
        assert second.per_layer() == pytest.approx(whole.per_layer(), abs=1e-15)
        assert second.readings == whole.readings


def test_a_foreign_state_is_an_error() -> None:
    model, (batch,) = network(), batches(8)
    with OUI(model, kind="balance") as oui:
        model(batch)
    state = oui.state_dict()
    with pytest.raises(ValueError, match=r"'kind': 'balance'.*this OUI has.*'kind': 'pairwise'"):
        OUI(model, kind="pairwise").load_state_dict(state)
    with pytest.raises(ValueError, match="layers that this model lacks: 4"):
        OUI(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "balance", seed=0).load_state_dict(state)


@pytest.mark.parametrize("kind", ["balance", "pairwise"])
def test_what_is_held_does_not_grow_with_the_number_of_batches(kind: Any) -> None:
    model, (batch,) = network(), batches(8)
    with OUI(model, kind=kind) as oui:
        sizes = []
        for _ in range(3):
            for _ in range(20):
                model(batch)
            sizes.append(len(pickle.dumps(oui)))
    assert len(set(sizes)) == 1


# --- The benchmark's own arithmetic ---------------------------------------------------------------


def test_the_naive_loop_of_the_benchmark_is_the_definition() -> None:
    layers = [random_bits(6, 8, 0), random_bits(6, 30, 1)]
    every_pair = list(itertools.combinations(range(6), 2))
    assert bench._naive(layers, every_pair) == pytest.approx(pairwise_oui(layers))
    assert bench._naive([layer.float() for layer in layers], every_pair) == pytest.approx(
        pairwise_oui(layers)
    )


def test_benchmark_rows_judge_their_target() -> None:
    row = ratio_row("name", [1.0, 2.0, 9.0], ">= 3", "note")
    assert (row["value"], row["low"], row["high"], row["n"], row["met"]) == (2.0, 1.0, 9.0, 3, False)
    assert ratio_row("name", [1.04], "<= 1.05", "")["met"]
    assert bench._memory()["met"]


@pytest.mark.parametrize(
    ("n", "ranks"), [(1, (1, 1)), (5, (1, 5)), (6, (1, 6)), (9, (2, 8)), (100, (40, 61))]
)
def test_benchmark_intervals_are_the_published_ranks(n: int, ranks: tuple[int, int]) -> None:
    """Of the distribution-free 95 % interval of a median, as tables print them."""
    assert median_interval([float(rank) for rank in range(n, 0, -1)]) == ranks


def test_the_benchmark_network_is_a_resnet_18() -> None:
    model = bench._resnet18()
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    patterns = patterns_of(model.eval(), torch.randn(2, 3, 32, 32))
    assert (len(patterns), sum(p[0].numel() for p in patterns.values())) == (17, 557_056)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_network_reads_nan_not_collapse(bad: float) -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    with OUI(model, kind="balance") as oui:
        model(torch.randn(16, 3))
        assert 0 <= oui.compute() <= 1
        model(torch.full((16, 3), bad))
        assert math.isnan(oui.compute())
        assert all(math.isnan(value) for value in oui.per_layer().values())
        oui.reset()
        model(torch.randn(16, 3))
        assert 0 <= oui.compute() <= 1
