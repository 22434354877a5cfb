"""StableGrad: what it changes and what it leaves, inside real training loops."""

import copy
import math

import pytest
import torch
from torch import nn

from ouikit.optim import StableGrad


def network(seed=0, last=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 6), nn.Tanh(), nn.Linear(6, last)
    )


def batch(seed=0, n=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 8, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def weights(model):
    return [p for p in model.parameters() if p.ndim > 1]


def backward(model, factor=1.0, seed=0):
    x, y = batch(seed)
    loss = nn.functional.cross_entropy(model(x), y)
    (loss * factor).backward()
    return loss.detach()


def prediction_spread(model, factor=1.0):
    x, y = batch()
    with torch.no_grad():
        z = model(x)
    z.requires_grad_()
    (nn.functional.cross_entropy(z, y) * factor).backward()
    return z.grad.std()


def test_every_weight_gradient_gets_the_spread_of_the_predictions_and_keeps_its_direction():
    model = network()
    expected = prediction_spread(model)
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.0), reference=model)
    before = backward(model)
    plain = [p.grad.clone() for p in model.parameters()]
    optimiser.step()
    for old, parameter in zip(plain, model.parameters(), strict=True):
        if parameter.ndim > 1:
            torch.testing.assert_close(parameter.grad.std(), expected, rtol=1e-5, atol=0)
            cosine = torch.cosine_similarity(old.flatten(), parameter.grad.flatten(), dim=0)
            assert cosine.item() == pytest.approx(1, abs=1e-6)
        else:
            assert torch.equal(old, parameter.grad)
    x, y = batch()
    assert torch.equal(nn.functional.cross_entropy(model(x), y).detach(), before)


def test_a_network_in_double_precision_gets_its_reference_in_double_precision():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.0), reference=model)
    out = model(torch.randn(8, 6, dtype=torch.float64))
    out.retain_grad()
    out.pow(3).sum().backward()
    optimiser.step()
    for weight in (model[0].weight, model[2].weight):
        torch.testing.assert_close(weight.grad.std(), out.grad.std(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("reference", ["last_layer", 0.25])
def test_other_references_and_a_second_call_that_changes_nothing(reference):
    model = network()
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.0), reference=reference)
    backward(model)
    expected = weights(model)[-1].grad.std().item() if reference == "last_layer" else reference
    optimiser.step()
    once = [w.grad.clone() for w in weights(model)]
    assert [g.std().item() for g in once] == pytest.approx([expected] * 3, rel=1e-5)
    optimiser.step()
    for old, weight in zip(once, weights(model), strict=True):
        torch.testing.assert_close(weight.grad, old, rtol=1e-6, atol=0)


def steps(model, optimiser, n=3, factor=1.0, scale=lambda model: None):
    for step in range(n):
        optimiser.zero_grad()
        backward(model, factor, seed=step)
        scale(model)
        optimiser.step()
    return [p.detach().clone() for p in model.parameters()]


def test_a_factor_on_one_layer_changes_nothing_and_one_on_the_loss_scales_the_step():
    def one_layer(model):
        weights(model)[1].grad.mul_(1e-7)

    results = []
    for factor, scale in ((1.0, lambda model: None), (1.0, one_layer)):
        model = network()
        results.append(
            steps(
                model,
                StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=0.1, eps=0),
                factor=factor,
                scale=scale,
            )
        )
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    moved = []
    for factor in (1.0, 8.0):
        model = network()
        start = weights(model)[0].detach().clone()
        found = steps(
            model,
            StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=model),
            n=1,
            factor=factor,
        )
        moved.append(found[0] - start)
    torch.testing.assert_close(moved[1], 8 * moved[0], rtol=1e-4, atol=1e-7)


def test_the_loss_falls_along_the_rescaled_direction():
    model = network()
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=1e-4), reference=model)
    before = backward(model)
    optimiser.step()
    assert backward(model) < before


def test_a_layer_without_a_gradient_without_spread_or_of_zero_is_left_alone():
    model = nn.Sequential(
        nn.Linear(4, 5, bias=False),
        nn.Linear(5, 2, bias=False),
        nn.Linear(2, 2, bias=False),
        nn.Linear(2, 2, bias=False),
    )
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=1.0)
    zero, constant, absent, real = model.parameters()
    zero.grad, constant.grad = torch.zeros(5, 4), torch.full((2, 5), 0.3)
    real.grad = torch.tensor([[1.0, 2], [3, 4]])
    optimiser.step()
    assert not zero.grad.any()
    assert torch.equal(constant.grad, torch.full((2, 5), 0.3))
    assert absent.grad is None
    assert real.grad.std().item() == pytest.approx(1)
    assert list(optimiser.factors) == ["group 0, parameter 0", "group 0, parameter 1", "group 0, parameter 3"]


def test_weights_of_one_dimension_and_of_one_entry():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 3), nn.LayerNorm(3))
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=1.0)
    model(torch.randn(7, 1)).square().mul(torch.arange(3)).sum().backward()
    alone = model[0].weight.grad.clone()
    optimiser.step()
    assert torch.equal(model[0].weight.grad, alone)
    assert model[1].weight.grad.std().item() == pytest.approx(1)
    with pytest.raises(ValueError, match="no parameter has two or more dimensions"):
        StableGrad(
            torch.optim.SGD([nn.Parameter(torch.zeros(3)), nn.Parameter(torch.tensor(1.0))]), reference=1.0
        )


def test_a_gradient_that_is_not_finite_is_refused_by_name_and_nothing_changes():
    model = network()
    optimiser = StableGrad(torch.optim.Adam(model.named_parameters(), lr=0.1), reference=model)
    backward(model)
    optimiser.step()
    optimiser.zero_grad()
    backward(model)
    state, values = copy.deepcopy(optimiser.state_dict()), copy.deepcopy(model.state_dict())
    for parameter, name in ((model[3].weight, "3.weight"), (model[5].bias, "5.bias")):
        kept = parameter.grad.clone()
        parameter.grad.view(-1)[0] = torch.nan
        others = [p.grad.clone() for p in model.parameters() if p is not parameter]
        with pytest.raises(FloatingPointError, match=f"gradient of {name} is not finite"):
            optimiser.step()
        assert all(
            torch.equal(a, p.grad)
            for a, p in zip(others, (p for p in model.parameters() if p is not parameter), strict=True)
        )
        parameter.grad.copy_(kept)
    for key, value in model.state_dict().items():
        assert torch.equal(value, values[key])
    for index, entry in optimiser.state_dict()["state"].items():
        assert all(torch.equal(entry[k], state["state"][index][k]) for k in entry)
    optimiser.step()


def test_a_step_without_gradients_or_without_its_closure():
    model = network()
    with pytest.raises(RuntimeError, match="no parameter has a gradient"):
        StableGrad(torch.optim.Adam(model.parameters()), reference=model).step()
    with pytest.raises(TypeError, match="LBFGS needs a closure"):
        StableGrad(torch.optim.LBFGS(model.parameters()), reference=model).step()


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        (0.0, ValueError),
        (-1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        ("first", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_a_reference_that_is_none(reference, error):
    with pytest.raises(error, match="reference"):
        StableGrad(torch.optim.SGD(network().parameters(), lr=0.1), reference=reference)


def test_what_can_be_wrapped():
    model = network()
    inner = StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=1.0)
    for thing in (inner, model.parameters(), None):
        with pytest.raises(TypeError, match=r"wraps a torch.optim optimiser"):
            StableGrad(thing, reference=1.0)
    with pytest.raises(ValueError, match="eps"):
        StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=1.0, eps=-1.0)


def test_a_closure_is_rescaled_each_time():
    results = []
    for closed in (False, True):
        model = network()
        optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=model)

        def evaluate(model=model, optimiser=optimiser):
            optimiser.zero_grad()
            return backward(model)

        if closed:
            assert optimiser.step(evaluate) == backward(network())
        else:
            evaluate()
            optimiser.step()
        results.append(list(model.parameters()))
    assert all(map(torch.equal, *results))
    model = network()
    quasi = StableGrad(torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=3), reference=model)

    def closure():
        quasi.zero_grad()
        return backward(model)

    assert quasi.step(closure) > backward(model)


def test_groups_schedulers_and_resumed_state():
    model, other = network(), network()
    first, second = list(model.parameters())[:2], list(model.parameters())[2:]
    optimiser = StableGrad(torch.optim.AdamW([{"params": first, "lr": 0.1}]), reference=model)
    optimiser.add_param_group({"params": second, "lr": 0.01})
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, 1, gamma=0.5)
    steps(model, optimiser, 2)
    scheduler.step()
    assert [group["lr"] for group in optimiser.optimizer.param_groups] == [0.05, 0.005]
    resumed = StableGrad(
        torch.optim.AdamW(
            [{"params": list(other.parameters())[:2]}, {"params": list(other.parameters())[2:]}]
        ),
        reference=other,
    )
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert all(map(torch.equal, steps(model, optimiser, 2), steps(other, resumed, 2)))


def test_the_loss_scaler_of_mixed_precision_changes_nothing():
    results = []
    for scaled in (False, True):
        model = network()
        optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=model)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=scaled)
        for step in range(3):
            optimiser.zero_grad()
            x, y = batch(step)
            scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
            scaler.step(optimiser)
            scaler.update()
        results.append(list(model.parameters()))
    assert all(map(torch.equal, *results))


def test_a_step_that_the_scaler_skips_leaves_no_trace():
    model = network()
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = [p.detach().clone() for p in model.parameters()]
    (scaler.scale(model(batch()[0]).sum()) * torch.inf).backward()
    scaler.step(optimiser)
    scaler.update()
    assert all(map(torch.equal, before, model.parameters()))
    model.zero_grad()  # not the optimiser's
    expected = prediction_spread(model)
    model.zero_grad()
    scaler.scale(nn.functional.cross_entropy(model(batch()[0]), batch()[1])).backward()
    scaler.step(optimiser)
    torch.testing.assert_close(weights(model)[0].grad.std(), expected, rtol=1e-4, atol=0)


def test_clipping_by_norm_still_limits_the_step():
    model = network()
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.0), reference=model)
    expected = prediction_spread(model)
    backward(model)
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    optimiser.step()
    torch.testing.assert_close(weights(model)[0].grad.std(), expected * 1e-3 / norm, rtol=1e-4, atol=0)


def test_accumulated_batches_are_one_batch():
    model = network()
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.0), reference=model)
    x, y = batch()
    expected = prediction_spread(model)
    for part in range(2):
        loss = nn.functional.cross_entropy(model(x[part::2]), y[part::2])
        (loss / 2).backward()
    optimiser.step()
    torch.testing.assert_close(weights(model)[0].grad.std(), expected, rtol=1e-5, atol=0)


def test_the_residual_of_a_pde_reads_derivatives_so_the_last_layer_stands_in():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.0), reference=model)

    def derivative(u, x):
        return torch.autograd.grad(u.sum(), x, create_graph=True)[0]

    x = torch.linspace(0, 1, 20)[:, None].requires_grad_()
    u = model(x)
    interior = (derivative(derivative(u, x), x) + torch.sin(x)).square().mean()
    interior.backward()
    expected = model[4].weight.grad.std()
    optimiser.step()
    torch.testing.assert_close(model[2].weight.grad.std(), expected, rtol=1e-5, atol=0)

    optimiser.zero_grad()
    ends = model(torch.tensor([[0.0], [1.0]]))
    ends.retain_grad()
    u = model(x)
    loss = (derivative(derivative(u, x), x) + torch.sin(x)).square().mean() + (ends - 0.5).square().sum()
    loss.backward()
    optimiser.step()
    torch.testing.assert_close(model[2].weight.grad.std(), ends.grad.std(), rtol=1e-4, atol=0)


def test_a_reference_that_returns_no_tensor():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return {"logits": self.layer(x)}

    model = Two()
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=model)
    with pytest.raises(TypeError, match="Two returns dict: give the submodule"):
        model(torch.randn(3, 2))
    optimiser.remove()
    assert model(torch.randn(3, 2))["logits"].shape == (3, 2)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.9)])
def test_a_drifting_scale_reaches_adam_as_a_constant_one(betas):
    """arXiv 2605.19856 meets 2601.21739: with a constant reference the update stays flat for any betas."""
    weight = nn.Parameter(torch.zeros(2, 50))
    optimiser = StableGrad(torch.optim.Adam([weight], lr=1.0, betas=betas), reference=1.0)
    direction = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    norms = []
    for step in range(400):
        before = weight.detach().clone()
        weight.grad = direction * math.exp(0.02 * step) * 1e-4
        optimiser.step()
        norms.append((weight.detach() - before).norm().item())
    assert max(norms) == pytest.approx(min(norms), rel=1e-3)


def test_the_books_three_lines():
    """`book/start.md`, Around your own optimiser."""
    from ouikit.nn.init import sinusoidal_
    from ouikit.optim import refresh_beta

    model = sinusoidal_(nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 3)), "he")
    beta = refresh_beta(horizon=20_000)
    optimiser = StableGrad(torch.optim.AdamW(model.parameters(), betas=(beta, beta)), reference=model)
    x, y = torch.randn(64, 30, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def _one_rank(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(network())
    optimiser = StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=model)
    for step in range(2):
        x, y = batch(step)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rank::2]), y[rank::2]).backward()
        optimiser.step()
    torch.save(model.module.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_do_what_one_does(tmp_path):
    torch.multiprocessing.start_processes(_one_rank, (tmp_path,), nprocs=2, start_method="fork")
    model = network()
    alone = steps(model, StableGrad(torch.optim.SGD(model.parameters(), lr=0.1), reference=model), 2)
    ranks = [torch.load(tmp_path / f"{rank}.pt").values() for rank in range(2)]
    for one, first, second in zip(alone, *ranks, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e-8, 1.0, 1e18, 1e30])
@pytest.mark.parametrize("mean", [0.0, 3.0, 1e3])
def test_a_spread_of_any_size_around_any_mean(dtype, size, mean):
    generator = torch.Generator().manual_seed(0)
    g = ((torch.randn(40, 50, generator=generator, dtype=torch.float64) + mean) * size).to(dtype)
    weight = nn.Parameter(torch.zeros(40, 50, dtype=dtype))
    optimiser = StableGrad(torch.optim.SGD([weight], lr=0.0), reference=0.5, eps=0.0)
    weight.grad = g.clone()
    optimiser.step()
    (factor,) = optimiser.factors.values()
    assert factor == pytest.approx(
        0.5 / g.double().std().item(), rel=1e-2 if dtype == torch.bfloat16 else 1e-4
    )
