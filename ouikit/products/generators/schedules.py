"""The six variants as schedules of one product in TensorIR: the same statements, in another order.

The loops of the table in `variants` are put in their order; A and B are packed where the variant's name says;
a tile of the resident operand is kept in registers. One rule decides the speed: no condition may reach the
loop of the micro-kernel, or LLVM stores the tile at every step. Hence equal blocks, and C is cut to size when
its sums leave the registers or the cache.
"""

from typing import Any

from tvm import s_tir

from ouikit.products.generators import tir
from ouikit.products.generators.variants import OPERANDS, Plan

Loop = Any  # TVM's LoopRV
Block = Any  # TVM's SBlockRV


def schedule(
    plan: Plan, lanes: int, operands: tuple[str, str], packed: tuple[str, str], out: str, dots: bool
) -> s_tir.Schedule:
    """One variant's schedule of one product, ready to compile.

    lanes: elements of `out` in a vector. dots: by dot-product instructions on groups of `tir.GROUP`.
    """
    parts = 1 if plan.variant.third == "C" else plan.count["k"]
    found = s_tir.Schedule(tir.product(plan.shape, plan.padded, parts, operands, packed, out))
    return _Steps(found, plan, lanes, dots).taken()


class _Steps:
    """The steps of one schedule, in the only order that TVM accepts."""

    def __init__(self, schedule: s_tir.Schedule, plan: Plan, lanes: int, dots: bool) -> None:
        self.s, self.plan, self.lanes, self.dots = schedule, plan, lanes, dots
        self.variant = plan.variant
        self.blocks = {name: schedule.get_sblock(name) for name in "ABC"}
        self.sums = schedule.get_sblock("sums")

    def taken(self) -> s_tir.Schedule:
        five, kernel = self.order()
        packs = {self.variant.third: five[1], self.variant.second: five[2]}
        registers = five[4]
        for operand in "AB":
            if operand == self.variant.resident:
                self.hold(operand, registers)
            else:
                self.pack(operand, packs[operand])
        if self.variant.resident == "C":
            self.leave_registers(registers)
            start = kernel[0]
        else:
            self.leave_cache(packs["C"])
            start = five[3] if self.variant.second == "C" else five[2]
        last = self.unroll(kernel)
        self.s.decompose_reduction(self.sums, start)
        if self.dots:
            self.s.tensorize(last, tir.dot_product(self.lanes))
        return self.s

    def order(self) -> tuple[list[Loop], list[Loop]]:
        """The five loops, and those of the micro-kernel: panels, and the tile's own with vectors last."""
        part, *spatial = self.s.get_loops(self.sums)
        levels = {d: self.cut(d, loop, part) for d, loop in zip("mnk", spatial, strict=True)}
        along = self.variant.streamed
        inner = [d for d in OPERANDS[self.variant.resident] if d != self.vector]
        kernel = [levels[along][1], levels[along][2]]
        kernel += [levels[d][2] for d in (*inner, self.vector)]
        if self.dots:  # a group is the innermost loop, which the instruction takes the place of
            kernel.append(kernel.pop(1))
        rest = {d: iter(found) for d, found in levels.items()}
        five = [next(rest[d]) for d in self.variant.loops]
        outside = [part] if self.variant.third == "C" else []
        self.s.reorder(*outside, *five, *kernel)
        return five, kernel

    def cut(self, dimension: str, loop: Loop, part: Loop) -> list[Loop]:
        """Loops over blocks, panels and elements. Panels first: the rest cannot bring a condition inside."""
        panels, elements = self.s.split(loop, [None, self.plan.units[dimension]])
        if dimension == "k" and self.variant.third != "C":
            return [part, panels, elements]  # blocks of k are the parts of the sums
        blocks, panels = self.s.split(panels, [self.plan.count[dimension], None])
        return [blocks, panels, elements]

    @property
    def vector(self) -> str:
        """The dimension of the tile that lies in vectors: columns, where A is resident its rows."""
        return "m" if self.variant.resident == "A" else "n"

    def pack(self, operand: str, loop: Loop) -> None:
        """Copy an operand's block at this loop, in panels that lie as the micro-kernel reads them."""
        block = self.blocks[operand]
        self.s.compute_at(block, loop)
        tile = set(OPERANDS[self.variant.resident])
        side = next(i for i, d in enumerate(OPERANDS[operand]) if d in tile)
        width = self.plan.units[OPERANDS[operand][side]]
        loops = self.s.get_loops(block)[-2:]
        panels, element = self.s.split(loops[side], [None, width])
        self.s.reorder(panels, loops[1 - side], element)
        if self.dots:
            self.s.unroll(element)
        elif operand == "B" and side == 1:  # rows of B are read and written as they lie
            self.vectorise(element, width)
        else:
            self.s.unroll(element)
        self.s.transform_layout(block, ("write", 0), self.panels_of(side, width))

    def panels_of(self, side: int, width: int) -> Any:
        """Layout of packed panels; groups of the streamed dimension stay together."""
        group = self.plan.units[self.variant.streamed]

        def layout(row: Any, column: Any) -> tuple[Any, ...]:
            across, along = (row, column) if side == 0 else (column, row)
            if group == 1:
                return across // width, along, across % width
            return across // width, along // group, across % width, along % group

        return layout

    def hold(self, operand: str, loop: Loop) -> None:
        """Read a tile of an operand into registers at this loop, straight from the matrix."""
        block = self.blocks[operand]
        self.s.compute_at(block, loop)
        self.s.set_scope(block, 0, "local")
        for tile in self.s.get_loops(block)[-2:]:
            self.s.unroll(tile)

    def leave_registers(self, loop: Loop) -> None:
        """Add a tile of sums to C when the micro-kernel ends."""
        block = self.blocks["C"]
        self.s.reverse_compute_at(block, loop)
        self.s.set_scope(self.sums, 0, "local")
        rows, columns = self.s.get_loops(block)[-2:]
        self.s.unroll(rows)
        self.vectorise(columns, self.plan.units["n"])

    def leave_cache(self, loop: Loop) -> None:
        """Keep a block of sums in panels through this loop's body, and add it to C at its end."""
        block, width = self.blocks["C"], self.plan.units[self.vector]
        self.s.reverse_compute_at(block, loop)
        rows, columns = self.s.get_loops(block)[-2:]
        if self.vector == "m":
            self.s.transform_layout(self.sums, ("write", 0), lambda q, i, j: (q, i // width, j, i % width))
            panels, element = self.s.split(rows, [None, width])
            self.s.reorder(panels, columns, element)
            self.s.unroll(element)
        else:
            self.s.transform_layout(self.sums, ("write", 0), lambda q, i, j: (q, j // width, i, j % width))
            panels, element = self.s.split(columns, [None, width])
            self.s.reorder(panels, rows, element)
            self.vectorise(element, width)

    def unroll(self, kernel: list[Loop]) -> Loop:
        """Write out the tile; returns the loop that one vector instruction replaces."""
        _, *tile = kernel
        if self.dots:
            rows, columns, _ = tile
            vectors, lane = self.s.split(columns, [None, self.lanes])
            self.s.unroll(rows)
            self.s.unroll(vectors)
            return lane
        for loop in tile[:-1]:
            self.s.unroll(loop)
        return self.vectorise(tile[-1], self.plan.units[self.vector])

    def vectorise(self, loop: Loop, extent: int) -> Loop:
        """One loop as vectors of the target's length, written out."""
        if extent > self.lanes:  # one longer vector, whose length is no power of two, is slow
            vectors, loop = self.s.split(loop, [None, self.lanes])
            self.s.unroll(vectors)
        self.s.vectorize(loop)
        return loop
