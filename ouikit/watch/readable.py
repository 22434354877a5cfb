"""Which tensors a monitor reads; the one place that decides."""

import torch
from torch import Tensor, nn

_PRODUCTS = (torch.float32, torch.float64)
_NUMBERS = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)


def readable(z: object, samples: int = 0, dims: int = 2) -> Tensor | str:
    """The tensor to read, cut off from gradients, or the reason why z is passed over.

    Read is a plain, dense, strided tensor of real numbers that has elements. samples: how many of them the
    first dimension must have; from 1 on, z is `[B, units…]`, of `dims` dimensions or more, with at least one
    unit.
    """
    if not isinstance(z, Tensor):
        return f"a {type(z).__name__}, not a tensor: watch a layer inside it"
    functorch = torch._C._functorch
    while functorch.is_gradtrackingtensor(z):
        z = functorch.get_unwrapped(z)
    if functorch.is_functorch_wrapped_tensor(z):
        return "inside torch.func.vmap"
    if type(z).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return f"a {type(z).__name__}, not a plain tensor"
    if type(z) is not Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            z = z.as_subclass(Tensor)
    return _refusal(z) or _too_few(z, samples, dims) or z.detach().resolve_neg()


def _refusal(z: Tensor) -> str:
    if z.layout is not torch.strided:
        return f"sparse ({z.layout})"
    if z.is_nested or z.is_quantized or z.dtype not in _NUMBERS:
        return f"{'nested' if z.is_nested else 'of type'} {z.dtype}"
    if z.is_meta:
        return "on the meta device"
    if torch.jit.is_tracing():
        return "recorded by torch.jit.trace"
    if z.is_cuda and torch.cuda.is_current_stream_capturing():
        return "recorded into a CUDA graph"
    return ""


def _too_few(z: Tensor, samples: int, dims: int) -> str:
    if samples and z.ndim < dims:
        return "no batch dimension"
    if samples and len(z) < samples:
        return f"{len(z)} sample{'' if len(z) == 1 else 's'}"
    return "no units" if samples and z.numel() == 0 else ""


def batched_dims(module: nn.Module) -> int:
    """How many dimensions a layer's output has with a batch: a convolution also takes one sample without."""
    return 2 + len(module.kernel_size) if isinstance(module, nn.modules.conv._ConvNd) else 2


def nan_unless_finite(z: Tensor) -> Tensor | float:
    """0 where every element of z `[B, …]` is finite, else nan. 0-d, on z's device, without waiting for it.

    Neither way can overflow, as a sum of the elements can; products with zeros are faster on a CPU.
    """
    if not z.is_floating_point():
        return 0.0
    if z.device.type == "cpu" and z.is_contiguous() and z.dtype in _PRODUCTS and not _autocast():
        rows = z.flatten(1)
        return torch.mv(rows, rows.new_zeros(rows.shape[1])).sum()
    low, high = torch.aminmax(z)
    return 0 * low + 0 * high


def _autocast() -> bool:
    """Whether products would be in half precision, in which a large number is infinite."""
    return torch.is_autocast_enabled("cpu")
