#!/usr/bin/env bash
# An initialiser of torch.nn.init writes into the tensor that it is given. The weight of a layer under
# torch.nn.utils.parametrizations is computed anew at each access, so that what is written to it is gone at the
# next: no error, no warning, and the layer keeps its weights. Assigning to the attribute does write through.
#
# Seen with torch 2.13.0: "zeros_ on the weight: unchanged", "assigned: all zero True".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2> /dev/null
seen=$(venv/bin/python - << 'PYTHON'
import torch
from torch import nn

layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
before = layer.weight.clone()
nn.init.zeros_(layer.weight)
print("zeros_ on the weight:", "unchanged" if torch.equal(layer.weight, before) else "changed")
with torch.no_grad():
    layer.parametrizations.weight.original0.zero_()
print("assigned: all zero", not layer.weight.any())
PYTHON
)
echo "$seen"
[ "$seen" = $'zeros_ on the weight: unchanged\nassigned: all zero True' ]
