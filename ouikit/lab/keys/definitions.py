"""One module, read and never run: its definitions, what each of them names, what importing it executes."""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

Import = tuple[str, str]  # module and the name taken from it; "" is the module itself, "*" all its names

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.Lambda)
_LOOKS_AT_ALL = {"eval", "exec", "globals"}
_MUTATORS = {
    "add",
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "register",
    "remove",
    "setdefault",
    "update",
}


@dataclass
class Piece:
    """Some statements, and everything that they name.

    `chains` are dotted names as written (`plots.canvas`), `imports` the imports inside (alias -> targets),
    `loaded` modules that are imported by a computed or constant name (`a.b`, `a.*` for all below, `*` for
    any; after `?` a name in a text), `mutated` the names of variables that are changed in place.
    `registers` names what may enter this definition somewhere: its decorators, what an assignment calls;
    `bases` the base classes, of which one that `watches_subclasses` does the same. `opaque`: the code looks
    names up in its own module (`globals()`).
    """

    chains: set[str] = field(default_factory=set)
    imports: dict[str, set[Import]] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)
    mutated: set[str] = field(default_factory=set)
    registers: set[str] = field(default_factory=set)
    bases: set[str] = field(default_factory=set)
    watches_subclasses: bool = False
    opaque: bool = False
    nodes: list[ast.stmt] = field(default_factory=list)
    packages: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Hash of the text without documentation and imports of our own; worked out for what is reached.

        Imports of our own do not count as text, since what they import does: a function may move.
        """
        plain = filter(None, (_Plain(self.packages).visit(node) for node in self.nodes))
        text = "\n".join(map(ast.unparse, plain))
        return hashlib.sha256(text.encode()).hexdigest() if text else ""


@dataclass(frozen=True)
class Module:
    """A parsed module.

    `body` is what importing it executes beside its definitions; `executed` are the imports at its top level
    that are executed (not those for type checkers); `lazy` says that its `__getattr__` (PEP 562) serves the
    names that it lists for type checkers.
    """

    definitions: dict[str, Piece]
    imports: dict[str, set[Import]]
    executed: set[Import]
    body: Piece
    lazy: bool


def read(path: Path, name: str, packages: tuple[str, ...]) -> Module | None:
    """Parse a module; None where it is not Python."""
    stat = path.stat()
    return _read(path, name, packages, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _read(path: Path, name: str, packages: tuple[str, ...], *_stamp: int) -> Module | None:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError:
        return None
    return _module(tree, package, packages)


def _module(tree: ast.Module, package: str, packages: tuple[str, ...]) -> Module:
    parts: dict[str, list[ast.stmt]] = {}
    effects: list[ast.stmt] = []
    types: list[ast.stmt] = []
    loading: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            loading.append(node)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            types += node.body
            loading += [n for n in node.orelse if isinstance(n, ast.Import | ast.ImportFrom)]
            effects += [n for n in node.orelse if not isinstance(n, ast.Import | ast.ImportFrom)]
        elif names := _defines(node, parts):
            for name in names:
                parts.setdefault(name, []).append(node)
        else:
            effects.append(node)
            for name in _stored(node):  # `try: x = … except: x = …` defines names, too
                parts.setdefault(name, []).append(node)
    everything = names_in([*loading, *types], package, packages).imports
    body = names_in(effects, package, packages)
    now = names_in(loading, package, packages).imports
    for alias, targets in body.imports.items():
        everything.setdefault(alias, set()).update(targets)
    executed = {target for found in (now, body.imports) for targets in found.values() for target in targets}
    lazy = bool(types) and "__getattr__" in parts
    definitions = {name: names_in(nodes, package, packages) for name, nodes in parts.items()}
    return Module(definitions, everything, executed, body, lazy)


def _defines(node: ast.stmt, known: Iterable[str]) -> set[str]:
    """Names that a plain definition or assignment binds; `TABLE["x"] = …` belongs to TABLE."""
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    else:
        return set()
    roots = {
        inner.id
        for target in targets
        for inner in ast.walk(target)
        if isinstance(inner, ast.Name) and (isinstance(inner.ctx, ast.Store) or inner.id in known)
    }
    plain = all(isinstance(t, ast.Name | ast.Tuple | ast.List) or _root(t) in known for t in targets)
    return roots if plain else set()


def names_in(nodes: list[ast.stmt], package: str, packages: tuple[str, ...]) -> Piece:
    """What statements name."""
    reader = _Names(package, packages)
    reader.piece.nodes, reader.piece.packages = nodes, packages
    for node in nodes:
        reader.visit(node)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            reader.piece.registers |= {
                _dotted(c.func) for c in ast.walk(node.value) if isinstance(c, ast.Call)
            }
    return reader.piece


class _Plain(ast.NodeTransformer):
    """Drops, in place, texts that stand alone (docstrings, also of attributes) and our own imports."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        bare = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if bare else node

    def visit_Import(self, node: ast.Import) -> ast.Import | None:
        node.names = [alias for alias in node.names if alias.name.partition(".")[0] not in self._packages]
        return node if node.names else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        ours = node.level or (node.module or "").partition(".")[0] in self._packages
        return None if ours else node


class _Names(ast.NodeVisitor):
    def __init__(self, package: str, packages: tuple[str, ...]) -> None:
        self.piece = Piece()
        self._package, self._packages = package, packages
        self._local: list[set[str]] = []

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._chain(node.id, node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        root = _root(node)
        if root and (chain := _dotted(node)):
            self._chain(root, chain)
            self.piece.opaque |= chain.startswith("sys.modules")
            if not isinstance(node.ctx, ast.Load):
                self.piece.mutated.add(root)
        else:
            self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load) and (root := _root(node)):
            self.piece.mutated.add(root)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.piece.mutated.update(node.names)
        self.piece.chains.update(node.names)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A text with `ouikit.fl.run.apps:client_app` in it names an app that a framework will import."""
        if isinstance(node.value, str):
            found = re.findall(r"\b\w+(?:\.\w+)+:[A-Za-z_]\w*", node.value)
            self.piece.loaded.update(f"?{name}" for name in found if name.partition(".")[0] in self._packages)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # else a docstring
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        callee = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if callee in ("import_module", "__import__"):
            self.piece.loaded.add(_computed(node))
        elif callee in _LOOKS_AT_ALL and isinstance(node.func, ast.Name):
            self.piece.opaque = True
        elif callee in _MUTATORS and isinstance(node.func, ast.Attribute) and (root := _root(node.func)):
            self.piece.mutated.add(root)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.asname:
                self._import(alias.asname, (alias.name, ""))
            else:
                self._import(alias.name.partition(".")[0], (alias.name.partition(".")[0], ""))
                self._import(
                    f"import {alias.name}", (alias.name, "")
                )  # which is loaded, and bound to no name

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        origin = _absolute(node.module or "", node.level, self._package)
        if not origin:
            self.piece.loaded.add("*")
        for alias in node.names:
            self._import(alias.asname or alias.name, (origin, alias.name))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._decorators(node)
        self.piece.bases.update(filter(None, map(_dotted, node.bases)))
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        self._inside([node.body], node.args)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.visit(node.generators[0].iter)
        inside = [inner for one in node.generators for inner in (one.target, *one.ifs)]
        inside += [one.iter for one in node.generators[1:]]
        inside += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._local.append(
            {n.id for one in node.generators for n in ast.walk(one.target) if isinstance(n, ast.Name)}
        )
        for inner in inside:
            self.visit(inner)
        self._local.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._decorators(node)
        self.piece.watches_subclasses |= node.name == "__init_subclass__"
        for outside in (*node.decorator_list, node.args, *([node.returns] if node.returns else [])):
            self.visit(outside)
        self._inside(node.body, node.args)

    def _inside(self, body: Iterable[ast.AST], args: ast.arguments) -> None:
        listed = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        own = {arg.arg for arg in listed if arg}
        shared: set[str] = set()
        for node in body:
            for inner in _same_scope(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store | ast.Del):
                    own.add(inner.id)
                elif isinstance(inner, (*_FUNCTIONS, ast.ClassDef)):
                    own.add(inner.name)
                elif isinstance(inner, ast.ExceptHandler):
                    own.add(inner.name or "")
                elif isinstance(inner, ast.Global):
                    shared.update(inner.names)
        self._local.append(own - shared)
        for node in body:
            self.visit(node)
        self._local.pop()

    def _decorators(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        if not self._local:
            for decorator in node.decorator_list:
                function = decorator.func if isinstance(decorator, ast.Call) else decorator
                self.piece.registers.add(_dotted(function) or _root(function) or "")

    def _chain(self, root: str, chain: str) -> None:
        if not any(root in names for names in self._local):
            self.piece.chains.add(chain)

    def _import(self, alias: str, target: Import) -> None:
        self.piece.imports.setdefault(alias, set()).add(target)


def _same_scope(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and what lies below it, without the insides of functions and classes."""
    yield node
    if not isinstance(node, (*_SCOPES, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        for child in ast.iter_child_nodes(node):
            yield from _same_scope(child)


def _stored(node: ast.AST) -> set[str]:
    found = set()
    for inner in _same_scope(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            found.add(inner.id)
        elif isinstance(inner, (*_FUNCTIONS, ast.ClassDef)):
            found.add(inner.name)
    return found


def _root(node: ast.AST) -> str:
    """`a` of `a.b[0].c()`; empty where there is no name."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _dotted(node: ast.AST) -> str:
    """`a.b.c` where a node is just that, else empty."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _absolute(module: str, level: int, package: str) -> str:
    """The full name of `from ..module`; empty where it leaves the tree."""
    if level == 0:
        return module
    parts = package.split(".")
    kept = [*parts[: len(parts) - level + 1], *filter(None, [module])]
    return ".".join(kept) if level <= len(parts) else ""


def _computed(node: ast.Call) -> str:
    """`import_module("a.b")` loads `a.b`; `import_module(f"a.{x}")` anything below `a`."""
    argument = node.args[0] if node.args else None
    if isinstance(argument, ast.JoinedStr) and argument.values:
        start = argument.values[0]
        text = start.value if isinstance(start, ast.Constant) else ""
        package = str(text).rpartition(".")[0]
        return f"{package}.*" if package else "*"
    name = argument.value if isinstance(argument, ast.Constant) else None
    return name if isinstance(name, str) and not name.startswith(".") else "*"
