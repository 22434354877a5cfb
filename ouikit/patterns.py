"""Activation patterns: which units of a network are on for which samples of a batch.

The bit of a unit is `z > 0`, strictly, where z is its pre-activation: an exactly zero one is off.
A pattern is a bool tensor `[B, units…]`; its first dimension is always the samples.
"""

import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache, partial
from pkgutil import resolve_name
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ouikit.gates import gate_modules, is_gate, unregistered_gates
from ouikit.watch import Hook, aside, batched_dims, modules_by_name, plain_names, readable, unwrapped

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
    found. What cannot be read is missing, and named in a warning at the end of the block: nothing is raised
    inside a forward pass. `ouikit.watch.readable` says what can be read.

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


class _Pass:
    """One call of the model: what is kept of it, how often each layer ran, and what was being handled."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept
        self.uses: Counter[str] = Counter()
        self.exception = sys.exception()


class _Threads(threading.local):
    """The pass that is open in each thread. A copy of a watch has none."""

    open: _Pass | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Threads, ()


LOCK = threading.Lock()  # of the sums that passes of several threads go into


class Watch:
    """Hooks that hand each watched pre-activation of a call of `model` to `_see(kept, name, z)`.

    A subclass says in `_begin` what it keeps of this forward pass, None where it does not want it, and closes
    it in `_end`, which also hears which layers ran. Layers that run outside a call of `model` are not seen:
    gradient checkpointing repeats them in the backward pass. A pass belongs to its thread, and one that
    raises is dropped. Nothing is raised inside a pass: what cannot be read is passed over, and counted.

    Hooks are objects, not closures, so that a watched model can be pickled and deep-copied; such a copy is
    watched by a copy of the watch.
    """

    samples = 0  # how many of them a tensor must have to be read

    def __init__(self, model: nn.Module, layers: Iterable[str] | None = None) -> None:
        self.layers = _choose(model, layers)
        self.model = unwrapped(model)
        self._threads = _Threads()
        self._passed_over: dict[str, Counter[str]] = {}
        self._handles = [self.model.register_forward_pre_hook(Hook(self._enter))]
        for name, module in self.layers.items():
            if is_gate(module):
                hook = Hook(partial(self._gate_input, name))
                self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                hook = Hook(partial(self._layer_output, name, batched_dims(module)))
                self._handles.append(module.register_forward_hook(hook))
        self._handles.append(self.model.register_forward_hook(Hook(self._leave), always_call=True))

    @property
    def passed_over(self) -> dict[str, dict[str, int]]:
        """What could not be read: layer → reason → how often."""
        return {name: dict(reasons) for name, reasons in self._passed_over.items()}

    def close(self) -> None:
        """Take every hook off the model. Calling it again does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._threads = _Threads()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(self) -> Any:
        raise NotImplementedError

    def _see(self, kept: Any, name: str, z: Tensor) -> None:
        raise NotImplementedError

    def _end(self, kept: Any, ran: Collection[str]) -> None:
        raise NotImplementedError

    def _enter(self, model: nn.Module, args: Any) -> None:
        kept = self._begin()
        self._threads.open = None if kept is None else _Pass(kept)

    def _leave(self, model: nn.Module, args: Any, output: Any) -> None:
        now, self._threads.open = self._threads.open, None
        # Also called where the pass has raised: then an exception is being handled that was not before.
        if now is not None and now.exception is sys.exception():
            with aside():
                self._end(now.kept, now.uses)

    def _gate_input(self, name: str, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._use(name, 2, args[0] if args else next(iter(kwargs.values()), None))

    def _layer_output(self, name: str, dims: int, module: nn.Module, args: Any, output: Any) -> None:
        self._use(name, dims, output)

    def _use(self, name: str, dims: int, z: Any) -> None:
        now = self._threads.open
        if now is None:
            return
        now.uses[name] += 1
        if now.uses[name] > 1:
            name = f"{name}#{now.uses[name]}"
        try:
            with aside():
                tensor = readable(z, self.samples, dims)
                if isinstance(tensor, Tensor):
                    self._see(now.kept, name, tensor)
                    return
        except Exception as error:  # such as too little memory: the training comes before its monitor
            tensor = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        with LOCK:
            self._passed_over.setdefault(name, Counter())[tensor] += 1


def listed(passed_over: Mapping[str, Mapping[str, int]]) -> str:
    """One line: layers, reasons, how often."""
    return "; ".join(
        f"{name}: {', '.join(f'{reason} ({count}×)' for reason, count in reasons.items())}"
        for name, reasons in passed_over.items()
    )


class _Recorder(Watch):
    """Keeps the patterns of the last forward pass."""

    def __init__(self, model: nn.Module, layers: Iterable[str] | None) -> None:
        self.patterns: dict[str, Tensor] = {}
        super().__init__(model, layers)

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        if self.passed_over and exception[0] is None:
            warnings.warn(f"not recorded: {listed(self.passed_over)}", stacklevel=_outside())

    def _begin(self) -> dict[str, Tensor]:
        self.patterns.clear()
        self._passed_over.clear()
        return {}

    def _see(self, kept: dict[str, Tensor], name: str, z: Tensor) -> None:
        kept[name] = positive(z)

    def _end(self, kept: dict[str, Tensor], ran: Collection[str]) -> None:
        with LOCK:
            self.patterns.clear()
            self.patterns.update(kept)


def _choose(model: nn.Module, layers: Iterable[str] | None) -> dict[str, nn.Module]:
    """The modules to watch, by name."""
    if layers is None:
        found, passed_over = gate_modules(model), unregistered_gates(model)
        title = type(unwrapped(model)).__name__
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
    modules, plain = modules_by_name(model, duplicates=True), plain_names(model)
    names = [plain.get(name, name) for name in names]
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
