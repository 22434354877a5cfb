"""The rows of a run: the tables of its sweeps, one below the other, in one Parquet file beside the record.

The file says how long each table is and which columns it has, so that each can be had again as it was.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ouikit.lab.keys import canonical
from ouikit.lab.record import ROWS, rows_digest, write_atomically
from ouikit.lab.sweep.grid import Arguments, label

_TABLES = "tables"


class RowsError(ValueError):
    """A record's rows are not those of the sweep that asks for them."""


def write(folder: Path, tables: Sequence[pd.DataFrame]) -> str:
    """Write the tables of a run's sweeps, in their order; returns the digest of the file."""
    rows = pd.concat(tables, ignore_index=True)
    rows.attrs = {
        _TABLES: [
            {"rows": len(table), "columns": {name: str(kind) for name, kind in table.dtypes.items()}}
            for table in tables
        ]
    }
    write_atomically(folder / ROWS, rows.to_parquet(index=False, compression="zstd", compression_level=19))
    return rows_digest(folder)


def read(folder: Path, index: int, calls: Sequence[Arguments]) -> pd.DataFrame:
    """The table of sweep number `index` (from 0), if it holds these calls and no others.

    Raises:
        RowsError: where there is no such table, a call has no rows, or rows belong to no call.
    """
    rows = pd.read_parquet(folder / ROWS)
    tables = rows.attrs.get(_TABLES, [])
    if index >= len(tables):
        raise RowsError(f"{folder / ROWS} holds {len(tables)} sweeps; the notebook asks for another")
    start = sum(table["rows"] for table in tables[:index])
    kinds = tables[index]["columns"]
    table = rows.iloc[start : start + tables[index]["rows"]][list(kinds)].astype(kinds).reset_index(drop=True)
    _match(table, calls, f"{folder / ROWS}, sweep {index + 1}")
    table.attrs = {"cells": _counts(table, calls), "workers": {"cpu_seconds": 0.0, "peak_memory_mb": 0.0}}
    return table


def _match(table: pd.DataFrame, calls: Sequence[Arguments], where: str) -> None:
    names = _names(calls)
    if lost := [name for name in names if name not in table]:
        raise RowsError(f"{where}: has no column {', '.join(lost)}")
    records: list[Arguments] = table[names].drop_duplicates().to_dict("records")  # type: ignore[assignment]
    held = {_point(row): row for row in records}
    asked = {_point({name: call.get(name) for name in names}): call for call in calls}
    for point in [point for point in held if point not in asked]:
        raise RowsError(f"{where}: holds rows of {label(held[point])}, which this run does not compute")
    for point in [point for point in asked if point not in held]:
        raise RowsError(f"{where}: holds no rows of {label(asked[point])}")


def _counts(table: pd.DataFrame, calls: Sequence[Arguments]) -> dict[str, float]:
    """What `ouikit.lab.sweep` counts, of cells that were all there."""
    broken = table[~table["value"].abs().lt(float("inf"))][_names(calls)].drop_duplicates()
    counted = {"total": len(calls), "computed": 0, "cached": len(calls), "diverged": len(broken)}
    return counted | {"seconds": 0.0, "cpu_seconds": 0.0}


def _names(calls: Sequence[Arguments]) -> list[str]:
    return list(dict.fromkeys(name for call in calls for name in call))


def _point(values: Mapping[str, Any]) -> str:
    """A call as one text, in which 1 and 1.0 are the same: a column of both has but one type."""
    return canonical({name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if value is None or value != value:
        return None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
