#!/usr/bin/env bash
# make test: everything that CI does, cheapest first.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/activate.sh
export PYTHONHASHSEED=0 OMP_NUM_THREADS=1
# In a log each step's words stay together; a reader at a terminal sees them as they come.
[ -t 1 ] && together=line || together=target
exec make --no-print-directory --jobs=2 --output-sync=$together -f ci/test.mk
