#!/usr/bin/env bash
# torch 2.13.0 (CPU): an 8-bit linear layer of oneDNN is exact where the CPU has dot products of 8 bits (VNNI), and
# adds pairs of products in 16 bits where it has not: two products of 255 · 127 are 64,770, and become 32,767. Full
# 8-bit activations and weights then lose up to half of the sum, and the layer says nothing; a warning comes only where
# torch's default configuration for oneDNN is asked for (get_default_qconfig). With 7 bits on one side sums are exact.
# ONEDNN_MAX_CPU_ISA=AVX2 shows on any x86 CPU what one with AVX2 only does. Seen:
#
#   255 · 127, summed 64 times: 1048544.0, and is 2072640
#   with weights of 7 bits (64): 1044480.0, and is 1044480
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
ONEDNN_MAX_CPU_ISA=AVX2 "$work/venv/bin/python" - <<'PYTHON'
import torch


def layer(x, weight):
    """The sum of 64 products x · weight, by a quantised linear layer whose scales are 1."""
    images = torch.full((4, 64), x, dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(torch.full((8, 64), weight, dtype=torch.int8), [4, 64])
    one, zero = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    out = torch.ops.onednn.qlinear_pointwise(
        images, 1.0, 0, packed, one, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return out[0, 0].item()


whole, seven = layer(255, 127), layer(255, 64)
print(f"255 · 127, summed 64 times: {whole}, and is {255 * 127 * 64}")
print(f"with weights of 7 bits (64): {seven}, and is {255 * 64 * 64}")
assert (whole, seven) == (32767 * 32, 255 * 64 * 64), "the behaviour changed"
PYTHON
