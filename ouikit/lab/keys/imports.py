"""Which of our own modules a piece of source reaches, found by reading imports, never by running them.

A reference is written `module`, `module:name` (a submodule or something that the module binds) or
`module:*` (the module and everything below it); a bare `*` is an import that can be anything.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("ouikit", "ouigemm")
_NATIVE_SOURCES = {".c", ".cc", ".cpp", ".h", ".hpp", ".inc", ".s"}
_NATIVE_BINARIES = {".so", ".dylib", ".pyd"}


def module_closure(
    names: Iterable[str], packages: Iterable[str] = PACKAGES, exclude: Iterable[str] = ()
) -> dict[str, Path]:
    """The files of `packages` that the modules `names` reach, transitively: module name -> file.

    Imports inside functions and under `TYPE_CHECKING` count, and a submodule brings its packages'
    `__init__` along. What cannot be resolved (a computed import, a star import of a package, a name that
    is nowhere) counts as every module of the package: the answer may cost time, never hide a change.
    `exclude` names modules (with all below them) that are neither listed nor followed. A reached package
    with compiled code adds its C sources, or its libraries where it is installed without them.
    """
    sources = {package: _modules(package) for package in packages}
    known = {name: path for modules in sources.values() for name, path in modules.items()}
    dropped = tuple(exclude)
    found: dict[str, Path] = {}
    waiting = {module for name in names for module in _resolve(name, known, sources)}
    while waiting:
        name = waiting.pop()
        if name in found or any(_is_below(name, module) for module in dropped):
            continue
        found[name] = path = known[name]
        references = imports(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")
        waiting.update(module for reference in references for module in _resolve(reference, known, sources))
    for package, modules in sources.items():
        if package in found:
            found.update(_native(modules[package].parent))
    return dict(sorted(found.items()))


@lru_cache(maxsize=512)
def imports(source: str, module: str = "__main__", is_package: bool = False) -> frozenset[str]:
    """The references in one source text; `module` is its own name, against which relative imports count.

    A text that is not Python (a cell magic, say) can reach anything: `*`.
    """
    tree = _parse(source)
    if tree is None:
        return frozenset({"*"})
    # PEP 562: what a module's lazy __getattr__ computes is what it lists under TYPE_CHECKING.
    lazy = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__getattr__"]
    skipped = {id(node) for function in lazy for node in ast.walk(function)} if _lists_types(tree) else set()
    package = module if is_package else module.rpartition(".")[0]
    nodes = (node for node in ast.walk(tree) if id(node) not in skipped)
    return frozenset(reference for node in nodes for reference in _references(node, package))


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


def _references(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = _absolute(node.module or "", node.level, package)
        yield from (f"{origin}:{alias.name}" if origin else "*" for alias in node.names)
    elif isinstance(node, ast.Call) and _callee(node) in ("import_module", "__import__"):
        yield _computed(node)


def _absolute(module: str, level: int, package: str) -> str:
    """The full name of `from ..module`; empty where it leaves the tree."""
    if level == 0:
        return module
    parts = package.split(".")
    return (
        ".".join([*parts[: len(parts) - level + 1], *filter(None, [module])]) if level <= len(parts) else ""
    )


def _callee(node: ast.Call) -> str:
    function = node.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _computed(node: ast.Call) -> str:
    """`import_module("a.b")` is an import; `import_module(f"a.{x}")` is anything below `a`."""
    argument = node.args[0] if node.args else None
    if isinstance(argument, ast.JoinedStr) and argument.values:
        start = argument.values[0]
        text = start.value if isinstance(start, ast.Constant) else ""
        package = str(text).rpartition(".")[0]
        return f"{package}:*" if package else "*"
    name = argument.value if isinstance(argument, ast.Constant) else None
    return name if isinstance(name, str) and not name.startswith(".") else "*"


def _lists_types(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) for node in tree.body)


def _resolve(reference: str, known: dict[str, Path], sources: dict[str, dict[str, Path]]) -> set[str]:
    """Modules that one reference loads: itself, the packages above it, or all where it is unclear."""
    if reference == "*":
        return set(known)
    module, _, name = reference.partition(":")
    everything = sources.get(module.partition(".")[0])
    if not everything:  # another distribution, which the lock answers for
        return set()
    if module not in known:
        return set(everything)
    above = {module.rsplit(".", depth)[0] for depth in range(module.count(".") + 1)}
    if name == "*":
        return above | {other for other in everything if _is_below(other, module)}
    if f"{module}.{name}" in known:
        return above | {f"{module}.{name}"}
    if name and not _binds(known[module].read_text(encoding="utf-8"), name):
        return set(everything)
    return above


@lru_cache(maxsize=512)
def _bindings(source: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(_parse(source) or ast.Module([], [])):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
    return frozenset(names)


def _binds(source: str, name: str) -> bool:
    return name in _bindings(source) or (name.startswith("__") and name.endswith("__"))


def _is_below(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _modules(package: str) -> dict[str, Path]:
    """Every module of an installed package, without importing it; empty where it is not installed."""
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


def _native(root: Path) -> dict[str, Path]:
    """C sources beside a checked-out package (they build to other bytes elsewhere), else its libraries."""
    home = root.parent
    checkout = (home / "pyproject.toml").is_file()
    folders = ("include", "src") if checkout else (root.name,)
    suffixes = _NATIVE_SOURCES if checkout else _NATIVE_BINARIES
    paths = (path for folder in folders for path in (home / folder).rglob("*"))
    found = [path for path in paths if path.suffix.lower() in suffixes]
    found += [path for path in [home / "CMakeLists.txt"] if checkout and path.is_file()]  # has the flags
    return {f"{root.name}/{path.relative_to(home).as_posix()}": path for path in found}
