#!/usr/bin/env bash
# make bench: every benchmark of the package; run it on an idle machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/activate.sh
ouikit bench
