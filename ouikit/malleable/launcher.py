"""Starting a malleable job: in a process group of its own, with a time limit and restarts from checkpoints.

MPICH ends every process of a job without an error in the survivors when one is killed, and its exit code
may be 0 after a failure. So a job is restarted from outside, and only its result file says that it is done.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ouikit.malleable.job import FOLDER, load
from ouikit.malleable.manager import ADDRESS, Answer, Manager
from ouikit.malleable.slurm import Allocation


class JobFailedError(RuntimeError):
    """No attempt left a result."""


def launch(
    program: str | Path,
    folder: str | Path,
    *arguments: str,
    manager: Answer | None = None,
    timeout: float = 120.0,
    attempts: int = 1,
    env: Mapping[str, str] | None = None,
    allocation: Allocation | None = None,
) -> dict[str, Any]:
    """Run a program with `mpiexec -n 1` until its result is in the folder.

    An attempt goes on from the checkpoint in the folder, if there is one. A result that is already there is
    removed.

    Args:
        program: a Python file that makes a `Malleable`.
        folder: of checkpoint and result; made if need be.
        *arguments: of the program.
        manager: which size the job shall take, by iteration and size; without it the job keeps one process.
        timeout: seconds of an attempt.
        attempts: how often the job is started before it counts as failed.
        env: variables of the environment besides those of this process.
        allocation: of Slurm; the job then runs inside, and its nodes follow the sizes. A change for which
            Slurm has no nodes is left out, with a warning.

    Returns:
        The arrays by name, and `iteration`, `size` of the last set, `changes` (see `Malleable`) and
        `attempts`.

    Raises:
        FileNotFoundError: there is no such program, or no mpiexec: install `ouikit[mpi]`.
        JobFailedError: no attempt left a result; the message has the end of what the last one printed.
        SlurmError: Slurm does not take back nodes that the job has left.
        ValueError: fewer than one attempt.
    """
    program, folder = Path(program), Path(folder).resolve()
    if attempts < 1:
        raise ValueError(f"a job needs one attempt or more: got {attempts}")
    if not program.is_file():
        raise FileNotFoundError(f"there is no program {program}")
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.npz"
    result.unlink(missing_ok=True)
    command = [mpiexec(), "-n", "1", sys.executable, "-m", "mpi4py", str(program.resolve()), *arguments]
    variables = {**os.environ, **(env or {}), FOLDER: str(folder)}
    variables.pop(ADDRESS, None)
    answer = manager or (lambda iteration, size: size)
    if allocation:
        command, answer = allocation.inside(command), allocation.follow(answer)
    with Manager(answer) as asked:
        variables[ADDRESS] = asked.address
        for attempt in range(1, attempts + 1):
            code, printed = _run(command, variables, timeout, folder / "output.txt")
            if result.exists():
                state, reached = load(result)
                if allocation:
                    allocation.release(reached["size"])
                return state | reached | {"attempts": attempt}
    raise JobFailedError(f"{program.name} left no result, exit code {code}:\n{printed[-2000:]}")


def mpiexec() -> str:
    """The launcher beside this Python, or the first on the path.

    Raises:
        FileNotFoundError: there is none.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if not found:
        raise FileNotFoundError("there is no mpiexec: install ouikit[mpi]")
    return found


def _run(command: Sequence[str], env: Mapping[str, str], timeout: float, output: Path) -> tuple[int, str]:
    """Exit code and output of one attempt; none of its processes is left."""
    with output.open("w") as file:
        process = subprocess.Popen(
            command,
            env=env,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = -signal.SIGTERM
        finally:
            stop(process)
    return code, output.read_text(errors="replace")


def stop(process: "subprocess.Popen[Any]") -> None:
    """End a launcher and all that it started: asked first, which lets it end its ranks, then killed."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
