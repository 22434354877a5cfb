"""What a long computation tells the terminal, and nothing of it in an executed notebook."""

import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

NOTES = "OUIKIT_CELLS"  # names a file: sweeps note their cells there for the bar of the whole book


def bar(title: str, total: int, done: int = 0, wanted: bool | None = None) -> Any:
    """A tqdm bar on the terminal's own stderr; silent where that is no terminal.

    `wanted` True or False settles it; the environment's OUIKIT_PROGRESS=1 or 0 settles it over all. Where the
    whole book is run, the cells are noted for its own bar instead.
    """
    if notes := os.environ.get(NOTES):
        return _Notes(Path(notes), total, done)
    terminal = sys.__stderr__ is not None and sys.__stderr__.isatty()
    show = {"1": True, "0": False}.get(os.environ.get("OUIKIT_PROGRESS", ""), wanted)
    hidden = not (terminal if show is None else show)
    return tqdm(total=total, initial=done, desc=title, file=sys.__stderr__, mininterval=0.2, disable=hidden)


class _Notes:
    """Looks like a bar; appends a line of two numbers, cells done and cells to do, to a file."""

    def __init__(self, path: Path, total: int, done: int) -> None:
        self._path = path
        self._note(done, total)

    def __enter__(self) -> "_Notes":
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self) -> None:
        self._note(1, 0)

    def set_postfix_str(self, _: str) -> None: ...

    def _note(self, done: int, total: int) -> None:
        with self._path.open("a") as file:
            file.write(f"{done} {total}\n")


def counts(path: Path) -> tuple[int, int]:
    """Cells done and cells in all that sweeps have noted so far; a line that is half written waits."""
    try:
        lines = path.read_text().split("\n")[:-1]
    except OSError:
        return 0, 0
    pairs = [line.split() for line in lines]
    return sum(int(done) for done, _ in pairs), sum(int(total) for _, total in pairs)


def say(message: str) -> None:
    """One line on the terminal's stderr, above a running bar."""
    tqdm.write(message, file=sys.__stderr__)
