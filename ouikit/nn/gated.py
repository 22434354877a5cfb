"""Networks whose gates are frozen: one copy decides which units are on, another carries the values.

In use::

    dual = DualCopy(pretrained, images[:2])
    logits = dual(images)                      # at first exactly what `pretrained(images)` gives
    fit(dual, data, recipe)                    # trains `dual.quantity`; no gate can change any more

A ReLU network is affine in each of its layers as long as no gate changes. `DualCopy` makes that hold always:
the *structural* copy (SK) is never trained and supplies the on/off masks, and the winners of max-pooling; the
*quantitative* copy (QK) is trained inside the regime that they fix.

Source: the structural and quantitative copies of FedSQ (arXiv 2604.02990, abstract); how they are carried out
is a reconstruction, and where it leaves a choice this module exposes it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.pooling import _AdaptiveMaxPoolNd, _MaxPoolNd

from ouikit.gates import gate_modules
from ouikit.nn.weights import load
from ouikit.patterns import positive

NORMS = ("frozen", "affine")
DECIDES = ("structure", "own")
MAX_POOLS = (_MaxPoolNd, _AdaptiveMaxPoolNd)


@dataclass(frozen=True)
class Regime:
    """What a network decided for one batch.

    masks: bool `[B, units…]` per call of a ReLU, named as in `ouikit.record_patterns`. winners: int64
    `[B, C, …]` per call of a max-pooling, the place of each window's largest value as torch counts it.
    """

    masks: dict[str, Tensor] = field(default_factory=dict)
    winners: dict[str, Tensor] = field(default_factory=dict)


class DualCopy(nn.Module):
    """A network in two copies: f(x) = QK's layers, with the gates that SK has for the same x.

    z^S = W^S h^S + b^S, m(x) = [z^S > 0], h^S = m ⊙ z^S, and h^Q = m(x) ⊙ (W^Q h^Q + b^Q). No gradient
    reaches SK. A residual sum is gated by the mask of SK's sum. SK is always in evaluation mode: no dropout,
    batch normalisation with its running statistics, so that a mask depends on the sample alone.

    The batch normalisation of QK keeps SK's running statistics as well, and is an affine map. What is not a
    gate, a max-pooling or affine in its input cannot be frozen and is refused.

    Args:
        network: with ReLUs as modules (in place or not, shared or not); it is copied and left alone.
        example: float inputs `[B, …]` on which the constructor checks that the copies do what they should.
        norm: γ and β of QK's batch normalisation: "frozen", as SK's, or "affine", trained.
        pool: whose window maxima QK passes on: "structure", at the places of SK's, or its "own", which
            is cheaper and leaves QK piecewise affine.
        gate: "structure", or its "own": then no gate is frozen, and normalisation alone is. A control.

    Attributes:
        structure, quantity: the copies. The state dict of either has the names of the network's.

    Raises:
        ValueError: the network has no ReLU module, or a gate that is not a ReLU (its layer is named), or
            another non-linearity, such as a functional ReLU, attention or layer normalisation; it relies on
            a ReLU changing its input in place; or the choice is unknown.
        TypeError: the example is not a float tensor.
    """

    def __init__(
        self,
        network: nn.Module,
        example: Tensor,
        *,
        norm: str = "frozen",
        pool: str = "structure",
        gate: str = "structure",
    ) -> None:
        super().__init__()
        for name, value, known in (("norm", norm, NORMS), ("pool", pool, DECIDES), ("gate", gate, DECIDES)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}: got {value!r}")
        _refuse_other_gates(network)
        _try_out(network, example)
        self.norm, self.gate, self._tape = norm, gate, _Tape()
        self.structure = _gated(network, self._tape, "writes", "writes").requires_grad_(False)
        reads = {"structure": "reads", "own": "free"}
        self.quantity = _gated(network, self._tape, reads[gate], reads[pool])
        for layer in _norms(self.quantity):
            layer.requires_grad_(norm == "affine")
        self.train(network.training)

    def forward(self, x: Tensor, regime: Regime | None = None) -> Tensor:
        """QK's output under the regime of SK for x, or under one that `regime` gave for the same x.

        Raises:
            ValueError: the regime is another batch's.
        """
        with self._tape.reading(regime or self.regime(x)):
            return self.quantity(x)

    @torch.no_grad()
    def regime(self, x: Tensor) -> Regime:
        """SK's decisions for x. They are the same whatever is trained, so they may be kept."""
        with self._tape.writing() as regime:
            self.structure(x)
        return regime

    @torch.no_grad()
    def wanted(self, x: Tensor) -> dict[str, Tensor]:
        """The masks that QK's own pre-activations would give, named as those of `regime`.

        `flip_rate(dual.regime(x).masks, dual.wanted(x))` says how far the weights have left their regime.
        """
        with self._tape.reading(self.regime(x)):
            wanted = self._tape.wanted = {}
            self.quantity(x)
        return wanted

    @torch.no_grad()
    def load(self, structure: Mapping[str, Tensor], quantity: Mapping[str, Tensor]) -> Self:
        """Take over two state dicts of the network; what QK keeps frozen is SK's to the last bit.

        A mean of equal running statistics can differ from them by rounding; hence SK's.
        """
        load(self.structure, structure)
        load(self.quantity, quantity)
        for mine, theirs in zip(_norms(self.quantity), _norms(self.structure), strict=True):
            kept = mine.state_dict() if self.norm == "frozen" else dict(mine.named_buffers())
            for name, tensor in kept.items():
                tensor.copy_(theirs.state_dict()[name])
        return self

    def train(self, mode: bool = True) -> Self:
        """Training mode for QK alone, and not for its batch normalisation."""
        super().train(mode)
        self.structure.eval()
        for layer in _norms(self.quantity):
            layer.eval()
        return self


class _Tape:
    """The decisions of one forward pass by the name of each call: written by SK's layers, read by QK's."""

    def __init__(self) -> None:
        self.regime = Regime()
        self.wanted: dict[str, Tensor] | None = None  # masks that QK would have, where asked for
        self._uses: Counter[str] = Counter()

    @contextmanager
    def writing(self) -> Iterator[Regime]:
        self.regime = Regime()
        self._uses.clear()
        yield self.regime

    @contextmanager
    def reading(self, regime: Regime) -> Iterator[None]:
        self.regime = regime
        self._uses.clear()
        try:
            yield
        finally:
            self.regime, self.wanted = Regime(), None

    def call(self, name: str) -> str:
        self._uses[name] += 1
        return name if self._uses[name] == 1 else f"{name}#{self._uses[name]}"


class _Layer(nn.Module):
    """Stands where the network has a gate or a max-pooling; holds neither parameters nor buffers.

    role: "writes" its decisions on the tape (SK), "reads" them there (QK), or is "free" of it.
    """

    def __init__(self, name: str, tape: _Tape, role: str) -> None:
        super().__init__()
        self.name, self.tape, self.role = name, tape, role

    def held(self, decisions: Mapping[str, Tensor], call: str) -> Tensor:
        """What SK decided at this call."""
        if call not in decisions:
            raise ValueError(f"the structural copy made no call {call!r}: the regime is not of this network")
        return decisions[call]


class Gate(_Layer):
    """A ReLU whose mask is written on the tape, read there, or neither."""

    def forward(self, z: Tensor) -> Tensor:
        call, tape = self.tape.call(self.name), self.tape
        if tape.wanted is not None:
            tape.wanted[call] = positive(z)
        mask = self.held(tape.regime.masks, call) if self.role == "reads" else positive(z)
        if mask.shape != z.shape:
            raise ValueError(f"the regime is another batch's: {tuple(mask.shape)} for {tuple(z.shape)}")
        if self.role == "writes":
            tape.regime.masks[call] = mask
        return torch.where(mask, z, 0.0)  # a product would leave −0.0


class _Pool(_Layer):
    def __init__(self, name: str, tape: _Tape, role: str, pool: Any) -> None:
        super().__init__(name, tape, role)
        self.pool = deepcopy(pool)
        self.pool.return_indices = True
        self.axes = int(type(pool).__name__[-2])  # MaxPool2d: the image's two

    def forward(self, z: Tensor) -> Tensor:
        call, winners_of = self.tape.call(self.name), self.tape.regime.winners
        if self.role != "reads":
            largest, winners = self.pool(z)
            if self.role == "writes":
                winners_of[call] = winners
            return largest
        winners = self.held(winners_of, call)
        chosen = z.flatten(-self.axes).gather(-1, winners.flatten(-self.axes)).view(winners.shape)
        if z.ndim == 4 and z.is_contiguous(memory_format=torch.channels_last):
            return chosen.contiguous(memory_format=torch.channels_last)  # as the pooling itself returns it
        return chosen


def _gated(network: nn.Module, tape: _Tape, gates: str, pools: str) -> nn.Module:
    """A copy whose ReLUs and max-poolings have these roles; a shared one is replaced by a shared one."""
    copy = deepcopy(network)
    first = {module: name for name, module in copy.named_modules()}
    layers: dict[nn.Module, nn.Module] = {}
    for module, name in first.items():
        if isinstance(module, nn.ReLU):
            layers[module] = Gate(name, tape, gates)
        elif isinstance(module, MAX_POOLS):
            layers[module] = _Pool(name, tape, pools, module)
    for name, module in list(copy.named_modules(remove_duplicate=False)):
        if module in layers:
            copy.set_submodule(name, layers[module])
    return copy


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def _refuse_other_gates(network: nn.Module) -> None:
    names = {name: type(module).__name__ for name, module in gate_modules(network).items()}
    other = {name: kind for name, kind in names.items() if kind != "ReLU"}
    if other:
        name, kind = next(iter(other.items()))
        raise ValueError(f"only ReLU gates can be frozen: layer {name!r} is a {kind}")
    if not names or "" in names:
        raise ValueError(
            f"{type(network).__name__} holds no nn.ReLU module; a functional ReLU must become a module"
        )


@torch.no_grad()
def _try_out(network: nn.Module, example: Tensor) -> None:
    """Equal copies must give the network's output, and with held gates QK must be affine in its input.

    In double precision, so that rounding is far below what any hidden non-linearity does.
    """
    if not isinstance(example, Tensor) or not example.is_floating_point():
        raise TypeError("example must be a float tensor [B, …], as the network takes it")
    plain, x, tape = deepcopy(network).double().eval(), example.detach().double(), _Tape()
    structure, quantity = (_gated(plain, tape, role, role) for role in ("writes", "reads"))
    with tape.writing() as regime:
        structure(x)

    def held(inputs: Tensor) -> Tensor:
        with tape.reading(regime):
            return quantity(inputs.clone())

    if not torch.equal(held(x), plain(x.clone())):
        raise ValueError("with frozen gates the network gives another output: does a ReLU change a value in "
                         "place that is used again? Give it inplace=False")  # fmt: skip
    aside = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0)).to(x.device)
    aside *= 10 * (1 + x.abs().amax())  # far enough to turn every hidden gate of some sample
    ends = held(x + aside), held(x - aside)
    bend = (ends[0] + ends[1] - 2 * held(x)).abs().amax()
    if not bend <= 1e-9 * max(1.0, *(float(end.abs().amax()) for end in ends)):
        raise ValueError(
            "with its gates frozen the network is still not affine in its input: it has a non-linearity that "
            "is neither an nn.ReLU nor a max-pooling module, such as a functional ReLU, attention or layer "
            "normalisation"
        )
