#!/usr/bin/env bash
# Flower's FedAvg averages every array of the replies, whatever its type. A boolean mask or an integer counter among
# a model's buffers, equal on all clients, comes back as float64: the model on the server no longer has the types that
# its clients sent.
#
# Seen with flwr 1.41.0: "mask: bool became float64", "steps: int64 became float64".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check flwr==1.41.0 numpy==2.4.6 2> /dev/null
seen=$(venv/bin/python - 2> /dev/null << 'PYTHON'
import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

sent = {"mask": np.array([True, False]), "steps": np.array([7, 9])}
model = ArrayRecord({name: Array(array) for name, array in sent.items()})
replies = [RecordDict({"arrays": model, "metrics": MetricRecord({"num-examples": n})}) for n in (3, 5)]
mean = aggregate_arrayrecords(replies, "num-examples")
for name, array in sent.items():
    print(f"{name}: {array.dtype} became {mean[name].numpy().dtype}")
PYTHON
)
echo "$seen"
[ "$seen" = $'mask: bool became float64\nsteps: int64 became float64' ]
