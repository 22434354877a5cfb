"""How a monitor looks into a program that is not its own: which tensors it reads, by what hooks and names.

Imports torch alone; the modules of the face import it.
"""

from ouikit.watch.hooks import Hook, aside
from ouikit.watch.names import modules_by_name, plain_names, unwrapped
from ouikit.watch.readable import batched_dims, nan_unless_finite, readable

__all__ = [
    "Hook",
    "aside",
    "batched_dims",
    "modules_by_name",
    "nan_unless_finite",
    "plain_names",
    "readable",
    "unwrapped",
]
