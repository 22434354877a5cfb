"""The block: equal outputs at the switch, gradients as a tape gives them, and a module like any other."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ouikit.nn.glai import GLAI, Settled, reduced_width
from ouikit.nn.heads import FusedAdam, PathSteps, mlp_epochs, path_epochs
from ouikit.nn.path_sum import path_sum
from ouikit.nn.paths import with_one


def block(dtype=torch.float64, seed=0, width=6):
    torch.manual_seed(seed)
    return GLAI(5, 32, 3, width=width).to(dtype)


def features(count=40, dtype=torch.float64, seed=1):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def classes(x):
    return (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 1).long()


@pytest.mark.parametrize(
    ("hidden", "mlp", "width", "paths"),
    [(128, 34186, 13, 33420), (256, 68362, 26, 66830), (1024, 273418, 106, 272430)],
)
def test_the_width_gives_no_more_parameters_than_the_mlp(hidden, mlp, width, paths):
    assert hidden * 257 + 10 * (hidden + 1) == mlp
    assert reduced_width(256, hidden, 10) == width
    trained = GLAI(256, hidden, 10).switch().parameters()
    assert sum(p.numel() for p in trained) == paths
    assert paths <= mlp < paths + 10 * 257
    with pytest.raises(ValueError, match="hidden ≥ 10"):
        reduced_width(256, 9, 10)
    assert reduced_width(256, 10, 10) == 1


def test_outputs_are_continuous_and_gates_frozen_from_the_switch_on():
    glai, x = block(), features()
    before, gates = glai(x), glai.gates(x)
    assert glai.switch(x) is glai
    torch.testing.assert_close(glai(x), before, rtol=1e-12, atol=1e-12)
    for parameter in glai.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    assert torch.equal(glai.gates(x), gates)
    assert torch.equal(glai(x, gates), glai(x))
    assert not torch.allclose(glai(x), before, atol=0.1)


def test_the_hand_written_gradient_is_right():
    glai, x = block().switch(), features(7)
    gates = glai.gates(x).double()
    paths, bias = (p.detach().clone().requires_grad_() for p in glai.parameters())
    x1 = with_one(x).requires_grad_()
    assert torch.autograd.gradcheck(lambda *args: path_sum(args[0], gates, *args[1:]), (x1, paths, bias))
    explicit = torch.einsum("bj,oji,bi->bo", gates, paths, x1) + bias
    torch.testing.assert_close(path_sum(x1, gates, paths, bias), explicit)


def test_the_gradient_at_its_input_is_that_of_the_network_with_its_gates():
    glai, x = block(), features().requires_grad_()
    (mlps,) = torch.autograd.grad(glai(x).square().sum(), x)
    (ours,) = torch.autograd.grad(glai.switch()(x).square().sum(), x)
    torch.testing.assert_close(ours, mlps)


def test_the_quantitative_phase_is_convex():
    glai, x = block().switch(), features()
    y, start = classes(x), deepcopy(glai.state_dict())

    def loss(state):
        glai.load_state_dict(state)
        return float(cross_entropy(glai(x), y).detach())

    for seed in range(10):
        torch.manual_seed(seed)
        ends = [{k: v + 3 * torch.randn_like(v) * ("gate" not in k) for k, v in start.items()} for _ in "ab"]
        middle = {k: (ends[0][k] + ends[1][k]) / 2 for k in start}
        assert loss(middle) < (loss(ends[0]) + loss(ends[1])) / 2


def test_steps_by_hand_are_those_of_a_tape():
    glai, x = block(torch.float32).switch(), features(64, torch.float32)
    twin, y = deepcopy(glai), classes(x)
    adam = torch.optim.Adam(twin.parameters(), 1e-2, fused=True)
    steps = PathSteps(glai.quantitative, 1e-2)
    x1, gates = with_one(x), glai.gates(x).float()
    for _ in range(5):
        adam.zero_grad()
        cross_entropy(twin(x), y).backward()
        adam.step()
        steps(x1, gates, y)
        for mine, theirs in zip(glai.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)


def test_the_bare_kernel_is_torchs_adam_to_the_bit():
    torch.manual_seed(0)
    mine = [torch.randn(9, 4), torch.randn(3)]
    theirs = [nn.Parameter(value.clone()) for value in mine]
    ours, adam = FusedAdam(mine, 0.01), torch.optim.Adam(theirs, 0.01, fused=True)
    for _ in range(4):
        gradients = [torch.randn_like(value) for value in mine]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        adam.step()
        ours.step(gradients)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_fitting_goes_through_both_phases_and_the_loss_falls_below_the_small_mlps():
    x = features(400, torch.float32)
    y, glai = classes(x), block(torch.float32)
    start = float(cross_entropy(glai(x), y))
    rows, losses = [], []
    for row in glai.fit(x, y, epochs=12, structure=4, lr=1e-2, seed=3):
        rows.append(row)
        losses.append(float(cross_entropy(glai(x), y)))
    assert [row.number for row in rows] == [*range(1, 13)]
    assert [row.phase for row in rows] == ["structural"] * 4 + ["quantitative"] * 8
    assert rows[0].gate_changes > 0
    assert {row.gate_changes for row in rows[4:]} == {0.0}
    assert start > losses[3] > losses[-1]
    small = block(torch.float32)
    small.load_state_dict(block(torch.float32).state_dict())
    for _ in mlp_epochs(small.structural, x, y, 4, 128, 1e-2, 3):
        pass
    assert float(cross_entropy(small(x), y)) == pytest.approx(losses[3], rel=1e-5)


def test_a_rule_ends_the_structural_phase_and_one_solve_ends_the_other():
    x = features(400, torch.float32)
    rule, glai = Settled(rate=0.2), block(torch.float32)
    rows = [*glai.fit(x, classes(x), epochs=30, structure=rule, lr=1e-3, penalty=1.0)]
    assert [row.phase for row in rows] == ["structural", "quantitative"]
    assert rule.rates[0] < 0.2
    never = [*block(torch.float32).fit(x, classes(x), epochs=3, structure=Settled(rate=1e-9, patience=9))]
    assert [row.phase for row in never] == ["structural"] * 3


def test_one_solve_is_no_worse_than_any_descent_and_contains_the_small_mlp():
    x = features(200)
    target, glai, penalty = torch.eye(3, dtype=torch.float64)[classes(x)], block(), 1e-3

    def loss(model):
        return float((model(x) - target).square().sum() + penalty * model.quantitative.paths.square().sum())

    before = loss(deepcopy(glai).switch())
    glai.solve(x, classes(x), penalty)
    assert glai.phase == "quantitative"
    solved = loss(glai)
    assert solved < before
    for seed in range(5):
        torch.manual_seed(seed)
        moved = deepcopy(glai)
        for parameter in moved.parameters():
            parameter.data.add_(1e-3 * torch.randn_like(parameter))
        assert loss(moved) > solved


def test_pruning_takes_units_by_the_norm_of_their_paths():
    glai = GLAI(2, 8, 2, width=4).double()
    x = torch.tensor([[1.0, 2.0], [-1.0, 3.0], [2.0, -2.0]], dtype=torch.float64)
    glai.switch()
    model = glai.quantitative
    with torch.no_grad():
        model.gate_weight.copy_(torch.tensor([[1, 0], [0, 1], [-1, 0], [1, 1]]))
        model.gate_bias.zero_()
        model.paths.copy_(torch.arange(24).view(2, 4, 3))
        model.paths[:, 1] = 0
    norms = [(x @ x) ** 0.5 for x in model.paths.transpose(0, 1).flatten(1)]
    assert glai.path_norms().tolist() == pytest.approx([float(n) for n in norms])
    before = glai(x)
    assert glai.prune() == 1
    assert glai.width == 3
    assert torch.equal(glai(x), before)  # whole numbers, so that no order of additions matters
    assert glai.prune() == 0
    assert glai.prune(keep=1) == 2
    assert torch.equal(glai.quantitative.gate_weight, torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match="no unit would be left"):
        glai.prune(below=1e9)
    assert glai.width == 1


@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("into", [False, True])
def test_a_state_dict_brings_its_phase_and_width(switched, into):
    source, x = block(width=4), features()
    if switched:
        source.switch()
    state, target = source.state_dict(), block(seed=5)
    if into:
        target.switch()
    assert target.load_state_dict(state) == ([], [])
    assert (target.phase, target.width) == (source.phase, 4)
    assert torch.equal(target(x), source(x))
    outer = nn.Sequential(nn.Linear(5, 5), block(seed=5)).double()
    named = {f"1.{key}": value for key, value in state.items()}
    assert not outer.load_state_dict(named, strict=False).unexpected_keys
    assert torch.equal(outer[1](x), source(x))


def test_a_state_of_other_sizes_is_refused_and_changes_no_form():
    glai = block()
    for other in (GLAI(4, 8, 3, width=2), GLAI(4, 8, 3, width=2).switch()):
        with pytest.raises(RuntimeError):
            glai.load_state_dict(other.state_dict())
        assert (glai.phase, glai.width) == ("structural", 6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_either_phase(dtype):
    glai, x = block(torch.float32), features(dtype=torch.float32)
    whole = glai(x)
    for model in (deepcopy(glai), deepcopy(glai).switch()):
        half = model.to(dtype)
        y = half(x.to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), whole, rtol=0.05, atol=0.05)
        y.sum().backward()
        assert all(p.grad.dtype == dtype for p in half.parameters())


def test_autocast_and_leading_dimensions():
    glai, x = block(torch.float32).switch(), features(24, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = glai(x.bfloat16()).float().sum()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in glai.parameters())
    torch.testing.assert_close(glai(x.view(2, 3, 4, 5)), glai(x).view(2, 3, 4, 3))


def test_it_trains_inside_a_larger_network_and_survives_a_deep_copy():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), GLAI(5, 32, 3, width=6))
    x = features(100, torch.float32)
    y = classes(x)
    for phase in range(2):
        adam = torch.optim.Adam(net.parameters(), 1e-2)
        first = float(cross_entropy(net(x), y))
        for _ in range(20):
            adam.zero_grad()
            cross_entropy(net(x), y).backward()
            adam.step()
        assert float(cross_entropy(net(x), y)) < first
        assert net[0].weight.grad.abs().sum() > 0
        twin = deepcopy(net)
        assert torch.equal(twin(x), net(x))
        if not phase:
            net[2].switch(net[:2](x))


def test_what_is_wrong_is_named_and_changes_nothing():
    glai, x = block(torch.float32), features(dtype=torch.float32)
    bad, state = x.clone(), deepcopy(glai.state_dict())
    bad[7, 2] = float("nan")
    for call in (
        lambda: glai.switch(bad),
        lambda: glai.fit(bad, classes(x), epochs=1),
        lambda: glai.gates(bad),
    ):
        with pytest.raises(ValueError, match="first such row is 7"):
            call()
    with pytest.raises(ValueError, match="no gate varies over these 1 samples"):
        glai.switch(x[:1])
    with pytest.raises(ValueError, match="each from 0 to 2"):
        glai.fit(x, classes(x) + 3, epochs=1)
    with pytest.raises(ValueError, match="penalty"):
        glai.solve(x, classes(x), 0.0)
    with pytest.raises(ValueError, match="one class alone"):
        glai.solve(x, torch.zeros(40, dtype=torch.long), 1.0)
    with pytest.raises(RuntimeError, match="no paths before the switch"):
        glai.prune()
    with pytest.raises(ValueError, match="call switch"):
        glai(x, glai.gates(x))
    assert glai.phase == "structural"
    assert all(torch.equal(state[key], value) for key, value in glai.state_dict().items())
    with pytest.raises(RuntimeError, match="switched before"):
        glai.switch().switch()
    with pytest.raises(ValueError, match="width is 1 or more"):
        GLAI(5, 5, 3, width=0)
    with pytest.raises(ValueError, match="rate lies between"):
        Settled(rate=1.0)
    with pytest.raises(ValueError, match="float32 on the CPU"):
        next(path_epochs(block().switch().quantitative, features(), classes(x), 1, 8, 0.1, 0))
    with pytest.raises(ValueError, match="trained by hand"):
        next(
            mlp_epochs(
                nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 3)), x, classes(x), 1, 8, 0.1, 0
            )
        )
