"""What a federated round costs where: one process, Ray, a deployment. `ouikit bench flower`.

The same federation of two clients on this machine. A round's cost is that of a long run less that of a short
one, over the rounds that they differ by: starting and stopping are not in it. Nothing here is asserted by a
test.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from ouikit.bench.timing import Row, ratio_row
from ouikit.fl.run.apps import client_app, server_app
from ouikit.fl.run.deployment import Deployment, deployment
from ouikit.fl.run.grid import run_local
from ouikit.fl.run.ray import run_ray
from ouikit.fl.run.rounds import federate
from ouikit.fl.run.superlink import run_superlink
from ouikit.fl.setting.federation import Federation

PAIR = Federation(method="fedoui", clients=2, per_round=2)
QUICK, DEPLOYED = (2, 22), (1, 3)  # rounds of the short and of the long run
REPEATS = {QUICK: 6, DEPLOYED: 3}  # of both


@dataclass(frozen=True)
class Cost:
    """Wall seconds, processor seconds of all processes, bytes over the network."""

    wall: float
    cpu: float
    traffic: float = 0.0

    def per_round(self, short: "Cost", rounds: int) -> "Cost":
        """What each of so many further rounds cost."""
        both = zip((self.wall, self.cpu, self.traffic), (short.wall, short.cpu, short.traffic), strict=True)
        return Cost(*((long - less) / rounds for long, less in both))


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure the three runners, in about six minutes. Returns one row per figure: median and range."""
    say = progress or (lambda part: None)
    say("one process")
    here = _rounds(lambda rounds: _inside(run_local, rounds), QUICK)
    say("Ray")
    on_ray = _rounds(lambda rounds: _inside(run_ray, rounds), QUICK)
    rows = [*_rows("one process", here), *_rows("Ray", on_ray), _faster(here, on_ray)]
    say("deployment: a SuperLink and two SuperNodes")
    with tempfile.TemporaryDirectory() as folder, deployment(Path(folder)) as there:
        costs = _rounds(lambda rounds: _deployed(there, rounds), DEPLOYED)
    size = sum(tensor.nbytes for tensor in PAIR.network().state_dict().values())
    note = f"in and out of the SuperLink, as Flower counts them; the model has {size / 1e6:.2f} MB"
    traffic = [cost.traffic / PAIR.clients / 1e6 for cost in costs]
    return [
        *rows,
        *_rows("deployment", costs),
        _row("deployment: traffic a client and round", traffic, "MB", note),
    ]


def _faster(here: list[Cost], on_ray: list[Cost]) -> Row:
    """How many times as long a round takes on Ray."""
    ratios = [ray.wall / own.wall for ray, own in zip(on_ray, here, strict=True)]
    return ratio_row("Ray over one process: wall time a round", ratios, ">= 8", "the same bits in both")


def _rounds(cost: Callable[[int], Cost], ends: tuple[int, int]) -> list[Cost]:
    short, long = ends
    return [cost(long).per_round(cost(short), long - short) for _ in range(REPEATS[ends])]


def _inside(runner: Callable[..., Any], rounds: int) -> Cost:
    """The server's own clocks around all rounds, so that the start of Ray is not measured."""
    timed, found = type(server_app)(), list[Cost]()

    @timed.main()
    def main(grid: Any, context: Any) -> None:
        wall, cpu = time.perf_counter(), _processes()
        federate(grid, replace(PAIR, rounds=rounds))
        found.append(Cost(time.perf_counter() - wall, _processes() - cpu))

    runner(timed, client_app, PAIR.clients, {})
    return found[0]


def _deployed(there: Deployment, rounds: int) -> Cost:
    wall, cpu = time.perf_counter(), there.cpu_seconds()
    with tempfile.TemporaryDirectory() as out:
        run = run_superlink(
            there.address, PAIR.clients, {**replace(PAIR, rounds=rounds).config(), "out": out}
        )
    traffic = run["network-traffic"]["total-bytes"]
    return Cost(time.perf_counter() - wall, there.cpu_seconds() - cpu, traffic)


def _processes() -> float:
    """Processor seconds so far of this process and of all that descend from it and still live."""
    here, total = psutil.Process(), 0.0
    for process in [here, *here.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it has ended just now
            total += sum(process.cpu_times()[:2])
    return total


def _rows(runner: str, costs: list[Cost]) -> list[Row]:
    note = f"{PAIR.clients} clients, {PAIR.epochs} epochs of the MLP on digits, evaluation on the server"
    wall, cpu = [cost.wall for cost in costs], [cost.cpu for cost in costs]
    return [
        _row(f"{runner}: wall time a round", wall, "s", note),
        _row(f"{runner}: processor time a round", cpu, "s", f"all processes; {note}"),
    ]


def _row(name: str, values: list[float], unit: str, note: str) -> Row:
    found: Row = {"name": name, "value": median(values), "low": min(values), "high": max(values)}
    return found | {"n": len(values), "unit": unit, "target": None, "met": None, "note": note}
