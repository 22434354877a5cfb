#!/usr/bin/env bash
# torch.nn.init.sparse_ takes a generator, and draws the values from it; which entries are zero it draws from
# torch's global generator. Two calls with equal generators give different matrices.
#
# Seen with torch 2.13.0: "equal generators: same weights False", "and equal global seeds: same weights True".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2> /dev/null
seen=$(venv/bin/python - << 'PYTHON'
import torch


def draw():
    return torch.nn.init.sparse_(torch.empty(20, 30), 0.5, generator=torch.Generator().manual_seed(1))


print("equal generators: same weights", torch.equal(draw(), draw()))
torch.manual_seed(0)
first = draw()
torch.manual_seed(0)
print("and equal global seeds: same weights", torch.equal(first, draw()))
PYTHON
)
echo "$seen"
[ "$seen" = $'equal generators: same weights False\nand equal global seeds: same weights True' ]
