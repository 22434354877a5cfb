"""A malleable job: a loop whose processes are replaced, or joined by others, between two iterations.

Source: the syntax and the protocol of Iserte et al., "DMRlib" (IEEE Trans. Computers 70(9), 2021), restated
in Python: an entry point for fresh and spawned processes, a point of reconfiguration in the loop, the whole
set spawned anew. That survivors stay (`survivors=True`) is of later systems.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ouikit.malleable import manager
from ouikit.malleable.redistribution import Block, Gathered, Pattern, length, transfers

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

FOLDER = "OUIKIT_MALLEABLE_FOLDER"
_BEGUN = time.monotonic()
_KEYS = ("iteration", "before", "after", "checkpoint", "launch", "python", "connect", "move")  # of a change
State = Mapping[str, np.ndarray]


def born() -> float:
    """When this process was created, on the monotonic clock, which all processes of one machine share.

    Where the system does not tell (no /proc), when this module was imported.
    """
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return _BEGUN
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age


def save(path: Path, state: State, iteration: int, size: int, changes: list[dict[str, float]]) -> None:
    """Write an npz file that is whole or absent, whenever the process dies."""
    unfinished = path.with_suffix(".part")
    table = np.array([[change[key] for key in _KEYS] for change in changes], np.float64).reshape(
        -1, len(_KEYS)
    )
    arrays: dict[str, Any] = {f"s_{name}": array for name, array in state.items()}
    with unfinished.open("wb") as file:
        np.savez(file, iteration=iteration, size=size, changes=table, **arrays)
    unfinished.replace(path)


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `save` wrote: the state, and `iteration`, `size` and `changes` by name."""
    with np.load(path, allow_pickle=False) as saved:
        state = {name[2:]: saved[name] for name in saved.files if name.startswith("s_")}
        changes = [dict(zip(_KEYS, map(float, row), strict=True)) for row in saved["changes"]]
        return state, {"iteration": int(saved["iteration"]), "size": int(saved["size"]), "changes": changes}


class Malleable:
    """This process's share of a malleable job.

    Begin the program with `python -m mpi4py` (`launch` does): an exception in one process then ends all.
    A process that leaves, ends in `reconfigure` by SystemExit.

    Args:
        state: name → array of all rows, or a function that makes it, which only the first set calls. Each
            process keeps its part in `self.state[name]`, in which a program may write, and which keeps its
            shape.
        patterns: name → pattern; a name without one is distributed in blocks.
        survivors: processes stay and others join or leave; otherwise a change spawns the whole set anew.
        folder: of the checkpoint, which is written before each change, and of the result. The launcher's by
            default.

    Attributes:
        comm: communicator of the present set.
        rank, size: in it.
        state: name → rows of this process.
        changes: a dict per change: iteration, sizes, and seconds of `checkpoint`, `launch` (until the last
            new process exists), `python` (until all of them are here, MPI's own start included), `connect`
            (until one communicator has all) and `move` (until all have acknowledged their data).

    Raises:
        ValueError: a pattern names no array of the state.
    """

    def __init__(
        self,
        state: State | Callable[[], State],
        patterns: Mapping[str, Pattern] | None = None,
        *,
        survivors: bool = False,
        folder: str | Path | None = None,
    ) -> None:
        from mpi4py import MPI

        self._mpi: Any = MPI
        self.survivors = survivors
        self._patterns = dict(patterns or {})
        self.folder = Path(folder or os.environ.get(FOLDER, "."))
        self._checkpoint = self.folder / "checkpoint.npz"
        self.comm: Intracomm = MPI.COMM_WORLD
        self.state: dict[str, np.ndarray] = {}
        self.iteration, self.changes = 0, []  # type: int, list[dict[str, float]]
        self._shapes: dict[str, tuple[tuple[int, ...], str]] = {}
        parent = MPI.Comm.Get_parent()
        if parent == MPI.COMM_NULL:
            self._start(state() if callable(state) else state)
        else:
            self._join(parent)

    @property
    def rank(self) -> int:
        """Number of this process in its set."""
        return self.comm.Get_rank()

    @property
    def size(self) -> int:
        """Processes of the set."""
        return self.comm.Get_size()

    def rows(self, name: str) -> np.ndarray:
        """The numbers of the rows that this process holds, in the order of its part."""
        held = self._pattern(name).holds(self._shapes[name][0][0], self.size, self.rank)
        return np.concatenate([np.arange(a, b) for a, b, _ in held] or [np.arange(0)])

    def iterations(self, n: int) -> Iterator[int]:
        """Numbers of the iterations that are left of n: after a change or a restart, from where it was."""
        while self.iteration < n:
            yield self.iteration
            self.iteration += 1

    def reconfigure(self) -> None:
        """Ask the manager, at the end of an iteration, and change if it says so."""
        size = self.size
        given = manager.ask(manager.address(), self.iteration, size) if self.rank == 0 else None
        given = self.comm.bcast(given)
        if given != size:
            self._change(given)

    def finish(self) -> None:
        """Write all rows, the iteration and the changes to `result.npz`, whose presence means success.

        The checkpoint is removed: a later job in the same folder begins at its own beginning.
        """
        self._write("result.npz", self.iteration)
        if self.rank == 0:
            self._checkpoint.unlink(missing_ok=True)

    # The first set

    def _start(self, state: State) -> None:
        if self._checkpoint.exists():
            state, before = load(self._checkpoint)
            self.iteration, self.changes = before["iteration"], before["changes"]
        unknown = self._patterns.keys() - state.keys()
        if unknown:
            raise ValueError(f"patterns of {sorted(unknown)}, but the state has {sorted(state)}")
        for name, array in state.items():
            self._shapes[name] = (array.shape, array.dtype.str)
            self.state[name] = array[self.rows(name)]

    def _pattern(self, name: str) -> Pattern:
        return self._patterns.get(name, Block())

    # A change

    def _change(self, q: int) -> None:
        p, begun = self.size, time.monotonic()
        self._write(self._checkpoint.name, self.iteration + 1)
        saved = ready = time.monotonic()
        created = saved
        spawned = q if not self.survivors else max(q - p, 0)
        both, children = self.comm, None
        if spawned:
            arguments = ["-m", "mpi4py", *sys.argv]
            children = self.comm.Spawn(sys.executable, arguments, maxprocs=spawned)
            both = children.Merge(high=False)
            created = both.allreduce(saved, self._mpi.MAX)
            ready = both.allreduce(created, self._mpi.MAX)
        head = (p, self.iteration + 1, self._shapes, self.changes)
        both.bcast(head)
        both.Barrier()
        connected = time.monotonic()
        offset = 0 if self.survivors else p
        state = self._exchange(both, p, q, offset)
        both.Barrier()  # all have their rows: only now is the change over
        done = time.monotonic()
        times = (begun, saved, created, ready, connected, done)
        change = dict(zip(_KEYS, (self.iteration, p, q, *np.diff(times).tolist()), strict=True))
        both.bcast(change)
        if not self.survivors:
            both.Disconnect()
            if children is not None:
                children.Disconnect()
            raise SystemExit(0)
        self.changes.append(change)
        stays = both.Get_rank() < q
        self.comm = cast("Intracomm", both.Split(0 if stays else self._mpi.UNDEFINED, both.Get_rank()))
        if not stays:
            raise SystemExit(0)
        self.state = state

    def _join(self, parent: Any) -> None:
        """What a spawned process does in the place of `_start`."""
        here = time.monotonic()
        both = parent.Merge(high=True)
        both.allreduce(born(), self._mpi.MAX)
        both.allreduce(here, self._mpi.MAX)
        p, self.iteration, self._shapes, self.changes = both.bcast(None)
        both.Barrier()
        joined = both.Get_size() - p
        q, offset = (both.Get_size(), 0) if self.survivors else (joined, p)
        self.state = self._exchange(both, p, q, offset)
        both.Barrier()
        self.changes.append(both.bcast(None))
        if self.survivors:
            self.comm = both.Split(0, both.Get_rank())
        else:
            both.Disconnect()
            parent.Disconnect()

    def _exchange(self, comm: "Intracomm", p: int, q: int, offset: int) -> dict[str, np.ndarray]:
        """The new parts of processes offset … offset + q of comm, from the old parts of 0 … p."""
        return {name: self._move(comm, name, p, self._pattern(name), q, offset) for name in self._shapes}

    def _move(self, comm: "Intracomm", name: str, p: int, after: Pattern, q: int, offset: int) -> np.ndarray:
        (n, *rest), dtype = self._shapes[name]
        me = comm.Get_rank()
        receiver = me - offset
        moves = transfers(n, self._pattern(name), p, after, q)
        part = np.empty((length(after, n, q, receiver) if 0 <= receiver < q else 0, *rest), dtype)
        requests, came = [], []
        for move in moves:
            if move.receiver == receiver and move.sender != me:
                rows = np.empty((move.rows, *rest), dtype)
                requests.append(comm.Irecv(_bytes(rows), move.sender))
                came.append((move, rows))
        for move in moves:
            if move.sender != me:
                continue
            rows = move.taken(self.state[name])
            if move.receiver == receiver:
                move.put(rows, part)
            else:
                requests.append(comm.Isend(_bytes(rows), offset + move.receiver))
        self._mpi.Request.Waitall(requests)
        for move, rows in came:
            move.put(rows, part)
        return part

    def _write(self, name: str, iteration: int) -> None:
        """All rows in one file, gathered in the first process."""
        whole = {key: self._move(self.comm, key, self.size, Gathered(), self.size, 0) for key in self._shapes}
        if self.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            save(self.folder / name, whole, iteration, self.size, self.changes)


def _bytes(rows: np.ndarray) -> Any:
    """A buffer of bytes: MPI needs no word for the type of an array then."""
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
