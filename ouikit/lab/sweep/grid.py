"""The calls of a sweep: every point of a grid with every seed, checked before anything is computed."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import product
from typing import Any

import numpy as np

from ouikit.lab.keys import canonical

Grid = Mapping[str, Iterable[Any]] | Iterable[Mapping[str, Any]]
Arguments = dict[str, Any]


def calls(grid: Grid, seeds: Iterable[int]) -> list[Arguments]:
    """Every point with every seed, in the order given: the product of a mapping's values, or a list's points.

    Raises TypeError for values that JSON cannot hold or seeds that are no integers, ValueError for none.
    """
    listed = list(seeds)
    if not listed:
        raise ValueError("seeds is empty; give at least one")
    for seed in listed:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise TypeError(f"seed {seed!r} is not an integer")
    found = [{**point, "seed": int(seed)} for point in _points(grid) for seed in listed]
    if not found:
        raise ValueError("the grid has no points")
    return found


def _points(grid: Grid) -> Iterator[Arguments]:
    if isinstance(grid, Mapping):
        for name, values in grid.items():
            if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
                raise TypeError(f"the grid's {name!r} is {values!r}; give a list of values")
        points: Iterable[Mapping[str, Any]] = (
            dict(zip(grid, values, strict=True)) for values in product(*grid.values())
        )
    else:
        points = grid
    for point in points:
        if "seed" in point:
            raise ValueError(f"the point {dict(point)} names a seed; give seeds=[…] beside the grid")
        yield {name: _checked(name, value) for name, value in point.items()}


def _checked(name: str, value: Any) -> Any:
    try:
        canonical(value)
    except TypeError as error:
        raise TypeError(f"the grid's {name!r}: {error}") from None
    return value.item() if isinstance(value, np.generic) else value


def check_call(cell: Callable[..., Any], arguments: Arguments) -> None:
    """Raise TypeError, with the nearest name, where `cell` does not take these arguments."""
    signature = inspect.signature(cell)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        near = [
            name
            for wrong in sorted(arguments.keys() - signature.parameters.keys())
            for name in get_close_matches(wrong, signature.parameters, 1)
        ]
        hint = f"; did you mean {near[0]!r}?" if near else ""
        name = getattr(cell, "__name__", repr(cell))
        raise TypeError(
            f"{name}{signature} cannot be called with {label(arguments)}: {error}{hint}"
        ) from None


def label(arguments: Arguments) -> str:
    """A call as a reader writes it: `lr=0.1, seed=0`."""
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
