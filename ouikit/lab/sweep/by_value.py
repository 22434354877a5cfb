"""A cell as bytes for another process: its functions by value, those behind `functools.cache` too."""

import functools
import io
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle


def dumps(cell: Callable[..., Any]) -> bytes:
    """What `pickle.loads` makes the cell of, in a process that does not know the notebook.

    cloudpickle sends a notebook's functions whole, but of a cached one it sends the name alone, which no
    worker knows. The cache starts empty there.
    """
    with io.BytesIO() as file:
        _Pickler(file).dump(cell)
        return file.getvalue()


class _Pickler(cloudpickle.CloudPickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, functools._lru_cache_wrapper) and obj.__module__ == "__main__":
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        return super().reducer_override(obj)


def _cached(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., Any]:
    return functools.lru_cache(**parameters)(function)
