"""Generated products of other CPUs, linked and run under qemu. Nothing is timed there.

The compilers and emulators are those of `ouigemm`'s own kernels: on Debian, `ci/cross.sh` of the repository.
"""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ouikit.products.emulation import TARGETS, emulate
from ouikit.products.generators.routines import KINDS, Routine

MAIN = Path(__file__).with_name("main.c")
_CODES = {"i": 0, "u": 1, "f": 2}  # DLPack's


def missing(target: str) -> list[str]:
    """Programs that are needed to run a target's code and not installed."""
    return TARGETS[target].missing()


def run(routine: Routine, cpu: str, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """The routine's A·B, computed on an emulated CPU of its target.

    Args:
        cpu: one of `ouikit.products.emulation.TARGETS[...].cpus`.

    Raises:
        FileNotFoundError: naming what is not installed.
        RuntimeError: with the output of the compiler or of the program that failed.
    """
    m, n, k = routine.plan.shape
    kind = KINDS[routine.product.dtype][2]
    with TemporaryDirectory() as folder:
        at = Path(folder)
        program = link(routine, at)
        for name, x in (("a", a), ("b", b)):
            np.ascontiguousarray(x).tofile(at / name)
        words = [str(at / name) for name in "abc"] + [str(size) for size in (m, n, k)]
        emulate(TARGETS[routine.product.target.name], cpu, program, *words)
        return np.fromfile(at / "c", kind).reshape(m, n)


def link(routine: Routine, folder: Path) -> Path:
    """A program for the routine's target: `main.c` and the exported object, and the C library only.

    Raises as `run`.
    """
    from tvm_ffi.libinfo import find_dlpack_include_path, find_include_path

    name = routine.product.target.name
    target = TARGETS[name]
    if lacks := target.missing():
        raise FileNotFoundError(f"{', '.join(lacks)} not found; on Debian: apt-get install {target.packages}")
    routine.export(folder / "product.o")
    (left, right), _, out = KINDS[routine.product.dtype]
    types = []
    for letter, dtype in zip("ABC", map(np.dtype, (left, right, out)), strict=True):
        types += [f"-DTYPE_{letter}={_CODES[dtype.kind]}", f"-DBITS_{letter}={8 * dtype.itemsize}"]
    includes = [f"-I{path}" for path in (find_include_path(), find_dlpack_include_path())]
    command = [
        target.compiler,
        *target.flags(),
        "-O2",
        "-Wall",
        "-Werror",
        "-static",
        *types,
        *includes,
        str(MAIN),
    ]
    command += [str(folder / "product.o"), "-o", str(folder / "program")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return folder / "program"
