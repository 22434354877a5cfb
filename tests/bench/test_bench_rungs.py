"""What the benchmark of forced rungs makes of its times, and that a child process obeys."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("ouigemm")
from ouikit.bench import rungs
from ouikit.bench.gemm import Machine

FEW = rungs.CLASSES[rungs.FEW_ROWS]


def times(**arms):
    return {shape: {way: [seconds] for way, seconds in arms.items()} for shape in FEW}


def test_few_rows_are_measured_against_the_bandwidth():
    """B alone, 180 MB at 180 MB a second, takes a second and a little more with A and C."""
    machine = Machine(1e15, 0, {256: 4 * 11008 * 4096})
    packed, plain = rungs.bandwidth_rows("f32", times(packed=1.25, plain=2.0, MKL=1.0), machine)
    assert packed["value"] == pytest.approx(0.8, rel=5e-3)
    assert plain["value"] == pytest.approx(0.5, rel=5e-3)
    assert not packed["met"]
    (quick,) = rungs.bandwidth_rows("f32", times(packed=1.05), machine)
    assert quick["met"]
    assert quick["n"] == len(FEW) == 4


@pytest.mark.parametrize(
    ("rung", "name", "way", "peer", "target"),
    [
        ("avx2", rungs.FEW_ROWS, "plain", "MKL", 1.0),
        ("avx2", rungs.FEW_ROWS, "plain", "oneDNN", 2.0),
        ("avx2", "narrow or low", "packed", "OpenBLAS", 1.1),
        ("avx2", "ViT-Base", "packed", "MKL", 1.05),
        ("avx2", "ViT-Base", "packed", "oneDNN", 1.2),
        ("avx2", rungs.SHALLOW, "packed", "oneDNN", 1.0),
        ("avx512vnni", "ViT-Base", "packed", "oneDNN", 1.0),
    ],
)
def test_targets(rung, name, way, peer, target):
    assert rungs.target_of(rung, name, way, peer) == target


def test_every_rung_has_a_process_that_is_held_to_it(monkeypatch):
    seen = []

    def child(command, env, **options):
        seen.append((command[-1], [env[name] for name in (*rungs.VARIABLES, "OUIGEMM_ISA")]))
        return subprocess.CompletedProcess(command, 0, json.dumps([{"name": command[-1]}]))

    monkeypatch.setattr(subprocess, "run", child)
    present = {"avx2": None, "avxvnni": "AVX-VNNI", "avx512": None}
    known = {"rungs": {name: {"absent": absent} for name, absent in present.items()}}
    monkeypatch.setattr(rungs.ouigemm, "capabilities", lambda: known)
    assert [row["name"] for row in rungs.run()] == ["avx2", "avx512"]
    assert seen == [
        ("avx2", ["AVX2", "Haswell", "AVX2", "avx2"]),
        ("avx512", ["AVX512", "SkylakeX", "AVX512_CORE", "avx512"]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rung", "mkl", "openblas"), [("avx2", "AVX2", "Haswell"), ("avx512", None, "SkylakeX")]
)
def test_peers_go_no_further(rung, mkl, openblas):
    """In their own words, where they are the libraries of this torch and this NumPy."""
    if rungs.ouigemm.capabilities()["rungs"].get(rung, {"absent": ""})["absent"] is not None:
        pytest.skip(f"no {rung} here")
    code = (
        "import numpy, torch; from threadpoolctl import threadpool_info\n"
        "torch.mm(torch.ones(9, 9), torch.ones(9, 9))\n"
        "print(*(i['architecture'] for i in threadpool_info() if i['internal_api'] == 'openblas'))"
    )
    told = dict(zip(rungs.VARIABLES, rungs.PEERS[rung], strict=True)) | {"MKL_VERBOSE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | told, capture_output=True, text=True, check=True
    )
    *said, architectures = done.stdout.splitlines()
    assert {*architectures.split()} <= {openblas}
    # On a CPU that is not Intel's, MKL 2024.0 goes one way and names no instructions, whatever it is told.
    if mkl and said and "MKL_VERBOSE" in said[0] and "Architecture processors" not in said[0]:
        assert f"(Intel(R) {mkl})" in said[0]
        assert "AVX-512" not in said[0]
