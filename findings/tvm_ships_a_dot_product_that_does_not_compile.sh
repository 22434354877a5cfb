#!/usr/bin/env bash
# Apache TVM 0.27.0.post1 with LLVM 22: the tensor intrinsic that it ships for vpdpbusd (8-bit dot products of AVX512-VNNI)
# passes vectors of 32-bit integers, and LLVM's instruction now takes vectors of bytes. A product that uses it cannot be
# compiled. Without an intrinsic LLVM never chooses the instruction for a vectorised product: it multiplies 32-bit integers.
# Seen: InternalError with "Call parameter type does not match function signature"; no vpdpbusd, but vpmulld, without it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 \
    apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1 2> /dev/null
"$folder/venv/bin/python" - << 'PYTHON'
import tvm
from tvm import s_tir, te
from tvm.s_tir.tensor_intrin import x86

a, b = te.placeholder((16,), "uint8", "a"), te.placeholder((16, 16), "int8", "b")
k = te.reduce_axis((0, 16), "k")
c = te.compute((16,), lambda j: te.sum(a[k].astype("int32") * b[j, k].astype("int32"), axis=k), "c")


def compiled(intrinsic):
    schedule = s_tir.Schedule(te.create_prim_func([a, b, c]))
    block = schedule.get_sblock("c")
    j, step = schedule.get_loops(block)
    groups, four = schedule.split(step, [None, 4])
    schedule.reorder(groups, j, four)
    schedule.decompose_reduction(block, groups)
    update = schedule.get_sblock("c_update")
    if intrinsic:
        schedule.tensorize(schedule.get_loops(update)[-2], intrinsic)
    else:
        *_, j, four = schedule.get_loops(update)
        schedule.reorder(four, j)
        schedule.vectorize(j)
    return tvm.compile(schedule.mod, target={"kind": "llvm", "mcpu": "cascadelake"}).mod.inspect_source("s")


plain = compiled(None)
try:
    compiled(x86.VNNI_DOT_16x4_INTRIN)
    error = "none"
except tvm.error.InternalError as raised:
    error = str(raised)
print(tvm.__version__, "| without:", plain.count("vpdpbusd"), "vpdpbusd,", plain.count("vpmulld"), "vpmulld")
print("with:", next((line for line in error.splitlines() if "signature" in line), error[-300:]))
assert "Call parameter type does not match function signature" in error
assert plain.count("vpdpbusd") == 0
assert plain.count("vpmulld") > 0
PYTHON
