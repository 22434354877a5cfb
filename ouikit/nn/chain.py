"""Networks that are chains of linear layers with ReLUs between them, run and differentiated without a tape.

In use::

    chain = chain_of(model)                   # None where autograd is needed
    loss = chain.backward(images, labels)     # as `cross_entropy(model(images), labels).backward()`

For layers of a few hundred units autograd and the calls of modules cost several times what the arithmetic
costs. A chain calls the kernels that autograd would call, in its order, on operands of the same layout, and
so everything that comes out has the same bits. It also knows the two chains of a `DualCopy`, whose gates
one copy decides for both.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ouikit.nn.gated import DualCopy, Gate
from ouikit.patterns import positive
from ouikit.probe import Probe

_BEFORE = (nn.Flatten, nn.AdaptiveAvgPool2d, nn.Identity)  # what may come before the first layer
_GLOBAL_HOOKS = (
    *("_global_forward_hooks", "_global_forward_pre_hooks"),
    *("_global_backward_hooks", "_global_backward_pre_hooks"),
)
_aten: Any = torch.ops.aten
_nll, _nll_backward = _aten.nll_loss_forward.default, _aten.nll_loss_backward.default
_softmax_backward = _aten._log_softmax_backward_data.default
_relu_backward = _aten.threshold_backward.grad_input
_one = torch.ones(())
_KNOWN: WeakKeyDictionary[nn.Module, "Chain"] = WeakKeyDictionary()  # with the room for their steps


def chain_of(model: nn.Module) -> "Chain | None":
    """The chain that a model is, or None where a tape is needed: every class is asked for exactly.

    A chain is an `nn.Sequential` of poolings and flattenings to [B, d], then `nn.Linear`s with biases and one
    `nn.ReLU` between each two; or a `DualCopy` of such a network that takes its gates from the structure. All
    parameters are float32 on the CPU, each in one place only and trained (the structure's are not), and there
    is nothing that would like to be called: no hook of a module or a tensor, no autocast, no `torch.compile`.
    """
    if torch.is_autocast_enabled("cpu") or torch.is_anomaly_enabled():
        return None
    if any(getattr(torch_module, name) for name in _GLOBAL_HOOKS):
        return None
    known = _KNOWN.get(model)
    if known is None or not known.holds():
        _KNOWN.pop(model, None)
        known = _examined(model)
        if known is not None:
            _KNOWN[model] = known
    return known


def _examined(model: nn.Module) -> "Chain | None":
    structure, prefix = list[nn.Linear](), ""
    if type(model) is DualCopy:
        twin = _taken_apart(model.structure, Gate)
        if twin is None or model.gate != "structure":
            return None
        structure, prefix, parts = twin[1], "structure.", _taken_apart(model.quantity, Gate)
        trained = model.quantity
    else:
        parts, trained = _taken_apart(model, nn.ReLU), model
    if parts is None:
        return None
    before, layers, gates = parts
    tensors = [tensor for layer in [*layers, *structure] for tensor in (layer.weight, layer.bias)]
    if not all(type(t) is nn.Parameter for t in tensors) or len(set(map(id, tensors))) < len(tensors):
        return None
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors):  # another has another place
        return None
    names = [name for name, _ in trained.named_parameters()]
    found = Chain(model, before, layers, names, [prefix + name for name in gates], structure)
    return found if found.holds() else None


def live_state(model: nn.Module) -> dict[str, Tensor]:
    """`model.state_dict()`, of a chain without asking each of its modules."""
    chain = None if type(model) is DualCopy else chain_of(model)
    return model.state_dict() if chain is None else chain.state


def gate_patterns(model: nn.Module, inputs: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
    """What `ouikit.probe.Probe(model, inputs, layers=layers).patterns()` reads, of a chain without hooks."""
    chain = chain_of(model)
    names = [] if chain is None else chain.gates
    if chain is None or not set(names if layers is None else layers) <= set(names):
        return Probe(model, inputs, layers=layers).patterns()
    masks = dict(zip(names, chain.masks(inputs), strict=True))
    return {name: mask for name, mask in masks.items() if layers is None or name in layers}


class Chain:
    """A chain's layers and the room that its steps need; made by `chain_of`.

    Attributes:
        layers: the linear layers, each with bias.
        names: of the parameters, in the network that is trained.
        gates: names of the modules between them that decide which units are on.
        parameters: weight and bias of every layer, in the order of `model.parameters()`.
        values: the same, cut off from the gradient, in the parameters' own memory.
        gradients: what the last `backward` left, one for each; the next one overwrites them.
    """

    def __init__(
        self,
        model: nn.Module,
        before: Sequence[nn.Module],
        layers: Sequence[nn.Linear],
        names: Sequence[str],
        gates: Sequence[str],
        structure: Sequence[nn.Linear] = (),
    ) -> None:
        self.before, self.layers, self.names, self.gates = before, layers, list(names), list(gates)
        self.parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
        self.gradients = [torch.empty_like(p, requires_grad=False) for p in self.parameters]
        self._maps = [_map_of(layer) for layer in layers]
        self._frozen = [_map_of(layer) for layer in structure]
        self.values = [tensor for weight, _, bias in self._maps for tensor in (weight, bias)]
        self._rooms: dict[int, list[_Room]] = {}
        self._parts = [(ref(module), type(module), [*module._modules.values()]) for module in model.modules()]
        self._tensors = [
            (layer._parameters, name, tensor, tensor.data_ptr(), layer not in structure)
            for layer in [*layers, *structure]
            for name, tensor in layer.named_parameters()
        ]

    @property
    def state(self) -> dict[str, Tensor]:
        """The state dict of the network that is trained; without asking each of its modules."""
        return dict(zip(self.names, self.values, strict=True))

    def holds(self) -> bool:
        """Whether the model is still this chain, with nothing in it that waits to be called."""
        for get, kind, children in self._parts:
            module = get()
            if type(module) is not kind:
                return False
            own = module.__dict__
            if own["_forward_hooks"] or own["_forward_pre_hooks"] or "forward" in own:
                return False
            if own["_backward_hooks"] or own["_backward_pre_hooks"] or own.get("_compiled_call_impl"):
                return False
            if [*own["_modules"].values()] != children:
                return False
        for parameters, name, tensor, place, trained in self._tensors:
            if parameters[name] is not tensor or tensor.data_ptr() != place:
                return False
            if tensor.requires_grad != trained or not tensor.is_contiguous():
                return False
            if tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
                return False
        return True

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes], as the model gives them."""
        h, masks = self._inputs(images), self.masks(images) if self._frozen else None
        for number, (_, transposed, bias) in enumerate(self._maps):
            z = torch.addmm(bias, h, transposed)
            last = number == len(self._maps) - 1
            h = z if last else torch.relu_(z) if masks is None else torch.where(masks[number], z, 0.0)
        return h

    def masks(self, images: Tensor) -> list[Tensor]:
        """Which units are on: bool [B, d] at each gate, of the structure where there is one."""
        h, found = self._inputs(images), list[Tensor]()
        for _, transposed, bias in (self._frozen or self._maps)[:-1]:
            z = torch.addmm(bias, h, transposed)
            found.append(positive(z))
            h = torch.where(found[-1], z, 0.0) if self._frozen else torch.relu_(z)
        return found

    def backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of a batch, a scalar; fills `gradients`. labels: int64 [B]."""
        x = self._inputs(images)
        rooms = self._rooms_for(len(x))
        if self._frozen:
            self._decide(x, rooms)
        h = x
        for (_, transposed, bias), room in zip(self._maps, rooms, strict=True):
            torch.addmm(bias, h, transposed, out=room.z)
            if room is not rooms[-1]:
                room.shut(room.z, room.bits) if self._frozen else torch.relu_(room.z)
            h = room.z
        log = torch.log_softmax(h, 1)
        loss, weight = _nll(log, labels, None, 1, -100)
        g = _nll_backward(_one, log, labels, None, 1, -100, weight)
        g = _softmax_backward(g, log, 1, torch.float32)
        for number in range(len(rooms) - 1, -1, -1):
            below = rooms[number - 1] if number else None
            torch.sum(g, 0, out=self.gradients[2 * number + 1])
            torch.mm(g.t(), below.z if below else x, out=self.gradients[2 * number])
            if below:
                torch.mm(g, self._maps[number][0], out=below.g)
                if self._frozen:
                    below.shut(below.g, below.g_bits)
                else:
                    _relu_backward(below.g, below.z, 0, grad_input=below.g)
                g = below.g
        return loss

    def hand_over(self) -> None:
        """Leave the last gradients where autograd leaves them, in `grad` of the parameters, for good."""
        for number, parameter in enumerate(self.parameters):
            parameter.grad = self.gradients[number]
            self.gradients[number] = torch.empty_like(self.gradients[number])

    def _inputs(self, images: Tensor) -> Tensor:
        """What reaches the first layer, [B, d]."""
        for module in self.before:
            if type(module) is nn.AdaptiveAvgPool2d and _same_size(images, module):
                continue  # the average of one pixel is that pixel
            images = module(images)
        return images

    def _decide(self, x: Tensor, rooms: Sequence["_Room"]) -> None:
        """The structure's masks for a batch."""
        h = x
        for (_, transposed, bias), room in zip(self._frozen[:-1], rooms, strict=False):
            torch.addmm(bias, h, transposed, out=room.frozen)
            np.greater(room.frozen_values, 0, out=room.on)
            np.negative(room.on, out=room.mask, dtype=np.int32, casting="unsafe")
            room.shut(room.frozen, room.frozen_bits)
            h = room.frozen

    def _rooms_for(self, count: int) -> list["_Room"]:
        """Room for a batch of so many: the first rows of what the largest one needs."""
        if count not in self._rooms:
            most = max(self._rooms, default=0)
            if count > most:
                self._rooms.clear()
                widths = [layer.out_features for layer in self.layers]
                self._rooms[count] = [_Room.of(count, width, bool(self._frozen)) for width in widths]
            else:
                self._rooms[count] = [room.first(count) for room in self._rooms[most]]
        return self._rooms[count]


class _Room:
    """Memory for one layer's part of a step: its outputs, their gradient, and, behind a structure, its masks.

    A mask is −1 or 0 as int32, so that "and" with a number's bits keeps the number or leaves +0.0.
    """

    def __init__(self, z: Tensor, g: Tensor, frozen: Tensor, on: Any, mask: Any) -> None:
        self.z, self.g, self.frozen, self.on, self.mask = z, g, frozen, on, mask
        self.frozen_values = frozen.numpy()
        self.bits, self.g_bits, self.frozen_bits = (v.numpy().view(np.int32) for v in (z, g, frozen))

    @classmethod
    def of(cls, count: int, width: int, masked: bool) -> "_Room":
        """For a batch of so many."""
        more = count if masked else 0
        z, g, frozen = (torch.empty(rows, width) for rows in (count, count, more))
        return cls(z, g, frozen, np.empty((more, width), bool), np.empty((more, width), np.int32))

    def first(self, count: int) -> "_Room":
        """The first rows of this one."""
        return _Room(*(held[:count] for held in (self.z, self.g, self.frozen, self.on, self.mask)))

    def shut(self, values: Tensor, bits: Any) -> None:
        """Zero where the mask is off."""
        np.bitwise_and(bits, self.mask, out=bits)


def _map_of(layer: nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's weight, its transpose and its bias, in the parameters' own memory."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    return weight, weight.t(), bias


def _same_size(images: Tensor, pool: nn.AdaptiveAvgPool2d) -> bool:
    size = pool.output_size
    return tuple(images.shape[-2:]) == (size if isinstance(size, tuple) else (size, size))


def _taken_apart(
    network: nn.Module, gate: type[nn.Module]
) -> tuple[list[nn.Module], list[nn.Linear], list[str]] | None:
    """What comes before the layers, the layers, and the names of the gates."""
    if type(network) is not nn.Sequential:
        return None
    parts = dict(network.named_children())
    names = list(parts)
    first = next((i for i, name in enumerate(names) if type(parts[name]) not in _BEFORE), len(names))
    before, rest = [parts[name] for name in names[:first]], names[first:]
    layers, gates = [parts[name] for name in rest[::2]], rest[1::2]
    if not before or not isinstance(before[-1], nn.Flatten) or len(names) != len(network):
        return None
    flattens = (before[-1].start_dim, before[-1].end_dim) == (1, -1)
    if not flattens or len(rest) % 2 == 0 or not all(type(parts[name]) is gate for name in gates):
        return None
    found = [layer for layer in layers if type(layer) is nn.Linear]
    fits = len(found) == len(layers) and all(a.out_features == b.in_features for a, b in pairwise(found))
    return (before, found, gates) if fits else None
