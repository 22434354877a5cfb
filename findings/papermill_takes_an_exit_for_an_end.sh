#!/usr/bin/env bash
# A cell that calls sys.exit() stops a notebook. Papermill then ends normally, with exit code 0, and the cells
# after it have no output: whoever reads an older result finds it untouched and takes it for this run's.
#
# Seen with papermill 2.7.0, ipykernel 7.4.0: "exit code 0", "cells executed: 2 of 3", "the last wrote nothing".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check papermill==2.7.0 ipykernel==7.4.0 2> /dev/null
venv/bin/python - << 'PYTHON'
import nbformat

cells = ["x = 1", "import sys; sys.exit()", "open('result', 'w').write('new')"]
nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
nbformat.write(nb, "notebook.ipynb")
PYTHON
export JUPYTER_PATH="$place/venv/share/jupyter"
code=0
venv/bin/papermill --no-progress-bar notebook.ipynb executed.ipynb > log 2>&1 || code=$?
seen=$(venv/bin/python - "$code" << 'PYTHON'
import os
import sys

import nbformat

cells = nbformat.read("executed.ipynb", 4).cells
print("exit code", sys.argv[1])
print(f"cells executed: {sum(cell.execution_count is not None for cell in cells)} of {len(cells)}")
print("the last wrote", "a result" if os.path.exists("result") else "nothing")
PYTHON
)
echo "$seen"
[ "$seen" = $'exit code 0\ncells executed: 2 of 3\nthe last wrote nothing' ]
