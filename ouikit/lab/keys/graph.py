"""Which definitions of our own packages a piece of code reaches, found by reading, never by running.

A reference is written `module` or `module:dotted.name`; `module:*` is everything in a module and below it, a
bare `*` everything there is. Where something cannot be resolved (a star import, a computed import, a name
that is nowhere), all modules of the package count: the answer may cost time, never hide a change.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ouikit.lab.keys import definitions, packages
from ouikit.lab.keys.definitions import Import, Module, Piece


class Node(NamedTuple):
    """A definition; with the name "" what importing the module executes, with "*" all that it defines."""

    module: str
    name: str


@dataclass
class Reached:
    """What a piece of code reaches.

    `links` are (digest of who names it, the name as written, digest of what it is): equal links mean equal
    code, wherever it lies. `nodes` are the definitions, `libraries` the modules of other distributions that
    are imported on the way (`*` where that can be any), `files` the native sources of packages.
    """

    links: set[tuple[str, str, str]] = field(default_factory=set)
    nodes: set[Node] = field(default_factory=set)
    libraries: set[str] = field(default_factory=set)
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def modules(self) -> set[str]:
        """Names of our modules that are imported on the way."""
        return {node.module for node in self.nodes}


@dataclass(frozen=True)
class Step:
    """What one definition names: (name as written, what it is), and modules of other libraries."""

    named: list[tuple[str, Node]]
    libraries: set[str]


def today(names: Iterable[str] = packages.PACKAGES, exclude: Iterable[str] = ()) -> "Graph":
    """The graph of the files as they are now; it serves all callers until one of them is written."""
    names = tuple(names)
    paths = [path for package in names for path in packages.modules(package).values()]
    stamps = tuple((path, (stat := path.stat()).st_mtime_ns, stat.st_size) for path in paths)
    return _graph(names, tuple(exclude), stamps)


@lru_cache(maxsize=8)
def _graph(names: tuple[str, ...], exclude: tuple[str, ...], _stamps: Any) -> "Graph":
    return Graph(names, exclude)


class Graph:
    """The definitions of packages; the modules `exclude`, with all below, are neither listed nor followed.

    What one definition names is worked out once, however many callers reach it.
    """

    def __init__(self, names: Iterable[str] = packages.PACKAGES, exclude: Iterable[str] = ()) -> None:
        self._packages = tuple(names)
        self._dropped = tuple(exclude)
        self._paths = {
            name: path for package in self._packages for name, path in packages.modules(package).items()
        }
        self._modules: dict[str, Module | None] = {}
        self._steps: dict[Node, Step] = {}
        self._entered: dict[str, dict[Node, set[Node]]] = {}

    def reach(self, sources: Iterable[str] = (), references: Iterable[str] = ()) -> Reached:
        """Follow code (cells of one notebook share their names) and references, transitively."""
        found = Reached()
        waiting: list[Node] = []
        for origin, name, target in [
            *self._from_cells(list(sources), found),
            *self._from_references(references),
        ]:
            found.links.add((origin, name, self.digest(target)))
            waiting.append(target)
        self._follow(waiting, found)
        while late := self._registered(found) - found.nodes:
            self._follow(sorted(late), found)
        for package in self._packages:
            if package in found.modules:
                found.files |= packages.native(self._paths[package].parent)
        return found

    def digest(self, node: Node) -> str:
        """Hash of a definition's text; of a module's whole text where it is not Python."""
        module = self._module(node.module)
        if module is None:
            return hashlib.sha256(self._paths[node.module].read_bytes()).hexdigest()
        if node.name == "":
            return module.body.digest
        return module.definitions[node.name].digest if node.name in module.definitions else node.name

    def find(self, reference: str) -> set[Node]:
        """The definitions that a reference names."""
        if reference == "*":
            return {Node(module, "*") for module in self._paths if not self._is_dropped(module)}
        module, _, name = reference.partition(":")
        if name == "*" or not name:
            return self._everything_below(module) if name else self._target(module, [""])
        return self._target(module, name.split("."))

    def _follow(self, waiting: list[Node], found: Reached) -> None:
        while waiting:
            node = waiting.pop()
            if node in found.nodes or self._is_dropped(node.module):
                continue
            found.nodes.add(node)
            parent = node.module.rpartition(".")[0]
            waiting += [Node(node.module, ""), *([Node(parent, "")] if parent else [])]
            step = self._step(node)
            origin = self.digest(node)
            found.links |= {(origin, name, digest) for name, to in step.named if (digest := self.digest(to))}
            found.libraries |= step.libraries
            waiting += [target for _, target in step.named]

    def _step(self, node: Node) -> Step:
        if node not in self._steps:
            beside = Reached()
            self._steps[node] = Step(list(dict.fromkeys(self._named(node, beside))), beside.libraries)
        return self._steps[node]

    def _named(self, node: Node, found: Reached) -> Iterator[tuple[str, Node]]:
        """(name as written, definition) of everything that one node reaches directly."""
        module = self._module(node.module)
        if module is None:
            yield from (("*", target) for target in self.find("*"))
        elif node.name == "*":
            yield from self._all_of(node.module, module)
        elif node.name:
            yield from self._of_piece(node.module, module, module.definitions[node.name], found)
        else:
            for target in module.executed:
                yield from (("import", one) for one in self._loaded(target, found))
            yield from self._of_piece(node.module, module, module.body, found)

    def _all_of(self, name: str, module: Module) -> Iterator[tuple[str, Node]]:
        hidden = {"__getattr__", "__dir__"} if module.lazy else set()
        yield from ((one, Node(name, one)) for one in module.definitions.keys() - hidden)
        for alias, targets in module.imports.items():
            yield from ((alias, one) for target in targets if target[1] for one in self._import(target, []))

    def _of_piece(
        self, name: str, module: Module, piece: Piece, found: Reached
    ) -> Iterator[tuple[str, Node]]:
        for chain in piece.chains:
            root, *rest = chain.split(".")
            if root in piece.imports:
                targets = {one for target in piece.imports[root] for one in self._import(target, rest)}
            elif root in module.definitions or root in module.imports:
                targets = self._target(name, [root, *rest])
            elif stars := module.imports.get("*"):
                targets = {one for target in stars for one in self._star(target, [root, *rest])}
            else:
                continue  # a builtin, or a local name
            yield from ((chain, target) for target in targets)
        for target in {target for targets in piece.imports.values() for target in targets}:
            yield from (("import", one) for one in self._loaded(target, found))
        for reference in piece.loaded:
            yield from (("import", one) for one in self._by_name(reference, found))
        if piece.opaque:
            yield "*", Node(name, "*")

    def _loaded(self, target: Import, found: Reached) -> Iterator[Node]:
        """The modules that one import executes."""
        module, name = target
        if not self._is_ours(module):
            found.libraries.add(module)
        elif module not in self._paths:
            yield from self._everything_in(module)
        else:
            yield Node(module, "")
            if f"{module}.{name}" in self._paths:
                yield Node(f"{module}.{name}", "")

    def _by_name(self, reference: str, found: Reached) -> set[Node]:
        """What a computed import loads; after `?` a name in a text."""
        if reference == "*":
            found.libraries.add("*")
            return self.find("*")
        if reference.startswith("?"):
            module, _, name = reference[1:].partition(":")
            return self._target(module, [name]) if module in self._paths else set()
        module = reference.removesuffix(".*")
        if not self._is_ours(module):
            found.libraries.add(module)
            return set()
        return self._everything_below(module) if reference.endswith(".*") else {*self._target(module, [])}

    def _import(self, target: Import, rest: list[str]) -> set[Node]:
        module, name = target
        if not self._is_ours(module):
            return set()
        return self._target(module, [name, *rest] if name else rest)

    def _target(self, name: str, parts: list[str], seen: frozenset[Node] = frozenset()) -> set[Node]:
        """What `name.parts[0].parts[1]…` is; a module that is used as a value is everything in it."""
        if self._is_dropped(name):
            return set()
        if name not in self._paths:
            return self._everything_in(name)
        if not parts:
            return self._everything_below(name)
        first, *rest = parts
        node = Node(name, first)
        module = self._module(name)
        if module is None or first in ("", "*") or node in seen:
            return {Node(name, "*" if first == "*" else "")}
        found = {node} if first in module.definitions else set()
        for target in module.imports.get(first, ()):
            origin, taken = target
            if self._is_ours(origin):
                found |= self._target(origin, [taken, *rest] if taken else rest, seen | {node})
        if f"{name}.{first}" in self._paths and not found:
            found |= self._target(f"{name}.{first}", rest) | {Node(f"{name}.{first}", "")}
        known = found or first in module.imports or (first.startswith("__") and first.endswith("__"))
        if not known and "*" in module.imports:
            found = {one for target in module.imports["*"] for one in self._star(target, parts)}
        elif not known:
            found = self._everything_in(name)
        return found | {Node(name, "")}

    def _star(self, target: Import, parts: list[str]) -> set[Node]:
        """A name that a star import may bring."""
        module = self._module(target[0]) if target[0] in self._paths else None
        if module is None:
            return self._everything_in(target[0]) if self._is_ours(target[0]) else set()
        known = parts[0] in module.definitions or parts[0] in module.imports or "*" in module.imports
        return self._target(target[0], parts) if known else set()

    def _registered(self, found: Reached) -> set[Node]:
        """Definitions that are entered in a reached variable when their module is imported.

        `@app.train()` enters what it decorates in `app`; `@register` and `x = register(…)` in the variables
        that `register` changes; a class may enter its subclasses (`__init_subclass__`).
        """
        entered = (pair for name in found.modules for pair in self._enters(name).items())
        return {node for node, variables in entered if variables & found.nodes}

    def _enters(self, name: str) -> dict[Node, set[Node]]:
        """The definitions of a module that may enter variables when it is imported, with these variables."""
        if name not in self._entered:
            module = self._module(name)
            into = {
                Node(name, own): {node for chain in piece.registers for node in self._changed_by(name, chain)}
                | self._watching(name, piece)
                for own, piece in (module.definitions.items() if module else ())
            }
            self._entered[name] = {node: variables for node, variables in into.items() if variables}
        return self._entered[name]

    def _watching(self, name: str, piece: Piece) -> set[Node]:
        """The base classes that hear of their subclasses."""
        bases = {node for chain in piece.bases for node in self._local(name, chain)}
        return {node for node in bases if (found := self._piece(node)) and found.watches_subclasses}

    def _changed_by(self, name: str, chain: str) -> Iterator[Node]:
        """The variables that a decorator or a called function belongs to or changes."""
        root = chain.partition(".")[0]
        start, seen = self._local(name, chain), set[Node]()
        if "." in chain:
            yield from (node for node in start if node.name == root)  # a method of a variable
        while start:
            node = start.pop()
            piece = self._piece(node)
            if node in seen or piece is None:
                continue
            seen.add(node)
            for changed in piece.mutated:
                yield from self._local(node.module, changed)
            module = self._module(node.module)
            if module:
                start |= {target for _, target in self._of_piece(node.module, module, piece, Reached())}

    def _local(self, name: str, chain: str) -> set[Node]:
        """The definitions of our own that a dotted name at the top of a module stands for."""
        module, root = self._module(name), chain.partition(".")[0]
        if module is None or (root not in module.definitions and root not in module.imports):
            return set()
        return {node for node in self._target(name, chain.split(".")) if self._piece(node)}

    def _piece(self, node: Node) -> Piece | None:
        module = self._module(node.module)
        return module.definitions.get(node.name) if module else None

    def _from_cells(self, cells: list[str], found: Reached) -> Iterator[tuple[str, str, Node]]:
        """What the cells of one notebook name; their own text counts elsewhere."""
        try:
            tree = ast.parse("\n".join(cells))
        except SyntaxError:  # a cell magic, say, which can do anything
            found.libraries.add("*")
            yield from (("", "*", target) for target in self.find("*"))
            return
        piece = definitions.names_in(tree.body, "", self._packages)
        blank = Module({}, {}, set(), Piece(), lazy=False)
        yield from (
            ("", name, target) for name, target in self._of_piece("", blank, piece, found) if target.module
        )
        for target in piece.imports.get("*", ()):
            yield from (("", "*", one) for one in self._import((target[0], ""), []))

    def _from_references(self, references: Iterable[str]) -> Iterator[tuple[str, str, Node]]:
        for reference in references:
            name = reference.partition(":")[2]
            if reference == "*" or self._is_ours(reference.partition(":")[0]):
                yield from (("", name, target) for target in self.find(reference))

    def _everything_below(self, module: str) -> set[Node]:
        return self._below(module) if module in self._paths else self._everything_in(module)

    def _everything_in(self, module: str) -> set[Node]:
        """All of the package that a module belongs to."""
        return self._below(module.partition(".")[0])

    def _below(self, module: str) -> set[Node]:
        return {
            Node(name, "*") for name in self._paths if _is_below(name, module) and not self._is_dropped(name)
        }

    def _module(self, name: str) -> Module | None:
        if name not in self._modules:
            self._modules[name] = definitions.read(self._paths[name], name, self._packages)
        return self._modules[name]

    def _is_ours(self, module: str) -> bool:
        return module.partition(".")[0] in self._packages

    def _is_dropped(self, module: str) -> bool:
        return any(_is_below(module, dropped) for dropped in self._dropped)


def _is_below(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")
