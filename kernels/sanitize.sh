#!/usr/bin/env bash
# The tests under the address and undefined-behaviour sanitizers, with the AMX kernels on their model in C.
# Arguments go to pytest. Needs gcc, and what `pip install './kernels[test]'` brings.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/site" \
    -C build-dir="$work/build" -C cmake.define.OUIGEMM_SANITIZE=ON -C cmake.define.OUIGEMM_TILE_MODEL=ON .
libraries="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
# Python leaks at its end, and so leaks are not looked for. -P and -S keep the sources here, and an installation
# for editing, from hiding what was built; the first line proves that. What cannot be allocated is an error.
export LD_PRELOAD="$libraries" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
PYTHONPATH="$work/site:$(LD_PRELOAD='' python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
export PYTHONPATH
python -P -S -c 'import ouigemm; assert ouigemm.capabilities()["tile_model"], ouigemm.__file__'
python -P -S -m pytest -q tests "$@"
