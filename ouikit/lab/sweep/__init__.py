"""A grid of cells × seeds: only missing cells are computed, in parallel, and nothing finished is lost."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ouikit.lab.keys import canonical, cell_hash, reaches
from ouikit.lab.spec import FEDERATED, LOCAL, Engine
from ouikit.lab.sweep import by_value, executors
from ouikit.lab.sweep.cells import Cell, DamagedCellError, Store
from ouikit.lab.sweep.grid import Arguments, Grid, calls, check_call, label
from ouikit.lab.sweep.progress import bar, say
from ouikit.lab.sweep.worker import Outcome, Process, compute, this_process

if TYPE_CHECKING:
    import pandas as pd

_DEATHS = 3  # workers that one cell may take with it
_POLL = 0.2  # seconds between looks at cells that another run is computing


class SweepError(RuntimeError):
    """Some cells failed; the others are kept. `failures`: (arguments, tail of the traceback) of each."""

    def __init__(self, failures: Sequence[tuple[Arguments, str]], total: int, folder: Path) -> None:
        self.failures = failures
        shown = [f"{label(arguments)}\n{_indented(tail)}" for arguments, tail in failures[:5]]
        more = [f"… and {len(failures) - 5} more"] if len(failures) > 5 else []
        kept = f"the finished cells ({total - len(failures)}) are kept in {folder}"
        super().__init__("\n".join([f"{len(failures)} of {total} cells failed; {kept}.", *shown, *more]))


def sweep(
    cell: Callable[..., Any],
    grid: Grid,
    *,
    seeds: Iterable[int] = (0,),
    store: Path,
    context: str = "",
    engine: str | Engine | Executor = LOCAL,
    jobs: int | None = None,
    force: bool = False,
    progress: bool | None = None,
    title: str = "",
) -> "pd.DataFrame":
    """Call `cell(**point, seed=seed)` for each point and seed, and return all rows as one long table.

    `grid` is names -> values (their full product) or a list of points; values are what JSON can hold. `cell`
    returns a DataFrame or a list of dicts with `metric` (str), `value` (number), and, say, `step` or `arm`.
    It is called in a process of its own, single-threaded, and must seed what it uses.

    Each finished cell is one file in `store`, named by the point, the seed, the code of `cell`
    (`keys.cell_hash`) and `context` (what else the result depends on, such as data checksums). Only missing
    cells are computed, or all with `force`; runs that share a store share the work. `engine` (or its name)
    and `jobs`: see `executors.start`; the cells of an engine of Flower are kept apart from those of others.

    Returns the point's columns, `seed`, what else the cells returned, `metric`, `value`; rows in the order
    of the grid, then of the seeds. `.attrs["cells"]` counts cells: total, computed, cached, diverged (with a
    value that is not finite), and their time in seconds and CPU-seconds, whenever that was;
    `.attrs["workers"]` says what processes beside this one used: `cpu_seconds` (of cached cells, what they
    once took) and `peak_memory_mb` (the largest peaks, of as many as computed at a time, added up).

    Raises TypeError or ValueError for a grid that cannot be run (also one with a point twice), StoreError,
    before anything is computed, where the store cannot be written, and SweepError, at the end, for cells
    that failed.
    """
    engine = Engine.parse(engine) if isinstance(engine, str) else engine
    if isinstance(engine, Engine) and engine.federated:
        if not reaches(cell, FEDERATED):
            raise ValueError(
                f"engine {str(engine)!r} is for federations: the cell does not reach {FEDERATED}"
            )
        context = canonical([context, engine.federated])
    tasks = _tasks(cell, calls(grid, seeds), context)
    folder = Path(store)
    cells = Store(folder)
    if force:
        cells.forget(tasks)
    found = _finished(cells, tasks)
    missing = {key: arguments for key, arguments in tasks.items() if key not in found}
    computed: set[str] = set()
    workers = _Workers()
    failures: list[tuple[Arguments, str]] = []
    if missing:
        payload = by_value.dumps(cell)
        name = title or getattr(cell, "__name__", "sweep")
        try:
            with (
                cells,
                bar(name, len(tasks), len(found), progress) as shown,
                executors.start(engine, jobs) as started,
            ):
                shown.set_postfix_str(f"{len(found)} cached")
                if pid := cells.other_run():
                    say(f"{name}: process {pid} is working on {folder} too; sharing the cells")
                for key, result, here in _results(missing, payload, cells, started, workers):
                    if isinstance(result, str):
                        failures.append((tasks[key], result))
                    else:
                        found[key] = result
                        if here:
                            computed.add(key)
                    shown.update()
        except BaseException as reason:
            kept = (
                f"{len(found)} of {len(tasks)} cells are saved in {folder}; the same call goes on from there"
            )
            reason.add_note(kept)
            if isinstance(reason, KeyboardInterrupt):
                say(f"{name}: interrupted; {kept}")
            raise
    if failures:
        raise SweepError(failures, len(tasks), folder)
    rows = _table(tasks, found, computed)
    known = sum(cell.cpu_seconds for key, cell in found.items() if key not in computed)
    rows.attrs["workers"] = {"cpu_seconds": known + workers.cpu_seconds, "peak_memory_mb": workers.peak_mb}
    return rows


class _Workers:
    """CPU time and memory of the processes that computed cells, this one left out, which knows its own.

    `cpu_seconds` has what starting them took; `peak_mb` is the sum of the largest peaks, of as many processes
    as computed at a time.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], tuple[float, float]] = {}
        self._most = 0

    def enter(self, process: Process, together: int) -> None:
        """Note what a process had used when it finished a cell, and how many cells were running."""
        self._most = max(self._most, together)
        if process.id != this_process().id:
            cpu, peak = self._seen.get(process.id, (0.0, 0.0))
            self._seen[process.id] = max(cpu, process.cpu_seconds), max(peak, process.peak_mb)

    @property
    def cpu_seconds(self) -> float:
        return sum(cpu for cpu, _ in self._seen.values())

    @property
    def peak_mb(self) -> float:
        return sum(sorted((peak for _, peak in self._seen.values()), reverse=True)[: self._most])


def _results(
    tasks: Mapping[str, Arguments],
    payload: bytes,
    cells: Store,
    engine: executors.Started,
    workers: _Workers,
) -> Iterator[tuple[str, Cell | str, bool]]:
    """Each task's key, its cell or what went wrong, and whether it was computed here; as they finish."""
    waiting, running, deaths = deque(tasks), dict[Future[Outcome], str](), Counter[str]()
    try:
        while waiting or running:
            capacity = engine.capacity()
            for _ in range(len(waiting)):
                if len(running) >= capacity:
                    break
                key = waiting.popleft()
                if not cells.claim(key):
                    waiting.append(key)  # another run is computing it
                elif (cell := _intact(cells, key)) is not None:
                    cells.release(key)
                    yield key, cell, False
                else:
                    running[engine.executor.submit(compute, payload, tasks[key])] = key
            blocked = bool(waiting) and len(running) < capacity
            if blocked and not running:
                time.sleep(_POLL)
            done, _ = wait(running, timeout=_POLL if blocked else None, return_when=FIRST_COMPLETED)
            for future in done:
                key = running.pop(future)
                deaths[key] += (died := _died(future))
                if died and deaths[key] < _DEATHS:
                    waiting.append(key)
                    continue
                result = _result(future, tasks[key], workers, len(running) + len(done))
                if isinstance(result, Cell):
                    cells.write(key, result)
                cells.release(key)
                yield key, result, True
    finally:
        for future in running:
            future.cancel()


def _died(future: Future[Outcome]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenExecutor)


def _result(future: Future[Outcome], arguments: Arguments, workers: _Workers, together: int) -> Cell | str:
    try:
        outcome = future.result()
    except BrokenExecutor as error:
        return f"its worker died {_DEATHS} times (out of memory, or killed): {error}"
    except CancelledError:
        return "the engine dropped it; is the scheduler still running?"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    workers.enter(outcome.process, together)
    return outcome.failure or Cell(arguments, outcome.columns, outcome.seconds, outcome.cpu_seconds)


def _finished(cells: Store, keys: Iterable[str]) -> dict[str, Cell]:
    found = {}
    for key in keys:
        try:
            cell = cells.read(key)
        except DamagedCellError as error:
            say(f"{error}; it is computed again")
            continue
        if cell is not None:
            found[key] = cell
    return found


def _intact(cells: Store, key: str) -> Cell | None:
    try:
        return cells.read(key)
    except DamagedCellError:
        return None


def _tasks(cell: Callable[..., Any], listed: Sequence[Arguments], context: str) -> dict[str, Arguments]:
    """Key -> arguments, in the order of the calls. Raises ValueError where one comes twice."""
    code = cell_hash(cell)
    for names in {tuple(arguments): arguments for arguments in listed}.values():
        check_call(cell, names)
    tasks: dict[str, Arguments] = {}
    for arguments in listed:
        key = sha256(canonical([code, context, arguments]).encode()).hexdigest()[:16]
        if key in tasks:
            raise ValueError(f"the grid has {label(arguments)} twice; rows that count double bias a mean")
        tasks[key] = arguments
    return tasks


def _table(tasks: Mapping[str, Arguments], cells: Mapping[str, Cell], computed: set[str]) -> "pd.DataFrame":
    """All rows: the grid's columns, seed, the cells' own columns, metric, value."""
    import pandas as pd  # takes a second, which commands and workers without tables need not wait

    factors = dict.fromkeys(name for arguments in tasks.values() for name in arguments if name != "seed")
    own = dict.fromkeys(
        name for key in tasks for name in cells[key].columns if name not in ("metric", "value")
    )
    columns: dict[str, list[Any]] = {name: [] for name in [*factors, "seed", *own, "metric", "value"]}
    for key, arguments in tasks.items():
        count = len(cells[key].columns["value"])
        for name, column in columns.items():
            column.extend(cells[key].columns.get(name) or [arguments.get(name)] * count)
    rows = pd.DataFrame(columns)
    rows.attrs["cells"] = {
        "total": len(tasks),
        "computed": len(computed),
        "cached": len(tasks) - len(computed),
        "diverged": sum(cells[key].diverged for key in tasks),
        "seconds": sum(cells[key].seconds for key in tasks),
        "cpu_seconds": sum(cells[key].cpu_seconds for key in tasks),
    }
    return rows


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
