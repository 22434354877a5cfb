"""Run records: what was run, what came out, and what made it. JSON to diff, Parquet to draw."""

import hashlib
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ouikit.lab import keys

SCHEMA = 1
ROWS = "rows.parquet"  # beside `record.json`: what the sweeps of the run returned
ISA = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "sve"),
)


class RecordError(ValueError):
    """A record that cannot be read; the message names the file and what is wrong with it."""


def made_by(
    root: Path, code: Iterable[str], code_key: str, *, data: Mapping[str, str] | None = None, threads: int = 1
) -> dict[str, Any]:
    """Provenance of a run that ends now.

    Args:
        root: the repository.
        code: cells, whose libraries are entered with their versions.
        code_key: hash of what makes the numbers, by which a later reader knows whether the code is older.
        data: set -> checksum.
        threads: that one computation used; cells of a sweep have one.
    """
    cpu = _cpuinfo()
    return {
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        "code": code_key,
        "lock": keys.lock_hash(root)[:16],
        "versions": keys.versions(code),
        "python": platform.python_version(),
        "os": platform.platform(terse=True),
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "isa": [flag for flag in ISA if flag in (cpu.get("flags") or cpu.get("Features", "")).split()],
        "threads": threads,
        "gpu": _gpu(),
        "data": dict(data or {}),
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def cpu_seconds() -> float:
    """CPU time of this process so far, in its own code and in the system's."""
    return time.process_time()


def make_folder(folder: Path) -> Path:
    """Create a folder of runs and make sure that it can be written, before hours of computing are lost.

    Raises:
        PermissionError: naming the folder and the way out.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".probe", b"")
        (folder / ".probe").unlink(missing_ok=True)
    except OSError as error:
        raise PermissionError(
            f"cannot write the run folder {folder} ({error.strerror}); make it writable, or set OUIKIT_RUNS "
            "to a folder that is"
        ) from error
    return folder


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)


def write(record: Mapping[str, Any], folder: Path) -> None:
    """Write `record.json` in strict JSON: a number that is not finite becomes null."""
    text = json.dumps(finite(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(folder / "record.json", text.encode())


def read(folder: Path) -> dict[str, Any]:
    """Read a run's record.

    Raises:
        RecordError: if it is missing, truncated, not JSON, of another schema, or lacks a part.
    """
    path = folder / "record.json"
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a readable record ({error})") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise RecordError(f"{path}: schema is not {SCHEMA}")
    for part in ("run", "result", "made_by"):
        if not isinstance(record.get(part), dict):
            raise RecordError(f"{path}: has no part {part!r}")
    return record


def rows_digest(folder: Path) -> str:
    """SHA-256 of a run's rows. Raises FileNotFoundError where there are none."""
    with (folder / ROWS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finite(value: Any) -> Any:
    """`value` with every number that is not finite replaced by None, as JSON keeps it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _gpu() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
