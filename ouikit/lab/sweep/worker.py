"""What happens in a worker: one cell is called, single-threaded, and its rows are checked."""

import os
import pickle
import platform
import resource
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from ouikit.lab.record import peak_memory_mb

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Process:
    """A process (host name and process id), its CPU-seconds since it began, and its largest resident set."""

    id: tuple[str, int]
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Outcome:
    """What came of one call: columns of rows, or the tail of a traceback; its time, and where it ran."""

    columns: dict[str, list[Any]]
    seconds: float
    cpu_seconds: float
    process: Process
    failure: str = ""


def this_process() -> Process:
    """What this process has used so far, with the processes that it started and that have ended."""
    return Process((platform.node(), os.getpid()), _cpu(), peak_memory_mb())


def _cpu() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def start(parent: int) -> None:
    """Prepare a process: when its parent is gone, so is its work."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def compute(payload: bytes, arguments: Mapping[str, Any]) -> Outcome:
    """Call the pickled function with `arguments`. An exception of the cell is a result, not an exception."""
    began, cpu = time.perf_counter(), _cpu()
    columns: dict[str, list[Any]] = {}
    failure = ""
    try:
        with one_thread():
            columns = _columns(pickle.loads(payload)(**arguments), arguments)
    except (Exception, SystemExit) as error:
        failure = "".join(traceback.format_exception(error, limit=-3, chain=False)).strip()[-2000:]
    return Outcome(columns, time.perf_counter() - began, _cpu() - cpu, this_process(), failure)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread per cell, so that the same bits come out whatever the engine and the number of workers.

    Libraries that are loaded are limited; the environment limits those that the cell loads.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        with threadpool_limits(1):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _columns(rows: Any, arguments: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Rows as columns of plain scalars. Raises TypeError or ValueError for what is not a long table."""
    pandas = sys.modules.get("pandas")  # which a cell without tables need not wait for
    if pandas and isinstance(rows, pandas.DataFrame):
        columns = {str(name): rows[name].tolist() for name in rows.columns}
    else:
        columns = _transposed(rows)
    for name in ("metric", "value"):
        if not columns.get(name):
            raise ValueError(
                f"the cell returned no {name!r}; each row needs 'metric' and 'value', got {[*columns]}"
            )
    if taken := sorted(columns.keys() & arguments.keys()):
        raise ValueError(
            f"the cell returned the columns {taken}, which the sweep adds itself; rename or drop them"
        )
    plain = {name: [_scalar(item, name) for item in items] for name, items in columns.items()}
    if strange := next((item for item in plain["metric"] if not isinstance(item, str)), None):
        raise TypeError(f"metric {strange!r} is a {type(strange).__name__}; use a name")
    plain["value"] = [
        _number(value, metric) for value, metric in zip(plain["value"], plain["metric"], strict=True)
    ]
    return plain


def _transposed(rows: Any) -> dict[str, list[Any]]:
    listed = [] if isinstance(rows, Mapping) or not hasattr(rows, "__iter__") else list(rows)
    if not listed or not all(isinstance(row, Mapping) for row in listed):
        raise TypeError(
            f"the cell returned {rows!r:.80} ({type(rows).__name__}); "
            "return a DataFrame or a list of rows such as {'metric': 'loss', 'value': 0.1}"
        )
    names: Sequence[str] = list(dict.fromkeys(name for row in listed for name in row))
    return {name: [row.get(name) for row in listed] for name in names}


def _scalar(item: Any, name: str) -> Any:
    item = item.item() if hasattr(item, "item") else item
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    raise TypeError(f"column {name!r} holds {item!r:.80} ({type(item).__name__}); use numbers and strings")


def _number(value: Any, metric: str) -> float:
    if isinstance(value, (bool, int, float)):
        return float(value)
    raise TypeError(
        f"the value of {metric!r} is {value!r}, which is not a number; use nan for what is undefined"
    )
