#!/usr/bin/env bash
# make book: the environment, every chapter at reduced scale, the HTML book.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/activate.sh
ouikit book
