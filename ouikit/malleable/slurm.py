"""An allocation of Slurm whose nodes follow the size of a malleable job.

A job grows by a helper job, which waits for nodes and hands them over, and shrinks by an update. So do the
sources of Iserte et al., "DMRlib" (IEEE Trans. Computers 70(9), 2021). A stock Slurm can do both if its
configuration has `SchedulerParameters=permit_job_expansion` and an accounting database; without a database it
resizes a job only once (22.05.8). `ci/slurm.sh` starts such a Slurm on a single machine.

The nodes are allocated by Slurm, but processes are not placed on them: all run where the first one does.
"""

import os
import re
import shlex
import subprocess
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ouikit.malleable.manager import Answer


class SlurmError(RuntimeError):
    """Slurm refused, or did not answer."""


@dataclass(frozen=True)
class Held:
    """Nodes that a job had, as accounting tells it.

    names: of the nodes, as Slurm writes them, `n[1-2]`. state: RESIZING for all but the last. end: local
    time, in seconds, or "Unknown".
    """

    nodes: int
    names: str
    state: str
    end: str


class Allocation:
    """Nodes of Slurm while its `with` block is open, for `launch(…, allocation=…)`.

    ::

        with Allocation() as allocation:
            launch("job.py", folder, manager=steps({2: 2, 5: 4, 8: 1}), allocation=allocation)
            [held.nodes for held in allocation.history()]  # [1, 2, 4, 1]

    Args:
        nodes: at the beginning.
        options: of `salloc`, such as `--partition=…`; for the allocation and the helpers alike.
        patience: seconds for an answer of Slurm, and for nodes to become free.

    Attributes:
        job: Slurm's number of it.

    Raises:
        FileNotFoundError: there is no Slurm here.
        SlurmError: it has no such nodes, or not in time, or does not answer.
        ValueError: fewer than one node.
    """

    def __init__(self, nodes: int = 1, *, options: Sequence[str] = (), patience: float = 10.0) -> None:
        if nodes < 1:
            raise ValueError(f"an allocation has one node or more: got {nodes}")
        self._first, self._options, self._patience = nodes, list(options), patience
        self.job, self._changes, self._changed = 0, 0, 0

    def __enter__(self) -> Self:
        self.job = self._allocate(self._first, "ouikit")
        self._changed = int(time.time())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel the job, and wait until its processes are gone."""
        call("scancel", str(self.job), patience=self._patience)
        until = time.monotonic() + self._patience
        while self._queued() and time.monotonic() < until:
            time.sleep(0.1)

    @property
    def nodes(self) -> int:
        """How many nodes the job has now, as Slurm tells it; none after its end."""
        return int(self._queued() or 0)

    def resize(self, nodes: int) -> None:
        """Give the job so many nodes; when this returns, it has them.

        A change waits until the second of the one before it is over: accounting keeps one of each second.

        Raises:
            SlurmError: Slurm refuses, or has no such nodes in time; the job keeps what it had.
            ValueError: fewer than one node.
        """
        if nodes < 1:
            raise ValueError(f"an allocation has one node or more: got {nodes}")
        more = nodes - self.nodes
        if not more:
            return
        while int(time.time()) == self._changed:
            time.sleep(0.01)
        if more > 0:
            helper = self._allocate(more, f"expand-{self.job}", f"--dependency=expand:{self.job}")
            try:
                self._update(helper, 0)
            except SlurmError:
                call("scancel", str(helper), patience=self._patience)
                raise
        else:
            self._update(self.job, nodes)
        self._changed, self._changes = int(time.time()), self._changes + 1
        if self.nodes != nodes:
            raise SlurmError(f"job {self.job} shall have {nodes} nodes, Slurm gave it {self.nodes}")

    def release(self, nodes: int) -> None:
        """Give back what is more than so many nodes."""
        if nodes < self.nodes:
            self.resize(nodes)

    def follow(self, answer: Answer) -> Answer:
        """The same answer, to a job in this allocation.

        The job grows when it has the nodes, and keeps its size, with a warning, if they do not come. Nodes
        that it leaves are given back at its next question, when their processes are gone.
        """

        def given(iteration: int, size: int) -> int:
            self.release(size)
            wanted = answer(iteration, size)
            try:
                if wanted > size:
                    self.resize(wanted)
            except SlurmError as error:
                warnings.warn(f"a job of {size} processes does not grow to {wanted}: {error}", stacklevel=2)
                return size
            return wanted

        return given

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command as a step of this job. MPICH then starts processes by itself, not by Slurm."""
        step = ["srun", f"--jobid={self.job}", "--nodes=1", "--ntasks=1", "--overlap", "--quiet"]
        return [*step, "env", "HYDRA_LAUNCHER=fork", "HYDRA_RMK=user", *command]

    def history(self) -> list[Held]:
        """The sizes that the job had, oldest first, by Slurm's accounting (`sacct`).

        It lags behind: this waits for as many as there were changes, as long as an answer may take.
        """
        columns = "--format=NNodes,NodeList,State,End"
        until = time.monotonic() + self._patience
        while True:
            said = call("sacct", "-DXnP", f"--jobs={self.job}", columns, patience=self._patience)
            if len(found := read_history(said)) > self._changes or time.monotonic() > until:
                return found
            time.sleep(0.2)

    def _allocate(self, nodes: int, name: str, *options: str) -> int:
        """The number of a new job."""
        seconds = max(int(self._patience), 1)
        command = ["salloc", "--no-shell", f"--immediate={seconds}", f"--nodes={nodes}", f"--job-name={name}"]
        try:
            return read_granted(call(*command, *options, *self._options, patience=2 * seconds))
        except SlurmError as error:
            if "timed out" not in str(error):
                raise
            raise SlurmError(f"too few nodes became free within {seconds} s: {error}") from None

    def _update(self, job: int, nodes: int) -> None:
        """Change the number of nodes; asked again while Slurm writes the change before into its database."""
        until = time.monotonic() + self._patience
        while True:
            try:
                call("scontrol", "update", f"JobId={job}", f"NumNodes={nodes}", patience=self._patience)
                return
            except SlurmError as error:
                if "try again" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def _queued(self) -> str:
        """The number of nodes as Slurm prints it; nothing if the job is no longer there."""
        states = "--states=PENDING,CONFIGURING,RUNNING,COMPLETING,RESIZING,SUSPENDED"
        queue = call("squeue", "--me", "--noheader", "--format=%i %D", states, patience=self._patience)
        return dict(line.split() for line in queue.splitlines()).get(str(self.job), "")


def is_there() -> bool:
    """Whether a Slurm answers here."""
    try:
        call("sinfo", "--noheader")
    except (FileNotFoundError, SlurmError):
        return False
    return True


def call(*command: str, patience: float = 10.0) -> str:
    """What a client of Slurm prints. It is called in a folder of its own, where some leave scripts.

    Raises:
        FileNotFoundError: there is no such client.
        SlurmError: it fails, with its words, or does not return in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=patience,
            )
        except FileNotFoundError:
            raise FileNotFoundError(
                f"there is no {command[0]}: install Slurm, or let ci/slurm.sh start one (Debian, as root)"
            ) from None
        except subprocess.TimeoutExpired:
            where = os.environ.get("SLURM_CONF", "its default place")
            raise SlurmError(
                f"no answer to `{shlex.join(command)}` in {patience:g} s: is slurmctld up? "
                f"Its configuration is in {where}"
            ) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        raise SlurmError(f"Slurm refused `{shlex.join(command)}`: {said}")
    return done.stdout + done.stderr


def read_granted(said: str) -> int:
    """The number of the job that `salloc` was granted.

    >>> read_granted("salloc: Granted job allocation 17")
    17

    Raises:
        SlurmError: it says of none.
    """
    found = re.search(r"Granted job allocation (\d+)", said)
    if not found:
        raise SlurmError(f"salloc granted no job that can be read from its words: {said!r}")
    return int(found[1])


def read_history(said: str) -> list[Held]:
    r"""The lines of `sacct -nP --format=NNodes,NodeList,State,End`, by their ends.

    Their beginnings are not read: after a shrink sacct gives the beginning of the job.

    >>> read_history("2|n[1-2]|RUNNING|Unknown\n1|n1|RESIZING|2026-01-01T10:00:00")[0]
    Held(nodes=1, names='n1', state='RESIZING', end='2026-01-01T10:00:00')

    Raises:
        SlurmError: a line that is not of this form.
    """
    found = []
    for line in said.splitlines():
        try:
            nodes, names, state, end = line.split("|")
            found.append(Held(int(nodes), names, state, end))
        except ValueError:
            raise SlurmError(f"a line of sacct is not 'nodes|names|state|end': {line!r}") from None
    return sorted(found, key=lambda held: held.end)
