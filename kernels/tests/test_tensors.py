"""Torch tensors and other arrays, without copies. Skipped where torch or ml_dtypes is missing."""

import numpy as np
import pytest
from oracle import assert_product, bf16, random_operands, sums

import ouigemm


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_tensors_give_a_tensor(torch, rng):
    for kind in ("f32", "s16", "s32", "u8s8", "s8s8"):
        a, b = random_operands(rng, kind, 7, 9, 11)
        got = ouigemm.gemm(torch.from_numpy(a), torch.from_numpy(b))
        assert isinstance(got, torch.Tensor)
        assert_product(got.numpy(), a, b)


def test_bf16_tensors(torch, rng):
    a, b = rng.standard_normal((7, 300), np.float32), rng.standard_normal((300, 40), np.float32)
    left, right = torch.from_numpy(a).bfloat16(), torch.from_numpy(b).bfloat16()
    exact = left.double() @ right.double()
    for x, y in ((left, right), (left.T.contiguous().T, right.T.contiguous().T)):
        got = ouigemm.gemm(x, y)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), exact, atol=1e-3, rtol=0)
    torch.testing.assert_close(ouigemm.gemm(left, ouigemm.pack(right)).double(), exact, atol=1e-3, rtol=0)


def test_results_are_written_into_tensors(torch, rng):
    a, b = random_operands(rng, "u8s8", 7, 9, 11)
    out = torch.zeros(9, 7, dtype=torch.int32).T
    assert ouigemm.gemm(torch.from_numpy(a), torch.from_numpy(b), out) is out
    np.testing.assert_array_equal(out.numpy(), sums(a, b))


def test_tensors_and_arrays_mix(torch, rng):
    a, b = random_operands(rng, "f32", 5, 6, 7)
    assert isinstance(ouigemm.gemm(torch.from_numpy(a), b), torch.Tensor)
    assert isinstance(ouigemm.gemm(a, torch.from_numpy(b)), np.ndarray)


def test_tensors_that_require_grad_are_refused(torch):
    """Not dropped in silence: the message gives the way out, and with it the product is the layer's."""
    layer, x = torch.nn.Linear(6, 4), torch.randn(3, 6)
    weight, bias, out = layer.weight.T, layer.bias, torch.zeros(3, 4, requires_grad=True)
    for name, call in {
        "a": lambda: ouigemm.gemm(x.clone().requires_grad_(), weight.detach()),
        "b": lambda: ouigemm.gemm(x, weight),
        "out": lambda: ouigemm.gemm(x, weight.detach(), out),
        "bias": lambda: ouigemm.Scaled(bias=bias),
        "scale": lambda: ouigemm.Requantised(scale=bias),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name} requires grad, .*pass {name}\.detach\(\)"):
            call()
    for matrix in (layer.weight, layer.weight.T, layer.bfloat16().weight):
        with pytest.raises(TypeError, match=r"^b requires grad"):
            ouigemm.pack(matrix)
    assert not out.any()


def test_where_no_gradient_is_recorded_none_is_lost(torch):
    layer, x = torch.nn.Linear(6, 4), torch.randn(3, 6)
    for no_gradient in (torch.no_grad, torch.inference_mode):
        with no_gradient():
            got = ouigemm.gemm(x, layer.weight.T, epilogue=ouigemm.Scaled(bias=layer.bias))
            torch.testing.assert_close(got, layer(x))
            half = layer.weight.bfloat16().T
            torch.testing.assert_close(ouigemm.gemm(x.bfloat16(), half), x.bfloat16().float() @ half.float())
            ouigemm.gemm(x, layer.weight.T, out=torch.zeros(3, 4))


def test_autograd_learns_that_a_tensor_was_overwritten(torch):
    """The backward pass of factor · memory needs what memory held."""
    for out in (lambda memory: memory, lambda memory: memory[:2], lambda memory: memory.detach()):
        factor, memory = torch.randn(3, 3, requires_grad=True), torch.randn(3, 3)
        product = (factor * memory).sum()
        written = out(memory)
        ouigemm.gemm(torch.ones(len(written), 3), torch.ones(3, 3), written)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()


@pytest.mark.filterwarnings("ignore")  # half of these states are called prototypes by torch
def test_tensors_in_a_state_of_their_own_are_refused(torch):
    """Each with the name of the state, whether it is read or written."""
    from torch.autograd import forward_ad
    from torch.masked import masked_tensor

    x, ones = torch.ones(2, 2), np.ones((2, 2), np.float32)

    def in_a_level(use):
        with forward_ad.dual_level():
            use(forward_ad.make_dual(x, x))

    def transformed(transform, *others):
        return lambda use: transform(lambda v: (use(v), v.sum())[1])(*others, torch.ones(3, 2, 2))

    states = {
        "negative bit set: pass x.resolve_neg": lambda use: use(torch._neg_view(x)),
        "negative bit set": lambda use: use(torch._neg_view(x.bfloat16())),
        "functorch": transformed(torch.func.vmap),
        "transform of functorch": transformed(torch.func.grad),
        "tangent of forward-mode AD": in_a_level,
        "not a MaskedTensor": lambda use: use(masked_tensor(x, x > 0)),
        "not a NestedTensor": lambda use: use(
            torch.nested.nested_tensor([torch.ones(2)] * 2, layout=torch.jagged)
        ),
        "not nested": lambda use: use(torch.nested.nested_tensor([torch.ones(2)] * 2)),
        "not torch._mkldnn": lambda use: use(x.to_mkldnn()),
        "not torch.sparse_csr": lambda use: use(x.to_sparse_csr()),
        "torch.qint8": lambda use: use(torch.quantize_per_tensor(x, 1.0, 0, torch.qint8)),
        "ZeroTensor": lambda use: use(torch._efficientzerotensor((2, 2))),
    }
    uses = {
        "a": lambda v: ouigemm.gemm(v, ones),
        "b": ouigemm.pack,
        "out": lambda v: ouigemm.gemm(ones, ones, v),
        "bits": ouigemm.hamming,
    }
    for message, in_state in states.items():
        for name, use in uses.items():
            with pytest.raises(TypeError, match=f"^{name} .*{message.replace(' x.', f' {name}.')}"):
                in_state(use)


def test_detached_parameters_give_the_output_of_the_layer(torch):
    layer, x = torch.nn.Linear(6, 4), torch.randn(3, 6)
    got = ouigemm.gemm(x, layer.weight.T.detach(), epilogue=ouigemm.Scaled(bias=layer.bias.detach()))
    torch.testing.assert_close(got, layer(x).detach())


def test_aliasing_through_tensors_is_seen(torch):
    memory = torch.zeros(4, 4)
    with pytest.raises(ValueError, match="lies in the memory of a"):
        ouigemm.gemm(memory, torch.zeros(4, 4), memory)


def test_tensors_that_cannot_be_read(torch):
    b = torch.zeros(4, 5, dtype=torch.int8)
    with pytest.raises(ValueError, match="a is on meta"):
        ouigemm.gemm(torch.zeros(3, 4, device="meta"), b)
    with pytest.raises(TypeError, match="a must be a dense tensor"):
        ouigemm.gemm(torch.zeros(3, 4).to_sparse(), b)
    with pytest.raises(TypeError, match=r"a is float16 \(3, 4\)"):
        ouigemm.gemm(torch.zeros(3, 4, dtype=torch.float16), b)
    with pytest.raises(TypeError, match=r"a is torch.float8_e4m3fn \(3, 4\)"):
        ouigemm.gemm(torch.zeros(3, 4, dtype=torch.float8_e4m3fn), b)


def test_arrays_of_ml_dtypes(rng):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    a, b = (rng.standard_normal(shape).astype(bfloat16) for shape in ((7, 30), (30, 9)))
    bits = ouigemm.BFloat16(a.view(np.uint16)), ouigemm.BFloat16(b.view(np.uint16))
    assert_product(ouigemm.gemm(a, b), *bits)


def test_a_read_only_matrix_is_read(rng):
    a, b = random_operands(rng, "u8s8", 5, 6, 7)
    a.flags.writeable = b.flags.writeable = False
    assert_product(ouigemm.gemm(a, b), a, b)


def test_others_come_by_dlpack(rng):
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **how):
            return self.array.__dlpack__(**how)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    a, b = random_operands(rng, "u8s8", 5, 6, 7)
    assert_product(ouigemm.gemm(Foreign(a), Foreign(b)), a, b)


def test_nothing_is_copied(torch):
    """A product of a large matrix with one column takes no memory in proportion to it."""
    import tracemalloc

    a, b = torch.zeros(3000, 3000), bf16(np.zeros((3000, 3000)))
    tracemalloc.start()
    ouigemm.gemm(a, torch.zeros(3000, 1))
    ouigemm.gemm(ouigemm.BFloat16(np.zeros((1, 3000), np.uint16)), b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
