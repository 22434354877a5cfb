"""Activation patterns: which units of a network are on for which samples of a batch.

The bit of a unit is `z > 0`, strictly, where z is its pre-activation: an exactly zero one is off.
A pattern is a bool tensor `[B, units…]`; its first dimension is always the samples.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache, partial
from pkgutil import resolve_name
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ouikit.gates import gate_modules, is_gate, unregistered_gates

Pattern = Tensor | Mapping[str, Tensor] | Sequence[Tensor]


@contextmanager
def record_patterns(model: nn.Module, layers: Iterable[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """Record the on/off pattern of every watched layer while the block runs.

    Yields a dict, layer name -> bool tensor `[B, units…]` on the layer's device, in the order of the
    calls. Every call `model(x)` starts it afresh, so the last forward pass wins; tensors taken out
    before stay valid. Layers run in another way, as by `model.forward(x)`, are not recorded. A layer
    used several times in one pass has an entry per use: "relu", "relu#2", … A pattern needs 1 byte
    per unit and sample.

    `layers=None` watches every gate module (see `register_gate`), at its *input*: an in-place ReLU overwrites
    that, and half precision rounds small GELU outputs to 0, but the sign of the input is exact. Modules
    that behave like gates and are not registered are named in a warning.
    `layers=` takes names as in `model.named_modules()`. A gate among them is read at its input as
    well; any other module (linear, convolution, norm, FFN) at its *output*, which is the
    pre-activation of a functional activation that follows.

    Raises ValueError for a name that does not exist (with the nearest ones) and where no gate is
    found; TypeError during the forward pass where a watched module does not return a tensor.

    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU())
    >>> with record_patterns(model) as patterns:
    ...     _ = model(torch.randn(5, 3))
    >>> {name: tuple(bits.shape) for name, bits in patterns.items()}
    {'1': (5, 8)}
    """
    with _Recorder(model, layers) as recorder:
        yield recorder.patterns


def hamming_distances(pattern: Tensor) -> Tensor:
    """Number of units in which two samples differ, for all pairs of samples.

    pattern: bool `[B, units…]`. Returns int64 `[B, B]`, symmetric, zero diagonal, on the pattern's
    device; the work is done on the CPU, with torch's number of threads by `ouigemm.hamming` where that
    package is installed, else by NumPy, which takes about ten times as long for the same numbers. Raises
    TypeError or ValueError as `flat_bits`.

    >>> hamming_distances(torch.tensor([[True, True], [True, False], [False, False]])).tolist()
    [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    """
    bits = flat_bits(pattern)
    hamming, on_cpu = _compiled_hamming(), bits.cpu()
    if hamming is None:
        return _distances_by_popcount(on_cpu).to(bits.device)
    return torch.from_numpy(hamming(on_cpu.numpy(), threads=torch.get_num_threads())).to(bits.device)


def flip_rate(before: Pattern, after: Pattern) -> float:
    """Fraction of the bits that differ between two patterns of the same samples, in [0, 1].

    Takes two bool tensors `[B, units…]`, or two dicts or sequences of layers: then the mean over
    layers, each with equal weight. Raises ValueError where layers or shapes do not match.

    >>> flip_rate(torch.tensor([[True, False]]), torch.tensor([[True, True]]))
    0.5
    """
    old, new = named_layers(before), named_layers(after)
    if old.keys() != new.keys():
        raise ValueError(
            f"the two patterns have different layers: only one has {sorted(old.keys() ^ new.keys())}"
        )
    for name in old:
        if old[name].shape != new[name].shape:
            raise ValueError(
                f"layer {name!r}: shapes {tuple(old[name].shape)} and {tuple(new[name].shape)} differ"
            )
    rates = [float((flat_bits(old[n], n) ^ flat_bits(new[n], n)).double().mean()) for n in old]
    return sum(rates) / len(rates)


def named_layers(pattern: Pattern) -> dict[str, Tensor]:
    """One tensor, a dict or a sequence of layers -> name -> tensor; ValueError for no layers."""
    if isinstance(pattern, Tensor):
        return {"pattern": pattern}
    if isinstance(pattern, Mapping):
        layers = dict(pattern)
    elif isinstance(pattern, Sequence) and not isinstance(pattern, str):
        layers = {str(index): bits for index, bits in enumerate(pattern)}
    else:
        raise TypeError(
            f"a pattern is a bool tensor, a dict or a sequence of them, not {type(pattern).__name__}"
        )
    if not layers:
        raise ValueError("the pattern has no layers: was the model called inside record_patterns()?")
    return layers


def flat_bits(pattern: Tensor, name: str = "pattern") -> Tensor:
    """Check one layer and flatten its units: bool `[B, units…]` -> bool `[B, d]`, B ≥ 1, d ≥ 1.

    Raises TypeError where it is not a boolean tensor, ValueError where samples or units are missing.
    """
    if not isinstance(pattern, Tensor):
        raise TypeError(f"{name!r} must be a torch.Tensor, not {type(pattern).__name__}")
    if pattern.dtype != torch.bool:
        raise TypeError(f"{name!r} must be boolean, not {pattern.dtype}: pass z > 0")
    if pattern.ndim < 2 or pattern.numel() == 0:
        raise ValueError(f"{name!r} must be [B, units…], neither of them empty, not {tuple(pattern.shape)}")
    return pattern.flatten(1)


def positive(z: Tensor) -> Tensor:
    """z > 0, cut off from the gradient.

    NumPy's comparison is three times as fast as torch's on a CPU; it knows neither bfloat16 nor a
    fast float16.
    """
    z = z.detach()
    if z.device.type != "cpu" or z.dtype not in (torch.float32, torch.float64):
        return z > 0
    bits = torch.empty_like(z, dtype=torch.bool)
    np.greater(z.numpy(), 0, out=bits.numpy())
    return bits


class Watch:
    """Hooks that hand each watched pre-activation of a call of `model` to `_see(name, z)`.

    A subclass says in `_begin` whether it wants this forward pass, and closes it in `_end`. Layers
    that run outside a call of `model` are not seen: gradient checkpointing repeats them in the
    backward pass. Hooks are bound methods, not closures, so that a watched model can be pickled and
    deep-copied; such a copy is watched by a copy of the watch.
    """

    def __init__(self, model: nn.Module, layers: Iterable[str] | None = None) -> None:
        self.model = model
        self.layers = _choose(model, layers)
        self._running = False
        self._uses: Counter[str] = Counter()
        self._handles = [model.register_forward_pre_hook(self._enter)]
        for name, module in self.layers.items():
            if is_gate(module):
                hook = module.register_forward_pre_hook(partial(self._gate_input, name), with_kwargs=True)
            else:
                hook = module.register_forward_hook(partial(self._layer_output, name))
            self._handles.append(hook)
        self._handles.append(model.register_forward_hook(self._leave))

    def close(self) -> None:
        """Take every hook off the model. Calling it again does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(self) -> bool:
        raise NotImplementedError

    def _see(self, name: str, z: Tensor) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def _enter(self, model: nn.Module, args: Any) -> None:
        self._uses.clear()
        self._running = self._begin()

    def _leave(self, model: nn.Module, args: Any, output: Any) -> None:
        if self._running:
            self._running = False
            self._end()

    def _gate_input(self, name: str, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._use(name, args[0] if args else next(iter(kwargs.values())))

    def _layer_output(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._use(name, output)

    def _use(self, name: str, z: Any) -> None:
        if not self._running:
            return
        if not isinstance(z, Tensor):
            raise TypeError(
                f"layer {name!r} gives a {type(z).__name__}, not a tensor: watch a layer inside it"
            )
        self._uses[name] += 1
        self._see(name if self._uses[name] == 1 else f"{name}#{self._uses[name]}", z)


class _Recorder(Watch):
    """Keeps the patterns of the last forward pass."""

    def __init__(self, model: nn.Module, layers: Iterable[str] | None) -> None:
        self.patterns: dict[str, Tensor] = {}
        super().__init__(model, layers)

    def _begin(self) -> bool:
        self.patterns.clear()
        return True

    def _see(self, name: str, z: Tensor) -> None:
        self.patterns[name] = positive(z)

    def _end(self) -> None:
        pass


def _choose(model: nn.Module, layers: Iterable[str] | None) -> dict[str, nn.Module]:
    """The modules to watch, by name."""
    if layers is None:
        found, passed_over = gate_modules(model), unregistered_gates(model)
        title = type(model).__name__
        advice = (
            f"{title} has modules that behave like gates and are not registered: {passed_over}. They are not "
            "watched: call ouikit.register_gate on their classes, or name what is to be watched in layers=[…]"
        )
        if not found and passed_over:
            raise ValueError(advice)
        if not found:
            raise ValueError(
                f"{title} has no gate module (ReLU, GELU, SiLU, …); functional activations are watched "
                "through the layers before them: pass layers=[names of those]"
            )
        if passed_over:
            warnings.warn(advice, stacklevel=_outside())
        return found
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise ValueError("layers is empty: name at least one layer, or pass None for every gate module")
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            near = get_close_matches(str(name), modules, cutoff=0.4) or list(modules)[1:4]
            raise ValueError(
                f"{type(model).__name__} has no layer {name!r}; nearest: {', '.join(near) or 'none'}"
            )
    return {name: modules[name] for name in names}


def _outside() -> int:
    """The `stacklevel` of a warning that points at the first caller outside this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        ("ouikit.", "contextlib")
    ):
        frame, level = frame.f_back, level + 1
    return level


@cache
def _compiled_hamming() -> Callable[..., np.ndarray] | None:
    """`ouigemm.hamming` where that package is installed.

    By name, past the readers of imports: a distance is a whole number, whoever counts it, and so a change in
    a kernel must not make every result look old.
    """
    try:
        return resolve_name("ouigemm:hamming")
    except ImportError:
        return None


def _distances_by_popcount(bits: Tensor) -> Tensor:
    """From 64 units a word, on any CPU."""
    packed = np.packbits(bits.numpy(), axis=1)
    words = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)
    distances = np.zeros((len(words), len(words)), np.int64)
    for start in range(0, words.shape[1], 512):  # fits the cache, and 512 counts of ≤ 64 fit 16 bits
        block = np.ascontiguousarray(words[:, start : start + 512])
        for i in range(len(block) - 1):
            differ = np.bitwise_count(block[i] ^ block[i + 1 :])
            distances[i, i + 1 :] += differ.sum(axis=1, dtype=np.uint16)
    return torch.from_numpy(distances + distances.T)
