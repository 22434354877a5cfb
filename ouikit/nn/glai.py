"""A block in the place of an MLP: it learns which units are on, freezes that, and then trains paths alone.

In use::

    block = GLAI(256, 256, 10)                  # stands for Linear(256, 256), ReLU, Linear(256, 10)
    for epoch in block.fit(x, labels, epochs=60, structure=Settled()):
        print(epoch.phase, epoch.gate_changes)

or, in a training loop of one's own::

    settled = Settled()
    ...                                         # epochs of the structural phase
    if settled(block.gates(probe)):
        block.switch(probe)                     # outputs stay; parameters are new
        optimiser = Adam(block.parameters())    # or block.solve(x, labels, penalty=1.0)

The structural phase trains a small MLP. `switch` writes it as a sum over paths (`ouikit.nn.paths`), whose
coefficients are then trained by gradient, or set to their best values by one solve (`ouikit.nn.path_ridge`).

Source: GLAI (arXiv 2510.00883), of which only the abstract is known. The width at equal parameters, the rule
by which the structure counts as learned, and how paths are trained are reconstructions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ouikit.nn.heads import mlp_epochs, path_epochs
from ouikit.nn.path_ridge import RidgeFit, fit_ridge
from ouikit.nn.paths import PathModel
from ouikit.patterns import flip_rate, positive


def reduced_width(inputs: int, hidden: int, outputs: int) -> int:
    """Units h of the block, so that its paths have no more parameters than an MLP with `hidden` units.

    The MLP has N = H (d + 1) + c (H + 1), the path form c h (d + 1) + c: h = ⌊(N − c) / (c (d + 1))⌋.

    Raises ValueError where not even one unit fits.

    >>> reduced_width(256, 256, 10), reduced_width(256, 1024, 10)
    (26, 106)
    """
    if min(inputs, hidden, outputs) < 1:
        raise ValueError(f"sizes are 1 or more: got {inputs} inputs, {hidden} units, {outputs} outputs")
    width = hidden * (inputs + 1 + outputs) // (outputs * (inputs + 1))
    if not width:
        raise ValueError(
            f"an MLP {inputs}-{hidden}-{outputs} has fewer parameters than the paths of one unit: "
            f"give hidden ≥ {-(-outputs * (inputs + 1) // (inputs + 1 + outputs))}, or a width"
        )
    return width


@dataclass
class Settled:
    """A rule that says when the structure is learned: too few gates change from one call to the next.

    Args:
        rate: the largest share of gates, over samples and units, that may change; 0 < rate < 1.
        patience: how many calls in a row must be below it.

    Attributes:
        rates: the share that changed at each call; the first has nothing to compare with.

    >>> on, off = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool)
    >>> rule = Settled(rate=0.1, patience=2)
    >>> [rule(gates) for gates in (off, on, on, on)], rule.rates
    ([False, False, False, True], [1.0, 0.0, 0.0])
    """

    rate: float = 0.02
    patience: int = 1
    rates: list[float] = field(default_factory=list, init=False)
    _last: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.patience < 1:
            raise ValueError(
                f"rate lies between 0 and 1 and patience is 1 or more: got {self.rate} and {self.patience}"
            )

    def __call__(self, gates: Tensor) -> bool:
        """Whether they have settled. gates: bool `[n, h]`, of the same samples at every call."""
        if self._last is not None:
            self.rates.append(flip_rate(self._last, gates))
        self._last = gates.clone()
        recent = self.rates[-self.patience :]
        return len(recent) == self.patience and max(recent) < self.rate


@dataclass(frozen=True)
class Epoch:
    """One epoch of `GLAI.fit`: its number from 1, the phase trained, the share of gates that it changed."""

    number: int
    phase: str
    gate_changes: float


class GLAI(nn.Module):
    """In the place of Linear(inputs, hidden), ReLU, Linear(hidden, outputs): gates first, then paths.

    Args:
        inputs, hidden, outputs: of the MLP that it stands for.
        width: units of the block; left out, as many as give it the MLP's number of parameters.

    Attributes:
        structural: the small MLP, until the switch; then None.
        quantitative: the `PathModel`, from the switch on; before, None.

    It maps float `[…, inputs]` to `[…, outputs]`, in either phase, and passes gradients to its input; after
    the switch these are those of the linear piece that the input lies in. A state dict of either phase can
    be loaded in either, and brings its phase along. What changes the phase or the width makes new
    parameters: make the optimiser anew.

    >>> block, x = GLAI(8, 64, 3), torch.randn(5, 8)
    >>> before = block(x)
    >>> torch.allclose(block.switch()(x), before, atol=1e-5), block.phase
    (True, 'quantitative')
    """

    structural: nn.Sequential | None
    quantitative: PathModel | None

    def __init__(self, inputs: int, hidden: int, outputs: int, *, width: int | None = None) -> None:
        super().__init__()
        self.inputs, self.hidden, self.outputs = inputs, hidden, outputs
        width = reduced_width(inputs, hidden, outputs) if width is None else width
        if width < 1:
            raise ValueError(f"width is 1 or more: got {width}")
        self.structural = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))
        self.quantitative = None

    @property
    def phase(self) -> str:
        """ "structural" before the switch, "quantitative" after it."""
        return "structural" if self.quantitative is None else "quantitative"

    @property
    def width(self) -> int:
        """How many units it has."""
        return len(self._gate_map[1])

    @property
    def _gate_map(self) -> tuple[Tensor, Tensor]:
        """Weight [h, d] and bias [h] of the gates."""
        if self.quantitative is not None:
            return self.quantitative.gate_weight, self.quantitative.gate_bias
        first = self._mlp[0]
        return first.weight, first.bias  # type: ignore[return-value]

    @property
    def _mlp(self) -> nn.Sequential:
        """The small MLP. Raises RuntimeError after the switch."""
        if self.structural is None:
            raise RuntimeError("the block was switched before: its gates are frozen already")
        return self.structural

    @property
    def _paths(self) -> PathModel:
        """The path model. Raises RuntimeError before the switch."""
        if self.quantitative is None:
            raise RuntimeError("there are no paths before the switch: call switch() first")
        return self.quantitative

    def forward(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """x `[…, inputs]` -> `[…, outputs]`; gates: what `self.gates(x)` gave since the switch."""
        if self.quantitative is not None:
            return self.quantitative(x, gates)
        if gates is not None:
            raise ValueError("gates can be given once they are frozen: call switch() first")
        out: Tensor = self._mlp(x)
        return out

    @torch.no_grad()
    def gates(self, x: Tensor) -> Tensor:
        """Which units are on: bool `[…, h]`.

        Raises ValueError for features that are not finite.
        """
        _finite(x)
        return positive(linear(x, *self._gate_map))

    def switch(self, probe: Tensor | None = None) -> Self:
        """Freeze the gates and write the MLP as paths, with the same outputs up to rounding.

        probe: float `[n, inputs]`; given, it is checked that some gate varies over it.

        Raises:
            RuntimeError: it has been switched before.
            ValueError: no gate varies over the probe, or something in it or in the MLP is not finite. The
                block is then as it was.
        """
        mlp = self._mlp
        if probe is not None:
            gates = self.gates(probe)
            if (gates == gates[0]).all():
                raise ValueError(
                    f"no gate varies over these {len(gates)} samples, so the block would be linear: train "
                    "the structural phase longer or at a lower rate, or give more samples"
                )
        trained = next(mlp.parameters()).requires_grad
        self.quantitative = PathModel.from_mlp(mlp).requires_grad_(trained).train(self.training)
        self.structural = None
        return self

    def solve(self, x: Tensor, y: Tensor, penalty: float) -> RidgeFit:
        """Set all paths to the minimiser of squared error and ridge, in one solve; switch first if needed.

        x: float `[n, inputs]`; y: labels int64 `[n]`, or float targets `[n, outputs]`; penalty: λ > 0.
        Returns and raises as `ouikit.nn.path_ridge.fit_ridge`; the block is then as it was.
        """
        if self.quantitative is not None:
            return fit_ridge(self.quantitative, x, y, penalty)
        model = PathModel.from_mlp(self._mlp)
        fit = fit_ridge(model, x, y, penalty)
        self.switch()._paths.load_state_dict(model.state_dict())
        return fit

    @torch.no_grad()
    def path_norms(self) -> Tensor:
        """‖π_j‖ over outputs and inputs of each unit, float `[h]`."""
        return self._paths.paths.float().square().sum((0, 2)).sqrt()

    @torch.no_grad()
    def prune(self, *, keep: int | None = None, below: float = 0.0) -> int:
        """Take out units by the norm of their paths, and say how many; without arguments, those of norm zero.

        keep: at most so many, those of the largest norms. below: norms up to this one go.

        Raises:
            RuntimeError: it has not been switched. ValueError: nothing would be left.
        """
        norms = self.path_norms()
        stay = norms > below
        if keep is not None:
            stay &= norms.argsort(descending=True, stable=True).argsort() < keep
        if not stay.any():
            raise ValueError(f"no unit would be left: the largest path norm is {float(norms.max()):.3g}")
        old = self._paths
        model = PathModel(old.gate_weight[stay], old.gate_bias[stay], self.outputs)
        model.paths.copy_(old.paths[:, stay])
        model.bias.copy_(old.bias)
        self.quantitative = model.requires_grad_(old.paths.requires_grad).train(self.training)
        return int((~stay).sum())

    def fit(
        self,
        x: Tensor,
        labels: Tensor,
        *,
        epochs: int,
        structure: int | Settled = 3,
        penalty: float | None = None,
        batch_size: int = 128,
        lr: float = 1e-3,
        seed: int = 0,
        probe: int = 256,
    ) -> Iterator[Epoch]:
        """Train both phases as a classifier of fixed features, with cross-entropy and Adam; yields epochs.

        Args:
            x: float32 `[n, inputs]` on the CPU. labels: int64 `[n]`.
            epochs: of both phases together; with a penalty at most one of them after the switch.
            structure: epochs of the structural phase, or the rule that ends it. Without a switch before the
                last epoch there is none.
            penalty: λ of an exact quantitative phase by `solve`; None trains by gradient.
            batch_size, lr, seed: of both phases; seed draws the order of the samples.
            probe: so many of the samples, the first, tell how many gates an epoch changes.

        Raises:
            ValueError: features that are not finite, labels that are no classes, or as `switch`.
        """
        _finite(x)
        if labels.shape != x.shape[:1] or labels.min() < 0 or labels.max() >= self.outputs:
            raise ValueError(f"labels are [{len(x)}], each from 0 to {self.outputs - 1}")
        return self._fit(x, labels, epochs, structure, penalty, (batch_size, lr, seed), x[:probe])

    def _fit(
        self,
        x: Tensor,
        labels: Tensor,
        epochs: int,
        structure: int | Settled,
        penalty: float | None,
        how: tuple[int, float, int],
        probe: Tensor,
    ) -> Iterator[Epoch]:
        done = 0
        if self.structural is not None:
            rule = structure if isinstance(structure, Settled) else Settled()
            rule(self.gates(probe))
            for _ in mlp_epochs(self._mlp, x, labels, epochs, *how):
                done, ended = done + 1, rule(self.gates(probe))
                last = ended if isinstance(structure, Settled) else done >= structure
                if last and done < epochs:
                    self.switch(x)
                yield Epoch(done, "structural", rule.rates[-1])
                if last:
                    break
        if penalty is not None and done < epochs:
            self.solve(x, labels, penalty)
            yield Epoch(done + 1, "quantitative", 0.0)
        elif done < epochs:
            for _ in path_epochs(self._paths, x, labels, epochs - done, *how):
                done += 1
                yield Epoch(done, "quantitative", 0.0)

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Take the form, phase and width, of the state that is about to be loaded."""
        like = self._gate_map[0]
        paths, weight = (state.get(prefix + key) for key in ("quantitative.paths", "structural.0.weight"))
        trained = next(self.parameters()).requires_grad
        if paths is not None and paths.ndim == 3 and paths.shape[::2] == (self.outputs, self.inputs + 1):
            gates = like.new_zeros(paths.shape[1], self.inputs), like.new_zeros(paths.shape[1])
            self.quantitative = PathModel(*gates, self.outputs).requires_grad_(trained).train(self.training)
            self.structural = None
        elif weight is not None and weight.ndim == 2 and weight.shape[1] == self.inputs:
            block = type(self)(self.inputs, self.hidden, self.outputs, width=len(weight)).to(like)
            self.structural = block._mlp.requires_grad_(trained).train(self.training)
            self.quantitative = None
        super()._load_from_state_dict(state, prefix, *args)

    def extra_repr(self) -> str:
        """The sizes, in a printed network."""
        return f"{self.inputs}, {self.hidden}, {self.outputs}, width={self.width}"


def _finite(x: Tensor) -> None:
    if not x.isfinite().all():
        row = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"the features are not all finite: the first such row is {row}. Drop or repair it")
