"""Engines of a sweep, all behind the standard `concurrent.futures.Executor`."""

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from loky import ProcessPoolExecutor, cpu_count

from ouikit.lab.spec import Engine
from ouikit.lab.sweep import worker
from ouikit.lab.sweep.progress import say


@dataclass(frozen=True)
class Started:
    """An executor and how many cells it should hold at a time (asked again as workers come and go)."""

    executor: Executor
    capacity: Callable[[], int]


@contextmanager
def start(engine: Engine | Executor, jobs: int | None) -> Iterator[Started]:
    """Start an engine; stop it on leaving, its running cells too if that is by an exception.

    `local`: `jobs` processes (default: one per CPU; 0: in this process); `dask`: the workers of a Dask
    scheduler; an Executor is used as it is, `jobs` cells at a time, and left running. `flower-sim`, `flower`:
    the cells one after the other in this process, where each finds the engine's name in the environment's
    OUIKIT_ENGINE and hands its federation over to Flower.
    Raises ValueError for a negative number of jobs, ConnectionError where no scheduler answers.
    """
    if jobs is not None and jobs < 0:
        raise ValueError(f"jobs={jobs}; use 0 (in this process) or the number of workers")
    slots = jobs or cpu_count()
    if isinstance(engine, Executor):
        yield Started(engine, lambda: slots)
    elif engine.federated:
        with _named(engine):
            yield Started(ThisProcess(), lambda: 1)
    elif engine.kind == "dask":
        with _dask(engine.address) as found:
            yield found
    elif jobs == 0:
        yield Started(ThisProcess(), lambda: 1)
    else:
        with stopped(LocalWorkers(slots)) as executor:
            yield Started(executor, lambda: slots)


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

    def __init__(self, jobs: int, prepare: Callable[[int], None] = worker.start) -> None:
        """`prepare` is the first call in each process, with the process id of this one."""
        self._prepare = prepare
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
        parent = (os.getpid(),)
        pool = ProcessPoolExecutor(1, env=worker.ONE_THREAD, initializer=self._prepare, initargs=parent)
        self._pools.append(pool)
        return pool

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the processes end by themselves, or, with `cancel_futures`, kill them."""
        for pool in self._pools:
            pool.shutdown(wait=wait, kill_workers=cancel_futures)


@contextmanager
def _named(engine: Engine) -> Iterator[None]:
    before = os.environ.get("OUIKIT_ENGINE")
    os.environ["OUIKIT_ENGINE"] = str(engine)
    try:
        yield
    finally:
        os.environ.pop("OUIKIT_ENGINE")
        if before is not None:
            os.environ["OUIKIT_ENGINE"] = before


@contextmanager
def stopped(executor: Executor) -> Iterator[Executor]:
    """End an executor's work with the body: kill it where the body raises, else let it end by itself."""
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=True, cancel_futures=True)
        raise
    executor.shutdown(wait=False)  # results are in; nobody needs to wait for processes that end


@contextmanager
def _dask(address: str) -> Iterator[Started]:
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
            yield Started(executor, partial(_dask_capacity, client))
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
