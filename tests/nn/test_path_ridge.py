"""The exact fit of path coefficients, against explicit features, scikit-learn, and pooled training."""

import copy
from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from ouikit.nn import path_ridge
from ouikit.nn.path_ridge import (
    fit_ridge,
    fit_statistics,
    gate_gram,
    path_kernel,
    pooled,
    route,
    statistics,
)
from ouikit.nn.paths import PathModel

ROUTES = ["dual", "primal", "gradients"]


def features(model, x):
    """The columns that are never formed: [n, h (d + 1)]."""
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    return torch.einsum("nh,nd->nhd", model.gates(x).to(x.dtype), ones).flatten(1)


def problem(n=80, d=5, h=7, outputs=3, seed=0):
    torch.manual_seed(seed)
    x = torch.randn(n, d, dtype=torch.float64)
    model = PathModel(torch.randn(h, d, dtype=x.dtype), torch.randn(h, dtype=x.dtype), outputs)
    labels = (x[:, 0].abs() * 2).long().clamp_max(outputs - 1)
    return model, x, labels


@pytest.mark.parametrize("by", ROUTES)
@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("n", [25, 80])  # fewer and more samples than the 42 paths
def test_the_minimiser_is_that_of_scikit_learn(by, penalty, n):
    model, x, labels = problem(n)
    found = fit_ridge(model, x, labels, penalty, by=by)
    oracle = Ridge(penalty, solver="svd").fit(features(model, x).numpy(), np.eye(3)[labels])
    rtol = 1e-5 if by == "gradients" else 1e-8
    np.testing.assert_allclose(model.paths.detach().flatten(1), oracle.coef_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(model.bias.detach(), oracle.intercept_, rtol=rtol, atol=rtol)
    assert found.route == by
    assert found.residual < (1e-7 if by == "gradients" else 1e-12)


@pytest.mark.parametrize("by", ROUTES)
def test_no_neighbour_has_a_smaller_loss(by):
    model, x, _ = problem()
    y = torch.randn(len(x), 3, dtype=x.dtype)

    @torch.no_grad()
    def loss(one):
        return float((y - one(x)).square().sum() + 2.0 * one.paths.square().sum())

    fit_ridge(model, x, y, 2.0, by=by)
    best = loss(model)
    for seed in range(10):
        torch.manual_seed(seed)
        other = copy.deepcopy(model)
        for parameter in other.parameters():
            parameter.data += 1e-3 * torch.randn_like(parameter)
        assert loss(other) > best


def test_the_kernel_by_features():
    model, x, _ = problem()
    phi = features(model, x)
    assert torch.allclose(path_kernel(x, model.gates(x)), phi @ phi.T, atol=1e-12)
    on = model.gates(x)
    assert torch.equal(gate_gram(on), (on.double() @ on.double().T).long())


def test_blocks_change_nothing(monkeypatch):
    model, x, labels = problem()
    kernel = path_kernel(x, model.gates(x))
    wanted = {}
    for by in ROUTES:
        fit_ridge(model, x, labels, 1.0, by=by)
        wanted[by] = model.paths.clone()
    monkeypatch.setattr(path_ridge, "BLOCK", 300)  # of 80 samples, 14 or fewer at once
    assert torch.allclose(path_kernel(x, model.gates(x)), kernel, atol=1e-12)
    for by in ROUTES:
        fit_ridge(model, x, labels, 1.0, by=by)
        assert torch.allclose(model.paths, wanted[by], atol=1e-7 if by == "gradients" else 1e-12)


def test_gates_are_as_before_and_the_fit_depends_on_no_start():
    model, x, labels = problem()
    on = model.gates(x)
    fit_ridge(model, x, labels, 1.0)
    first = model.paths.clone()
    nn.init.normal_(model.paths)
    fit_ridge(model, x, labels, 1.0)
    assert torch.equal(model.paths, first)
    assert torch.equal(model.gates(x), on)


def test_a_float32_model_is_solved_in_float64():
    model, x, labels = problem()
    exact, single = copy.deepcopy(model), copy.deepcopy(model).float()
    fit_ridge(exact, x, labels, 1.0)
    fit_ridge(single, x.float(), labels, 1.0)
    assert single.paths.dtype == torch.float32
    assert torch.allclose(single(x.float()).double(), exact(x), atol=1e-5)


def test_the_condition_number():
    model, x, labels = problem()
    on, penalty = model.gates(x), 0.5
    kernel = path_kernel(x, on) + penalty * torch.eye(len(x), dtype=x.dtype)
    assert fit_ridge(model, x, labels, penalty, by="dual").condition == pytest.approx(
        float(torch.linalg.cond(kernel)), rel=0.25
    )
    phi = torch.cat([features(model, x), torch.ones(len(x), 1, dtype=x.dtype)], 1)
    matrix = phi.T @ phi + penalty * torch.diag(torch.tensor([1.0] * 42 + [0.0], dtype=x.dtype))
    assert fit_ridge(model, x, labels, penalty, by="primal").condition == pytest.approx(
        float(torch.linalg.cond(matrix)), rel=0.25
    )
    scale = matrix.diagonal().rsqrt()
    assert fit_ridge(model, x, labels, penalty, by="gradients").condition == pytest.approx(
        float(torch.linalg.cond(scale[:, None] * matrix * scale)), rel=0.25
    )


@pytest.mark.parametrize(
    ("samples", "paths", "wanted"),
    [
        (100, 100, "dual"),
        (101, 100, "primal"),
        (10_000, 16_448, "dual"),
        (10_001, 16_448, "gradients"),
        (10_001, 10_000, "gradients"),
        (10**6, 9_999, "primal"),
    ],
)
def test_the_route(samples, paths, wanted):
    assert route(samples, paths) == wanted


def test_statistics_of_shards_are_those_of_the_pooled_data():
    model, x, labels = problem(n=90)
    whole = copy.deepcopy(model)
    fit_ridge(whole, x, labels, 1.0, by="primal")
    parts = [statistics(model, x[labels == k], labels[labels == k]) for k in range(3)]  # one class each
    parts.append(statistics(model, x[:0].new_ones(1, 5), torch.tensor([2])))
    with_one_more = fit_statistics(copy.deepcopy(model), pooled(parts), 1.0)
    assert with_one_more.route == "primal"
    assert pooled(parts).samples == 91
    fit_statistics(model, pooled(parts[:3]), 1.0)
    assert torch.allclose(model.paths, whole.paths, atol=1e-10)
    assert torch.allclose(model.bias, whole.bias, atol=1e-10)


def test_sums_of_whole_numbers_are_equal_to_the_last_bit():
    model, x, labels = problem()
    x = (10 * x).round()
    parts = [statistics(model, x[rows], labels[rows]) for rows in torch.arange(80).split(23)]
    one, many = statistics(model, x, labels), pooled(parts)
    for name in ("gram", "moment", "energy"):
        assert torch.equal(getattr(one, name), getattr(many, name))
    assert one.samples == many.samples == 80


def test_statistics_under_other_gates_are_refused():
    model, x, labels = problem()
    other, *_ = problem(seed=1)
    with pytest.raises(ValueError, match="same gates"):
        reduce(add, [statistics(model, x, labels), statistics(other, x, labels)])
    with pytest.raises(ValueError, match="other gates"):
        fit_statistics(other, statistics(model, x, labels), 1.0)
    with pytest.raises(ValueError, match="no shard"):
        pooled([])


BAD = {
    "no samples": (lambda x, y: (x[:0], y[:0]), 1.0, "there must be some"),
    "lengths": (lambda x, y: (x, y[1:]), 1.0, "its target"),
    "nan": (lambda x, y: (x.masked_fill(torch.arange(80)[:, None] == 7, float("nan")), y), 1.0, "row is 7"),
    "inf": (lambda x, y: (x * float("inf"), y), 1.0, "not all finite"),
    "width": (lambda x, y: (x[:, 1:], y), 1.0, r"floats \[n, 5\]"),
    "whole": (lambda x, y: (x.long(), y), 1.0, "inputs are floats"),
    "one class": (lambda x, y: (x, 0 * y + 1), 1.0, "do not vary"),
    "constant": (lambda x, y: (x, torch.ones(80, 3)), 1.0, "do not vary"),
    "label": (lambda x, y: (x, y + 2), 1.0, "labels are"),
    "target": (lambda x, y: (x, torch.full((80, 3), float("nan"))), 1.0, "targets are finite"),
    "zero penalty": (lambda x, y: (x, y), 0.0, "penalty must be > 0"),
    "nan penalty": (lambda x, y: (x, y), float("nan"), "penalty must be > 0"),
    "inf penalty": (lambda x, y: (x, y), float("inf"), "penalty must be > 0"),
    "gates": (lambda x, y: (1e-9 * x, y), 1.0, "no gate varies"),
    "conditioned": (lambda x, y: (1e9 * x, y), 1e-6, "too ill-conditioned"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_solved_is_refused_and_changes_nothing(name):
    model, x, labels = problem()
    nn.init.normal_(model.paths)
    before = copy.deepcopy(model.state_dict())
    change, penalty, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        fit_ridge(model, *change(x, labels), penalty)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["one class", "gates", "conditioned", "zero penalty"])
def test_statistics_that_cannot_be_solved_are_refused(name):
    model, x, labels = problem()
    change, penalty, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        fit_statistics(model, statistics(model, *change(x, labels)), penalty)
    assert not model.paths.any()


def test_gradients_that_do_not_arrive_are_refused(monkeypatch):
    model, x, labels = problem()
    monkeypatch.setattr(path_ridge, "STEPS", 3)
    with pytest.raises(ValueError, match="after 3 steps"):
        fit_ridge(model, x, labels, 1e-3, by="gradients")
    with pytest.raises(ValueError, match="got 'lu'"):
        fit_ridge(model, x, labels, 1.0, by="lu")
    monkeypatch.setattr(path_ridge, "LIMIT", 40)
    with pytest.raises(ValueError, match="42 paths per output"):
        statistics(model, x, labels)


def test_without_the_compiled_package(monkeypatch):
    model, x, labels = problem()
    fit_ridge(model, x, labels, 1.0, by="dual")
    wanted = model.paths.clone()
    monkeypatch.setattr("ouikit.patterns._compiled_hamming", lambda: None)
    fit_ridge(model, x, labels, 1.0, by="dual")
    assert torch.equal(model.paths, wanted)


def test_threads_are_left_alone():
    threads = torch.get_num_threads()
    model, x, labels = problem()
    for by in ROUTES:
        fit_ridge(model, x, labels, 1.0, by=by)
    assert torch.get_num_threads() == threads
