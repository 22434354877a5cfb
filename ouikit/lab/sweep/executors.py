"""Engines of a sweep, all behind the standard `concurrent.futures.Executor`."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from queue import SimpleQueue
from typing import Any

from loky import ProcessPoolExecutor, cpu_count

from ouikit.lab.sweep import worker
from ouikit.lab.sweep.progress import say

FEDERATED = "ouikit.fl.run.apps"  # the module that the engines of Flower run


@dataclass(frozen=True)
class Engine:
    """An executor and how many cells it should hold at a time (asked again as workers come and go)."""

    executor: Executor
    capacity: Callable[[], int]


@contextmanager
def start(engine: str | Executor, jobs: int | None) -> Iterator[Engine]:
    """Start an engine; stop it on leaving, its running cells too if that is by an exception.

    `"local"`: `jobs` processes (default: one per CPU; 0: in this process); `"dask://HOST:PORT"`: the workers
    of a Dask scheduler; an Executor is used as it is, `jobs` cells at a time, and left running.
    `"flower-sim"`, `"flower://HOST:PORT"`: the cells one after the other in this process, where each finds
    the name in the environment's OUIKIT_ENGINE and hands its federation over to Flower.
    Raises ValueError for another engine, ConnectionError where no scheduler answers.
    """
    if jobs is not None and jobs < 0:
        raise ValueError(f"jobs={jobs}; use 0 (in this process) or the number of workers")
    slots = jobs or cpu_count()
    if isinstance(engine, Executor):
        yield Engine(engine, lambda: slots)
    elif engine == "local" and jobs == 0:
        yield Engine(ThisProcess(), lambda: 1)
    elif engine == "local":
        with _stopped(LocalWorkers(slots)) as executor:
            yield Engine(executor, lambda: slots)
    elif flower(engine):
        with _named(engine):
            yield Engine(ThisProcess(), lambda: 1)
    elif address := re.fullmatch(r"dask://([^/\s]+:\d+)", engine):
        with _dask(address[1]) as found:
            yield found
    else:
        known = ["local", "dask://HOST:PORT", "flower-sim", "flower://HOST:PORT"]
        near = get_close_matches(engine, known, 1, 0.3)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown engine {engine!r}; {hint}There are {', '.join(known)}, and Executors")


def flower(engine: str | Executor) -> str:
    """The kind of an engine of Flower, "flower-sim" or "flower"; empty for every other engine.

    What such an engine computes is kept apart from what others did; addresses do not matter.
    """
    if engine == "flower-sim":
        return "flower-sim"
    return "flower" if isinstance(engine, str) and re.fullmatch(r"flower://[^/\s]+:\d+", engine) else ""


class ThisProcess(Executor):
    """Calls at once, in this process: for a debugger."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished future of `fn(*args, **kwargs)`; exceptions pass through."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class LocalWorkers(Executor):
    """Processes on this machine, never forked, each a pool of its own: one that dies takes only its own call.

    `submit` starts a process where none is idle, and blocks while all `jobs` are busy.
    """

    def __init__(self, jobs: int) -> None:
        self._idle: SimpleQueue[ProcessPoolExecutor | None] = SimpleQueue()
        for _ in range(jobs):
            self._idle.put(None)  # a place whose process starts when it is needed
        self._pools: list[ProcessPoolExecutor] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` in an idle process; one that has died is replaced."""
        pool = self._idle.get() or self._new_pool()
        try:
            future = pool.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            self._pools.remove(pool)
            pool = self._new_pool()
            future = pool.submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: self._idle.put(pool))
        return future

    def _new_pool(self) -> ProcessPoolExecutor:
        start, parent = worker.start, (os.getpid(),)
        pool = ProcessPoolExecutor(1, env=worker.ONE_THREAD, initializer=start, initargs=parent)
        self._pools.append(pool)
        return pool

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the processes end by themselves, or, with `cancel_futures`, kill them."""
        for pool in self._pools:
            pool.shutdown(wait=wait, kill_workers=cancel_futures)


@contextmanager
def _named(engine: str) -> Iterator[None]:
    before = os.environ.get("OUIKIT_ENGINE")
    os.environ["OUIKIT_ENGINE"] = engine
    try:
        yield
    finally:
        os.environ.pop("OUIKIT_ENGINE")
        if before is not None:
            os.environ["OUIKIT_ENGINE"] = before


@contextmanager
def _stopped(executor: Executor) -> Iterator[Executor]:
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=True, cancel_futures=True)
        raise
    executor.shutdown(wait=False)  # results are in; nobody needs to wait for processes that end


@contextmanager
def _dask(address: str) -> Iterator[Engine]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(f"engine dask://{address} needs Dask: pip install 'ouikit[cluster]'") from error
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=10).close()  # Dask would try for half a minute
    except OSError as error:
        raise ConnectionError(f"no Dask scheduler answers at {address} ({error}); is it running?") from error
    with Client(f"tcp://{address}", set_as_default=False) as client:
        if not client.nthreads():
            say(f"dask://{address} has no workers yet; waiting for the first")
        executor = client.get_executor(pure=False)
        try:
            yield Engine(executor, partial(_dask_capacity, client))
        finally:
            executor.shutdown(wait=False)  # cancels what is still running


def _dask_capacity(client: Any) -> int:
    """One cell at work and one waiting per worker, each with one thread: cells seed global generators."""
    threads = client.nthreads()
    if threaded := [address for address, count in threads.items() if count > 1]:
        raise ValueError(
            f"the Dask worker {threaded[0]} runs several threads; start workers with --nthreads 1"
        )
    return max(1, 2 * len(threads))
