"""A cell that is computed again: rounding is forgiven, another arm's rows are not."""

import numpy as np
import pandas as pd
import pytest

from ouikit.lab.again import recognise
from ouikit.lab.rows import RowsError

CALL = {"lr": 0.1, "seed": 1}
STEPS = range(1, 9)


def cell(lr: float, seed: int, noise: float = 0.0) -> pd.DataFrame:
    """Two arms of one cell over eight steps, the second of which ends a tenth higher."""
    random = np.random.default_rng(seed)
    rows = [
        {"arm": arm, "step": step, "metric": "loss", "value": lr * step + seed + end * step / 8}
        for arm, end in (("fixed", 0.0), ("steered", 0.1))
        for step in STEPS
    ]
    table = pd.DataFrame(rows).assign(lr=lr, seed=seed)
    return table.assign(value=table["value"] + noise * random.standard_normal(len(table)))


TABLE = pd.concat([cell(lr, seed) for lr in (0.1, 0.2) for seed in (0, 1)], ignore_index=True)


def test_the_same_numbers_and_those_of_another_cpu_are_recognised():
    for noise in (0.0, 1e-3):
        recognise(TABLE, CALL, cell(**CALL, noise=noise))


@pytest.mark.parametrize(("column", "one", "other"), [("arm", "fixed", "steered"), ("lr", 0.1, 0.2)])
def test_swapped_arms_are_found_inside_a_cell_and_between_cells(column, one, other):
    swapped = TABLE.assign(**{column: TABLE[column].replace({one: other, other: one})})
    with pytest.raises(RowsError, match=f"{column}={one}.* is what the record calls .*{column}={other}"):
        recognise(swapped, CALL, cell(**CALL, noise=1e-3))


def test_what_only_one_of_both_measured_is_left_out():
    today = pd.concat([cell(**CALL), cell(**CALL).assign(metric="new")])
    recognise(TABLE, CALL, today[today["step"] > 2])


def test_the_columns_of_other_calls_of_the_sweep_do_not_matter():
    beside = pd.DataFrame(
        {"part": "beside", "eta": [0.1, 1.0], "metric": "y", "value": [1.0, 2.0], "seed": 1}
    )
    table = pd.concat([TABLE.assign(part="main"), beside], ignore_index=True)
    recognise(table, CALL | {"part": "main"}, cell(**CALL).assign(part="main"))
    swapped = table.assign(arm=table["arm"].replace({"fixed": "steered", "steered": "fixed"}))
    with pytest.raises(RowsError, match="is what the record calls"):
        recognise(swapped, CALL | {"part": "main"}, cell(**CALL).assign(part="main"))


def test_an_arm_that_the_record_lacks_is_named():
    with pytest.raises(RowsError, match=r"arm=steered, lr=0\.1 has rows that the record lacks"):
        recognise(TABLE[TABLE["arm"] == "fixed"], CALL, cell(**CALL))


def test_a_cell_that_measures_something_else_is_named():
    with pytest.raises(RowsError, match=r"lr=0\.1, seed=1 has nothing in common"):
        recognise(TABLE, CALL, cell(**CALL).assign(metric="new"))
