"""What a function computes, described as plain values: its code and everything that the code names.

Compiled code is described rather than text, because it is there for every function (notebook, script,
lambda, interactive prompt) and does not change with comments, layout or position.
"""

import dataclasses
import functools
import hashlib
import io
import pickle
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from dis import Instruction, get_instructions
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Place:
    """Where a definition of our packages lies, in the notation of `graph`; it may move without changing."""

    reference: str


@dataclass
class Identity:
    """A description (JSON-able but for `Place`, NumPy scalars, non-finite floats) and what it leans on.

    `references` are definitions of our packages, in the notation of `graph`; `files` are local Python files
    outside them. Other installed libraries stand in the description by name: the lock holds their versions.
    """

    description: Any = None
    references: set[str] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)


def identify(function: Callable[..., Any], packages: Sequence[str]) -> Identity:
    """Read `function`, its defaults and closure, and, recursively, the globals that its code names.

    Functions of `packages` and of installed libraries are named, not read; those of the notebook or script
    where `function` is defined are read. Raises TypeError naming a referenced value that has no stable form.
    """
    innermost: Any = function
    while isinstance(innermost, functools.partial):
        innermost = innermost.func
    if not isinstance(innermost, (FunctionType, MethodType, BuiltinFunctionType)):
        raise TypeError(f"a cell must be a function, not {type(innermost).__name__}: {innermost!r:.80}")
    reader = _Reader(packages, innermost.__module__ or "__main__")
    reader.identity.description = reader.describe(function, innermost.__name__)
    return reader.identity


class _Stable(pickle.Pickler):
    """Writes tensors by their numbers: torch's own pickle of one holds a random identifier."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) or not callable(getattr(value, "detach", None)):
            return NotImplemented
        numbers = value.detach().cpu()
        try:
            held = np.ascontiguousarray(numbers.numpy()).tobytes()
        except TypeError:  # bfloat16 and others that NumPy lacks
            held = numbers.tolist()
        return tuple, ((str(value.dtype), tuple(value.shape), held),)


class _Reader:
    def __init__(self, packages: Sequence[str], home: str) -> None:
        self.identity = Identity()
        self._packages = packages
        self._home = {"__main__"} if self._is_ours(home) else {"__main__", home}
        self._seen: dict[Any, int] = {}  # functions and classes, which outlive the reading; ends recursion

    def describe(self, value: Any, name: str) -> Any:
        """Identity of `value`, which the code knows as `name`."""
        if value is None or isinstance(value, (bool, int, float, str, np.generic)):
            return [type(value).__name__, value]  # True, 1 and 1.0 are three
        if isinstance(value, (list, tuple)):
            return [type(value).__name__, *(self.describe(item, name) for item in value)]
        if isinstance(value, Mapping):
            return ["dict", *([self.describe(k, name), self.describe(v, name)] for k, v in value.items())]
        if isinstance(value, (set, frozenset)):
            return ["set", *sorted((self.describe(item, name) for item in value), key=repr)]
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return ["array", value.dtype.str, list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [self.describe(getattr(value, f.name), name) for f in dataclasses.fields(value)]
            return ["record", self.describe(type(value), name), *fields]
        if isinstance(value, ModuleType):
            return self._place(value.__name__, "*")
        if isinstance(value, (FunctionType, type)):
            if value in self._seen:
                return ["seen", self._seen[value]]
            self._seen[value] = len(self._seen)
            return self._function(value) if isinstance(value, FunctionType) else self._class(value)
        return self._object(value, name)

    def _object(self, value: Any, name: str) -> Any:
        if isinstance(value, functools.partial):
            return [
                "partial",
                *(self.describe(part, name) for part in (value.func, value.args, value.keywords)),
            ]
        if isinstance(value, MethodType):
            return ["method", self.describe(value.__func__, name), self.describe(value.__self__, name)]
        if isinstance(value, functools.cached_property):
            return ["property", self.describe(value.func, name)]
        if isinstance(value, (staticmethod, classmethod)) or hasattr(value, "cache_info"):
            return ["wrapped", type(value).__name__, self.describe(value.__wrapped__, name)]
        if isinstance(value, property):
            return ["property", *(self.describe(part, name) for part in (value.fget, value.fset, value.fdel))]
        try:
            _Stable(pickled := io.BytesIO(), protocol=5).dump(value)
            state = hashlib.sha256(pickled.getvalue()).hexdigest()
        except Exception as error:
            raise TypeError(
                f"the cell refers to {name!r}, a {type(value).__name__} that cannot be identified ({error}); "
                "make it inside the cell, or hand over the numbers it is made from"
            ) from error
        return ["object", self.describe(type(value), name), state]

    def _function(self, function: FunctionType) -> Any:
        module = function.__globals__.get("__name__", "__main__")
        wrapped = self.describe(getattr(function, "__wrapped__", None), function.__name__)
        if module not in self._home and not self._is_ours(module):
            return ["function", self._place(module, function.__qualname__), function.__qualname__, wrapped]
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held = [[name, self.describe(cell.cell_contents, name)] for name, cell in cells]
        defaults = self.describe([function.__defaults__, function.__kwdefaults__], function.__name__)
        if module in self._home:
            return ["code", self._code(function.__code__, function.__globals__), held, defaults, wrapped]
        place = self._place(module, function.__qualname__)
        return ["function", place, function.__qualname__, held, defaults, wrapped]

    def _code(self, code: CodeType, known: Mapping[str, Any]) -> Any:
        """Instructions, constants, and the globals behind the names; no file name, no line numbers."""
        steps = [step for step in get_instructions(code) if step.opname != "EXTENDED_ARG"]
        local = self._imports(steps)
        named = {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")} & known.keys()
        modules = {name: value.__name__ for name in named if isinstance(value := known[name], ModuleType)}
        ours = {name: module for name, module in modules.items() if self._is_ours(module)}
        self._uses(steps, ("LOAD_GLOBAL", "LOAD_NAME"), ours)
        self._uses(steps, ("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK"), local)
        constants = [
            self._code(item, known) if isinstance(item, CodeType) else self.describe(item, code.co_name)
            for item in code.co_consts
        ]
        variables = [list(names) for names in (code.co_names, code.co_varnames, code.co_freevars)]
        values = [[name, self.describe(known[name], name)] for name in sorted(named - ours.keys())]
        return [code.co_code.hex(), constants, variables, values]

    def _imports(self, steps: Sequence[Instruction]) -> dict[str, str]:
        """Note the imports inside a function; returns the local names that stand for a module of ours.

        The names of `from … import names` are loaded just before. A module that is not simply bound to a
        local name counts as a whole.
        """
        local = {}
        for before, step, after in zip(steps, steps[1:], steps[2:], strict=False):
            if step.opname == "IMPORT_NAME":
                module, names = step.argval, before.argval or ()
                if names:
                    self.identity.references.update(f"{module}:{name}" for name in names)
                elif self._is_ours(module):
                    self.identity.references.add(module)
                    bound = module.partition(".")[0]
                    if after.opname == "STORE_FAST":  # `import a.b` binds a
                        local[after.argval] = bound
                    else:  # `import a.b as c` takes b of a
                        whole = module if after.opname == "IMPORT_FROM" else bound
                        self.identity.references.add(f"{whole}:*")
            elif step.argval in ("import_module", "__import__"):
                self.identity.references.add("*")
        return local

    def _uses(self, steps: Sequence[Instruction], loads: Sequence[str], modules: Mapping[str, str]) -> None:
        """What follows the name of a module: `ouikit.nn.models.small` is a definition, bare `ouikit` all."""
        for i, step in enumerate(steps):
            if step.opname in loads and step.argval in modules:
                chain = []
                for after in steps[i + 1 :]:
                    if after.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                        break
                    chain.append(after.argval)
                self.identity.references.add(f"{modules[step.argval]}:{'.'.join(chain) or '*'}")

    def _class(self, cls: type) -> Any:
        if cls.__module__ not in self._home:
            return ["class", self._place(cls.__module__, cls.__qualname__), cls.__qualname__]
        members = [
            [name, self.describe(member, f"{cls.__name__}.{name}")]
            for name, member in sorted(vars(cls).items())
            if isinstance(member, (FunctionType, staticmethod, classmethod))
            or not name.startswith(("__", "_abc_"))
        ]
        return [
            "class",
            cls.__qualname__,
            [self.describe(base, cls.__name__) for base in cls.__bases__],
            members,
        ]

    def _place(self, module: str, name: str) -> Any:
        """Note what stands behind something that is named and not read: its module and (qualified) name."""
        if self._is_ours(module):
            reference = f"{module}:{name.partition('.')[0]}"
            self.identity.references.add(reference)
            return Place(reference)
        file = Path(getattr(sys.modules.get(module), "__file__", None) or "built-in")
        if file.suffix == ".py" and not _is_installed(file):
            self.identity.files.add(file)
        return module

    def _is_ours(self, module: str) -> bool:
        return module.partition(".")[0] in self._packages


def _is_installed(file: Path) -> bool:
    return any(file.is_relative_to(place) for place in set(sysconfig.get_paths().values()))
