#!/usr/bin/env bash
# torch.nn.TransformerEncoderLayer notes at construction which activation it has. In evaluation without gradients
# it takes a fused path by that note: another activation that was put in its place later is ignored there, and
# heeded in training and with gradients. Who swaps activations to compare them sees no difference at all.
#
# Seen with torch 2.13.0: "without gradients: ignored", "with gradients: heeded".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2> /dev/null
seen=$(venv/bin/python - << 'PYTHON'
import torch
from torch import nn

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True).eval()
x = torch.randn(2, 5, 8)
with torch.no_grad():
    before = layer(x)
    layer.activation = nn.Identity()
    after = layer(x)
print("without gradients:", "ignored" if torch.equal(before, after) else "heeded")
print("with gradients:", "ignored" if torch.allclose(before, layer(x)) else "heeded")
PYTHON
)
echo "$seen"
[ "$seen" = $'without gradients: ignored\nwith gradients: heeded' ]
