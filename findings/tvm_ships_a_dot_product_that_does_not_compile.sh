#!/usr/bin/env bash
# Apache TVM 0.27.0.post1 with LLVM 22: the tensor intrinsic that it ships for vpdpbusd (8-bit dot products of AVX512-VNNI)
# passes vectors of 32-bit integers, and LLVM's instruction now takes vectors of bytes. A product that uses it cannot be
# compiled. A vectorised product without the intrinsic is no way out: it is widened first.
# Seen: InternalError, "Call parameter type does not match function signature!"; without the intrinsic no vpdpbusd.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 \
    apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1 2> /dev/null
"$folder/venv/bin/python" - << 'PYTHON'
import importlib
import sys
import types
from pathlib import Path

import tvm
from tvm import s_tir, te

# The package of the intrinsics also reads hundreds of GPU's, which takes a minute: only the file for x86 is loaded.
package = types.ModuleType("tvm.s_tir.tensor_intrin")
package.__path__ = [str(Path(s_tir.__file__).parent / "tensor_intrin")]
sys.modules[package.__name__] = package
x86 = importlib.import_module("tvm.s_tir.tensor_intrin.x86")

a, b = te.placeholder((16,), "uint8", "a"), te.placeholder((16, 16), "int8", "b")
k = te.reduce_axis((0, 16), "k")
c = te.compute((16,), lambda j: te.sum(a[k].astype("int32") * b[j, k].astype("int32"), axis=k), "c")


def compiled(intrinsic):
    schedule = s_tir.Schedule(te.create_prim_func([a, b, c]))
    block = schedule.get_sblock("c")
    j, step = schedule.get_loops(block)
    groups, four = schedule.split(step, [None, 4])
    if intrinsic:
        schedule.reorder(groups, j, four)
        schedule.decompose_reduction(block, groups)
        schedule.tensorize(schedule.get_loops(schedule.get_sblock("c_update"))[-2], intrinsic)
    else:
        schedule.reorder(groups, four, j)
        schedule.vectorize(j)
        schedule.decompose_reduction(block, groups)
    return tvm.compile(schedule.mod, target={"kind": "llvm", "mcpu": "cascadelake"}).mod.inspect_source("s")


plain = compiled(None)
try:
    compiled(x86.VNNI_DOT_16x4_INTRIN)
    error = "none"
except tvm.error.InternalError as raised:
    error = str(raised)
print(tvm.__version__, "| without the intrinsic:", plain.count("vpdpbusd"), "vpdpbusd,", plain.count("vpmaddwd"), "vpmaddwd")
print("with:", next((line for line in error.splitlines() if "signature" in line), error[-300:]))
assert "Call parameter type does not match function signature" in error
assert (plain.count("vpdpbusd"), plain.count("vpmaddwd") > 0) == (0, True)
PYTHON
