"""`ouigemm`'s micro-kernels for other CPUs, built and run under qemu, to test them and count instructions.

Nothing is timed: an emulator's time says nothing about a CPU. Needs a checkout, whose `kernels/` has the
sources, cmake and ninja, and for a target its compiler and emulator (on Debian: `ci/cross.sh`).
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "kernels"


@dataclass(frozen=True)
class Target:
    """How to build for an architecture, and which CPUs of it the emulator plays.

    cpus: name -> qemu's name of the CPU; the best one first.
    """

    architecture: str
    compiler: str
    emulator: str
    cpus: dict[str, str]
    triple: str = ""  # for a compiler of several architectures: clang
    packages: str = ""

    def flags(self, cmake: bool = False) -> list[str]:
        """What tells the compiler the architecture and its linker: as its own options, or as cmake's."""
        if not self.triple:
            return []
        target, linker = "-DCMAKE_C_COMPILER_TARGET=", "-DCMAKE_EXE_LINKER_FLAGS="
        target, linker = (target, linker) if cmake else ("--target=", "")
        return [target + self.triple, linker + "-fuse-ld=lld"]

    def missing(self) -> list[str]:
        """Programs that are needed and not installed."""
        linker = ["ld.lld-19"] if self.triple else []
        return [p for p in (self.compiler, self.emulator, "cmake", "ninja", *linker) if not shutil.which(p)]


_RVV = "rv64,v=true,vext_spec=v1.0,vlen="
TARGETS = {
    "aarch64": Target(
        "aarch64",
        "aarch64-linux-gnu-gcc",
        "qemu-aarch64",
        {"ARMv8.6": "max", "ARMv8.2": "neoverse-n1", "ARMv8.0": "cortex-a72"},
        packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
    ),
    "riscv64": Target(
        "riscv64",
        "clang-19",
        "qemu-riscv64",
        {**{f"RVV, {n} bits": f"{_RVV}{n}" for n in (256, 128, 512)}, "no vectors": "rv64,v=false"},
        "riscv64-linux-gnu",
        packages="clang-19 lld-19 gcc-riscv64-linux-gnu libc6-dev-riscv64-cross qemu-user",
    ),
}


def build(target: Target, folder: Path, sources: Path = SOURCES) -> Path:
    """The test program `check` for a target, its compiler's warnings being errors.

    Raises FileNotFoundError naming what is not installed and the packages that bring it, or where sources are
    missing; RuntimeError with the compiler's output.
    """
    if not (sources / "CMakeLists.txt").exists():
        raise FileNotFoundError(f"no sources of ouigemm in {sources}: run this from a checkout")
    if missing := target.missing():
        raise FileNotFoundError(
            f"{', '.join(missing)} not found; on Debian: apt-get install {target.packages}"
        )
    _run(
        ["cmake", "-S", str(sources), "-B", str(folder), "-G", "Ninja", "-DCMAKE_SYSTEM_NAME=Linux",
         f"-DCMAKE_SYSTEM_PROCESSOR={target.architecture}", f"-DCMAKE_C_COMPILER={target.compiler}",
         "-DCMAKE_CXX_COMPILER_WORKS=1", "-DOUIGEMM_WERROR=ON", "-DOUIGEMM_CHECK=ON",
         *target.flags(cmake=True)]
    )  # fmt: skip
    _run(["cmake", "--build", str(folder)])
    return folder / "check"


def emulate(target: Target, cpu: str, program: Path, *words: str, plugin: Path | None = None) -> str:
    """Output of the program on one of the target's CPUs. Raises RuntimeError where it fails."""
    extra = ["-plugin", str(plugin), "-d", "plugin"] if plugin else []
    return _run([target.emulator, "-cpu", target.cpus[cpu], *extra, str(program), *words])


def counter(folder: Path) -> Path:
    """The plugin of qemu that counts instructions. Raises as `build`."""
    if not shutil.which("gcc"):
        raise FileNotFoundError("gcc not found; on Debian: apt-get install gcc")
    plugin = folder / "count.so"
    source = SOURCES / "tests" / "cross" / "count.c"
    _run(
        [
            "gcc",
            "-shared",
            "-fPIC",
            "-O2",
            "-Wall",
            "-Wextra",
            "-fvisibility=hidden",
            str(source),
            "-o",
            str(plugin),
        ]
    )
    return plugin


def instructions(
    target: Target, cpu: str, program: Path, plugin: Path, rung: str, kind: str, shape: tuple[int, int, int]
) -> tuple[str, int]:
    """The micro-kernel that one product m × n × k runs on, and the instructions executed inside it."""
    kernel, _, count, *_ = emulate(target, cpu, program, rung, kind, *map(str, shape), plugin=plugin).split()
    return kernel, int(count)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout
