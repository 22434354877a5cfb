"""Where our own packages lie: their modules, and what was compiled into them."""

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("ouikit", "ouigemm")
_NATIVE_SOURCES = {".c", ".cc", ".cpp", ".h", ".hpp", ".inc", ".s"}
_NATIVE_BINARIES = {".so", ".dylib", ".pyd"}


def modules(package: str) -> dict[str, Path]:
    """Name -> file of every module of an installed package, found without importing it; empty if absent."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return {}
    # Installed for editing it can have two homes: the sources, and what was compiled from them.
    root = Path(spec.origin).parent if spec.origin else Path(next(iter(spec.submodule_search_locations)))
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def native(root: Path) -> dict[str, Path]:
    """C sources beside a checked-out package (they build to other bytes elsewhere), else its libraries."""
    home = root.parent
    checkout = (home / "pyproject.toml").is_file()
    folders = ("include", "src") if checkout else (root.name,)
    suffixes = _NATIVE_SOURCES if checkout else _NATIVE_BINARIES
    paths = (path for folder in folders for path in (home / folder).rglob("*"))
    found = [path for path in paths if path.suffix.lower() in suffixes]
    found += [path for path in [home / "CMakeLists.txt"] if checkout and path.is_file()]  # has the flags
    return {f"{root.name}/{path.relative_to(home).as_posix()}": path for path in found}
