"""Instructions of the micro-kernels for ARM and RISC-V, counted under emulation: `ouikit bench emulated`.

Evidence: emulated. A figure is the number of instructions executed inside the micro-kernel, divided by the
multiplications of the product; tiles that reach beyond the matrix count as work, as they would on a CPU. How
long an instruction takes can only be measured on such a CPU. Needs a checkout and `ci/cross.sh`.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from ouikit.bench.timing import Row
from ouikit.products.emulation import TARGETS, build, counter, instructions

CASES = (  # target, CPU, rung, types
    ("aarch64", "ARMv8.6", "neon", ("f32", "s32", "s16", "s8s8")),
    ("aarch64", "ARMv8.6", "neondot", ("s8s8", "u8s8")),
    ("aarch64", "ARMv8.6", "neoni8mm", ("s8s8", "u8s8")),
    ("riscv64", "RVV, 128 bits", "rvv", ("f32", "s32", "s16", "s8s8")),
)
# A square, and layers of ResNet-50 with a sixteenth of their pixels (m), so that emulation takes seconds.
SHAPES = {
    "square": (96, 96, 256),
    "first layer": (784, 64, 147),
    "middle": (49, 256, 512),
    "late": (49, 128, 1152),
}
THREADS = 1


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Count everything, in about a minute. One row per rung and type: the square, and the range over shapes.

    Raises FileNotFoundError naming the packages that are missing.
    """
    say = progress or (lambda part: None)
    rows = []
    with TemporaryDirectory() as folder:
        plugin, programs = counter(Path(folder)), {}
        for name, cpu, rung, kinds in CASES:
            say(f"{rung} on {cpu}")
            if name not in programs:
                programs[name] = build(TARGETS[name], Path(folder) / name)
            for kind in kinds:
                counts, kernels = {}, []
                for title, (m, n, k) in SHAPES.items():
                    kernel, count = instructions(
                        TARGETS[name], cpu, programs[name], plugin, rung, kind, (m, n, k)
                    )
                    counts[title] = count / (m * n * k)
                    kernels.append(kernel)
                rows.append(count_row(f"{cpu}, {rung}: {kind}", counts, kernels))
    return rows


def count_row(name: str, counts: dict[str, float], kernels: list[str]) -> Row:
    """One figure: instructions per multiplication of the square, and their range over the shapes."""
    each = ", ".join(f"{title} {count:.3f}" for title, count in counts.items())
    return {
        "name": name, "value": counts["square"], "low": min(counts.values()), "high": max(counts.values()),
        "n": len(counts), "unit": "instructions / MAC", "target": None, "met": None,
        "note": f"emulated; {each}; on {', '.join(dict.fromkeys(kernels))}",
    }  # fmt: skip
