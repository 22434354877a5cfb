"""Kernels of runs and tests: what they say goes to the reader's terminal, so only what matters."""

import logging

# Progress bars go to the terminal that started the run, not into the notebook:
# without this, ipykernel captures file descriptor 2 as well. (IPython provides `c`.)
c.IPKernelApp.capture_fd_output = False  # type: ignore[name-defined]  # noqa: F821
# IPython's own exit() and quit() let later cells run, or not, as it happens; sys.exit stops.
c.InteractiveShellApp.exec_lines = ["from sys import exit, exit as quit"]  # type: ignore[name-defined]  # noqa
# "Kernel is running over TCP" at each start; "KeyboardInterrupt caught", "Uncaught exception in ZMQStream
# callback" and "Task was destroyed" at the end: nothing a reader can act on.
c.IPKernelApp.log_level = logging.CRITICAL  # type: ignore[name-defined]  # noqa: F821
for name in ("asyncio", "tornado"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
