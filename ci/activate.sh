# Sourced by the other scripts: the environment, brought up to date, and how its programs are found.
ci/env.sh
export PATH="$PWD/.venv/bin:$PATH" IPYTHONDIR="$PWD/ci/ipython"
# Installing compiles no module. Without the bytecode that the first import leaves, every process would compile torch
# anew, for several CPU-seconds; images for containers often switch it off.
unset PYTHONDONTWRITEBYTECODE
