"""Initial weights of the papers, in place as in `torch.nn.init`: sinusoidal, zero row sums, activation-aware.

Each takes a weight (a tensor `[out, in, *kernel]`) or a module. In a module it writes every Linear,
convolution and in-projection of attention that is found in it, and sets their biases to zero; norms and
embeddings stay. A weight that a parametrisation computes is written through it, or refused where it cannot
hold the values.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Target = TypeVar("Target", Tensor, nn.Module)
Variance = Literal["glorot", "he"]
Fill = Callable[
    [Tensor, bool], object
]  # writes rows [outputs, inputs of an output]; whether of a convolution
BLOCK = 1 << 18  # entries computed at a time: a weight of any size costs little memory beyond its own
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
TARGETS = (*LAYERS, nn.MultiheadAttention)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "elu": nn.functional.elu,
    "selu": nn.functional.selu,
    "mish": nn.functional.mish,
    "softplus": nn.functional.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@torch.no_grad()
def sinusoidal_(
    target: Target,
    variance: Variance = "glorot",
    *,
    first: Literal[0, 1] = 0,
    convolutions: Literal["flat", "released_2025"] = "flat",
) -> Target:
    """Fill each row with a sine wave of its own frequency and phase; nothing is drawn.

        W[i, j] = a · sin(2π i j / n + 2π i / m), i = 1 … m rows (outputs), n columns (inputs of an output)

    with a such that the variance over the matrix is `"glorot"`'s 2 / (m + n) (the paper) or `"he"`'s 2 / n
    (the released code since December 2025). For m < n each row sums to zero; otherwise rows repeat up to
    their sign or vanish, and a warning names the rank that is left. Returns the target.

    first: the first j, 0 (as the code that made the paper's numbers) or 1 (as printed). convolutions:
    `"flat"` flattens a kernel to n = in · k entries; `"released_2025"` has the frequency 2π i / m and the
    phase 2π (i − 1) / m of the code that made the paper's numbers: there rows need not sum to zero.

    Raises TypeError for a target that is neither tensor nor module or is not of a real floating dtype,
    ValueError for one without a weight of two or more dimensions, for other options, and for a
    parametrisation that cannot hold the values.

    Source: Fernández-Hernández et al., arXiv 2505.12909, section 2 (display formula reconstructed from prose,
    proof and released code).

    >>> weight = sinusoidal_(torch.empty(20, 50, dtype=torch.float64))
    >>> bool(weight.sum(1).abs().max() < 1e-13), round(weight.var().item() * (20 + 50), 9)
    (True, 2.0)
    """
    _check(variance=(variance, ("glorot", "he")), first=(first, (0, 1)))
    _check(convolutions=(convolutions, ("flat", "released_2025")))

    def fill(rows: Tensor, convolution: bool) -> None:
        m, n = rows.shape
        legacy = convolution and convolutions == "released_2025"
        if m >= n and not legacy:
            _warn_of_rank(m, n)
        _waves_(rows, first, legacy)
        rows.mul_(math.sqrt(_variance(variance, m, n) / rows.var().item()))

    return _initialise(target, fill)


@torch.no_grad()
def zero_row_sum_(
    target: Target, variance: Variance = "glorot", *, generator: torch.Generator | None = None
) -> Target:
    """Normal weights with each row's mean taken off and scaled back: a control for `sinusoidal_`.

    It keeps what explains the balance of neurons, rows that sum to zero, and drops the sine. Variance,
    target, errors: as `sinusoidal_`. Rows of one entry cannot have a zero sum: ValueError.

    >>> weight = zero_row_sum_(torch.empty(3, 8, dtype=torch.float64), "he")
    >>> bool(weight.sum(1).abs().max() < 1e-14)
    True
    """
    _check(variance=(variance, ("glorot", "he")))

    def fill(rows: Tensor, _: bool) -> None:
        m, n = rows.shape
        if n < 2:
            raise ValueError(f"a row of {n} entry cannot sum to zero: the weight has {m} rows")
        rows.normal_(generator=generator)
        rows.sub_(rows.mean(1, keepdim=True)).mul_(math.sqrt(_variance(variance, m, n) * n / (n - 1)))

    return _initialise(target, fill)


@torch.no_grad()
def aware_(
    target: Target,
    activation: str | Callable[[Tensor], Tensor],
    *,
    input_moment: float | None = None,
    generator: torch.Generator | None = None,
) -> Target:
    """Normal weights for which the activation that follows has second moment 1 on Gaussian inputs.

    std W = σ / √(n · E[a²]), where n counts the inputs of an output, E[a²] is the second moment of what the
    layer receives (`input_moment`; by default what the same activation gives) and E[f(σ z)²] = 1 for standard
    normal z. A bounded activation (tanh, sigmoid) cannot reach 1: the middle of what it can reach stands in.

    activation: a name (relu, gelu, silu, elu, selu, mish, softplus, tanh, sigmoid) or an elementwise function
    of a float64 tensor. Target, errors: as `sinusoidal_`; ValueError also for an unknown name, a function
    whose second moment does not grow, and an input_moment that is not > 0.

    Source: arXiv 2605.19856 names an activation-aware initialisation; the form is inferred from the group's
    later released one.

    >>> round(activation_gain("relu"), 4), round(activation_gain("gelu"), 4)
    (1.4142, 1.468)
    """
    gain, moment = _gain(_function(activation))
    received = moment if input_moment is None else input_moment
    if not 0 < received < math.inf:
        raise ValueError(f"input_moment must be a finite number > 0: got {input_moment}")

    def fill(rows: Tensor, _: bool) -> None:
        rows.normal_(0, gain / math.sqrt(rows.shape[1] * received), generator=generator)

    return _initialise(target, fill)


def activation_gain(activation: str | Callable[[Tensor], Tensor]) -> float:
    """σ with E[f(σ z)²] = 1 for standard normal z, or the middle of what f can reach; see `aware_`."""
    return _gain(_function(activation))[0]


def _waves_(rows: Tensor, first: int, legacy: bool) -> Tensor:
    """Sine waves of amplitude one. Turns are whole numbers modulo n: large layers keep all their digits."""
    m, n = rows.shape
    whole = torch.int32 if m * (n + 1) < 2**31 else torch.int64
    column = torch.arange(first, n + first, device=rows.device, dtype=whole)
    for block in torch.arange(1, m + 1, device=rows.device, dtype=whole).split(max(1, BLOCK // n)):
        row, out = block[:, None], rows[int(block[0]) - 1 : int(block[-1])]
        if legacy:
            out.copy_((row * column + row - 1) % m).div_(m)
        else:
            out.copy_(row * column % n).div_(n).add_((row % m).to(rows.dtype).div_(m))
        out.mul_(2 * math.pi).sin_()
    return rows


def _warn_of_rank(m: int, n: int) -> None:
    """Rows i, n − i and n + i of full turns are one up to their sign."""
    known = m * n <= 10**6
    rank = torch.linalg.matrix_rank(_waves_(torch.empty(m, n, dtype=torch.float64), 0, False)) if known else 0
    left = f"rank {int(rank)}" if known else f"a rank of about {n // 2}"
    warnings.warn(
        f"a sinusoidal weight with {m} rows and {n} columns has {left}, of {n}: rows repeat up to their sign "
        "unless they are fewer than columns. Use it where a layer has fewer outputs than inputs",
        stacklevel=6,
    )


def _variance(kind: Variance, m: int, n: int) -> float:
    return 2 / (m + n) if kind == "glorot" else 2 / n


def _initialise(target: Target, fill: Fill) -> Target:
    """Fill a tensor, or every layer of a module."""
    if isinstance(target, Tensor):
        _write(target, fill)
    elif isinstance(target, nn.Module):
        layers = [module for module in target.modules() if isinstance(module, TARGETS)]
        if not layers:
            raise ValueError(f"{type(target).__name__} holds no Linear, convolution or attention layer")
        for layer in layers:
            for name in _weights(layer):
                _write_into(layer, name, fill)
            for name in ("bias", "in_proj_bias"):
                if isinstance(bias := getattr(layer, name, None), Tensor):
                    bias.zero_()
    else:
        raise TypeError(f"the target is a weight or a module: got {type(target).__name__}")
    return target


def _weights(layer: nn.Module) -> Iterator[str]:
    names = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    return (name for name in names if isinstance(getattr(layer, name, None), Tensor))


def _write_into(layer: nn.Module, name: str, fill: Fill) -> None:
    weight = getattr(layer, name)
    if isinstance(layer._parameters.get(name), nn.Parameter):
        for block in weight.chunk(3) if name == "in_proj_weight" else [weight]:
            _write(block, fill, checked=True)
        return
    wanted = torch.empty_like(weight)
    _write(wanted, fill)
    what = f"{name} of {type(layer).__name__} is computed from other parameters"
    if not parametrize.is_parametrized(layer, name):
        raise ValueError(f"{what}: initialise the layer first, and parametrise it then")
    kept = {key: value.clone() for key, value in layer.state_dict().items()}
    try:
        setattr(layer, name, wanted)
        held = torch.allclose(getattr(layer, name), wanted, rtol=1e-4, atol=1e-6)
    except (NotImplementedError, RuntimeError, ValueError):
        held = False
    if not held:
        layer.load_state_dict(kept)
        kinds = ", ".join(type(p).__name__.lstrip("_") for p in getattr(layer.parametrizations, name))
        raise ValueError(f"{what} ({kinds}), which cannot hold these values; the layer is as it was")


def _write(weight: Tensor, fill: Fill, checked: bool = False) -> None:
    if not weight.is_floating_point():
        raise TypeError(f"a weight holds real floating-point numbers: got {weight.dtype}")
    if weight.ndim < 2 or not weight.numel():
        raise ValueError(f"a weight has two or more dimensions and entries: got shape {tuple(weight.shape)}")
    if not checked and not (weight if weight._base is None else weight._base).is_leaf:
        raise ValueError(
            "this weight is computed from others, so values written to it are lost: give its module"
        )
    whole = weight.dtype in (torch.float32, torch.float64) and weight.is_contiguous()
    rows = weight.flatten(1) if whole else weight.flatten(1).float()  # half precision is computed in single
    fill(rows, weight.ndim > 2)
    if not whole:
        weight.copy_(rows.view(weight.shape))


def _function(activation: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(f"no activation {activation!r}: one of {', '.join(ACTIVATIONS)}, or a function")
        return ACTIVATIONS[activation]
    return activation


@lru_cache(maxsize=64)
def _gain(f: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """σ and the second moment that f reaches there."""
    z = torch.linspace(-12, 12, 48_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) * (24 / 48_000) / math.sqrt(2 * math.pi)

    def moment(sigma: float) -> float:
        return float((f(sigma * z).square() * density).sum())

    least, most = moment(1e-6), moment(1e6)
    if not math.isfinite(moment(1.0)) or not least < moment(1.0) < most:
        raise ValueError("the second moment of this activation does not grow with its input")
    aim = 1.0 if most > 1 + 1e-3 else (least + most) / 2
    low, high = 1e-6, 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if moment(middle) < aim else (low, middle)
    return low, aim


def _check(**options: tuple[object, tuple[object, ...]]) -> None:
    for name, (value, allowed) in options.items():
        if value not in allowed:
            raise ValueError(f"{name} is one of {', '.join(map(repr, allowed))}: got {value!r}")
