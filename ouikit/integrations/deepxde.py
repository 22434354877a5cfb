"""DeepXDE, a library for physics-informed networks, beside torch code that it must not disturb.

Imported by itself it has every new tensor of the process made on a GPU, where there is one, and its float
type is torch's default type as well. Here it runs on torch, leaves the device alone, and its type holds for
a block::

    with double_precision() as dde:
        line = dde.geometry.Interval(0, 1)
        ...                       # dde is the module `deepxde`

Our equations (`ouikit.data.pde`) and `ouikit.optim.StableGrad` are tested against it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from types import ModuleType

import torch

os.environ["DDE_BACKEND"] = "pytorch"
_device = torch.get_default_device()
try:
    with redirect_stderr(StringIO()):  # it announces its backend
        import deepxde
except ImportError as error:
    raise ImportError("this module needs DeepXDE: pip install 'ouikit[pde]'") from error
if torch.get_default_device() != _device:
    torch.set_default_device(_device)


@contextmanager
def double_precision() -> Iterator[ModuleType]:
    """DeepXDE, and torch's new tensors, in float64 for the length of a block; yields the library.

    >>> with double_precision() as dde:
    ...     network = dde.nn.FNN([1, 4, 1], "tanh", "Glorot normal")
    >>> network.linears[0].weight.dtype, torch.get_default_dtype()
    (torch.float64, torch.float32)
    """
    before, dtype = deepxde.config.default_float(), torch.get_default_dtype()
    _set_float("float64")
    try:
        yield deepxde
    finally:
        _set_float(before)
        torch.set_default_dtype(dtype)


def _set_float(name: str) -> None:
    with redirect_stdout(StringIO()):  # it announces that, too
        deepxde.config.set_default_float(name)
