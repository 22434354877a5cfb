"""What the book costs now, against the build before it was made fast. `ouikit bench book`.

Both builds are cloned, each is given its own environment, and both do the same work in turns: set up, every
chapter at reduced scale, and federated rounds. Figures are CPU-seconds of all processes of a command, on as
many cores as there are; the work of an hour or two. What is measured is kept under `.runs`, so that a run
that was stopped goes on where it was, as long as the commit is the same. Nothing here is asserted by a test.
"""

import json
import os
import resource
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ouikit.bench.timing import Row, ratio_row

THREADS = 2
HERE = Path(__file__).parents[2]
BEFORE = "9d516bc36817c3ce7086c88fcaf65ac706524e46"  # the last commit before that
FEDERATED = ("atypical_clients", "fedoui", "fedsq")
ROUNDS = """
import sys, time
try:
    from ouikit.fl import Federation, simulate
except ImportError:
    from ouikit.fl.federation import Federation
    from ouikit.fl.app import simulate

def run(rounds):
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = simulate(Federation(method="fedoui", clients=5, per_round=5, rounds=rounds))
    return time.perf_counter() - wall, time.process_time() - cpu, outcome.checksum()

few, many = int(sys.argv[1]), int(sys.argv[2])
run(few)
short, long = run(few), run(many)
print((long[0] - short[0]) / (many - few), (long[1] - short[1]) / (many - few), long[2])
"""


@dataclass(frozen=True)
class Spent:
    """CPU-seconds of all processes of a command, and what it printed."""

    cpu: float
    output: str


@dataclass(frozen=True)
class Build:
    """A clone of the project with an environment and a folder of runs of its own."""

    root: Path

    @classmethod
    def clone(cls, commit: str, root: Path) -> "Build":
        """The project of this checkout at a commit. Raises RuntimeError where it lacks that commit."""
        if not root.exists():
            command(["git", "clone", "--quiet", "--no-checkout", str(HERE), str(root)], HERE)
        command(["git", "checkout", "--quiet", "--detach", commit], root)
        return cls(root)

    def ouikit(self, *words: str) -> Spent:
        """One command of this build."""
        return command([str(self.root / ".venv/bin/ouikit"), *words], self.root)

    def rounds(self, few: int, many: int, engine: str = "") -> tuple[float, float, str]:
        """Wall and CPU seconds of one round of five clients, and the checksum of the final weights."""
        words = [str(self.root / ".venv/bin/python"), "-c", ROUNDS, str(few), str(many)]
        wall, cpu, checksum = command(words, self.root, OUIKIT_ENGINE=engine).output.split()
        return float(wall), float(cpu), checksum

    def record(self, slug: str) -> Mapping[str, Any]:
        """The result of a chapter's newest run."""
        newest = max(
            (self.root / ".runs" / slug).glob("*/record.json"), key=lambda path: path.stat().st_mtime
        )
        return json.loads(newest.read_text())["result"]

    def slugs(self) -> list[str]:
        return sorted(path.stem for path in (self.root / "chapters").glob("*.ipynb"))


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure everything. Returns one row per figure; ratios are now over before."""
    say = progress or (lambda part: None)
    commit = command(["git", "rev-parse", "HEAD"], HERE).output.strip()
    folder = HERE / ".runs" / "bench-book" / commit
    now, before = Build.clone(commit, folder / "now"), Build.clone(BEFORE, folder / "before")
    kept = Kept(folder, say)
    rows = kept.rows("set-up", lambda: [_set_up(now, before)])
    rows += kept.rows("rounds", lambda: _rounds(now, before))
    # Later chapters have nothing to be measured against.
    parts = [kept.rows(slug, partial(_chapter, slug, now, before)) for slug in before.slugs()]
    rows += [_total(parts), *chain.from_iterable(parts)]
    return rows + kept.rows("pages", lambda: _book(now))


@dataclass(frozen=True)
class Kept:
    """The rows of every part that was measured to its end, one file each."""

    folder: Path
    say: Callable[[str], None]

    def rows(self, part: str, measure: Callable[[], list[Row]]) -> list[Row]:
        path = self.folder / f"{part}.json"
        if not path.exists():
            self.say(part)
            part_way = path.with_suffix(".part")
            part_way.write_text(json.dumps(measure()))
            part_way.replace(path)
        return json.loads(path.read_text())


def command(words: list[str], root: Path, **environment: str) -> Spent:
    """Run a command to its end. Raises RuntimeError, with the end of what it said, where it fails."""
    own = {"PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE"}
    kept = {k: v for k, v in os.environ.items() if k in own or k.startswith(("PIP_", "UV_"))}
    start = _descendants()
    done = subprocess.run(
        words, cwd=root, env={**kept, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True
    )
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise RuntimeError(f"{' '.join(words[:3])} in {root.name} ended with {done.returncode}:\n{said}")
    return Spent(_descendants() - start, done.stdout)


def _descendants() -> float:
    """CPU-seconds of every process that descended from this one and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _set_up(now: Build, before: Build) -> Row:
    times = [command(["ci/env.sh"], build.root).cpu for build in (now, before)]
    return _ratio("make env, compiling included", times, "<= 0.5")


def _rounds(now: Build, before: Build) -> list[Row]:
    few, many, repeats = 2, 22, 5
    pairs = [(now.rounds(few, many), before.rounds(few, many)) for _ in range(repeats)]
    same = all(new[2] == old[2] for new, old in pairs)
    bits = "the same final bits" if same else "other final bits"
    rays = [(now.rounds(few, many), now.rounds(few, many, "flower-sim")) for _ in range(repeats)]
    slow = sorted(ray[0] for _, ray in rays)[repeats // 2]
    note = f"five clients train two epochs; {bits}"
    faster = [new[1] / old[1] for new, old in pairs]
    slower = [ray[0] / one[0] for one, ray in rays]
    on_ray = f"the same round takes {slow:.2g} s on Flower's simulation, with as many workers as cores"
    return [
        ratio_row("a federated round in one process: CPU time, now / before", faster, "<= 0.333", note),
        ratio_row("a federated round: wall time on Ray / in one process", slower, ">= 8", on_ray),
    ]


def _chapter(slug: str, now: Build, before: Build) -> list[Row]:
    times = [build.ouikit("run", slug, "--force").cpu for build in (now, before)]
    target = "<= 0.167" if slug in FEDERATED else "<= 0.5"
    return [
        _ratio(f"{slug}: CPU-seconds", times, target, _stages(now.record(slug), times[0])),
        _plain(f"{slug}: CPU-seconds now", times[0], "s", 60),
        _plain(f"{slug}: memory at its peak", now.record(slug)["peak_memory_mb"], "MB", 1200),
    ]


def _total(parts: list[list[Row]]) -> Row:
    """All chapters together, from the ratio and the seconds of each."""
    seconds = [(row["value"], row["value"] / ratio["value"]) for ratio, row, _ in parts]
    return _ratio("all chapters: CPU-seconds", [sum(own) for own in zip(*seconds, strict=True)], "<= 0.2")


def _stages(result: Mapping[str, Any], total: float) -> str:
    """Which share of a chapter's time goes where."""
    cells = result["cells"]["cpu_seconds"]
    shares = {"cells of the sweeps": cells, "notebook and workers": result["cpu_seconds"] - cells}
    shares["papermill and keys"] = total - result["cpu_seconds"]
    return ", ".join(f"{name} {max(seconds, 0) / total:.0%}" for name, seconds in shares.items())


def _book(now: Build) -> list[Row]:
    for slug in now.slugs():
        now.ouikit("run", slug)
    first = now.ouikit("book").cpu
    unchanged = now.ouikit("book").cpu
    slug = now.slugs()[0]
    source = now.root / "chapters" / f"{slug}.ipynb"
    source.write_text(source.read_text().replace("# Results", "# Results ", 1))
    return [
        _plain("the book from finished runs", first, "s"),
        _plain("the book with nothing changed", unchanged, "s", 5),
        _plain("the book with one chapter changed, rendering only", now.ouikit("book").cpu, "s", 15),
    ]


def _ratio(name: str, times: list[float], target: str, more: str = "") -> Row:
    new, old = times
    note = f"{new:.0f} s of {old:.0f} s" + (f"; {more}" if more else "")
    return ratio_row(f"{name}, now / before", [new / old], target, note)


def _plain(name: str, value: float, unit: str, limit: float | None = None) -> Row:
    """A figure that is no ratio, with the limit that it is to keep."""
    row: Row = {"name": name, "value": value, "low": value, "high": value, "n": 1, "unit": unit}
    bound = {"target": limit and f"<= {limit}", "met": None if limit is None else value <= limit}
    return row | bound | {"note": ""}
