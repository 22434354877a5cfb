"""CPUs to generate for, and whether this one can run the result."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tvm.target import Target as Llvm
from tvm.target.codegen import llvm_get_system_cpu, llvm_get_system_triple, target_has_features

from ouikit.products.generators.variants import C906, CARMEL, ZEN2, Core

DOTS = ("avx512vnni",)


@dataclass(frozen=True)
class Target:
    """A CPU to generate for.

    vector: bytes of a vector. llvm: what TVM takes. needs: features without which its code does not run.
    core: caches for the block sizes.
    """

    name: str
    vector: int
    llvm: dict[str, Any] = field(hash=False)
    needs: tuple[str, ...] = ()
    core: Core = ZEN2

    @property
    def architecture(self) -> str:
        """As in the first part of a triple: x86_64, aarch64, riscv64."""
        return str(self.llvm.get("mtriple", llvm_get_system_triple())).partition("-")[0]

    @property
    def dots(self) -> bool:
        """Whether it multiplies groups of 8-bit numbers in one instruction that the generator knows."""
        return self.architecture == "x86_64" and has(self.llvm, DOTS)

    @property
    def registers(self) -> int:
        """Vector registers."""
        return 16 if self.architecture == "x86_64" and self.vector < 64 else 32

    def absent(self) -> str:
        """What this CPU lacks to run the target's code; empty where it lacks nothing."""
        if self.architecture != (here := _native().architecture):
            return f"a CPU of {self.architecture} (this one is {here})"
        return ", ".join(feature for feature in self.needs if not has(_native().llvm, (feature,)))


def has(llvm: dict[str, Any], features: tuple[str, ...]) -> bool:
    """Whether LLVM may use all these features on a target."""
    return bool(target_has_features(list(features), Llvm(llvm)))


@cache
def _native() -> Target:
    llvm = {"kind": "llvm", "mcpu": llvm_get_system_cpu()}
    x86 = llvm_get_system_triple().startswith("x86_64")
    widths = {"avx512f": 64, "avx2": 32} if x86 else {}
    vector = next((width for feature, width in widths.items() if has(llvm, (feature,))), 16)
    return Target("native", vector, llvm)


def _x86(name: str, vector: int, cpu: str, needs: tuple[str, ...]) -> Target:
    llvm = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": cpu}
    # LLVM halves vectors of 64 bytes on CPUs that once were slower with them.
    return Target(name, vector, llvm | ({"mattr": ["-prefer-256-bit"]} if vector == 64 else {}), needs)


_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
_RISCV = {"kind": "llvm", "mtriple": "riscv64-linux-gnu", "mcpu": "generic-rv64", "mabi": "lp64d"}
_OTHERS = (
    _x86("avx2", 32, "x86-64-v3", ("avx2", "fma")),
    _x86("avx512", 64, "x86-64-v4", _AVX512),
    _x86("avx512vnni", 64, "cascadelake", (*_AVX512, *DOTS)),
    Target("aarch64", 16, {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+neon"]}, core=CARMEL),
    Target(
        "riscv64", 16, _RISCV | {"mattr": [f"+{letter}" for letter in "mafdcv"]}, core=C906
    ),  # vectors of 16 bytes are the least that RVV has
)
TARGETS = ("native", *(target.name for target in _OTHERS))
"""Names of the targets; `native` is this CPU, with all that it has."""


def target(name: str) -> Target:
    """The target of that name. Raises ValueError naming those that exist."""
    known = {one.name: one for one in (_native(), *_OTHERS)}
    if name not in known:
        raise ValueError(f"unknown target {name!r}; there are {', '.join(known)}")
    return known[name]
