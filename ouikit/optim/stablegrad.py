"""StableGrad: every layer's weight gradient brought to one scale, between backpropagation and the step.

::

    optimiser = StableGrad(torch.optim.AdamW(model.parameters(), lr=1e-3), reference=model)
    ...                       # zero_grad, forward, backward as before
    optimiser.step()

Source: Mestre et al., "StableGrad", arXiv 2605.19856. Neither the full text nor code was available: that
weight gradients are divided by their standard deviation and multiplied by that of the prediction's gradient
comes from a summary by others; the set of layers, ε and what stands in where there is no prediction gradient
are our reconstruction.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

FLAT = 1e-6  # of its mean: a gradient with less spread is constant but for rounding, and is left alone
Reference = nn.Module | float | Literal["last_layer"]


class StableGrad(Optimizer):
    """A `torch.optim` optimiser whose step sees g · σ_ref / (σ + ε) in place of each weight gradient g.

    σ is the standard deviation of g over all entries of a tensor of two or more dimensions (Linear,
    convolution, dense embedding); nothing is subtracted, so that directions stay. Biases, parameters of
    norms, sparse gradients and a gradient without spread are left as they are. Gradients are changed in place
    and no copy is held; the forward pass, the loss and derivatives in the inputs are never touched.

    optimizer: the one to wrap. It keeps its parameter groups, state and hooks; `state_dict`, learning-rate
    schedulers, `add_param_group`, closures and `torch.amp.GradScaler` work on the wrapper as on it.

    reference: where σ_ref comes from.

    - a module, usually the network: the standard deviation of the loss's gradient in what the module returns
      (one tensor), over all its calls since the last step. Where no such gradient arrives or it is zero, as
      for a PDE's residual that reads derivatives only, the last layer stands in. Whatever is done to all
      gradients before the step (unscaling, clipping by norm) is done to σ_ref too. Under
      `DistributedDataParallel` give the wrapped module: σ_ref is then one number over all ranks.
    - `"last_layer"`: the standard deviation of the last weight's gradient.
    - a number > 0.

    eps: added to σ.

    Raises:
        TypeError: what is wrapped is no optimiser or already a StableGrad; the reference is none of these;
            the module returns something else than a tensor; `step` lacks a closure that the optimiser needs.
        ValueError: a constant reference or eps out of range; no parameter has two or more dimensions.
        RuntimeError: `step` where no parameter has a gradient.
        FloatingPointError: `step` where a gradient or the reference is not finite; the parameter is named,
            and weights, gradients and state are as they were.

    Source: arXiv 2605.19856 (reconstructed, see the module).

    >>> layer = torch.nn.Linear(3, 2)
    >>> optimiser = StableGrad(torch.optim.SGD(layer.parameters(), lr=0.1), reference=0.5)
    >>> layer(torch.randn(8, 3)).square().mean().backward()
    >>> _ = optimiser.step()
    >>> round(layer.weight.grad.std().item(), 4)
    0.5
    """

    def __init__(self, optimizer: Optimizer, *, reference: Reference, eps: float = 1e-12) -> None:
        if not isinstance(optimizer, Optimizer) or isinstance(optimizer, StableGrad):
            raise TypeError(f"StableGrad wraps a torch.optim optimiser: got {type(optimizer).__name__}")
        if not 0 <= eps < float("inf"):
            raise ValueError(f"eps must be a finite number >= 0: got {eps}")
        self.optimizer, self.reference, self.eps = optimizer, _check_reference(reference), eps
        self.__setstate__(
            {"defaults": optimizer.defaults}
        )  # the base class's own hooks; groups stay where they are
        self._last_weight = _last_weight(optimizer)
        self._prediction = (
            _Prediction(reference, self._last_weight) if isinstance(reference, nn.Module) else None
        )
        self._factors: dict[str, Tensor] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The wrapped optimiser's own."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The wrapped optimiser's own."""
        return self.optimizer.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As the wrapped optimiser."""
        self.optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimiser's: StableGrad itself keeps nothing from step to step."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As the wrapped optimiser."""
        self.optimizer.load_state_dict(state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimiser; what was seen of the prediction's gradient is dropped as well."""
        self.optimizer.zero_grad(set_to_none)
        if self._prediction:
            self._prediction.reset()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Rescale the gradients, then step. With a closure, after every evaluation of it."""
        if closure is None:
            needed = inspect.signature(self.optimizer.step).parameters.get("closure")
            if needed and needed.default is inspect.Parameter.empty:
                raise TypeError(f"{type(self.optimizer).__name__} needs a closure: step(closure)")
            self._rescale()
            return self.optimizer.step()

        def evaluate() -> Any:
            loss = closure()
            self._rescale()
            return loss

        return self.optimizer.step(evaluate)

    @property
    def factors(self) -> dict[str, float]:
        """By what each weight's gradient was multiplied at the last step, under the optimiser's names."""
        return {name: float(factor) for name, factor in self._factors.items()}

    def remove(self) -> None:
        """Take the hooks off the reference module."""
        if self._prediction:
            self._prediction.remove()

    @torch.no_grad()
    def _rescale(self) -> None:
        gradients = self._dense_gradients()
        weights = {name: g for name, g in gradients.items() if g.ndim > 1 and g.numel() > 1}
        if not weights:
            return
        spread, mean = _spread_and_mean([*weights.values()])
        reference = self._reference_spread()
        # A spread is finite where all entries are; the others are looked at one by one.
        sound = dict(zip(weights, spread.isfinite(), strict=True))
        sound |= {name: g.isfinite().all() for name, g in gradients.items() if name not in weights}
        _refuse_non_finite(sound | {"the prediction (the reference)": reference.isfinite()})
        self._factors = dict(zip(weights, scale_factors(spread, mean, reference, self.eps), strict=True))
        for name, factor in self._factors.items():
            weights[name].mul_(factor)

    def _dense_gradients(self) -> dict[str, Tensor]:
        found = {name: p.grad for name, p in self._named() if p.grad is not None}
        if not found:
            raise RuntimeError("no parameter has a gradient: call backward() on the loss before step()")
        return {name: g for name, g in found.items() if not g.is_sparse}

    def _reference_spread(self) -> Tensor:
        """σ_ref, a scalar on the device of the last weight."""
        last = self._last_weight
        if isinstance(self.reference, float | int):
            return torch.tensor(float(self.reference), device=last.device)
        stand_in = last.new_zeros(()) if last.grad is None else _wide(last.grad).std()
        if self._prediction is None:
            return stand_in
        spread = self._prediction.spread()
        return torch.where(spread == 0, stand_in, spread)

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for i, group in enumerate(self.param_groups):
            names = group.get("param_names") or [
                f"group {i}, parameter {j}" for j in range(len(group["params"]))
            ]
            yield from zip(names, group["params"], strict=True)


class _Prediction:
    """Standard deviation of the loss's gradient in a module's output, over its calls since the last step.

    Hooks see gradients of every backward pass. Those with a graph of their own (`create_graph=True`, the
    inner derivatives of a PDE's residual) are no gradients of the loss and are passed over.
    """

    def __init__(self, module: nn.Module, last_weight: Tensor) -> None:
        self._last_weight = last_weight
        self._group = module.process_group if isinstance(module, DistributedDataParallel) else None
        self._handles = [
            module.register_forward_hook(self._called),
            last_weight.register_post_accumulate_grad_hook(self._reached),
        ]
        self.reset()

    def reset(self) -> None:
        # Count, sum and sum of squares of the entries seen; of the last weight's gradient at that time the
        # norm, or all of it where ranks have yet to average theirs.
        self._sums = torch.zeros(3, dtype=torch.float64, device=self._last_weight.device)
        self._then: Tensor | None = None

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def spread(self) -> Tensor:
        """The standard deviation, scaled as gradients were since; 0 where nothing was seen. Starts anew."""
        sums, then, gradient, ranks = self._sums, self._then, self._last_weight.grad, 1
        self.reset()
        if self._group is not None:
            ranks = torch.distributed.get_world_size(self._group)  # each rank's loss counts 1 / ranks
            torch.distributed.all_reduce(sums, group=self._group)
            if then is not None:
                torch.distributed.all_reduce(then, group=self._group)
                then = (then / ranks).norm()
        count, total, squares = sums
        variance = (squares - total.square() / count.clamp(min=1)) / (count - 1).clamp(min=1)
        spread = variance.clamp(min=0).sqrt() / ranks
        if then is not None and gradient is not None:
            spread = torch.where(then > 0, spread * (gradient.float().norm() / then), spread)
        return spread

    def _called(self, module: nn.Module, _: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise TypeError(
                f"the reference must return its prediction as one tensor; {type(module).__name__} returns "
                f"{type(output).__name__}: give the submodule that computes the prediction"
            )
        if output.requires_grad:
            output.register_hook(self._saw)

    def _saw(self, gradient: Tensor) -> None:
        if torch.is_grad_enabled():
            return
        if self._then is not None and self._last_weight.grad is None:
            self.reset()  # gradients were dropped in between, by another's zero_grad
        g = gradient.detach().double()
        self._sums += torch.stack([g.new_tensor(g.numel()), g.sum(), g.square().sum()]).to(self._sums.device)

    def _reached(self, weight: Tensor) -> None:
        if weight.grad is not None and not torch.is_grad_enabled():
            gradient = weight.grad.detach().float()
            self._then = gradient.norm() if self._group is None else gradient.clone()


def scale_factors(spread: Tensor, mean: Tensor, reference: Tensor, eps: float) -> Tensor:
    """σ_ref / (σ + ε), elementwise over layers or networks; 1 where a gradient has no spread to speak of."""
    return torch.where(spread <= FLAT * mean.abs(), 1.0, reference / (spread + eps))


def _wide(gradient: Tensor) -> Tensor:
    """In single precision where it is in half: 1e-10 would be 0."""
    return gradient.float() if gradient.dtype == torch.float16 else gradient


def _spread_and_mean(gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of each gradient, float64.

    From its sum and norm, which torch computes ten times as fast on a CPU; by `std_mean` where the difference
    of squares would lose digits: much mean and little spread, or squares at the ends of single precision.
    """
    kinds = [torch.promote_types(g.dtype, torch.float32) for g in gradients]
    sums = torch.stack([g.sum(dtype=kind).double() for g, kind in zip(gradients, kinds, strict=True)])
    norms = [torch.linalg.vector_norm(g, dtype=k).double() for g, k in zip(gradients, kinds, strict=True)]
    count = sums.new_tensor([g.numel() for g in gradients])
    mean, squares = sums / count, torch.stack(norms).square()
    spread = ((squares - sums * mean) / (count - 1)).sqrt()
    clear = (sums * mean < 0.9 * squares) & (squares > 1e-30 * count) & (squares < 1e36)
    for i in (~clear).nonzero().flatten().tolist():  # one that is not finite is none of these
        spread[i], mean[i] = torch.std_mean(_wide(gradients[i]))
    return spread, mean


def _refuse_non_finite(sound: dict[str, Tensor]) -> None:
    if not torch.stack(list(sound.values())).all():
        wrong = ", ".join(name for name, fine in sound.items() if not fine)
        raise FloatingPointError(
            f"the gradient of {wrong} is not finite: this step is refused and nothing was changed"
        )


def _check_reference(reference: Reference) -> Reference:
    if isinstance(reference, nn.Module) or reference == "last_layer":
        return reference
    if isinstance(reference, bool) or not isinstance(reference, float | int):
        raise TypeError(f'the reference is a module, "last_layer" or a number > 0: got {reference!r}')
    if not 0 < reference < float("inf"):
        raise ValueError(f"a constant reference must be a finite number > 0: got {reference}")
    return reference


def _last_weight(optimizer: Optimizer) -> Tensor:
    weights = [p for group in optimizer.param_groups for p in group["params"] if p.ndim > 1]
    if not weights:
        raise ValueError("no parameter has two or more dimensions: there is no weight gradient to rescale")
    return weights[-1]
