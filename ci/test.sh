#!/usr/bin/env bash
# make test: everything that CI does, cheapest first.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/activate.sh
export PYTHONHASHSEED=0 OMP_NUM_THREADS=1

step() { echo "== $*" >&2; }
step "format and types"
ruff format --check .
ruff check .
mypy
step "the form of the chapters"
ouikit check
step "unit, property and structure tests"
pytest -q
step "every example of a docstring"
pytest -q --doctest-modules ouikit kernels/ouigemm
step "partitions against those of flwr-datasets"
ci/partitions.sh
step "the compiled package"
pytest -q kernels/tests
step "the same under the address and undefined-behaviour sanitizers"
kernels/sanitize.sh --fuzz-cases 200
step "every chapter at reduced scale, and the book with warnings as errors"
ouikit book
step "every line of every notebook, on cached sweep cells"
pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout 600 chapters/
step "the built site"
python ci/check_site.py build/html
