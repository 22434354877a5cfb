"""YAML that is read strictly: no key twice, and complaints in the words of the file."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import yaml

from ouikit.lab.parameters import nearest

_SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where it was built with libyaml


class UniqueKeys(_SAFE):  # type: ignore[misc, valid-type]
    """A safe loader that refuses a key given twice, where YAML would let the last one win.

    Keys are words as they stand: YAML would read `null:` as no key at all.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        names = [key.value for key in keys]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_EXPECTED = {
    "string_type": "a sentence",
    "string_too_short": "a sentence",
    "int_type": "a whole number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "float_type": "a number",
    "finite_number": "a finite number",
}


def fix(error: Mapping[str, Any], allowed: Iterable[str], meaning: str | None = None) -> str:
    """What to write instead.

    Args:
        error: one of pydantic's `ValidationError.errors()`.
        allowed: the keys of the section that it is in.
        meaning: of the key; told where the key is missing.
    """
    kind, got = error["type"], error["input"]
    if kind == "missing":
        return "is missing" + (f"; it says: {' '.join(meaning.split())}" if meaning else "")
    if kind == "extra_forbidden":
        return f"unknown key; {nearest(error['loc'][-1], allowed)}"
    if kind == "literal_error":
        words = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        near = get_close_matches(str(got), words, n=1)
        return f"{got!r} is not one of {', '.join(words)}" + (f"; {near[0]!r}?" if near else "")
    if kind == "too_short":
        return "needs at least one"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    quotes = "; put it in quotes" if kind == "string_type" and isinstance(got, int | float) else ""
    return f"must be {_EXPECTED.get(kind, error['msg'])}; got {got!r}{quotes}"
