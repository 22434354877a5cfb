"""Generated matrix products: choose a variant and a tile, call it on matrices of any shape, or export it.

Each shape is compiled when it is first asked for, because its sizes are constants of the code.
"""

import shutil
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ouikit.products.generators.variants import VARIANTS, Plan, blocks
from ouikit.products.layer_shapes import Shape

if TYPE_CHECKING:
    from ouikit.products.generators.targets import Target

KINDS = {
    "float32": (("float32", "float32"), ("float32", "float32"), "float32"),
    "float64": (("float64", "float64"), ("float64", "float64"), "float64"),
    "int32": (("int32", "int32"), ("int32", "int32"), "int32"),
    "int8": (("int8", "int8"), ("int32", "int32"), "int32"),
    "u8s8": (("uint8", "int8"), ("uint8", "int8"), "int32"),
}
"""Types of A and B, of their packed copies, and of C. Packing widens `int8`; `u8s8` takes dot products."""
MOST = 256  # vectors of a tile; the code is written out, and LLVM's time grows with it


def generate(
    variant: str, mr: int, nr: int, dtype: str = "float32", target: str = "native", threads: int = 1
) -> "Product":
    """One member of the family: a matrix product that is compiled for every shape it meets.

    Args:
        variant: of `VARIANTS`.
        mr: rows of the tile in registers. nr: its columns. The tile is of C, of A (mr × kr) or of B
            (kr × nr), as the variant's last letter says.
        dtype: of `KINDS`. Integers wrap at 32 bits. u8s8 (unsigned A, signed B) is for variants that hold C,
            on targets with dot products.
        target: of `targets.TARGETS`.
        threads: 1; the generated loops run in the calling thread.

    Raises:
        ModuleNotFoundError: without TVM.
        ValueError: for an unknown name, for more than one thread, for a tile that does not fit.

    >>> product = generate("B3A2C0", 4, 16, "int32")
    >>> product(np.eye(3, dtype="int32"), np.arange(6, dtype="int32").reshape(3, 2)).tolist()
    [[0, 1], [2, 3], [4, 5]]
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {', '.join(VARIANTS)}")
    if dtype not in KINDS:
        raise ValueError(f"unknown dtype {dtype!r}; there are {', '.join(KINDS)}")
    if threads != 1:
        raise ValueError(f"threads={threads}: generated products run in the calling thread; give threads=1")
    return Product(variant, (mr, nr), dtype, _targets().target(target))


def _targets() -> Any:
    """The module `targets`, or one error that says how to get TVM."""
    try:
        import tvm  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("tvm", "tvm_ffi"):
            raise
        raise ModuleNotFoundError(
            "generated products need TVM: pip install 'ouikit[tvm]'", name="tvm"
        ) from None
    from ouikit.products.generators import targets

    return targets


class Product:
    """A variant with its tile, type and target; call it, or take one shape's `routine`."""

    def __init__(self, variant: str, tile: tuple[int, int], dtype: str, target: "Target") -> None:
        self.variant, self.tile, self.dtype, self.target = VARIANTS[variant], tile, dtype, target
        self._routines: dict[Shape, Routine] = {}
        self._check()

    def __repr__(self) -> str:
        rows, columns = self.tile
        return f"<{self.variant.name} {rows}×{columns} {self.dtype} for {self.target.name}>"

    @property
    def lanes(self) -> int:
        """Elements of C in a vector."""
        return self.target.vector // np.dtype(KINDS[self.dtype][2]).itemsize

    def _check(self) -> None:
        rows, columns = self.tile
        side, extent = ("mr", rows) if self.variant.resident == "A" else ("nr", columns)
        short = extent < self.lanes and extent & (extent - 1) == 0
        if min(rows, columns) < 1 or (extent % self.lanes and not short):
            raise ValueError(
                f"a tile of {rows}×{columns} does not fit {self.variant.name} on {self.target.name}: "
                f"{side} must be a multiple of its {self.lanes} {self.dtype} lanes, or a smaller power of "
                "two; both at least 1"
            )
        vectors = rows * columns / min(extent, self.lanes)
        if vectors > MOST:
            raise ValueError(
                f"a tile of {rows}×{columns} has {vectors:.0f} vectors, more than {MOST}: give less"
            )
        if self.dtype == "u8s8" and (self.variant.resident != "C" or not self.target.dots or short):
            raise ValueError(
                "u8s8 needs a variant that holds C (…C0), a target with dot products (avx512vnni) and nr of "
                f"at least {self.lanes}, not {self}"
            )

    def routine(self, m: int, n: int, k: int, steps: Sequence[int] | None = None) -> "Routine":
        """The compiled product of one shape.

        steps: (mc, nc, kc), at most; left out, they follow the cache model. Raises ValueError unless all are
        at least 1.
        """
        if min(m, n, k, *(steps or ())) < 1:
            raise ValueError(f"sizes must be at least 1: m, n, k = {m}, {n}, {k}, steps = {steps}")
        units = self.variant.units(*self.tile, group=4 if self.dtype == "u8s8" else 1)
        if steps:
            return Routine(self, Plan(self.variant, (m, n, k), units, dict(zip("mnk", steps, strict=True))))
        if (m, n, k) not in self._routines:
            element = np.dtype(KINDS[self.dtype][1][0]).itemsize
            found = blocks(self.variant, (m, n, k), units, self.target.core, element)
            self._routines[m, n, k] = Routine(self, Plan(self.variant, (m, n, k), units, found))
        return self._routines[m, n, k]

    def __call__(self, a: NDArray[Any], b: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """A·B, of shape (m, n); see `Routine.__call__`."""
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
            raise ValueError(f"shapes {a.shape} and {b.shape}: give matrices of m × k and k × n")
        return self.routine(a.shape[0], b.shape[1], a.shape[1])(a, b, out)


class Routine:
    """The product of one shape.

    plan: its blocks. seconds: CPU time that scheduling and compiling took.
    """

    def __init__(self, product: Product, plan: Plan) -> None:
        import tvm

        from ouikit.products.generators.schedules import schedule

        self.product, self.plan = product, plan
        start = time.process_time()
        found = schedule(plan, product.lanes, *KINDS[product.dtype], dots=product.dtype == "u8s8")
        self._compiled = tvm.compile(found.mod, target=product.target.llvm)
        self.seconds = time.process_time() - start

    @cached_property
    def _run(self) -> Any:
        if lacks := self.product.target.absent():
            raise RuntimeError(f"{self.product} needs {lacks}: export it, or generate for target='native'")
        return self._compiled["main"]

    def __call__(self, a: NDArray[Any], b: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """A·B.

        Args:
            a: m × k. b: k × n. Of the product's types; what is not contiguous is copied.
            out: m × n, contiguous, of the type of C, apart from a and b; a new array where it is left out.

        Raises:
            TypeError: for another type.
            ValueError: for another shape, or an `out` that cannot be written.
            RuntimeError: for code of another CPU, naming what this one lacks.
        """
        m, n, k = self.plan.shape
        (left, right), _, kind = KINDS[self.product.dtype]
        run = self._run
        out = np.empty((m, n), kind) if out is None else out
        for name, x, dtype, shape in (
            ("a", a, left, (m, k)),
            ("b", b, right, (k, n)),
            ("out", out, kind, (m, n)),
        ):
            if x.dtype != np.dtype(dtype):
                raise TypeError(f"{name} is of type {x.dtype}; {self.product} takes {dtype}")
            if x.shape != shape:
                raise ValueError(f"{name} has shape {x.shape}; this routine takes {shape}")
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError("out must be contiguous and writeable: give np.empty((m, n))")
        if np.may_share_memory(out, a) or np.may_share_memory(out, b):
            raise ValueError("out shares memory with a or b: give another array")
        run(np.ascontiguousarray(a), np.ascontiguousarray(b), out)
        return out

    @property
    def assembly(self) -> str:
        """The code in the target's assembly language."""
        return str(self._compiled.mod.inspect_source("s"))

    def export(self, path: str | Path) -> int:
        """Write an object file (`.o`) or a shared library (`.so`), and return its bytes.

        Its one function is `__tvm_ffi_main`. In Python `tvm.runtime.load_module(path)["main"]` calls a
        library on arrays; from C it takes three DLPack tensors, as in `main.c` beside this file.

        Raises:
            ValueError: for another suffix.
            FileNotFoundError: for a library without a compiler on the PATH, which links it.
        """
        path = Path(path)
        if path.suffix == ".o":
            self._compiled.mod.write_to_file(str(path), "o")
        elif path.suffix == ".so":
            if not any(map(shutil.which, ("g++", "gcc", "clang++", "clang"))):
                raise FileNotFoundError(
                    f"no compiler on the PATH to link {path.name}: install gcc, or export an object (.o)"
                )
            self._compiled.export_library(str(path))
        else:
            raise ValueError(f"{path.name}: give a name that ends in .o (object) or .so (library)")
        return path.stat().st_size
