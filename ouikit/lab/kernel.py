"""A notebook in a kernel of this very interpreter: run to its last cell, or to the cell where it stopped."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from ouikit.lab import notebook
from ouikit.lab.tables import uncoloured

UNANSWERED = "before replying to kernel_info"  # what jupyter_client says of a kernel that died at its start


class StoppedError(RuntimeError):
    """The notebook did not reach its end; the message says why."""


class OurKernel(AsyncKernelManager):
    """A kernel of the Python that runs us: a spec of the kernel's name may belong to another Python."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """What starts it, from this interpreter's own ipykernel."""
        return KernelSpec(**get_kernel_dict())


def execute(source: Path, copy: Path, parameters: Mapping[str, Any], cwd: Path) -> None:
    """Run a notebook with parameters in the folder `cwd`; `copy` holds what was executed, also on failure.

    Raises:
        StoppedError: if a cell raised or ended the program, or the kernel died or did not start.
    """
    for name in ("asyncio", "papermill"):  # what they say of a stop or a dead kernel, we say in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        nb = _started(
            lambda: papermill.execute_notebook(
                _verbatim(source),
                _verbatim(copy),
                parameters=dict(parameters),
                progress_bar=False,
                cwd=cwd,
                kernel_name=notebook.KERNEL["name"],
                kernel_manager_class=OurKernel,
            )
        )
    except PapermillExecutionError as error:
        raise StoppedError(_plain(error.ename, error.evalue)) from error
    except DeadKernelError as error:
        raise StoppedError("its kernel was killed (out of memory?) or crashed") from error
    except (RuntimeError, TimeoutError) as error:  # no kernel came up, or it fell silent
        raise StoppedError(_plain(type(error).__name__, str(error))) from error
    if _exited(nb):
        raise StoppedError("SystemExit; a chapter runs to its last cell")
    for name in ("input_path", "output_path"):  # of this machine, and passing
        nb.metadata.papermill.pop(name, None)
    nbformat.write(nb, copy)


def _started(run: Callable[[], nbformat.NotebookNode]) -> nbformat.NotebookNode:
    """Run; a kernel that died before it answered ran nothing and is started anew, twice at most.

    Ports are chosen before they are bound: with several kernels starting, another may take one in between.
    """
    for _ in range(2):
        try:
            return run()
        except RuntimeError as error:
            if UNANSWERED not in str(error):
                raise
    return run()


def last_begun(copy: Path) -> str:
    """The code cell that an executed copy reached, in words: `code cell 3 of 8, which begins with: x = 1`.

    Empty where the kernel began none.
    """
    cells = notebook.own_cells(notebook.read(copy))
    begun = [i for i, cell in enumerate(cells, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    if not begun:
        return ""
    lines = cells[begun[-1] - 1].source.strip().splitlines()
    return f"code cell {begun[-1]} of {len(cells)}, which begins with: {lines[0] if lines else ''}"


def _exited(nb: nbformat.NotebookNode) -> bool:
    """Whether a cell ended the program, which papermill takes for a good end if the exit code is 0."""
    outputs = (output for cell in nb.cells for output in cell.get("outputs", ()))
    return any(output.get("ename") == "SystemExit" for output in outputs)


def _plain(kind: str, message: str) -> str:
    return uncoloured(f"{kind}: {message}" if message else kind)


def _verbatim(path: Path) -> str:
    """A path for papermill, which would put parameters in the place of braces."""
    return os.fspath(path).replace("{", "{{").replace("}", "}}")
