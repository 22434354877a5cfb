#!/usr/bin/env bash
# make serve: the built book on http://127.0.0.1:8000
set -euo pipefail
cd "$(dirname "$0")/.."
ci/book.sh
exec .venv/bin/python -m http.server --bind 127.0.0.1 --directory build/html "${PORT:-8000}"
