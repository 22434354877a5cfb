"""Hooks that neither change what torch makes of a model nor let it see what a monitor computes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

CLOSE_FIRST = "an indicator is read in this model: close() the OUI first, and attach it again afterwards"


def aside() -> AbstractContextManager[object]:
    """Computes outside the modes and transforms of torch that are active: they see none of it.

    Such as FlopCounterMode, selective checkpointing, make_fx, torch.func.grad or a default device.
    """
    core = torch._C
    transformed = core._functorch.peek_interpreter_stack() is not None
    if not (transformed or core._len_torch_dispatch_stack() or core._len_torch_function_stack()):
        return nullcontext()
    stack = ExitStack()
    if transformed:
        from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

        stack.enter_context(temporarily_clear_interpreter_stack())
    stack.enter_context(_disable_current_modes())
    stack.enter_context(core.DisableTorchFunction())
    return stack


class Hook:
    """A hook that torch.compile leaves out of its graphs, and that torch.jit.script refuses by a sentence."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = call

    def __call__(self, *args: Any) -> None:
        if torch.compiler.is_compiling():
            _uncompiled()(self.call, *args)
        else:
            self.call(*args)

    @property
    def __name__(self) -> str:  # the first thing that torch.jit.script wants to know
        raise AttributeError(CLOSE_FIRST)


_UNCOMPILED: list[Callable[..., None]] = []


def _uncompiled() -> Callable[..., None]:
    """Made when it is needed: the compiler takes seconds to import."""
    if not _UNCOMPILED:
        _UNCOMPILED.append(torch.compiler.disable(_call, reason=CLOSE_FIRST))
    return _UNCOMPILED[0]


def _call(call: Callable[..., None], *args: Any) -> None:
    call(*args)
