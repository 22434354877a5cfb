"""What a long computation tells the terminal, and nothing of it in an executed notebook."""

import os
import sys
from typing import Any

from tqdm import tqdm


def bar(title: str, total: int, done: int = 0, wanted: bool | None = None) -> Any:
    """A tqdm bar on the terminal's own stderr; silent where that is no terminal.

    `wanted` True or False settles it; the environment's OUIKIT_PROGRESS=1 or 0 settles it over all.
    """
    terminal = sys.__stderr__ is not None and sys.__stderr__.isatty()
    show = {"1": True, "0": False}.get(os.environ.get("OUIKIT_PROGRESS", ""), wanted)
    hidden = not (terminal if show is None else show)
    return tqdm(total=total, initial=done, desc=title, file=sys.__stderr__, mininterval=0.2, disable=hidden)


def say(message: str) -> None:
    """One line on the terminal's stderr, above a running bar."""
    tqdm.write(message, file=sys.__stderr__)
