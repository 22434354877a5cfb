"""What a federated run leaves, and its checkpoint: files are complete or absent, and checked when read."""

import hashlib
import io
import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ouikit.data.dataset import fingerprint

CHECKPOINT = "checkpoint.pt"
_DIGEST = 64  # hex digits of SHA-256; a newline follows


@dataclass(frozen=True)
class Outcome:
    """What a federated run leaves, after its last round or in between.

    arrays: the global model, a state dict. rounds: one {round, accuracy, loss} per round, 0 being the initial
    model, on the test split. contributions, faults: as in `ouikit.fl.PairedFedAvg`. state: what else the
    strategy remembers (`PairedFedAvg.state`). resumed: the rounds after which the run was resumed.
    """

    arrays: dict[str, Tensor]
    rounds: list[dict[str, float]] = field(default_factory=list)
    contributions: list[dict[str, float]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    resumed: list[int] = field(default_factory=list)

    def checksum(self) -> str:
        """sha256 (hex) of the weights, to the last bit."""
        return fingerprint(self.arrays.values())

    def json(self) -> str:
        """Everything but the weights, and their checksum, in strict JSON; equal outcomes give equal text.

        A number that is not finite stands as `{"float": "nan"}`, `{"float": "inf"}` or `{"float": "-inf"}`.
        """
        rest = {name: value for name, value in vars(self).items() if name != "arrays"}
        whole = _finite({"checksum": self.checksum(), **rest})
        return json.dumps(whole, sort_keys=True, allow_nan=False)

    @classmethod
    def of(cls, arrays: dict[str, Tensor], text: str) -> Self:
        """From the weights, and the text that `json` made of the rest.

        Raises:
            ValueError: the checksum is that of other weights.
        """
        rest = json.loads(text, object_hook=_number)
        checksum = rest.pop("checksum")
        outcome = cls(arrays, **rest)
        if outcome.checksum() != checksum:
            raise ValueError("the weights do not have the checksum of the outcome: a file is damaged")
        return outcome

    def save(self, folder: Path) -> None:
        """Write `weights.pt` (`torch.load(…, weights_only=True)`), then `outcome.json`, into a folder."""
        buffer = io.BytesIO()
        torch.save(self.arrays, buffer)
        _write(folder / "weights.pt", buffer.getvalue())
        _write(folder / "outcome.json", self.json().encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote; needs no Flower. Raises FileNotFoundError; ValueError as `of`."""
        arrays = torch.load(folder / "weights.pt", weights_only=True)
        return cls.of(arrays, (folder / "outcome.json").read_text())


def save_checkpoint(folder: Path, config: Mapping[str, Any], so_far: Outcome) -> None:
    """Write `checkpoint.pt` of the run with this configuration, in the place of the one before.

    A line with the SHA-256 of the rest, and the rest as `torch.save` writes it: tensors and text, no code.
    """
    buffer = io.BytesIO()
    torch.save({"config": _text(config), "outcome": so_far.json(), "arrays": so_far.arrays}, buffer)
    content = buffer.getvalue()
    _write(folder / CHECKPOINT, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def load_checkpoint(folder: Path, config: Mapping[str, Any]) -> Outcome | None:
    """The checkpoint in a folder; None where there is none.

    None, too, with a RuntimeWarning, where the file is not what was written, or belongs to a run with another
    configuration: such a run starts from the beginning.
    """
    path = folder / CHECKPOINT
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, content = whole[:_DIGEST], whole[_DIGEST + 1 :]
    reason = "is damaged"
    if hashlib.sha256(content).hexdigest().encode() == digest:
        kept = torch.load(io.BytesIO(content), weights_only=True)
        if kept["config"] == _text(config):
            return Outcome.of(kept["arrays"], kept["outcome"])
        reason = "belongs to a run with another configuration"
    warnings.warn(f"{path} {reason}; the run starts from the beginning", RuntimeWarning, stacklevel=2)
    return None


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(float(value))}
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _number(fields: dict[str, Any]) -> Any:
    return float(fields["float"]) if fields.keys() == {"float"} else fields


def _text(config: Mapping[str, Any]) -> str:
    return json.dumps(dict(config), sort_keys=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")  # that of a killed run is written over
    part.write_bytes(content)
    os.replace(part, path)
