"""The command `ouikit`. The base install has it, too: it then says what to install."""

import sys
from collections.abc import Sequence
from importlib.metadata import version


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 failed, 2 wrong call."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        print(f"ouikit {version('ouikit')}")
        return 0
    try:
        from ouikit.lab import commands
    except ModuleNotFoundError as error:
        if (error.name or "ouikit").startswith("ouikit"):
            raise
        print(
            f"ouikit: {error.name} is missing; the laboratory needs more than the base install: "
            "pip install 'ouikit[lab,science]'",
            file=sys.stderr,
        )
        return 1
    return commands.main(words)
