#!/usr/bin/env bash
# What is too long for every commit: 20,000 random products with a seed of the day, 2,000 under the sanitizers, the
# tests of products with the ladder forced to lower rungs than this machine's best, cells of records computed again.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/activate.sh
seed=${1:-$(date +%Y%m%d)}
pytest -q kernels/tests/test_fuzz.py --fuzz-cases 20000 --fuzz-seed "$seed"
# A cell of each sweep behind the committed records, computed again; times of another machine resemble nothing.
ouikit check --again $(basename -s .yaml chapters/*.yaml | grep -v ^gemm_)
kernels/sanitize.sh --fuzz-cases 2000 --fuzz-seed "$seed"
for rung in avx2 portable; do
    if OUIGEMM_ISA=$rung python -c 'import numpy, ouigemm; one = numpy.eye(2, dtype="f4"); ouigemm.gemm(one, one)'; then
        OUIGEMM_ISA=$rung pytest -q kernels/tests tests/products tests/bench
    else
        echo "!!! SKIPPED: this machine has no rung $rung !!!" >&2
    fi
done
