#!/usr/bin/env bash
# torch 2.13.0, CPU only: torch.manual_seed takes about a hundred times as long as seeding the one generator that
# exists. For each kind of device that is absent it keeps the call for later, together with a formatted copy of
# the whole Python stack, so the deeper the caller, the slower the seed. The random numbers are the same.
#
# Seen: manual_seed 210 µs at the top of a program, more than 1 ms under 200 frames; default_generator 2 µs.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy 2> /dev/null
"$place/venv/bin/python" - <<'PY'
import time, torch

if torch.accelerator.is_available():
    raise SystemExit("this machine has an accelerator: nothing to see here")


def microseconds(seed, deep=0):
    if deep:
        return microseconds(seed, deep - 1)
    start = time.process_time()
    for number in range(300):
        seed(number)
    return (time.process_time() - start) / 300 * 1e6


torch.manual_seed(7)
one = torch.rand(5)
torch.default_generator.manual_seed(7)
assert torch.equal(one, torch.rand(5))

direct = microseconds(torch.default_generator.manual_seed)
shallow, deep = microseconds(torch.manual_seed), microseconds(torch.manual_seed, 200)
print(f"torch {torch.__version__}: generator {direct:.1f} µs, manual_seed {shallow:.0f} µs, under 200 frames {deep:.0f} µs")
assert shallow > 10 * direct, "manual_seed is no longer slow"
assert deep > 2 * shallow, "manual_seed no longer formats the stack"
PY
