"""A malleable job for the tests: `program.py N [survivors] [trouble]`.

Each row is the same number as in a run of one process, whatever happened on the way. Trouble comes in the
first attempt only: a file in the folder says that it was met.
"""

import os
import signal
import sys
import time

import numpy as np
import psutil

from ouikit.malleable import Block, BlockCyclic, Gathered, Halo, Malleable, Replicated

n, arguments = int(sys.argv[1]), sys.argv[2:]
PATTERNS = {
    "block": Block(),
    "pairs": BlockCyclic(2),
    "halo": Halo(1),
    "first": Gathered(),
    "all": Replicated(),
    "few": Block(),
}


def state():
    """Rows of numbers that no two arrays share; `few` has fewer rows than there are processes."""
    whole = {name: np.sin(np.arange(2.0 * n).reshape(n, 2) + place) for place, name in enumerate(PATTERNS)}
    return whole | {"few": np.arange(1.0), "all": np.zeros(3)}


class Troubled(Malleable):
    """Meets its trouble in the last process of a spawned set, while rows move."""

    def _exchange(self, comm, p, q, offset):
        met = self.folder / "met"
        spawned = comm.Get_rank() >= p
        if spawned and comm.Get_rank() == comm.Get_size() - 1 and not met.exists():
            if "killed" in arguments:
                met.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if "raises" in arguments:
                met.touch()
                raise RuntimeError("trouble in a child")
        return super()._exchange(comm, p, q, offset)


job = Troubled(state, PATTERNS, survivors="survivors" in arguments)
for it in job.iterations(8):
    for name in ("block", "pairs", "first", "few"):
        job.state[name] *= 1.0 + 0.1 * it
        job.state[name] += 0.01 * job.rows(name).reshape(-1, *[1] * (job.state[name].ndim - 1))
    job.state["all"] += it / 7
    # A stencil over neighbours, whose rows come from all: a change must leave rows and copies alike.
    whole = np.empty((n, 2))
    parts = job.comm.allgather((job.rows("halo"), job.state["halo"]))
    for rows, part in reversed(parts):
        whole[rows] = part
    around = np.roll(whole, 1, 0) + np.roll(whole, -1, 0)
    job.state["halo"] = (0.5 * whole + 0.25 * around)[job.rows("halo")]
    if it == 5 and "liar" in arguments:
        os._exit(0)
    if it == 3 and "hangs" in arguments:
        time.sleep(600)
    if it == 3 and "terminated" in arguments and not (job.folder / "met").exists():
        (job.folder / "met").touch()
        launchers = [p for p in psutil.Process().parents() if "mpiexec" in p.name()]
        launchers[0].terminate()
        time.sleep(600)
    job.reconfigure()
job.finish()
