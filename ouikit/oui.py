"""The two indicators that share the name OUI, as functions of a pattern and as a streaming object.

Both measure how varied the on/off patterns of a batch are, from 0 (all samples alike) to 1. They are
different numbers: the published band 0.6–0.8 belongs to `pairwise_oui` and must not be used with
`balance_oui`, where the same masks give about 0.37–0.55 if all units are equally active. For B samples and
layers of d units, `balance_oui` is biased by B and `pairwise_oui` by d: compare at equal B and d.

Both see each layer with equal weight, whatever its width.
"""

import math
import random
import warnings
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ouikit.patterns import (
    LOCK,
    Pattern,
    Watch,
    _outside,
    flat_bits,
    hamming_distances,
    listed,
    named_layers,
    positive,
)
from ouikit.watch import nan_unless_finite

Kind = Literal["pairwise", "balance"]
KINDS: dict[object, str] = {
    "pairwise": "`pairwise_oui`, the capped distance between the patterns of two samples (arXiv 2504.17160, "
    "Definition A.1), for which the band 0.6–0.8 is published",
    "balance": "`balance_oui`, the minority count of each unit (arXiv 2605.10161 and 2605.11571), for which "
    "no band is published",
}


def check_kind(kind: object) -> None:
    """TypeError where no kind is given, ValueError for an unknown one; both explain the choice."""
    if kind in KINDS:
        return
    choice = " or ".join(f"kind={name!r}: {meaning}" for name, meaning in KINDS.items())
    if kind is None:
        raise TypeError(f"OUI needs a kind, since two indicators share the name: {choice}")
    raise ValueError(f"kind = {kind!r} is unknown; choose {choice}")


def pairwise_oui(pattern: Pattern, pairs: Tensor | None = None) -> float:
    """Capped, normalised Hamming distance between the patterns of pairs of samples, in [0, 1].

    For a layer of d units, with H the number of units in which two samples differ and c = ⌊d/2⌋,
    the mean over pairs of min(H, c) / c: the cap is applied per pair, before averaging. Then the
    mean over layers. A layer of one unit, where c would be 0, is given c = 1.

    pattern: bool `[B, units…]`, or a dict or sequence of them (all with the same B ≥ 2).
    pairs: int64 `[P, 2]`, positions in the batch; None takes all B(B−1)/2. The paper's protocol is
    `pairwise_oui(pattern, fixed_pairs(B))`.

    Raises TypeError for a pattern that is not boolean; ValueError for B < 2, no layers, no units or
    positions outside the batch.

    Source: Fernández-Hernández et al., "OUI Need to Talk About Weight Decay", arXiv 2504.17160 (read from the
    authors' released code; the printed definition was not available).

    >>> pairwise_oui(torch.tensor([[True, True, False, False], [True, False, False, False]]))
    0.5
    """
    layers = _batch(pattern)
    if pairs is not None:
        _check_pairs(pairs, len(next(iter(layers.values()))))
    return _mean([float(_pairwise(bits, pairs)) for bits in layers.values()])


def fixed_pairs(batch_size: int, k: int = 28, seed: int = 0) -> Tensor:
    """min(k, B(B−1)/2) different pairs of batch positions, drawn without replacement.

    Returns int64 `[P, 2]` with i < j in each row; the same arguments give the same pairs. The paper
    (arXiv 2504.17160, authors' code) draws 28 once and uses them for all layers, batches and epochs.
    Raises ValueError for batch_size < 2 or k < 1.

    >>> fixed_pairs(2).tolist()
    [[0, 1]]
    """
    _check_samples(batch_size)
    if k < 1:
        raise ValueError(f"k = {k} pairs: at least 1 is needed")
    total = math.comb(batch_size, 2)
    ranks = random.Random(seed).sample(range(total), min(k, total))
    larger = [(1 + math.isqrt(1 + 8 * rank)) // 2 for rank in ranks]  # pair (i, j) has rank j(j−1)/2 + i
    return torch.tensor(
        [(rank - math.comb(j, 2), j) for rank, j in zip(ranks, larger, strict=True)], device="cpu"
    )


def balance_oui(pattern: Pattern) -> float:
    """Mean minority count of the units over a batch, in [0, 1].

    A unit that is on for s of the B samples counts min(s, B − s) / ⌊B/2⌋: 0 if it never changes, 1
    if it splits the batch in half. Mean over the units of a layer, then over layers.

    pattern: bool `[B, units…]`, or a dict or sequence of them (all with the same B).
    Raises TypeError for a pattern that is not boolean; ValueError for B < 2 (where the authors' code
    returns 0), no layers or no units.

    Source: "OUIDecay", arXiv 2605.10161, and "FedOUI", arXiv 2605.11571 (authors' code).

    >>> balance_oui(torch.tensor([[True], [False], [False], [False]]))
    0.5
    """
    return _mean([float(_balance(bits)) for bits in _batch(pattern).values()])


class OUI(Watch):
    """Reads an indicator from the batches of a running training loop.

        oui = OUI(model, kind="pairwise")
        for x, y in loader:          # … forward, backward, step: as ever
        oui.compute()                # mean over the batches read so far

    Every forward pass `model(x)` in the chosen mode gives a *reading*: the indicator of that batch,
    each layer with equal weight. `compute()` is the plain mean of the readings. Nothing is stored
    but sums, so memory does not grow; no gradient is touched; nothing waits for a GPU before
    `compute()`, unless all pairs are asked for. A smaller last batch counts like the others, and biases the
    balance indicator (see the module's text): use drop_last=True. Where a layer's pre-activations are not all
    finite, its value is nan, and so is every mean that contains it: a diverged network is not mistaken for a
    collapsed one. For a curve, call `take()` after every epoch.

    Nothing is raised inside a forward pass. What cannot be read there (a batch of one sample, a fake, sparse
    or vmapped tensor, …; the science reference has a table) is passed over and counted: `passed_over` holds
    layer → reason → how often since the last reset; `compute()` warns of layers that were never read, and
    raises where nothing was. Layers may see samples of their own number, as experts do: each is read on the
    rows of its own input, and `balance` depends on how many these are.

    Args:
        model: any module.
        kind: "pairwise" (`pairwise_oui`; the band 0.6–0.8 is this one's) or "balance" (`balance_oui`).
            Required.
        layers: as in `record_patterns`; None watches every gate module.
        pairs: for "pairwise": how many pairs are drawn by `fixed_pairs(B, pairs, seed)`, once for each batch
            size B; None takes all pairs.
        every: read one forward pass of this mode in so many, counted since the last `reset()`.
        first: the number of the first one, from 1. None is `every`, as in the paper's code: with every=10
            the passes 10, 20, … are read, and none where there are fewer. first=1 reads 1, 11, 21, …
        mode: "train", "eval" or "any": the mode of the model, `model.training`, that is read.
        seed: of the pairs.

    Under `torch.compile`, attach it before the first call: a model compiled earlier runs without the hooks,
    and a graph ends at each watched layer. Before torch.export or torch.jit.script, `close()` it.
    On a GPU a reading launches about ten small kernels a layer, which shows where launches are the limit: on
    an H200 a training step of a ResNet-18 on 512 images of 32×32 took 1.25 times as long in float32 and 1.4
    times under bfloat16; with `every=10` no longer than without.

    The protocol of arXiv 2504.17160 (in training mode, the batches 10, 20, … of an epoch, 28 fixed pairs) is
    `OUI(model, kind="pairwise", every=10)`, computed and reset after every epoch.

    Detach it with `close()`, or use it as a context manager. Raises TypeError without a kind, ValueError for
    a setting that does not exist, and as `record_patterns`.

    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU())
    >>> with OUI(model, kind="pairwise") as oui:
    ...     for _ in range(4):
    ...         _ = model(torch.randn(16, 3))
    >>> oui.readings, 0 <= oui.compute() <= 1
    (4, True)
    """

    samples = 2  # an indicator compares them

    def __init__(
        self,
        model: nn.Module,
        kind: Kind | None = None,
        *,
        layers: Iterable[str] | None = None,
        pairs: int | None = 28,
        every: int = 1,
        first: int | None = None,
        mode: Literal["train", "eval", "any"] = "train",
        seed: int = 0,
    ) -> None:
        check_kind(kind)
        if mode not in ("train", "eval", "any"):
            raise ValueError(f"mode = {mode!r}: choose 'train', 'eval' or 'any'")
        if every < 1 or (pairs is not None and pairs < 1):
            raise ValueError(f"every = {every} and pairs = {pairs} must be at least 1")
        if first is not None and first < 1:
            raise ValueError(f"first = {first}: passes are counted from 1")
        self.kind, self.pairs, self.mode, self.seed = kind, pairs, mode, seed
        self.every, self.first = every, every if first is None else first
        self.reset()
        super().__init__(model, layers)

    @property
    def settings(self) -> dict[str, Any]:
        """What defines a reading; a state can only be loaded where the settings are equal."""
        return {
            "kind": self.kind,
            "pairs": self.pairs,
            "every": self.every,
            "first": self.first,
            "mode": self.mode,
            "seed": self.seed,
        }

    @property
    def readings(self) -> int:
        """Number of batches read since the last reset."""
        return self._readings

    def compute(self) -> float:
        """The mean of the readings, in [0, 1]. Raises RuntimeError before the first one.

        Layers that ran and were never read are named in a warning.
        """
        self._check_read()
        unread = {n: reasons for n, reasons in self.passed_over.items() if n not in self._layers}
        if unread:
            warnings.warn(f"never read, and not in this mean: {listed(unread)}", stacklevel=_outside())
        return float(self._total) / self._readings

    def take(self) -> float:
        """`compute()`, then `reset()`: the mean of an epoch. Raises RuntimeError before the first reading."""
        mean = self.compute()
        self.reset()
        return mean

    def per_layer(self) -> dict[str, float]:
        """The same for each layer. Raises RuntimeError before the first reading."""
        self._check_read()
        return {name: float(total) / count for name, (total, count) in self._layers.items()}

    def reset(self) -> None:
        """Forget all readings and start counting forward passes anew."""
        self._passes = {"train": 0, "eval": 0}
        self._readings = 0
        self._total: Tensor | float = 0.0
        self._layers: dict[str, tuple[Tensor | float, int]] = {}
        self._passed_over = {}

    def state_dict(self) -> dict[str, Any]:
        """Settings and sums as plain numbers: goes into a checkpoint or JSON."""
        return {
            "settings": self.settings,
            "passes": dict(self._passes),
            "readings": self._readings,
            "total": float(self._total),
            "layers": {name: [float(total), count] for name, (total, count) in self._layers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict()`. Raises ValueError if its settings or layers differ from these."""
        if state["settings"] != self.settings:
            raise ValueError(f"the state was made with {state['settings']}, this OUI has {self.settings}")
        unknown = [name for name in state["layers"] if name.split("#")[0] not in self.layers]
        if unknown:
            raise ValueError(f"the state has layers that this model lacks: {', '.join(unknown)}")
        self.reset()
        self._passes.update(state["passes"])
        self._readings, self._total = state["readings"], state["total"]
        self._layers = {name: (total, count) for name, (total, count) in state["layers"].items()}

    def _check_read(self) -> None:
        if self._readings == 0:
            passed_over = f"; passed over: {listed(self.passed_over)}" if self.passed_over else ""
            raise RuntimeError(
                f"no reading yet: {self._passes['train']} forward passes in training mode and "
                f"{self._passes['eval']} in evaluation mode since the last reset; mode={self.mode!r} "
                f"is read, one in {self.every} from number {self.first}, by calls model(x), not "
                f"model.forward(x), of at least 2 samples{passed_over}"
            )

    def _begin(self) -> dict[str, Tensor] | None:
        mode = "train" if self.model.training else "eval"
        with LOCK:
            self._passes[mode] += 1
            number = sum(self._passes.values()) if self.mode == "any" else self._passes[mode]
        due = number >= self.first and (number - self.first) % self.every == 0
        return {} if due and self.mode in (mode, "any") else None

    def _see(self, kept: dict[str, Tensor], name: str, z: Tensor) -> None:
        # A diverged network is not a collapsed one. Before the gate: one in place overwrites what it was.
        kept[name] = self._read(flat_bits(positive(z), name)) + nan_unless_finite(z)

    def _read(self, bits: Tensor) -> Tensor:
        if self.kind == "balance":
            return _balance(bits)
        pairs = None if self.pairs is None else _drawn(len(bits), self.pairs, self.seed, bits.device)
        return _pairwise(bits, pairs)

    def _end(self, kept: dict[str, Tensor], ran: Collection[str]) -> None:
        if not kept:
            return
        *_, last = kept.values()
        mean: Any = sum(value.to(last.device) for value in kept.values()) / len(kept)
        with LOCK:
            self._total = _plus(self._total, mean)
            self._readings += 1
            for name, value in kept.items():
                total, count = self._layers.get(name, (0.0, 0))
                self._layers[name] = (_plus(total, value), count + 1)


def _plus(total: Tensor | float, value: Tensor) -> Tensor:
    """Replicas of a model are on devices of their own; a sum stays where it began."""
    return total + (value.to(total.device) if isinstance(total, Tensor) else value)


def _balance(bits: Tensor) -> Tensor:
    samples, units = bits.shape
    on = _times_on(bits)
    return _share(torch.minimum(on, samples - on).sum(), units * (samples // 2))


def _times_on(bits: Tensor) -> Tensor:
    """For how many samples each unit is on: bool `[B, d]` -> int `[d]`.

    On a CPU in bytes, where a plain bool sum takes 20 times as long.
    """
    if bits.device.type != "cpu":
        return bits.sum(0)
    counts = np.zeros(bits.shape[1], np.int32)
    for chunk in bits.split(255):  # as many ones as a byte can count
        counts += np.add.reduce(chunk.numpy().view(np.uint8), axis=0, dtype=np.uint8)
    return torch.from_numpy(counts)


def _pairwise(bits: Tensor, pairs: Tensor | None) -> Tensor:
    samples, units = bits.shape
    cap = max(units // 2, 1)
    if pairs is None:  # the symmetric matrix has each pair twice
        return _share(hamming_distances(bits).clamp(max=cap).sum(), cap * samples * (samples - 1))
    chunks = pairs.to(bits.device).split(32)  # bounds the memory at 32 d bytes
    distances = torch.cat([(bits[chunk[:, 0]] ^ bits[chunk[:, 1]]).sum(1) for chunk in chunks])
    return _share(distances.clamp(max=cap).sum(), cap * len(pairs))


def _share(part: Tensor, whole: int) -> Tensor:
    """part / whole in float64 (float32 on Apple GPUs, which have nothing longer)."""
    return part.to(torch.float32 if part.device.type == "mps" else torch.float64) / whole


@lru_cache(maxsize=16)
def _drawn(batch_size: int, k: int, seed: int, device: torch.device) -> Tensor:
    return fixed_pairs(batch_size, k, seed).to(device)


def _batch(pattern: Pattern) -> dict[str, Tensor]:
    """Checked layers, flattened to `[B, d]`, all with the same B ≥ 2."""
    layers = {name: flat_bits(bits, name) for name, bits in named_layers(pattern).items()}
    samples = len(next(iter(layers.values())))
    for name, bits in layers.items():
        _check_agree(name, len(bits), samples)
    _check_samples(samples)
    return layers


def _check_agree(name: str, samples: int, expected: int) -> None:
    if samples != expected:
        raise ValueError(
            f"layer {name!r} has {samples} samples, the layers before it {expected}: the first dimension "
            "must be the samples in all of them; choose such layers with layers="
        )


def _check_samples(samples: int) -> None:
    if samples < 2:
        raise ValueError(f"B = {samples}: an indicator compares samples, so a batch needs at least 2")


def _check_pairs(pairs: Tensor, samples: int) -> None:
    if not isinstance(pairs, Tensor) or pairs.dtype != torch.int64:
        raise TypeError(f"pairs must be an int64 tensor, e.g. fixed_pairs({samples})")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) == 0:
        raise ValueError(f"pairs must be [P, 2] with P ≥ 1, not {tuple(pairs.shape)}")
    if pairs.min() < 0 or pairs.max() >= samples:
        raise ValueError(
            f"pairs name positions {int(pairs.min())} to {int(pairs.max())}; the batch has 0 to {samples - 1}"
        )
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise ValueError("pairs has a sample paired with itself")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
