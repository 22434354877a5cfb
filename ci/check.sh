#!/usr/bin/env bash
# make check: format, types, the form of the chapters and the fast tests, in under two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/activate.sh
export PYTHONHASHSEED=0 OMP_NUM_THREADS=1
ruff format --check .
ruff check .
mypy
ouikit check
# The face, the papers, the pages and the rules of the tree; what trains, simulates or starts processes is left out.
pytest -q -m "not slow" tests/test_{structure,patterns,oui,probe,stats}.py tests/lab/test_{paper,claims,render,notebook}.py
