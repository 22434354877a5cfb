#!/usr/bin/env bash
# The one environment: .venv, from pyproject.toml and kernels/ under the one lock. Does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-$(command -v python3.11 || command -v python3)}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "ouikit needs Python 3.11 or newer; $python is $("$python" --version). Set PYTHON=/path/to/python3.11." >&2
    exit 1
}
# uv installs in half a minute what takes pip five; it comes from the one lock, too. It reads nothing of pip's
# configuration, where an index or a folder with a CPU build of torch may be named.
setting() { .venv/bin/python -m pip config get "$1" 2> /dev/null | tr ' ' ',' || true; }
install() {
    UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$(setting global.find-links)}} \
        UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(setting global.index-url)}} \
        .venv/bin/uv pip install --quiet --python .venv/bin/python \
        -c ci/constraints.txt --build-constraints ci/constraints.txt "$@"
}

# The folder counts: a copied or moved environment would import the package of the old place.
stamp=$( (cat pyproject.toml ci/constraints.txt; pwd; "$python" -c 'import sys; print(sys.version)') | cksum)
if [ "$(cat .venv/.stamp 2>/dev/null)" != "$stamp" ]; then
    echo "Setting up .venv (a minute, 3 GB) ..." >&2
    "$python" -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c ci/constraints.txt uv
    # torch is named beside what depends on it, so that no other release can be picked.
    install torch -e '.[all]'
    echo "$stamp" > .venv/.stamp
fi

# The compiled package, built again when one of its files has changed. The lock holds for its build, too.
kernels=$(find kernels/{include,ouigemm,src,CMakeLists.txt,pyproject.toml} -type f -not -name '*.pyc' -exec cksum {} + |
    LC_ALL=C sort | cksum)
[ "$(cat .venv/.kernels 2>/dev/null)" = "$kernels" ] && exit 0
echo "Building kernels/ (a minute or two) ..." >&2
install -e './kernels[test]'
echo "$kernels" > .venv/.kernels
