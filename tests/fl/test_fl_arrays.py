"""Arrays in messages: Flower's own bytes, read back to the bit, and Flower's own errors."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from ouikit.fl.strategies.arrays import (
    arrays_of,
    copied,
    filled,
    record_of,
    record_of_state,
    records_of,
    state_of,
)

ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "counter": np.asarray(7, dtype=np.int64),
    "none": np.empty((0, 4)),
    "turned": np.arange(6.0).reshape(2, 3)[:, ::-1],
}


def test_a_record_has_the_bytes_of_flowers_own():
    ours, flowers = record_of(ARRAYS), ArrayRecord({name: Array(a) for name, a in ARRAYS.items()})
    for name in ARRAYS:
        assert vars(ours[name])["data"] == flowers[name].data, name
        assert (ours[name].dtype, ours[name].shape, ours[name].stype) == (
            flowers[name].dtype,
            flowers[name].shape,
            flowers[name].stype,
        )
    assert ours.object_id == flowers.object_id


def test_what_is_read_is_what_flower_reads_and_cannot_be_written_to():
    columns = {"columns": np.asfortranarray(ARRAYS["weights"])}
    record = ArrayRecord({name: Array(a) for name, a in {**ARRAYS, **columns}.items()})
    read = arrays_of(record)
    for name, array in record.items():
        assert read[name].dtype == array.numpy().dtype
        assert np.array_equal(read[name], array.numpy())
    with pytest.raises(ValueError, match="read-only"):
        read["weights"][0, 0] = 1


def test_a_state_dict_comes_back_in_memory_of_its_own():
    state = {"w": torch.randn(3, 2), "n": torch.tensor(5)}
    record = record_of_state(state)
    back = state_of(record)
    assert all(torch.equal(back[name], state[name]) for name in state)
    back["w"].zero_()
    assert torch.equal(state_of(record)["w"], state["w"])


@pytest.mark.parametrize("cut", [0, 5, 60, -1])
def test_a_damaged_file_raises_as_flower_does(cut):
    whole = Array(ARRAYS["weights"])
    damaged = Array(whole.dtype, whole.shape, whole.stype, whole.data[:cut])
    with pytest.raises((ValueError, EOFError)):
        damaged.numpy()
    with pytest.raises((ValueError, EOFError)):
        arrays_of(ArrayRecord({"w": damaged}))


def test_an_object_is_never_unpickled():
    header = np.lib.format
    from io import BytesIO

    file = BytesIO()
    header.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    strange = Array("object", (1,), "numpy.ndarray", file.getvalue() + b"12345678")
    with pytest.raises(ValueError, match="pickle"):
        arrays_of(ArrayRecord({"w": strange}))


def test_what_was_filled_without_asking_travels_as_what_flower_makes():
    arrays, numbers = record_of(ARRAYS), MetricRecord({"loss": 0.5})
    ours = filled(RecordDict(), {"arrays": arrays, "metrics": numbers})
    flowers = RecordDict(
        {"arrays": ArrayRecord({n: Array(a) for n, a in ARRAYS.items()}), "metrics": numbers}
    )
    assert ours.object_id == flowers.object_id
    assert RecordDict.inflate(ours.deflate(), flowers.children) == flowers
    assert records_of(ours, ArrayRecord) == {"arrays": arrays}
    assert records_of(ours, MetricRecord) == {"metrics": numbers}


def test_a_copied_array_is_one_of_its_own():
    array = Array(np.ones(3))
    own = copied(array)
    assert own == array
    assert own.object_id == array.object_id
    own.data = Array(np.zeros(3)).data
    assert own.object_id != array.object_id
    assert array.numpy().tolist() == [1, 1, 1]
