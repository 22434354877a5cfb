"""A small resource manager: a job asks over a local socket which size it shall take, and is told.

It stands where the paper has Slurm with a modified plug-in. One line of JSON asks, one answers.
"""

import json
import os
import socket
import socketserver
import threading
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

ADDRESS = "OUIKIT_MANAGER"
Answer = Callable[[int, int], int]


def steps(sizes: Mapping[int, int]) -> Answer:
    """An answer from a list: the job takes these sizes at these iterations, and keeps its size at all others.

    >>> answer = steps({2: 4})
    >>> answer(1, 1), answer(2, 1), answer(3, 4)
    (1, 4, 4)
    """
    return lambda iteration, size: sizes.get(iteration, size)


class Manager:
    """Answers on 127.0.0.1 while its `with` block is open. `address` is what a job finds it by.

    Args:
        answer: from iteration and size to the size that the job shall take.

    >>> with Manager(steps({2: 4})) as manager:
    ...     [ask(manager.address, iteration, 1) for iteration in (1, 2)]
    [1, 4]
    """

    def __init__(self, answer: Answer) -> None:
        self.asked: list[tuple[int, int]] = []
        asked = self.asked

        class Handler(socketserver.StreamRequestHandler):
            timeout = 5

            def handle(self) -> None:
                question = json.loads(self.rfile.readline())
                asked.append((question["iteration"], question["size"]))
                size = int(answer(question["iteration"], question["size"]))
                self.wfile.write(json.dumps({"size": size}).encode() + b"\n")

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: Any) -> None:
                """A job that hangs up, or asks nonsense, gets no answer, and keeps its size."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = "{}:{}".format(*self._server.server_address[:2])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def ask(address: str | None, iteration: int, size: int, timeout: float = 120.0) -> int:
    """The size that the manager gives; the job's own, with a warning, if no sensible answer comes in time.

    A manager that has to find nodes first may think for a while; one that is gone is noticed at once.
    Without a manager (no address) a job keeps its size.
    """
    if not address:
        return size
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout) as link, link.makefile("rw") as lines:
            lines.write(json.dumps({"iteration": iteration, "size": size}) + "\n")
            lines.flush()
            given = json.loads(lines.readline())["size"]
        if not isinstance(given, int) or given < 1:
            raise ValueError(f"a job has one process or more, not {given!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"the manager at {address} gave no size, {size} is kept: {error}", stacklevel=2)
        return size
    return given


def address() -> str | None:
    """Where this process's manager is, if it has one."""
    return os.environ.get(ADDRESS)
