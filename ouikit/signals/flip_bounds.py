"""How far may parameters move before a unit of a feed-forward network changes sides?

Executable mathematics behind two papers: "Regime Change Hypothesis" (arXiv 2602.08333: small enough
perturbations keep the pattern, and the network is then affine) and "When Learning Rates Go Wrong" (arXiv
2603.09950: learning rate and sign changes). Of both, only the abstracts are known here: every statement below
is *inferred*, elementary to prove, and tested as mathematics, not as the papers' printed theorems.

A *net* is an `nn.Sequential` of Linear layers with ReLU or Tanh gates, a Flatten before the first. A *hidden*
layer is a Linear followed by a gate; a net may end with or without one. Both gates are 1-Lipschitz and keep
the sign, which is all that the bounds use. A convolution is a Linear layer with an unrolled matrix: they hold
with the operator norm of that matrix, or with its larger Frobenius norm (not implemented).

Shapes: inputs `[B, n]` (or `[B, …]`, flattened), scale a float or `[B]`, one per input. A *perturbation*
maps names of parameters (as in `model.named_parameters()`; those left out stay) to tensors, or lists a
tensor for each of `model.parameters()`. Results have the dtype of net and inputs. The bounds are for exact
arithmetic: use float64, where rounding is far below them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Perturbation = Mapping[str, Tensor] | Sequence[Tensor]


@dataclass
class _Layer:
    """One Linear, the gate after it (None: an output layer), and how a perturbation moves it."""

    name: str
    linear: nn.Linear
    gate: nn.Module | None = None
    weight_change: Tensor | None = None
    bias_change: Tensor | None = None

    def __call__(self, h: Tensor, scale: Tensor) -> Tensor:
        """Pre-activation `[B, d]` under the parameters θ + scale · perturbation."""
        z = self.linear(h)
        if self.weight_change is not None:
            z = z + scale[:, None] * functional.linear(h, self.weight_change)
        return z if self.bias_change is None else z + scale[:, None] * self.bias_change

    def out(self, z: Tensor) -> Tensor:
        return z if self.gate is None else self.gate(z)


# --- whole nets: perturbed parameters ---


@torch.no_grad()
def pre_activations(
    model: nn.Sequential,
    inputs: Tensor,
    perturbation: Perturbation | None = None,
    scale: float | Tensor = 1.0,
) -> dict[str, Tensor]:
    """z `[B, d]` of every hidden layer, by the name of its Linear, under θ + scale · perturbation.

    Raises TypeError for a module that the theory does not cover, KeyError for a parameter that does not
    exist, ValueError for a shape that does not fit; so do the functions below.
    """
    layers = _layers(model, {} if perturbation is None else perturbation)
    h, scales, found = _flat(inputs, layers), _per_input(scale, inputs), {}
    for layer in layers:
        z = layer(h, scales)
        h = layer.out(z)
        if layer.gate is not None:
            found[layer.name] = z
    return found


def margins(model: nn.Sequential, inputs: Tensor) -> Tensor:
    """Distance of the closest unit to its threshold, min_j `|z_j|`, per input and hidden layer: `[B, L]`.

    The theorem's hypothesis is that it is positive: true for almost all parameters and inputs if there are
    biases; `dead_layer_net` shows what happens without.
    """
    return torch.stack([z.abs().amin(1) for z in pre_activations(model, inputs).values()], dim=1)


def drift_bounds(
    model: nn.Sequential, inputs: Tensor, perturbation: Perturbation, scale: float | Tensor = 1.0
) -> Tensor:
    """Upper bounds D_l on ‖Δz^(l)‖₂ for every input and hidden layer: `[B, L]`.

    D_0 = 0 and D_l = ‖W_l‖₂ D_{l−1} + ‖δW_l‖₂ (‖h_{l−1}‖₂ + D_{l−1}) + ‖δb_l‖₂, with spectral norms of the
    matrices (inferred).
    """
    return _recursion(_norms(model, inputs, perturbation), _per_input(scale, inputs).abs())


def certified(
    model: nn.Sequential, inputs: Tensor, perturbation: Perturbation, scale: float | Tensor = 1.0
) -> Tensor:
    """For which inputs no unit can change sides, D_l < min_j `|z_j|` in every hidden layer: bool `[B]`.

    Sufficient, not necessary: an input that is not certified may keep its pattern.
    """
    return (drift_bounds(model, inputs, perturbation, scale) < margins(model, inputs)).all(1)


def certified_radius(model: nn.Sequential, inputs: Tensor, perturbation: Perturbation) -> Tensor:
    """The largest certified scale along a perturbation, per input: `[B]`, by bisection from below.

    0 where some z is 0; inf where the perturbation moves no hidden layer of that input.
    """
    room, norms = margins(model, inputs), _norms(model, inputs, perturbation)
    # D(s) is a polynomial of s without constant term and with coefficients ≥ 0: hence s D(1) ≤ D(s) from
    # s = 1 on, and nothing beyond room / D(1) or 1, whichever is larger, can be certified.
    first_guess = (room / _recursion(norms, torch.ones_like(room[:, 0]))).amin(1)
    still = torch.isinf(first_guess)
    low, high = torch.zeros_like(first_guess), first_guess.nan_to_num(0, posinf=1).clamp(min=1)
    for _ in range(100):
        middle = (low + high) / 2
        holds = (_recursion(norms, middle) < room).all(1)
        low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
    return torch.where(still, math.inf, low)


def flips(
    model: nn.Sequential, inputs: Tensor, perturbation: Perturbation, scale: float | Tensor = 1.0
) -> Tensor:
    """How many hidden units really change sides between θ and θ + scale · perturbation: int64 `[B]`."""
    before, after = pre_activations(model, inputs), pre_activations(model, inputs, perturbation, scale)
    return torch.stack([((before[n] > 0) != (after[n] > 0)).sum(1) for n in before]).sum(0)


def random_perturbation(model: nn.Module, seed: int = 0, size: float = 1.0) -> dict[str, Tensor]:
    """An isotropic Gaussian direction over all parameters, scaled to the L2 norm `size`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device)
        for name, p in model.named_parameters()
    }
    norm = math.sqrt(sum(float(d.square().sum()) for d in drawn.values()))
    return {name: d * (size / norm) for name, d in drawn.items()}


# --- whole nets: moved inputs ---


def local_jacobian(model: nn.Sequential, inputs: Tensor) -> Tensor:
    """∂f/∂x from the gates alone, J = W_L diag(a_{L−1}) W_{L−1} … diag(a_1) W_1, per input: `[B, out, n]`.

    While no unit flips, f(x + δ) = f(x) + J δ exactly (inferred). ReLU gates only:
    raises TypeError for others.
    """
    *_, (layer, z, jacobian) = _affine_pieces(model, inputs)
    return jacobian if layer.gate is None else (z > 0).unsqueeze(2) * jacobian


def affine_radius(model: nn.Sequential, inputs: Tensor) -> Tensor:
    """Radius of the largest open ball around x in which the net is one affine map, per input: `[B]`.

    Inside the linear region every z_j is affine in x, so the nearest threshold is at min_j `|z_j|` / ‖∇z_j‖:
    exact, not a bound (inferred). ReLU gates only: raises TypeError for others.
    """
    reaches = [
        _ratio(z.abs(), jacobian.norm(dim=2)).amin(1)
        for layer, z, jacobian in _affine_pieces(model, inputs)
        if layer.gate is not None
    ]
    return torch.stack(reaches).amin(0)


def dead_layer_net(width: int = 3, *, bias: bool = False) -> nn.Sequential:
    """The counter-example: a net on the plane with a unit, "2", whose z is exactly 0 on an open set.

    `width` first units look outwards from the unit disk, in evenly spread directions: inside it all of them
    are off, and the unit that they feed gets 0, whatever the weights. Without a bias that is so for an open
    set of inputs *and* of parameters, so "z ≠ 0 almost everywhere" needs biases (ours).
    `bias=True` gives the same function, but the unit has a bias, which is 0: it flips all over the disk at
    any positive push, however small, and such parameters have measure zero. float64.
    """
    angles = torch.arange(width, dtype=torch.float64) * (2 * math.pi / width)
    outwards, fed, output = nn.Linear(2, width), nn.Linear(width, 1, bias=bias), nn.Linear(1, 1)
    net = nn.Sequential(outwards, nn.ReLU(), fed, nn.ReLU(), output).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0 if parameter.ndim == 2 else 0.0)
        outwards.weight.copy_(torch.stack([angles.cos(), angles.sin()], dim=1))
        outwards.bias.fill_(-1.0)
    return net


# --- first layer: one optimiser step θ' = θ − step · update ---
# A layer is written as one matrix of rows [weight, bias], `[d, n + 1]`, and so is its update.


@torch.no_grad()
def affine_rows(layer: nn.Linear) -> Tensor:
    """[weight, bias] of a Linear as one matrix `[d, n + 1]`; a missing bias is 0."""
    bias = torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias
    return torch.cat([layer.weight, bias.unsqueeze(1)], dim=1)


def first_layer_change(inputs: Tensor, update: Tensor, step: float) -> Tensor:
    """Exactly how the pre-activations change, −step · u_jᵀ[x; 1]: `[B, d]`."""
    return -step * functional.linear(_augmented(inputs), update)


def flip_bound(inputs: Tensor, update: Tensor, step: float) -> Tensor:
    """step · ‖u_j‖₂ ‖[x; 1]‖₂: a unit with a larger `|z_j(x)|` cannot flip: `[B, d]` (inferred)."""
    return step * _augmented(inputs).norm(dim=1, keepdim=True) * update.norm(dim=1)


def adam_flip_bound(inputs: Tensor, step: float, largest: float = 1.0) -> Tensor:
    """step · c (‖x‖₁ + 1): bound on `|Δz_j|` if no coordinate of the update exceeds c = `largest`: `[B]`.

    Adam's coordinates are about 1 at most in a steady state; what they can reach at all is
    `adam_largest_update` (inferred).
    """
    return step * largest * _augmented(inputs).abs().sum(1)


def adam_largest_update(beta1: float = 0.9, beta2: float = 0.999) -> float:
    """sup `|m̂/√v̂|` of Adam over all histories of gradients, (1 − β₁)/√((1 − β₂)(1 − β₁²/β₂)).

    By Cauchy and Schwarz on the two running means; gradients that grow by β₂/β₁ a step come as near as one
    likes (ours). Raises ValueError unless β₁² < β₂ < 1.
    """
    if not (beta1 >= 0 and beta1**2 < beta2 < 1):
        raise ValueError(f"Adam's update is bounded for β₁² < β₂ < 1: got β₁ = {beta1}, β₂ = {beta2}")
    return (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))


def stable_step(inputs: Tensor, rows: Tensor, update: Tensor) -> Tensor:
    """η*(x) = min_j `|z_j(x)|` / (‖u_j‖ ‖[x; 1]‖): no first-layer unit flips at any smaller step: `[B]`.

    inf where nothing moves. First layer only; deeper ones need `certified_radius` (inferred).
    """
    z = functional.linear(_augmented(inputs), rows)
    return _ratio(z.abs(), flip_bound(inputs, update, 1.0)).amin(1)


def linear_flip_bound(density: float, speed: float, step: float) -> float:
    """2 M C η: expected share of flips if z has a density ≤ M = `density` and `|Δz|` ≤ C η, C = `speed`.

    Not cut at 1, beyond which it says nothing (inferred).
    """
    return 2 * density * speed * step


def gaussian_flip_share(weight: Tensor, update: Tensor, step: float) -> Tensor:
    """Exact share of flips of bias-free units on isotropic Gaussian data: angle(w_j, w_j − η u_j)/π: `[d]`.

    weight, update: `[d, n]`. For u_j ⊥ w_j it is arctan(η ‖u_j‖/‖w_j‖)/π, hence η/π for small steps and
    equal norms (ours).
    """
    a, b = functional.normalize(weight, dim=1), functional.normalize(weight - step * update, dim=1)
    return 2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1)) / math.pi  # exact at small angles too


def oui_per_flip(batch_size: int) -> float:
    """B/⌊B/2⌋: if a share f of all bits flips, `balance_oui` moves by at most this times f.

    One flipped bit moves one unit's minority count by one at most (inferred). Raises ValueError where
    batch_size < 2.
    """
    if batch_size < 2:
        raise ValueError(f"batch_size = {batch_size}: an indicator compares samples, so it needs at least 2")
    return batch_size / (batch_size // 2)


# --- the net as a list of layers ---


def _layers(model: nn.Module, perturbation: Perturbation) -> list[_Layer]:
    """Linear layers in order, each with its gate and its share of the perturbation."""
    if not isinstance(model, nn.Sequential):
        raise TypeError(
            f"the model must be an nn.Sequential of Linear layers and gates: got {type(model).__name__}"
        )
    moved = _by_parameter(model, perturbation)
    layers: list[_Layer] = []
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear):
            changes = moved.get(id(module.weight)), moved.get(id(module.bias))
            layers.append(_Layer(name, module, None, *changes))
        elif isinstance(module, nn.ReLU | nn.Tanh) and layers and layers[-1].gate is None:
            layers[-1].gate = module if isinstance(module, nn.Tanh) else nn.ReLU()  # never in place
        elif not isinstance(module, nn.Sequential | nn.Flatten):
            raise TypeError(
                f"{name!r} is a {type(module).__name__}: the bounds cover Linear layers, each followed by at "
                "most one ReLU or Tanh"
            )
    if all(layer.gate is None for layer in layers):
        raise TypeError("the model has no hidden layer: a Linear followed by ReLU or Tanh")
    return layers


def _by_parameter(model: nn.Module, perturbation: Perturbation) -> dict[int, Tensor]:
    """id of a parameter -> its perturbation; a tied parameter moves wherever it is used."""
    parameters = dict(model.named_parameters())
    if not isinstance(perturbation, Mapping):
        if len(perturbation) != len(parameters):
            raise ValueError(
                f"{len(perturbation)} perturbations for the model's {len(parameters)} parameters"
            )
        perturbation = dict(zip(parameters, perturbation, strict=True))
    for name, change in perturbation.items():
        if name not in parameters:
            raise KeyError(f"the model has no parameter {name!r}; it has {', '.join(parameters)}")
        if change.shape != parameters[name].shape:
            shapes = f"{tuple(change.shape)} and {tuple(parameters[name].shape)}"
            raise ValueError(f"perturbation and parameter {name!r} have different shapes: {shapes}")
    return {id(parameters[name]): change for name, change in perturbation.items()}


def _flat(inputs: Tensor, layers: list[_Layer]) -> Tensor:
    flat, wanted = inputs.flatten(1), layers[0].linear.in_features
    if flat.shape[1] != wanted:
        raise ValueError(
            f"inputs {tuple(inputs.shape)} have {flat.shape[1]} values each, the net takes {wanted}"
        )
    return flat


def _per_input(scale: float | Tensor, inputs: Tensor) -> Tensor:
    return torch.as_tensor(scale, dtype=inputs.dtype, device=inputs.device).expand(len(inputs))


@dataclass
class _Norms:
    """What one layer contributes to the recursion: ‖W‖, ‖δW‖, ‖δb‖, and ‖h‖ `[B]` of its input."""

    weight: Tensor
    weight_change: Tensor
    bias_change: Tensor
    h: Tensor
    hidden: bool


@torch.no_grad()
def _norms(model: nn.Sequential, inputs: Tensor, perturbation: Perturbation) -> list[_Norms]:
    found, layers = [], _layers(model, perturbation)
    h, nothing = _flat(inputs, layers), inputs.new_zeros(())
    for layer in layers:
        weight = torch.linalg.matrix_norm(layer.linear.weight, ord=2)
        change = (
            nothing if layer.weight_change is None else torch.linalg.matrix_norm(layer.weight_change, ord=2)
        )
        bias = nothing if layer.bias_change is None else layer.bias_change.norm()
        found.append(_Norms(weight, change, bias, h.norm(dim=1), layer.gate is not None))
        h = layer.out(layer.linear(h))
    return found


def _recursion(norms: list[_Norms], scale: Tensor) -> Tensor:
    """D_l of the hidden layers, `[B, L]`, at one scale `[B]` per input."""
    drift, bounds = torch.zeros_like(scale), []
    for layer in norms:
        moved = layer.weight_change * (layer.h + drift) + layer.bias_change
        drift = layer.weight * drift + scale * moved
        if layer.hidden:
            bounds.append(drift)
    return torch.stack(bounds, dim=1)


@torch.no_grad()
def _affine_pieces(model: nn.Sequential, inputs: Tensor) -> Iterator[tuple[_Layer, Tensor, Tensor]]:
    """Each layer with its z `[B, d]` and ∂z/∂x `[B, d, n]`, the gates held as they are."""
    layers = _layers(model, {})
    h, jacobian = _flat(inputs, layers), None
    for layer in layers:
        if isinstance(layer.gate, nn.Tanh):
            raise TypeError(f"the gate after {layer.name!r} is a Tanh: only ReLU nets are piecewise affine")
        z, weight = layer.linear(h), layer.linear.weight
        jacobian = weight.expand(len(h), *weight.shape) if jacobian is None else weight @ jacobian
        yield layer, z, jacobian
        h, jacobian = layer.out(z), (z > 0).unsqueeze(2) * jacobian


def _augmented(inputs: Tensor) -> Tensor:
    """[x; 1]: `[B, …]` -> `[B, n + 1]`."""
    return functional.pad(inputs.flatten(1), (0, 1), value=1.0)


def _ratio(room: Tensor, speed: Tensor) -> Tensor:
    """room / speed, and inf where nothing moves."""
    return torch.where(speed > 0, room / speed, math.inf)
