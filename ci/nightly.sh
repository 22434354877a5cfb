#!/usr/bin/env bash
# What is too long for every commit: 20,000 random products with a seed of the day, and 2,000 under the sanitizers.
set -euo pipefail
cd "$(dirname "$0")/.."
ci/env.sh
export PATH="$PWD/.venv/bin:$PATH"
seed=${1:-$(date +%Y%m%d)}
pytest -q kernels/tests/test_fuzz.py --fuzz-cases 20000 --fuzz-seed "$seed"
kernels/sanitize.sh --fuzz-cases 2000 --fuzz-seed "$seed"
