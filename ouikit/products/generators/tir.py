# mypy: ignore-errors
"""What the generator starts from, in TensorIR's own syntax: a padded product, and one instruction.

Nothing here says in what order anything runs; `schedules` does.
"""

from tvm import s_tir
from tvm.script import tirx as T  # noqa: N812
from tvm.tirx import PrimFunc

from ouikit.products.layer_shapes import Shape

GROUP = 4  # 8-bit products that the instruction sums


def product(
    shape: Shape, padded: Shape, parts: int, operands: tuple[str, str], packed: tuple[str, str], out: str
) -> PrimFunc:
    """C = A·B in four steps: zero-padded A and B, sums over each of `parts` parts of k, and C, their sum.

    operands, packed: types of A and B, before and after padding; out: type of the sums and of C. No matrix is
    taken to be aligned to more than its elements: TVM's default is 64 bytes, which NumPy's are not.
    """
    (m, n, k), (rows, columns, depth) = shape, padded
    each = depth // parts
    align = [int("".join(filter(str.isdigit, name))) // 8 for name in (*operands, out)]

    @T.prim_func(s_tir=True)
    def main(
        a: T.Buffer((m, k), operands[0], align=align[0]),
        b: T.Buffer((k, n), operands[1], align=align[1]),
        c: T.Buffer((m, n), out, align=align[2]),
    ):
        T.func_attr({"tirx.noalias": True})
        full_a = T.sblock_alloc_buffer((rows, depth), packed[0])
        full_b = T.sblock_alloc_buffer((depth, columns), packed[1])
        sums = T.sblock_alloc_buffer((parts, rows, columns), out)
        for i, p in T.grid(rows, depth):
            with T.sblock("A"):
                vi, vp = T.axis.remap("SS", [i, p])
                full_a[vi, vp] = T.if_then_else(
                    vi < m and vp < k, T.Cast(packed[0], a[vi, vp]), T.Cast(packed[0], 0)
                )
        for p, j in T.grid(depth, columns):
            with T.sblock("B"):
                vp, vj = T.axis.remap("SS", [p, j])
                full_b[vp, vj] = T.if_then_else(
                    vp < k and vj < n, T.Cast(packed[1], b[vp, vj]), T.Cast(packed[1], 0)
                )
        for q, i, j, p in T.grid(parts, rows, columns, each):
            with T.sblock("sums"):
                vq, vi, vj, vp = T.axis.remap("SSSR", [q, i, j, p])
                with T.init():
                    sums[vq, vi, vj] = T.Cast(out, 0)
                sums[vq, vi, vj] = sums[vq, vi, vj] + T.Cast(out, full_a[vi, vq * each + vp]) * T.Cast(
                    out, full_b[vq * each + vp, vj]
                )
        for i, j, q in T.grid(m, n, parts):
            with T.sblock("C"):
                vi, vj, vq = T.axis.remap("SSR", [i, j, q])
                with T.init():
                    c[vi, vj] = T.Cast(out, 0)
                c[vi, vj] = c[vi, vj] + sums[vq, vi, vj]

    return main


def dot_product(lanes: int) -> str:
    """Name of a tensor intrinsic for `vpdpbusd`: `lanes` sums of four u8 · s8 products each.

    The intrinsic that comes with TVM 0.27 does not compile with its LLVM 22, whose instruction takes vectors
    of bytes.
    """
    name, instruction = f"ouikit.vpdpbusd.{lanes}", f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    if s_tir.TensorIntrin.get(name, allow_missing=True):
        return name
    numbers, sums = f"int8x{GROUP * lanes}", f"int32x{lanes}"

    @T.prim_func(s_tir=True)
    def meaning(
        a: T.Buffer((GROUP,), "uint8", offset_factor=1),
        b: T.Buffer((lanes, GROUP), "int8", offset_factor=1),
        c: T.Buffer((lanes,), "int32", scope="local", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(c[0:lanes], a[0:GROUP], b[0:lanes, 0:GROUP])
            T.writes(c[0:lanes])
            for j, p in T.grid(lanes, GROUP):
                with T.sblock("update"):
                    vj, vp = T.axis.remap("SR", [j, p])
                    c[vj] = c[vj] + T.Cast("int32", a[vp]) * T.Cast("int32", b[vj, vp])

    @T.prim_func(s_tir=True)
    def with_instruction(
        a: T.Buffer((GROUP,), "uint8", offset_factor=1),
        b: T.Buffer((lanes, GROUP), "int8", offset_factor=1),
        c: T.Buffer((lanes,), "int32", scope="local", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(c[0:lanes], a[0:GROUP], b[0:lanes, 0:GROUP])
            T.writes(c[0:lanes])
            four = T.reinterpret("int32", a.vload([0], "uint8x4"))
            c[T.ramp(T.int32(0), 1, lanes)] = T.call_llvm_pure_intrin(
                sums,
                instruction,
                c.vload([0], sums),
                T.reinterpret(numbers, T.broadcast(four, lanes)),
                b.vload([0, 0], numbers),
            )

    s_tir.TensorIntrin.register(name, meaning, with_instruction)
    return name
