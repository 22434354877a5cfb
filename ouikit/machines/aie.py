"""One AI-engine tile of a Xilinx Versal VC1902: matrix products of int16, and the cycles that they take.

The product is carried out as the tile would do it: weights A packed beforehand, panels of B copied one by one
to the tile's memory, 16 × 4 sums in accumulators of 48 bits, results of 16 bits. Cycles come from a model of
three numbers. The first follows from the vector unit; the other two are fitted to what the authors' simulator
printed, so that no time here was measured on a device.

Source: Lei, Flich, Quintana-Ortí, "Toward Matrix Multiplication for Deep Learning Inference on the Xilinx
Versal" (arXiv 2302.07594): memories from Table I, the micro-kernel and the loops from its text. That a result
wraps around when C is added is inferred.
"""

from dataclasses import dataclass

import numpy as np

MR, NR = 16, 4  # rows and columns of the micro-kernel's tile
MAC_PER_CYCLE = 32  # multiply-adds of int16
LANES, ACCUMULATORS, ACCUMULATOR_BITS = 16, 4, 48
MEMORIES = {"tile": 32 * 2**10, "FPGA RAM": 20 * 2**20, "DDR": 2 * 2**30}  # bytes, Table I


@dataclass(frozen=True)
class Costs:
    """Cycles of the model.

    step: of a micro-kernel, per step of k: 64 multiply-adds, 32 a cycle. fixed: of a micro-kernel besides,
    for its start and for C; from 596 cycles at a depth of 256. copy: of one panel of B to the tile's memory,
    fitted to Figure 6. spilled: how much longer a tile takes that the accumulators cannot hold; one number
    of the paper, 1,429 in place of 1,192 cycles.
    """

    step: float = MR * NR / MAC_PER_CYCLE
    fixed: float = 84.0
    copy: float = 705.0
    spilled: float = 1429 / 1192


def micro_kernel_cycles(kc: int, mr: int = MR, nr: int = NR, costs: Costs | None = None) -> float:
    """Cycles of one micro-kernel of depth kc on operands that are already where it reads them.

    Raises ValueError for a depth that is not > 0, or rows that do not fill the lanes of accumulators.

    >>> micro_kernel_cycles(256), micro_kernel_cycles(256, mr=32)
    (596.0, 1429.0)
    """
    costs = costs or Costs()
    _positive(kc=kc, mr=mr, nr=nr)
    _multiple("mr", mr, "lanes", LANES)
    tiles = mr * nr / (MR * NR)
    held = mr // LANES * nr <= ACCUMULATORS
    return (costs.step * kc + costs.fixed) * tiles * (1.0 if held else costs.spilled)


def cycles(m: int, n: int, k: int, mc: int, kc: int, costs: Costs | None = None) -> float:
    """Cycles of C += A·B with A `[m, k]` and B `[k, n]` in blocks of mc rows and a depth of kc.

    Every panel of B is copied once for each block of A, and serves mc / 16 micro-kernels.

    Raises:
        ValueError: m, n or k is no multiple of mc, 4 or kc, or mc of 16; or a memory is too small.

    >>> share = 4096 * 4096 * 290 / MAC_PER_CYCLE / cycles(4096, 4096, 290, mc=4096, kc=290)
    >>> round(100 * share, 1)
    87.0
    """
    costs = costs or Costs()
    footprint(m, n, k, mc, n, kc)
    panels = (m // mc) * (n // NR) * (k // kc)
    return panels * (costs.copy + mc // MR * micro_kernel_cycles(kc, costs=costs))


def footprint(m: int, n: int, k: int, mc: int, nc: int, kc: int) -> dict[str, int]:
    """Bytes that a product keeps in each memory: a panel of B, all of packed A, and B (twice) and C.

    Raises:
        ValueError: sizes that are no multiples as in `gemm`; a memory that is too small, by name.

    >>> footprint(4096, 4096, 290, mc=4096, nc=4096, kc=290)["tile"]
    2320
    """
    _positive(m=m, n=n, k=k, mc=mc, nc=nc, kc=kc)
    for name, value, unit, size in (("m", m, "mc", mc), ("n", n, "nc", nc), ("k", k, "kc", kc)):
        _multiple(name, value, unit, size)
    _multiple("mc", mc, "rows of a tile", MR)
    _multiple("nc", nc, "columns of a tile", NR)
    needed = {"tile": 2 * kc * NR, "FPGA RAM": 2 * m * k, "DDR": 2 * (k * n + kc * nc + m * n)}
    for memory, size in needed.items():
        if size > MEMORIES[memory]:
            raise ValueError(
                f"{memory} holds {MEMORIES[memory]:,} bytes, and {size:,} are needed: give a smaller "
                + {"tile": "kc", "FPGA RAM": "m or k", "DDR": "m, n or k"}[memory]
            )
    return needed


def pack_rows(a: np.ndarray, kc: int) -> np.ndarray:
    """A, int16 `[m, k]`, as it lies packed: `[k / kc, m / 16, kc, 16]`, the columns of 16 rows side by side.

    Raises TypeError for another type, ValueError for sizes that are no multiples.
    """
    _matrix("A", a)
    m, k = a.shape
    _multiple("m", m, "rows of a tile", MR)
    _multiple("k", k, "kc", kc)
    return np.ascontiguousarray(a.reshape(m // MR, MR, k // kc, kc).transpose(2, 0, 3, 1))


def pack_columns(b: np.ndarray) -> np.ndarray:
    """A block of B, int16 `[kc, nc]`, as panels `[nc / 4, kc, 4]`: four columns of each step side by side.

    Raises TypeError for another type, ValueError for columns that are no multiple of four.
    """
    _matrix("B", b)
    kc, nc = b.shape
    _multiple("n", nc, "columns of a tile", NR)
    return np.ascontiguousarray(b.reshape(kc, nc // NR, NR).transpose(1, 0, 2))


def micro_kernel(a: np.ndarray, b: np.ndarray, c: np.ndarray, saturate: bool = True) -> np.ndarray:
    """C + A·B for packed A `[kc, 16]`, B `[kc, 4]` and C `[16, 4]`, all int16, as the tile computes it.

    Sums wrap around in 48 bits. They become 16 bits by clipping (`saturate`) or by dropping the upper ones;
    the paper does not say which. Adding C wraps around.

    >>> one = np.ones((8, 16), np.int16), np.ones((8, 4), np.int16), np.zeros((16, 4), np.int16)
    >>> int(micro_kernel(*one)[0, 0])
    8
    """
    sums = _wrapped(a.astype(np.int64).T @ b.astype(np.int64), ACCUMULATOR_BITS)
    limits = np.iinfo(np.int16)
    sums = sums.clip(limits.min, limits.max) if saturate else _wrapped(sums, 16)
    return _wrapped(sums + c, 16).astype(np.int16)


@dataclass(frozen=True)
class Product:
    """What `gemm` gives: C int16 `[m, n]`, and how often panels were copied and micro-kernels called."""

    c: np.ndarray
    copies: int
    calls: int

    def cycles(self, kc: int, costs: Costs | None = None) -> float:
        """Cycles of that many copies and calls. The same number as from `cycles`, counted in another way."""
        costs = costs or Costs()
        return self.copies * costs.copy + self.calls * micro_kernel_cycles(kc, costs=costs)


def gemm(
    packed: np.ndarray, b: np.ndarray, c: np.ndarray, mc: int, nc: int, saturate: bool = True
) -> Product:
    """C + A·B by the paper's five loops, for A packed by `pack_rows`; C is left as it is.

    packed: `[k / kc, m / 16, kc, 16]`. b: `[k, n]`. c: `[m, n]`. All int16. mc, nc: sizes of blocks.

    Raises:
        TypeError: an operand of another type.
        ValueError: shapes that do not fit each other, sizes that are no multiples of the blocks, or a memory
            that is too small.
    """
    _matrix("B", b)
    _matrix("C", c)
    if packed.dtype != np.int16 or packed.ndim != 4 or packed.shape[3] != MR:
        raise TypeError(f"A must be packed by pack_rows: got {packed.dtype} {list(packed.shape)}")
    depths, blocks, kc, _ = packed.shape
    (k, n), m = b.shape, blocks * MR
    if k != depths * kc or c.shape != (m, n):
        raise ValueError(f"A is {m} × {depths * kc}, B {k} × {n} and C {c.shape[0]} × {c.shape[1]}")
    footprint(m, n, k, mc, nc, kc)
    out, copies, calls = c.copy(), 0, 0
    for jc in range(0, n, nc):
        for pc in range(depths):
            panels = pack_columns(b[pc * kc : (pc + 1) * kc, jc : jc + nc])
            for ic in range(0, m, mc):
                for jr, panel in enumerate(panels):
                    copies += 1
                    columns = slice(jc + jr * NR, jc + (jr + 1) * NR)
                    for ir in range(ic, ic + mc, MR):
                        tile = out[ir : ir + MR, columns]
                        tile[:] = micro_kernel(packed[pc, ir // MR], panel, tile, saturate)
                        calls += 1
    return Product(out, copies, calls)


def _wrapped(x: np.ndarray, bits: int) -> np.ndarray:
    """The lowest bits of int64 numbers, as signed numbers."""
    return (x + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def _matrix(name: str, x: np.ndarray) -> None:
    if not isinstance(x, np.ndarray) or x.dtype != np.int16 or x.ndim != 2:
        got = f"{x.dtype} {list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"{name} must be an int16 matrix: got {got}")


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be > 0: got {size}")


def _multiple(name: str, value: int, unit: str, size: int) -> None:
    _positive(**{name: value})
    if size < 1 or value % size:
        raise ValueError(f"{name} = {value} is no multiple of {unit} ({size}): fill it with zeros")
