"""Text as characters: the manual that ships with CPython, for language models that need no download."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Text:
    """A text as positions in its alphabet.

    Attributes:
        name: what was read.
        characters: the alphabet, sorted.
        train, validation: int64 `[N]`, the head and the tail of the text.
        checksum: sha256 (hex) of the text in UTF-8.
    """

    name: str
    characters: tuple[str, ...]
    train: Tensor
    validation: Tensor
    checksum: str


@lru_cache(maxsize=4)
def python_manual(validation: float = 0.1) -> Text:
    """The topics of Python's `help()`, one after the other; the last share of them is for validation.

    The text differs a little between releases of Python: the checksum tells.

    Raises ValueError for a share outside (0, 1).

    >>> text = python_manual()
    >>> text.characters[:2], len(text.train) > 300_000
    (('\\n', ' '), True)
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation is a share between 0 and 1: got {validation}")
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    characters = tuple(sorted(set(text)))
    position = {character: i for i, character in enumerate(characters)}
    ids = torch.tensor([position[character] for character in text])
    cut = round(len(ids) * (1 - validation))
    return Text("python_manual", characters, ids[:cut], ids[cut:], hashlib.sha256(text.encode()).hexdigest())


def windows(ids: Tensor, context: int, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Characters `[B, context]` from these starts on, and the one that follows each, int64 `[B]`.

    Raises ValueError for a start from which no window fits.

    >>> windows(torch.tensor([5, 6, 7, 8]), 2, torch.tensor([0, 1]))
    (tensor([[5, 6],
            [6, 7]]), tensor([7, 8]))
    """
    if len(starts) and not 0 <= int(starts.min()) <= int(starts.max()) < len(ids) - context:
        raise ValueError(
            f"starts must lie in 0 … {len(ids) - context - 1}, so that a window of {context} fits"
        )
    found = ids[starts[:, None] + torch.arange(context + 1)]
    return found[:, :-1], found[:, -1]
