#!/usr/bin/env bash
# The partitioners against those of flwr-datasets, which wants an older fsspec than the lock has: .venv-partitions
# holds these few packages, and takes everything else from .venv. Where the index lacks them the step is skipped,
# loudly.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=$( (cat ci/partitions.txt ci/constraints.txt; pwd; .venv/bin/python -c 'import sys; print(sys.version)') | cksum)
if [ "$(cat .venv-partitions/.stamp 2> /dev/null)" != "$stamp" ]; then
    .venv/bin/python -m venv --clear --without-pip .venv-partitions
    site=$(echo .venv-partitions/lib/python*/site-packages)
    echo "import site; site.addsitedir('$(echo "$PWD"/.venv/lib/python*/site-packages)')" > "$site/main.pth"
    if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$site" \
        -r ci/partitions.txt; then
        echo "!!! SKIPPED: flwr-datasets cannot be installed here; partitions were NOT compared with Flower's !!!" >&2
        exit 0
    fi
    echo "$stamp" > .venv-partitions/.stamp
fi
# Imported here, so that no test can skip for want of them.
.venv-partitions/bin/python -c 'import datasets, flwr_datasets.partitioner'
.venv-partitions/bin/python -m pytest -q tests/fl/test_fl_partition.py -k flower
