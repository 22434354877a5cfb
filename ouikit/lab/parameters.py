"""The parameters cell of a chapter: its types, defaults and help, and the check of every value.

The cell is parsed and never executed. A line is `name: type = default  # help`; the type is bool, int, float
or str, a list of one of them, or a list of a record type, which is a class in the same cell whose lines have
the same form (a field without a default is required). Values of a record parameter are lists of plain dicts.
"""

import ast
import dataclasses
import tokenize
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from typing import Any

SCALARS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
REQUIRED = dataclasses.MISSING  # the default of a field that has none


class ParameterError(ValueError):
    """An unknown parameter or field, a missing field, or a value of the wrong type."""


@dataclass(frozen=True)
class Field:
    """One line `name: type = default  # help` whose type is a scalar or a list of scalars."""

    name: str
    kind: str
    default: Any
    help: str

    def check(self, value: Any, where: str) -> Any:
        """Return `value` as this field's type.

        Args:
            value: what a reader, a scale or the cell gave.
            where: what to call the field in a message, for example `parameter 'lr'`.

        Raises:
            ParameterError: naming the value, the type that it should have, and an example if there is one.
        """
        item = _item(self.kind)
        if item == self.kind:
            return self._scalar(value, SCALARS[item], where)
        if not isinstance(value, list | tuple):
            raise ParameterError(f"{self._got(value, where)}; write a list{self._example()}")
        return [self._scalar(v, SCALARS[item], where) for v in value]

    def read(self, text: str) -> Any:
        """The value that a reader typed, still to be checked: as Python, but a str is what stands there.

        So `2024` is a name where the declared type is str, and `[adam, sgd]` a list where it is list[str].
        """
        if self.kind == "str":
            return _typed_string(text)
        if self.kind == "list[str]" and (items := _sources_of_items(text)) is not None:
            return [_typed_string(item) for item in items]
        return _typed(text)

    def _scalar(self, value: Any, wanted: type, where: str) -> Any:
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not wanted:
            raise ParameterError(f"{self._got(value, where)}{self._example()}")
        return value

    def _got(self, value: Any, where: str) -> str:
        return f"{where} is {self.kind}, but got {value!r} ({type(value).__name__})"

    def _example(self) -> str:
        return "" if self.default is REQUIRED else f"; for example {self.default!r}"

    def __str__(self) -> str:
        default = "" if self.default is REQUIRED else f" = {self.default!r}"
        return f"{self.name}: {self.kind}{default}"


@dataclass(frozen=True)
class RecordType:
    """A class of the parameters cell: the fields that each dict of a record parameter has."""

    name: str
    help: str
    fields: tuple[Field, ...]

    def check(self, value: Any, where: str) -> dict[str, Any]:
        """Return `value` as a dict with every field, in the order of the class.

        Raises:
            ParameterError: for a value that is no dict, an unknown field (with the nearest one), a missing
                field, or a field of the wrong type.
        """
        if not isinstance(value, Mapping):
            raise ParameterError(
                f"{where} is a {self.name}, but got {value!r}; write a dict with {self._fields()}"
            )
        known = {field.name: field for field in self.fields}
        for name in value:
            if name not in known:
                raise ParameterError(f"{where} has no field {name!r}; {nearest(name, known)}")
        full = {}
        for name, field in known.items():
            given = value.get(name, field.default)
            if given is REQUIRED:
                raise ParameterError(
                    f"{where}: field {name!r} is missing; a {self.name} has {self._fields()}"
                )
            full[name] = field.check(given, f"{where}: field {name!r}")
        return full

    def make(self, cls: type) -> type:
        """Turn the notebook's own class into a frozen dataclass (once), and return it."""
        if not dataclasses.is_dataclass(cls):
            for field in self.fields:
                if isinstance(field.default, list):  # each instance has a list of its own
                    copy = dataclasses.field(default_factory=field.default.copy)
                    setattr(cls, field.name, copy)
            dataclass(frozen=True)(cls)
        return cls

    def _fields(self) -> str:
        return ", ".join(map(str, self.fields))


@dataclass(frozen=True)
class Parameter(Field):
    """One parameter; `record` is the type of the items where `kind` is a list of records."""

    record: RecordType | None = None

    def check(self, value: Any, where: str = "") -> Any:
        """As `Field.check`, with the defaults of records filled in."""
        where = where or f"parameter {self.name!r}"
        if self.record is None:
            return super().check(value, where)
        if not isinstance(value, list | tuple):
            raise ParameterError(
                f"{self._got(value, where)}; write a list of dicts, for example {self.default!r}"
            )
        return [self.record.check(item, f"{where}, item {i}") for i, item in enumerate(value)]


Parameters = dict[str, Parameter]


def parse(cell: str) -> Parameters:
    """Read the source of a parameters cell without running it.

    Raises:
        SyntaxError: if it is not Python.
        ValueError: naming the first line that is not of the form above (ParameterError is one).
    """
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO(cell).readline)
        if token.type == tokenize.COMMENT
    }
    records: dict[str, RecordType] = {}
    found: Parameters = {}
    for node in ast.parse(cell).body:
        if isinstance(node, ast.ClassDef):
            records[node.name] = _record_type(node, cell, comments)
            continue
        name, kind, default, help_ = _line(node, cell, comments)
        record = records.get(_item(kind))
        if not (kind.startswith("list[") if record else _item(kind) in SCALARS):
            allowed = "bool, int, float, str, a list of one, or a list of a class above"
            raise ValueError(f"{ast.get_source_segment(cell, node)!r}: use {allowed}")
        if default is REQUIRED:
            raise ValueError(_form(node, cell))
        unchecked = Parameter(name, kind, default, help_, record)
        found[name] = dataclasses.replace(unchecked, default=unchecked.check(default))
    return found


def _record_type(node: ast.ClassDef, cell: str, comments: Mapping[int, str]) -> RecordType:
    lines = node.body
    documented = ast.get_docstring(node)
    if node.bases or node.decorator_list or documented is None:
        raise ValueError(
            f"class {node.name}: write `class {node.name}:` with a docstring and lines of fields"
        )
    fields: list[Field] = []
    for line in lines[1:]:
        name, kind, default, help_ = _line(line, cell, comments)
        if _item(kind) not in SCALARS:
            raise ValueError(f"{node.name}.{name}: use bool, int, float, str or a list of one")
        if default is REQUIRED and fields and fields[-1].default is not REQUIRED:
            raise ValueError(f"{node.name}.{name} has no default; such fields come first")
        field = Field(name, kind, default, help_)
        if default is not REQUIRED:
            field = dataclasses.replace(field, default=field.check(default, f"{node.name}.{name}"))
        fields.append(field)
    if not fields:
        raise ValueError(f"class {node.name} has no fields")
    return RecordType(node.name, documented, tuple(fields))


def _line(node: ast.stmt, cell: str, comments: Mapping[int, str]) -> tuple[str, str, Any, str]:
    """Name, type, default (or REQUIRED) and help of one annotated line."""
    if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
        raise ValueError(_form(node, cell))
    last = node.end_lineno or node.lineno
    if last not in comments:
        raise ValueError(
            f"{ast.get_source_segment(cell, node)!r} needs a comment; it is the help that readers see"
        )
    default = REQUIRED if node.value is None else ast.literal_eval(node.value)
    return node.target.id, ast.unparse(node.annotation), default, comments[last]


def _form(node: ast.stmt, cell: str) -> str:
    return f"write `name: type = default  # help`, not {ast.get_source_segment(cell, node)!r}"


def _item(kind: str) -> str:
    """The type of a list's items; `kind` itself where it is no list."""
    return kind.removeprefix("list[").removesuffix("]")


def _typed(text: str) -> Any:
    """The value of a Python literal; other text as it is."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return text


def _typed_string(text: str) -> str:
    found = _typed(text)
    return found if isinstance(found, str) else text


def _sources_of_items(text: str) -> list[str] | None:
    """What stands between the commas of a list; None for what is no list."""
    source = text.strip()
    try:
        node = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    if not isinstance(node, ast.List | ast.Tuple):
        return None
    return [ast.get_source_segment(source, item) or "" for item in node.elts]


def resolve(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults with the given values on top. Raises ParameterError as `checked`."""
    return {name: deepcopy(p.default) for name, p in known.items()} | checked(known, given)


def checked(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values, every name and type checked, the defaults of records filled in.

    Raises:
        ParameterError: with the nearest known names, for an unknown parameter; see `Parameter.check`.
    """
    for name in given:
        if name not in known:
            raise ParameterError(f"unknown parameter {name!r}; {nearest(name, known)}")
    return {name: known[name].check(value) for name, value in given.items()}


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean …?` with the nearest names, or the list of all where none is near."""
    listed = list(known)
    near = get_close_matches(str(name), listed, n=3)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(listed)}"
