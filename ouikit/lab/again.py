"""A cell of a record that is computed again must resemble its own rows most, or the rows are another arm's.

No digits are compared: another CPU rounds otherwise, training amplifies that, and a record may be older than
the code. Arms are what the call and the words among a cell's columns name; those of one seed are compared.
Where rounding moves a training as far as its arms are apart, nothing is found; a sound record never is.
"""

from typing import Any

import pandas as pd

from ouikit.lab.rows import RowsError
from ouikit.lab.sweep.grid import label

CLEAR = 3.0  # another arm must be so many times nearer
LITTLE = 0.1  # mean distance, in standard deviations between arms, that rounding may explain


def recognise(table: pd.DataFrame, call: dict[str, Any], again: pd.DataFrame) -> None:
    """Compare the rows of a call with what it returned when it was computed again.

    Args:
        table: all rows of the sweep in the record.
        call: names and values of one call, its seed among them.
        again: the rows of this call, in the same form.

    Raises:
        RowsError: where an arm is clearly nearer to another of the record, or is not there.
    """
    numbers = table.select_dtypes("number").columns.drop(["seed", "value"])
    arm_of = [
        name
        for name in table.columns.drop(["seed", "metric", "value"])
        if name in call or name not in numbers
    ]
    old, new = (
        _by_arm(rows.reindex(columns=table.columns), arm_of, numbers)
        for rows in (table[table["seed"] == call["seed"]], again)
    )
    spread = old.std()
    shared = old.columns.intersection(new.columns)
    if shared.empty:
        raise RowsError(f"computed again, {label(call)} has nothing in common with the record")
    told = shared[(spread[shared] > 0).to_numpy()]  # what is equal for all arms, or of one arm, tells nothing
    for arm in map(str, new.index):
        if arm not in old.index:
            raise RowsError(f"computed again, {arm} has rows that the record lacks")
        away = ((old[told] - new[told].loc[arm]).abs() / spread[told]).dropna(axis=1, subset=[arm])
        for other, theirs in away.drop(index=arm).iterrows():
            both = theirs.dropna().index  # an arm that shares little with this one cannot stand for it
            own = away.loc[arm][both].mean()
            if 2 * len(both) >= away.shape[1] and own > max(LITTLE, CLEAR * theirs[both].mean()):
                raise RowsError(f"computed again, {arm} is what the record calls {other}")


def _by_arm(rows: pd.DataFrame, arm_of: list[str], numbers: pd.Index) -> pd.DataFrame:
    """Values by arm (rows) and by what is measured, and when (columns)."""
    text = rows.astype(dict.fromkeys(numbers, float)).drop(columns=["seed", "value"])  # 1 is 1.0
    keys = [_joined(text[arm_of]), _joined(text.drop(columns=arm_of))]
    return rows["value"].groupby(keys).mean().unstack()


def _joined(columns: pd.DataFrame) -> pd.Series:
    return columns.apply(lambda row: ", ".join(f"{name}={value}" for name, value in row.items()), axis=1)
