"""MPI jobs that grow and shrink while they run: distributions, managers, checkpoints, a launcher, Slurm.

mpi4py is imported when a job begins, never before. Imports no other room; chapters may import it.

A program (`job.py`) says what its state is, how it is distributed, and where it may change::

    import numpy as np
    from ouikit.malleable import Block, Malleable

    job = Malleable({"x": np.arange(10.0)}, {"x": Block()})
    for it in job.iterations(100):
        job.state["x"] += it          # this process's part
        job.reconfigure()
    job.finish()

and whoever starts it, which sizes it takes::

    from ouikit.malleable import launch, steps

    launch("job.py", folder, manager=steps({2: 2, 5: 4, 8: 1}))["x"]

Inside Slurm, whose nodes then follow the sizes::

    with Allocation() as allocation:
        launch("job.py", folder, manager=steps({2: 2, 5: 4, 8: 1}), allocation=allocation)["x"]
"""

from ouikit.malleable.job import Malleable
from ouikit.malleable.launcher import JobFailedError, launch
from ouikit.malleable.manager import Manager, steps
from ouikit.malleable.redistribution import (
    Block,
    BlockCyclic,
    Gathered,
    Halo,
    Replicated,
    apply,
    length,
    transfers,
)
from ouikit.malleable.slurm import Allocation, SlurmError

__all__ = [
    "Allocation", "Block", "BlockCyclic", "Gathered", "Halo", "JobFailedError", "Malleable", "Manager",
    "Replicated", "SlurmError", "apply", "launch", "length", "steps", "transfers",
]  # fmt: skip
