"""What a monitor reads, passes over and leaves alone: every line of the table in the science reference."""

import io
import math
import pickle
import re
import threading
from collections.abc import Callable

import pytest
import torch
from conftest import ROOT
from torch import Tensor, distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from ouikit import OUI, balance_oui, record_patterns
from ouikit.watch import modules_by_name, nan_unless_finite, plain_names, readable, unwrapped

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*prototype:UserWarning")
CLOSE = r"close\(\) the OUI first"


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 1))


def batch(samples: int = 16) -> Tensor:
    return torch.randn(samples, 3, generator=torch.Generator().manual_seed(1))


def expected(model: nn.Module, x: Tensor) -> float:
    with record_patterns(model) as patterns, torch.no_grad():
        model(x)
    return balance_oui(patterns)


def assert_passed_over(oui: OUI, reason: str) -> None:
    with pytest.raises(RuntimeError, match=f"no reading yet.*passed over: .*{reason}"):
        oui.compute()
    assert all(re.search(reason, why) for reasons in oui.passed_over.values() for why in reasons)


def compiled() -> None:
    for outside in (True, False):
        torch.compiler.reset()
        model = network()
        fast = torch.compile(model, backend="eager")
        with OUI(fast if outside else model, "balance") as oui:
            for _ in range(10):  # more than the compiler would compile anew
                fast(batch()).sum().backward()
        assert oui.readings == 10
        assert oui.compute() == pytest.approx(expected(model, batch()))
    torch.compiler.reset()
    with OUI(model, "balance"), pytest.raises(Exception, match=CLOSE):
        torch.compile(model, backend="eager", fullgraph=True)(batch())
    torch.compiler.reset()
    torch.compile(model, backend="eager", fullgraph=True)(batch())  # closed


def exported() -> None:
    model = network()
    with OUI(model, "balance") as oui:
        program = torch.export.export(model, (batch(),))
        assert_passed_over(oui, "FakeTensor")
    assert torch.equal(program.module()(batch()), model(batch()))


def scripted() -> None:
    model = network()
    with OUI(model, "balance"), pytest.raises(AttributeError, match=CLOSE):
        torch.jit.script(model)
    torch.jit.script(model)


def traced() -> None:
    model = network()
    with OUI(model, "balance") as oui:
        program = torch.jit.trace(model, batch(), check_trace=False)
        assert_passed_over(oui, "torch.jit.trace")
    assert torch.equal(program(batch()), model(batch()))


def differentiated() -> None:
    model, x = network(), batch()
    params = dict(model.named_parameters())
    plain = grad(lambda p: functional_call(model, p, (x,)).sum())(params)
    for kind in ("balance", "pairwise"):
        with OUI(model, kind) as oui:
            watched = grad(lambda p: functional_call(model, p, (x,)).sum())(params)
        assert (oui.readings, oui.passed_over) == (1, {})
        assert all(torch.equal(plain[name], watched[name]) for name in plain)
    with OUI(model, "balance") as oui:
        grad(lambda p: functional_call(model, p, (x,)).sum())(params)
        model(x)  # the sums of both are plain tensors
    assert oui.compute() == pytest.approx(expected(model, x))


def batched() -> None:
    model, x = network(), batch()
    params = dict(model.named_parameters())
    with OUI(model, "balance") as oui:
        vmap(grad(lambda p, one: functional_call(model, p, (one[None],)).sum()), (None, 0))(params, x)
        assert_passed_over(oui, "vmap")
        vmap(lambda one: one + model(x).sum())(torch.zeros(2))  # nothing of the model is batched
        assert oui.compute() == pytest.approx(expected(model, x))


def checkpointed() -> None:
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = network()

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.part, x, use_reentrant=False)

    model = Saving()
    with OUI(model, "balance") as oui:
        model(batch().requires_grad_()).sum().backward()
    assert oui.readings == 1
    assert oui.compute() == pytest.approx(expected(model, batch()))


def counted() -> None:
    model, x = network(), batch()

    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            model(x)
        return counter.get_total_flops()

    plain, graph = flops(), make_fx(model)(x).code
    with OUI(model, "pairwise") as oui:
        assert flops() == plain
        assert make_fx(model)(x).code == graph
        with torch.device("meta"):  # where tensors are made, not where they are
            model(x)
    assert oui.readings == 3
    assert oui.compute() == pytest.approx(one_pairwise(model))


def one_pairwise(model: nn.Module) -> float:
    with OUI(model, "pairwise") as oui:
        model(batch())
    return oui.compute()


class Gives(nn.Module):
    """A gate around whatever kind of tensor the function makes of its input."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make, self.gate = make, Passes()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.make(x))


class Passes(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return x


def kind_is_passed_over(make: Callable[[Tensor], Tensor], reason: str) -> None:
    model = Gives(make)
    with OUI(model, "balance") as oui:
        model(batch())
        assert_passed_over(oui, reason)
    with (
        pytest.warns(UserWarning, match=f"not recorded: gate: .*{reason}"),
        record_patterns(model) as patterns,
    ):
        model(batch())
    assert not patterns


def nested() -> None:
    kind_is_passed_over(lambda x: torch.nested.nested_tensor([x, x[:3]]), "nested")
    kind_is_passed_over(lambda x: torch.nested.nested_tensor([x, x[:3]], layout=torch.jagged), "NestedTensor")


def sparse() -> None:
    kind_is_passed_over(Tensor.to_sparse, "sparse_coo")
    kind_is_passed_over(Tensor.to_sparse_csr, "sparse_csr")
    kind_is_passed_over(lambda x: x.to(torch.complex64), "complex64")
    kind_is_passed_over(lambda x: x.to(torch.float8_e4m3fn), "float8")


def quantised() -> None:
    kind_is_passed_over(lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "qint8")


def fake() -> None:
    model = network()
    with OUI(model, "balance") as oui, FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(mode.from_tensor(batch()))
    assert_passed_over(oui, "FakeTensor")
    kind_is_passed_over(lambda x: x.to("meta"), "meta device")


def in_place() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True))
    nn.init.constant_(model[0].bias, -math.inf)
    with OUI(model, "balance") as oui, torch.no_grad():
        model(batch())
    assert math.isnan(oui.compute())  # the gate has made zeros of it

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            out = self.layer(x)
            out += 100
            return out

    model = Residual()
    with OUI(model, "balance", layers=["layer"]) as oui:
        model(batch())
    assert oui.compute() == balance_oui(model.layer(batch()) > 0)


def not_finite() -> None:
    class Towers(nn.Module):
        def __init__(self, order: tuple[str, str]) -> None:
            super().__init__()
            self.order = order
            self.sick, self.sound = network(), network()
            nn.init.constant_(self.sick[0].weight, math.nan)

        def forward(self, x: Tensor) -> list[Tensor]:
            return [getattr(self, name)(x) for name in self.order]

    for order in (("sick", "sound"), ("sound", "sick")):
        model = Towers(order)
        with OUI(model, "balance") as oui:
            model(batch())
        layers = oui.per_layer()
        assert math.isnan(oui.compute())
        assert {name for name, value in layers.items() if math.isnan(value)} == {"sick.1", "sick.3"}
        sound = (layers["sound.1"] + layers["sound.3"]) / 2
        assert sound == pytest.approx(expected(model.sound, batch()))


def too_few() -> None:
    model = network()
    with OUI(model, "balance") as oui:
        model(torch.randn(3))
        model(torch.randn(1, 3))
    assert oui.passed_over == {name: {"no batch dimension": 1, "1 sample": 1} for name in ("1", "3")}
    with pytest.raises(RuntimeError, match=r"1: no batch dimension \(1×\), 1 sample \(1×\); 3: "):
        oui.compute()
    oui.reset()
    assert oui.passed_over == {}
    model = nn.Sequential(nn.Conv2d(1, 4, 3))
    with OUI(model, "balance", layers=["0"]) as oui:
        model(torch.randn(1, 5, 5))  # [C, H, W]: its channels are no samples
        assert_passed_over(oui, "no batch dimension")


def threaded() -> None:
    model, sizes, rounds = network(), (8, 16), 100
    single = [expected(model, batch(size)) for size in sizes]
    errors = []

    def serve(size: int) -> None:
        try:
            for _ in range(rounds):
                model(batch(size))
        except Exception as error:
            errors.append(error)

    with OUI(model, "balance") as oui:
        threads = [threading.Thread(target=serve, args=(size,)) for size in sizes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
    assert oui.readings == len(sizes) * rounds
    assert oui.compute() == pytest.approx(sum(single) / 2)
    assert list(oui.per_layer()) == ["1", "3"]


def replicated() -> None:
    model = network()
    parallel = nn.DataParallel(model)
    with OUI(parallel, "balance") as oui:
        parallel(batch())
        # The replicas of DataParallel share the hooks of their original, and run in threads of their own.
        worker = threading.Thread(target=model._replicate_for_data_parallel(), args=(batch(),))
        worker.start()
        worker.join()
    assert oui.readings == 2
    assert list(oui.per_layer()) == ["1", "3"]
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        process = nn.parallel.DistributedDataParallel(network())
        with OUI(process, "balance") as own:
            process(batch()).sum().backward()
        assert list(own.per_layer()) == ["1", "3"]
        assert own.compute() == pytest.approx(expected(network(), batch()))
    finally:
        distributed.destroy_process_group()
    state = oui.state_dict()
    for other in (network(), torch.compile(network(), backend="eager"), nn.DataParallel(network())):
        with OUI(other, "balance") as again:
            again.load_state_dict(state)
            assert again.compute() == oui.compute()


def experts() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3)) for _ in range(4)
            )

        def forward(self, x: Tensor, route: Tensor) -> Tensor:
            out = torch.zeros_like(x)
            for number, expert in enumerate(self.experts):
                mine = (route == number).nonzero()[:, 0]
                out = out.index_add(0, mine, expert(x[mine]))
            return out

    model, x, route = Experts(), batch(12), torch.tensor([0] * 7 + [1] * 4 + [2])
    with OUI(model, "balance") as oui:
        model(x, route)
    by_hand = [balance_oui(model.experts[k][0](x[route == k]) > 0) for k in (0, 1)]
    assert list(oui.per_layer().values()) == by_hand
    message = r"never read.*experts\.2\.1: 1 sample \(1×\); experts\.3\.1: 0 samples"
    with pytest.warns(UserWarning, match=message):
        assert oui.compute() == pytest.approx(sum(by_hand) / 2)


def raising() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.fail = nn.ReLU(), True

        def forward(self, x: Tensor) -> Tensor:
            x = self.gate(x)
            if self.fail:
                raise MemoryError
            return x

    model = Fails()
    with OUI(model, "balance") as oui, record_patterns(model) as patterns:
        with pytest.raises(MemoryError):
            model(batch())
        model.gate(batch(4))
        assert (oui.readings, dict(patterns)) == (0, {})
        model.fail = False
        try:
            raise KeyError
        except KeyError:
            model(batch())  # an exception of the caller's is none of the model's
    assert (oui.readings, oui.passed_over) == (1, {})


HOLDS = {
    "torch.compile": compiled,
    "torch.export": exported,
    "torch.jit.script": scripted,
    "torch.jit.trace": traced,
    "torch.func.grad": differentiated,
    "torch.func.vmap": batched,
    "checkpointing": checkpointed,
    "FlopCounterMode and other modes": counted,
    "nested tensors": nested,
    "sparse tensors": sparse,
    "quantised tensors": quantised,
    "fake and meta tensors": fake,
    "an in-place gate, an in-place change later": in_place,
    "not finite": not_finite,
    "no batch dimension, one sample": too_few,
    "threads": threaded,
    "DataParallel, DistributedDataParallel": replicated,
    "mixture of experts": experts,
    "a forward pass that raises": raising,
}


@pytest.mark.parametrize("where", HOLDS)
def test_what_the_table_says(where: str) -> None:
    HOLDS[where]()


def test_every_line_of_the_table_is_a_test() -> None:
    table = (ROOT / "book" / "api_patterns.md").read_text().split("| Where | What holds |\n|---|---|\n")[1]
    lines = table.split("\n\n")[0].splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == list(HOLDS)


def test_what_a_monitor_cannot_do_is_counted_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("no memory\nmore of it")

    model = network()
    with OUI(model, "balance") as oui:
        monkeypatch.setattr(oui, "_read", fails)
        model(batch())
    assert oui.passed_over["1"] == {"OutOfMemoryError: no memory": 1}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_value_that_is_not_finite_is_found_and_huge_ones_are_not(
    value: float, dtype: torch.dtype
) -> None:
    for shape in ((7, 33), (3, 70_000), (300, 2), (8, 3, 5, 5)):
        z = torch.full(shape, torch.finfo(dtype).max, dtype=dtype)
        z[1] *= -1
        for autocast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                assert float(nan_unless_finite(z)) == 0
        for last in (-1, shape[-1] // 2):
            spoiled = z.clone()
            spoiled[2].view(-1)[last] = value
            assert math.isnan(nan_unless_finite(spoiled))
            assert math.isnan(nan_unless_finite(spoiled.transpose(0, 1)))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_what_has_no_fractions_is_finite_and_read(dtype: torch.dtype) -> None:
    z = (torch.arange(12).view(4, 3) % 2).to(dtype)
    assert nan_unless_finite(z) == 0
    assert torch.equal(readable(z, 2), z)


def test_a_subclass_without_magic_is_read_as_a_plain_tensor() -> None:
    class Named(Tensor):
        @classmethod
        def __torch_function__(cls, *_: object, **__: object) -> None:
            raise AssertionError("a monitor computes with plain tensors")

    with torch._C.DisableTorchFunctionSubclass():
        z = batch().as_subclass(Named)
    tensor = readable(z, 2)
    assert type(tensor) is Tensor
    assert torch.equal(tensor, batch())
    view = torch.view_as_complex(torch.randn(4, 3, 2)).conj().imag  # negated when it is used
    assert view.is_neg()
    assert not readable(view, 2).is_neg()


def test_names_are_those_of_the_module_inside_the_wrappers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = network()  # a name of its own, not a wrapper's
            self.other = nn.DataParallel(torch.compile(network(), backend="eager"))

    net = Net()
    wrapped = torch.compile(nn.DataParallel(net), backend="eager")
    assert unwrapped(wrapped) is net
    inside = net.other.module._orig_mod
    found = modules_by_name(wrapped)
    assert list(found) == [
        "",
        "module",
        *(f"module.{i}" for i in range(5)),
        "other",
        *(f"other.{i}" for i in range(5)),
    ]
    assert (found[""], found["other"], found["other.1"]) == (net, inside, inside[1])
    assert plain_names(wrapped)["_orig_mod.module.other.module._orig_mod.1"] == "other.1"
    with OUI(wrapped, "balance", layers=["_orig_mod.module.other.module._orig_mod.1", "module.1"]) as oui:
        assert list(oui.layers) == ["other.1", "module.1"]


def test_a_watched_model_is_copied_in_the_middle_of_a_pass() -> None:
    class Copies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.gate(x)
            torch.save(self.gate, io.BytesIO())
            pickle.loads(pickle.dumps(self.gate))(x)
            return x

    globals()["Copies"] = Copies
    Copies.__qualname__ = "Copies"
    model = Copies()
    with OUI(model, "balance") as oui:
        model(batch())
    assert (oui.readings, list(oui.per_layer()), oui.passed_over) == (1, ["gate"], {})
