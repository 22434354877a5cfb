#!/usr/bin/env bash
# The one environment: .venv, from pyproject.toml and kernels/ under the one lock. Does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-$(command -v python3.11 || command -v python3)}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "ouikit needs Python 3.11 or newer; $python is $("$python" --version). Set PYTHON=/path/to/python3.11." >&2
    exit 1
}
# The folder counts: a copied or moved environment would import the package of the old place.
stamp=$( (cat pyproject.toml ci/constraints.txt; pwd; "$python" -c 'import sys; print(sys.version)') | cksum)
if [ "$(cat .venv/.stamp 2>/dev/null)" != "$stamp" ]; then
    echo "Setting up .venv (about two minutes, 2.5 GB) ..." >&2
    "$python" -m venv --clear .venv
    # torch is named beside what depends on it, so that pip cannot pick another release.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c ci/constraints.txt torch -e '.[all]'
    echo "$stamp" > .venv/.stamp
fi

# The compiled package, built again when one of its files has changed. The lock holds for its build, too.
kernels=$(find kernels/{include,ouigemm,src,CMakeLists.txt,pyproject.toml} -type f -not -name '*.pyc' -exec cksum {} + |
    LC_ALL=C sort | cksum)
[ "$(cat .venv/.kernels 2>/dev/null)" = "$kernels" ] && exit 0
echo "Building kernels/ ..." >&2
PIP_CONSTRAINT="$PWD/ci/constraints.txt" .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    -e './kernels[test]'
echo "$kernels" > .venv/.kernels
