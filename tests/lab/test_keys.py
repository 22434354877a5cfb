"""A key changes when what it stands for changes, and only then."""

import functools
import importlib
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, edit
from hypothesis import given
from hypothesis import strategies as st

from ouikit.lab.chapter import Chapter
from ouikit.lab.keys import (
    LABORATORY,
    canonical,
    cell_hash,
    definitions,
    lock_hash,
    reached_lock_hash,
    repo_root,
    run_key,
    source_hash,
)
from ouikit.lab.keys.graph import Graph
from ouikit.lab.keys.lock import reached_pins
from ouikit.lab.keys.packages import modules

PACKAGE = {
    "__init__.py": """
        from importlib import import_module
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from toykit.metric import score
        __version__ = "1"
        def __getattr__(name):
            return getattr(import_module(f"toykit.{name}"), name)
        """,
    "metric.py": "from toykit.bits import count\n\ndef score(x): return count(x)\n",
    "bits.py": "def count(x): return 1\n",
    "train.py": """
        from toykit.nn import models

        def fit(lr, seed, steps=3):
            from .late import schedule
            return [{"metric": "loss", "value": models.small(schedule(lr))}]

        def other(): return 1
        """,
    "late.py": """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import toykit.hints as h
        def schedule(lr: "h.Rate", kind=None): return h.Rate if kind else lr
        """,
    "hints.py": "class Rate: pass\n",
    "data.py": "def load(): return 1\n",
    "fl.py": "import toykit.bits\nrounds = toykit.bits.count\n",
    "nn/__init__.py": '"""Networks."""\n',
    "nn/models.py": """
        from . import layers
        from ..bits import count as c

        def small(x): return layers.WIDTH * c(x)
        """,
    "nn/layers.py": "WIDTH = 2\n",
    "lab/__init__.py": "",
    "lab/sweep.py": "import toykit.fl\nrun = toykit.fl.rounds\n",
}
EVERYTHING = {
    *("toykit", "toykit.metric", "toykit.bits", "toykit.train", "toykit.late", "toykit.hints", "toykit.data"),
    *("toykit.fl", "toykit.nn", "toykit.nn.models", "toykit.nn.layers", "toykit.lab", "toykit.lab.sweep"),
}
LAZY = {"toykit", "toykit.metric", "toykit.bits"}
ONLY = {"packages": ("toykit",)}


@pytest.fixture
def toykit(tmp_path, monkeypatch):
    """A throw-away package on the path; returns its folder."""
    root = tmp_path / "toykit"
    for name, text in PACKAGE.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    yield root
    for name in [name for name in sys.modules if name.partition(".")[0] == "toykit"]:
        del sys.modules[name]


def reached(source, **options):
    return Graph(("toykit",), **options).reach([textwrap.dedent(source)]).modules


NN = {"toykit", "toykit.nn", "toykit.nn.models", "toykit.nn.layers", "toykit.bits"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy, os.path", set()),
        ("import toykit", {"toykit"}),
        ("import toykit as t\nt.score(1)", LAZY),
        ("from toykit import score", {"toykit"}),
        ("from toykit import score\nscore(1)", LAZY),
        ("from toykit import __version__, data", {"toykit", "toykit.data"}),
        ("from toykit import __version__\nprint(__version__)", {"toykit"}),
        ("import toykit.data as d", {"toykit", "toykit.data"}),
        ("from toykit.nn import models", NN),  # importing it imports what it imports
        ("import toykit.nn.models\ntoykit.nn.models.small(1)", NN),
        ("from toykit.bits import *", {"toykit", "toykit.bits"}),
        ("def f():\n    if True:\n        from toykit import data", {"toykit", "toykit.data"}),
        ("from toykit.train import fit\nfit(1, 2)", {*NN, "toykit.train", "toykit.late", "toykit.hints"}),
        ("import_module('toykit.data')", {"toykit", "toykit.data"}),
        ("importlib.import_module(f'numpy.{name}')", set()),
        ("importlib.import_module(f'toykit.nn.{name}')", NN),
        ("app = 'toykit.fl:rounds'", {"toykit", "toykit.fl", "toykit.bits"}),  # a framework will import it
    ],
)
def test_what_code_imports_and_names_is_followed(toykit, source, expected):
    assert reached(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "import toykit.nothing",
        "from toykit.nothing import x",
        "from toykit import nothing\nnothing()",
        "import toykit\nprint(toykit)",
        "from toykit import *",
        "import_module(name)",
        "__import__(name)",
        "importlib.import_module(f'{package}.data')",
        "%matplotlib inline",
    ],
)
def test_what_cannot_be_resolved_counts_as_all(toykit, source):
    assert reached(source) == EVERYTHING


def test_excluded_modules_are_neither_listed_nor_followed(toykit):
    assert reached("from toykit.lab.sweep import run\nrun()", exclude=["toykit.lab"]) == set()
    assert reached("import_module(name)", exclude=["toykit.lab"]) == EVERYTHING - {
        "toykit.lab",
        "toykit.lab.sweep",
    }


def test_a_package_that_is_not_installed_reaches_nothing():
    found = Graph(("no_such_package_here",)).reach(["import no_such_package_here.x"])
    assert (found.nodes, found.files) == (set(), {})


def test_the_library_itself_is_resolved():
    """The lazy names of `ouikit` lead to their homes and not, as a computed import, to everything."""
    found = Graph().reach(["import ouikit\nouikit.OUI, ouikit.flip_rate"]).modules
    assert {"ouikit", "ouikit.oui", "ouikit.patterns"} <= found
    assert not any(name.startswith(("ouikit.lab", "ouikit.nn", "ouikit.bench")) for name in found)


def test_compiled_packages_add_their_sources_or_their_libraries(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package, source = tmp_path / "toygemm", tmp_path / "src" / "avx2" / "u8.c"
    package.mkdir()
    source.parent.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "_gemm.so").write_bytes(b"\x7fELF")
    source.write_text("int x;")

    def files():
        return Graph(("toygemm",)).reach(["import toygemm"]).files.keys()

    assert files() == {"toygemm/toygemm/_gemm.so"}
    (tmp_path / "pyproject.toml").write_text("")
    assert files() == {"toygemm/src/avx2/u8.c"}
    (tmp_path / "CMakeLists.txt").write_text("")  # has the flags
    assert files() > {"toygemm/CMakeLists.txt"}


def test_a_package_installed_for_editing_is_read_where_its_sources_are():
    """Its build lies elsewhere, and comes first in its search path."""
    found = Graph().reach(["import ouigemm\nouigemm.gemm"])
    assert {"ouigemm", "ouigemm.products"} <= found.modules
    assert {"ouigemm/src/gemm.c", "ouigemm/CMakeLists.txt"} <= found.files.keys()
    assert modules("ouigemm")["ouigemm"] == ROOT / "kernels" / "ouigemm" / "__init__.py"


def test_whoever_counts_distances_is_no_part_of_a_key():
    """`ouikit.patterns` uses the compiled package, whose kernels must not make every result look old."""
    reached = Graph().reach(["from ouikit import oui, patterns\noui, patterns"])
    assert "ouikit.patterns" in reached.modules
    assert not [name for name in [*reached.modules, *reached.files] if name.startswith("ouigemm")]


def test_source_hash_sees_transitive_changes_and_nothing_else(toykit):
    def key():
        return source_hash(["from toykit.train import fit", "fit(1)"], **ONLY)

    before = key()
    (toykit / "fl.py").write_text("import toykit.bits\nnew = 1\nprint(new)\n")
    assert key() == before, "a sibling that the code does not reach"
    (toykit / "nn" / "models.py").write_text(
        '"""Documented."""\nfrom . import layers  # a comment\nfrom ..bits import (\n    count as c,\n)\n\n\n'
        'def small(x):\n    """Documented, too."""\n    return layers.WIDTH * c(\n        x)\n'
    )
    assert key() == before, "comments, layout and docstrings are not statements"
    (toykit / "nn" / "layers.py").write_text("WIDTH = 3\n")
    assert key() != before, "reached through train and models"


def test_code_that_was_read_before_serves_until_a_file_is_written(toykit, monkeypatch):
    cells = ["import toykit.train\ntoykit.train.fit(1, 2)"]
    read = []
    parse = definitions.ast.parse
    monkeypatch.setattr(definitions.ast, "parse", lambda text, *more: read.append(text) or parse(text, *more))
    first = source_hash(cells, **ONLY)
    read.clear()
    assert source_hash(cells, **ONLY) == first
    assert read == cells, "only the cells"
    (toykit / "late.py").write_text("def schedule(lr): return -lr\n")
    assert source_hash(cells, **ONLY) != first


def write(root, **files):
    """Write `name` or `folder__name` modules of a package, each text dedented."""
    for name, text in files.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def code_key(cell="from toykit.a import f\nf(1)"):
    return source_hash([cell], **ONLY)


A = """
    import math
    from toykit.b import g as h, Base, mark
    from toykit import c

    SCALE = 2
    UNUSED = 1
    TABLE = {"x": c.deep, "y": lambda v: v}

    class Own(Base):
        def method(self): return c.LIMIT

    @mark
    def f(v, limit=SCALE): return h(v) + TABLE["x"](v) + Own().method()

    def sibling(): return UNUSED
    """
B = """
    class Base:
        width = 1
        def inherited(self): return 1

    def mark(function): return function
    def g(v): return helper(v)
    def helper(v): return v
    def other(v): return v
    """
C = "LIMIT = 3\nAWAY = 4\n\ndef deep(v): return v\n\ndef shallow(v): return v\n"


@pytest.fixture
def abc(toykit):
    write(toykit, a=A, b=B, c=C)
    return toykit


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a", "SCALE = 2", "SCALE = 3"),  # a default
        ("a", "lambda v: v", "lambda v: -v"),  # a value of a reached table
        ("a", "return c.LIMIT", "return -c.LIMIT"),  # a method
        ("b", "width = 1", "width = 2"),  # a base class
        ("b", "return 1\n", "return 2\n"),  # an inherited method
        ("b", "return function", "return function or 1"),  # a decorator
        ("b", "def helper(v): return v", "def helper(v): return -v"),  # two calls away, behind an alias
        ("c", "LIMIT = 3", "LIMIT = 4"),  # a constant of another module, by attribute
        ("c", "def deep(v): return v", "def deep(v): return -v"),  # reached by a table
        ("c", "LIMIT = 3", "print()\nLIMIT = 3"),  # what importing the module executes
        ("a", "import math", "import math\nmath.pi = 3"),  # likewise
        ("c", "LIMIT = 3", "LIMIT = 3\nLIMIT += 1"),
    ],
)
def test_an_edit_of_a_reached_definition_is_seen(abc, name, old, new):
    before = code_key()
    edit(abc / f"{name}.py", old, new)
    assert code_key() != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a", "UNUSED = 1", "UNUSED = 2"),
        ("a", "def sibling(): return UNUSED", "def sibling(): return c.shallow(1)"),
        ("b", "def other(v): return v", "def other(v): return -v"),
        ("c", "AWAY = 4", "AWAY = 5"),
        ("c", "def shallow(v): return v", "def shallow(v): return -v"),
        ("a", "import math", "import math, json"),
        ("c", "LIMIT = 3", 'LIMIT = 3\n"""How far."""'),
        ("b", "width = 1", 'width = 1\n    """How wide."""'),
        ("c", "LIMIT = 3\nAWAY = 4", '"""Documented."""\n\nAWAY = 4\n# why\nLIMIT = 3'),  # another order
    ],
)
def test_an_edit_beside_what_is_reached_is_not(abc, name, old, new):
    before = code_key()
    edit(abc / f"{name}.py", old, new)
    assert code_key() == before


def test_what_moves_keeps_its_key(abc):
    before = code_key()
    d = "from .e import helper\n" + textwrap.dedent(B).replace("def helper(v): return v", "")
    write(abc, **{"room/d": d, "room/e": "def helper(v): return v", "room/__init__": ""})
    (abc / "b.py").unlink()
    write(abc, a=A.replace("toykit.b", "toykit.room.d"))
    assert code_key() == before, "a file renamed, a function moved out of it"
    write(abc, b="from toykit.room.d import *", a=A)
    assert code_key() == before, "a star import, resolved"
    (abc / "b.py").unlink()
    names = "Base, g, mark"
    write(abc, **{"room/__init__": f"from .d import {names}", "a": A.replace("toykit.b", "toykit.room")})
    assert code_key() == before, "re-exported by a package"
    lazy = f"""
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from .d import {names}
        HOMES = {{"Base": "d", "g": "d", "mark": "d", "new": "d"}}
        def __getattr__(name):
            return getattr(import_module(f"toykit.room.{{HOMES[name]}}"), name)
        """
    write(abc, **{"room/__init__": lazy})
    assert code_key() == before, "imported on first use"


def test_two_functions_that_change_places_are_seen(abc):
    """Both texts are still reached, but by other names."""
    write(abc, a="from toykit.b import f as x\nfrom toykit.c import f as y\ndef f(v): return x(v) - y(v)")
    write(abc, b="def f(v): return 1", c="def f(v): return 2")
    before = code_key()
    write(abc, b="def f(v): return 2", c="def f(v): return 1")
    assert code_key() != before


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("ARMS = {}\nARMS['x'] = lambda v: EDIT\ndef f(v): return ARMS[v]", ""),
        (
            "ARMS = {}\ndef arm(g):\n    ARMS[g.__name__] = g\n    return g\n"
            "@arm\ndef x(v): return EDIT\ndef f(v): return ARMS[v]",
            "",
        ),
        (
            "from toykit.b import app\n@app.train()\ndef x(v): return EDIT\ndef f(v): return app.run()",
            "app = 1",
        ),
        (
            "from toykit.b import ARMS, arm\nx = arm(lambda v: EDIT)\ndef f(v): return ARMS",
            "ARMS = []\ndef arm(g):\n    note(g)\ndef note(g): ARMS.append(g)",
        ),
        (
            "from toykit.b import Base\nclass X(Base):\n  size = EDIT\ndef f(v): return Base.every",
            "class Base:\n  every = []\n  def __init_subclass__(cls): cls.every.append(cls)",
        ),
        ("class X:\n  size = EDIT\ndef f(v): return globals()[v]", ""),
        ("import toykit.b as module\ndef f(v): return getattr(module, v)", "def x(): return EDIT"),
        ("def f(v):\n  from importlib import import_module\n  return import_module(v)", "x = EDIT"),
        ("def f(v):\n    return run('app = toykit.b:x')", "x = EDIT"),
        ("from toykit.b import *\ndef f(v): return x(v)", "def x(v): return EDIT"),
        ("try:\n  from toykit.b import x\nexcept ImportError:\n  x = None\ndef f(v): return x", "x = EDIT"),
        ("if v:\n  def f(v): return EDIT", ""),
        ("def f(v, *, b): return [b.x for b in [1]] + x(b)\nfrom toykit.b import x", "x = EDIT"),
    ],
)
def test_indirect_uses_are_seen(abc, a, b):
    write(abc, a=a.replace("EDIT", "1"), b=b.replace("EDIT", "1"))
    before = code_key()
    assert code_key() == before
    write(abc, a=a.replace("EDIT", "2"), b=b.replace("EDIT", "2"))
    assert code_key() != before


def test_a_local_name_is_not_the_module_of_that_name(abc):
    code = "from toykit import c\ndef f(v):\n    c = v\n    return [c for c in c]\ndef g(v): return c.deep"
    write(abc, a=code)
    before = code_key()
    write(abc, c=C + "\ndef more(): pass\n")
    assert code_key() == before


@pytest.mark.parametrize("slug", ["oui_weight_decay", "fedoui"])
def test_chapters_are_resolved_to_definitions(slug):
    """Nothing in them makes a whole module count, and each names a small part of what there is."""
    reached = Graph(exclude=LABORATORY).reach(Chapter(slug, ROOT).code)
    assert not [node for node in reached.nodes if node.name == "*"]
    assert "*" not in reached.libraries


def test_code_cells_count_to_the_last_character():
    keys = {source_hash(code) for code in (["a = 1", "b"], ["a = 1  # why", "b"], ["b", "a = 1"], "a = 1\nb")}
    assert len(keys) == 4


def test_run_key():
    def key(parameters, cells=("x = 1",), **rest):
        return run_key(
            cells, parameters, **{"lock": "l", "data": {"a": "1", "b": "2"}, "device": "cpu"} | rest
        )

    plain = key({"lr": 0.001, "epochs": 3})
    assert len(plain) == 16
    assert int(plain, 16) >= 0
    assert plain == key({"epochs": 3, "lr": 1e-3}, data={"b": "2", "a": "1"})
    others = [
        key({"lr": 0.001, "epochs": 3.0}),
        key({"lr": 0.001, "epochs": True}),
        key({"lr": 0.001, "epochs": 1}),
        key({"lr": 0.001}),
        key({"lr": 0.001, "epochs": 3}, cells=("x = 2",)),
        key({"lr": 0.001, "epochs": 3}, lock="m"),
        key({"lr": 0.001, "epochs": 3}, data={"a": "1"}),
        key({"lr": 0.001, "epochs": 3}, device="cuda"),
    ]
    assert len({plain, *others}) == 9


def test_canonical_by_hand():
    assert canonical({"b": (1, 1.0, True, None), "a": "é"}) == '{"a":"é","b":[1,1.0,true,null]}'
    assert canonical([np.float64(0.1), np.int64(2), np.bool_(False)]) == "[0.1,2,false]"
    assert canonical([math.nan, -math.inf]) == '[{"float":"nan"},{"float":"-inf"}]'


@pytest.mark.parametrize("value", [{1, 2}, {1: 2}, object(), np.zeros(2), [b"x"]])
def test_canonical_refuses_what_json_cannot_hold(value):
    with pytest.raises(TypeError, match="cannot be part of a key"):
        canonical(value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def typed(value):
    """A value as something whose equality tells 1, 1.0 and True apart, and is true for equal NaNs."""
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return type(value), repr(value)


@given(VALUES, VALUES)
def test_canonical_texts_are_equal_exactly_for_equal_values(a, b):
    assert (canonical(a) == canonical(b)) == (typed(a) == typed(b))


@given(st.dictionaries(st.text(), VALUES, min_size=2))
def test_canonical_ignores_the_order_of_names(fields):
    assert canonical(dict(reversed(fields.items()))) == canonical(fields)


# --- cell_hash: functions of a notebook are what `exec` makes in a namespace called __main__ ---


def notebook(*cells):
    """The namespace after running code cells."""
    space = {"__name__": "__main__"}
    for cell in cells:
        exec(textwrap.dedent(cell), space)
    return space


def key(*cells):
    return cell_hash(notebook(*cells)["cell"], **ONLY, exclude=("toykit.lab",))


CELL = """
    def cell(lr, seed):
        return [helper(lr) + STEPS]
    """
HELPER = "def helper(lr): return lr * SCALE"


def test_helpers_and_constants_of_a_notebook_count():
    base = key("STEPS, SCALE = 3, 2", HELPER, CELL)
    assert key("SCALE, STEPS = 2, 3", "unused = 1", CELL, "# moved\n" + HELPER + "  # said why") == base
    changed = [
        key("STEPS, SCALE = 4, 2", HELPER, CELL),
        key("STEPS, SCALE = 3.0, 2", HELPER, CELL),
        key("STEPS, SCALE = 3, 5", HELPER, CELL),
        key("STEPS, SCALE = 3, 2", "def helper(lr): return lr + SCALE", CELL),
        key("STEPS, SCALE = 3, 2", HELPER, CELL.replace("+ STEPS", "- STEPS")),
        key("STEPS, SCALE = 3, 2", HELPER, CELL.replace("seed)", "seed=STEPS)")),
    ]
    assert len({base, *changed}) == 7


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ARMS = {'a': lambda x: x}", "ARMS = {'a': lambda x: -x}"),
        ("ARMS = [1, [2]]", "ARMS = [1, [3]]"),
        ("ARMS = {1, 2}", "ARMS = {1, 3}"),
        ("import numpy as np; ARMS = np.arange(3)", "import numpy as np; ARMS = np.arange(3.0)"),
        ("import fractions as f; ARMS = f.Fraction(1, 2)", "import fractions as f; ARMS = f.Fraction(1)"),
        ("class ARMS:\n  def f(self): return 1", "class ARMS:\n  def f(self): return 2"),
        ("class ARMS:\n  size = 1", "class ARMS:\n  size = 2"),
        ("class B:\n  size = 1\nclass ARMS(B): pass", "class B:\n  size = 2\nclass ARMS(B): pass"),
        (
            "from dataclasses import dataclass\n@dataclass\nclass ARMS:\n  size: int = 1",
            "from dataclasses import dataclass\n@dataclass\nclass ARMS:\n  size: int = 2",
        ),
        (
            "import functools as f\n@f.cache\ndef ARMS(): return 1",
            "import functools as f\n@f.cache\ndef ARMS(): return 2",
        ),
        ("from math import sin as ARMS", "from math import cos as ARMS"),
        ("import math as ARMS", "import cmath as ARMS"),
        (
            "def make(n):\n  def arm(): return n\n  return arm\nARMS = make(1)",
            "def make(n):\n  def arm(): return n\n  return arm\nARMS = make(2)",
        ),
    ],
)
def test_every_kind_of_global_counts(before, after):
    cell = "def cell(seed): return ARMS"
    assert key(before, cell) == key(before, cell)
    assert key(before, cell) != key(after, cell)


def test_functions_that_name_each_other_end():
    odd = "def odd(n): return n and even(n - 1)"
    even = "def even(n): return not n or odd(n - {})"
    keys = [key(odd, even.format(step), "def cell(seed): return odd(seed)") for step in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2]


def test_a_partial_counts_by_its_values():
    space = notebook("def cell(lr, seed): return lr")
    one, same, two = (functools.partial(space["cell"], lr=lr) for lr in (1, 1, 2))
    assert cell_hash(one) == cell_hash(same) != cell_hash(two)


def test_a_value_without_identity_is_refused_by_name():
    with pytest.raises(TypeError, match="refers to 'guard'"):
        key("import threading; guard = threading.Lock()", "def cell(seed): return guard")


@pytest.mark.parametrize("thing", [3, "train", object()])
def test_only_functions_are_cells(thing):
    with pytest.raises(TypeError, match="must be a function"):
        cell_hash(thing)


@pytest.mark.parametrize(
    ("code", "counts", "ignored"),
    [
        (["from toykit.train import fit", "def cell(seed): return fit(1, seed)"], "nn/layers.py", "fl.py"),
        (
            ["def cell(seed):\n    from toykit.nn import models as m\n    return m"],
            "nn/layers.py",
            "train.py",
        ),
        (["def cell(seed):\n    import toykit.data as d\n    return d"], "data.py", "train.py"),
        (["import toykit.nn.models as m", "def cell(seed): return m.x"], "nn/layers.py", "data.py"),
        # `data` was imported by another cell of the notebook
        (["import toykit", "import toykit.data", "def cell(seed): return toykit.data"], "data.py", "fl.py"),
        (
            [
                "import toykit.lab.sweep as s",
                "from toykit.data import load",
                "def cell(seed): return s, load",
            ],
            "data.py",
            "lab/sweep.py",
        ),
        (["def cell(seed): return __import__(seed)"], "fl.py", "lab/sweep.py"),
    ],
)
def test_package_modules_count_where_the_cell_reaches_them(toykit, code, counts, ignored):
    before = key(*code)
    (toykit / ignored).write_text("print()\n" + (toykit / ignored).read_text())
    assert key(*code) == before
    (toykit / counts).write_text((toykit / counts).read_text() + "print()\n")
    assert key(*code) != before


def test_a_cell_of_the_package_counts_by_its_closure(toykit):
    def hashed():
        return cell_hash(importlib.import_module("toykit.train").fit, packages=("toykit",))

    before = hashed()
    (toykit / "data.py").write_text("print()\n")
    assert hashed() == before
    (toykit / "late.py").write_text("print()\n")
    assert hashed() != before


def test_a_local_file_beside_the_notebook_counts(toykit):
    helper = toykit.parent / "beside_the_notebook.py"
    helper.write_text("def f(): return 1\n")
    code = ["from beside_the_notebook import f", "def cell(seed): return f()"]
    before = key(*code)
    assert key(*code) == before
    helper.write_text("def f(): return 2\n")
    assert key(*code) != before
    del sys.modules["beside_the_notebook"]


def test_identity_survives_the_process_and_the_kernel(tmp_path):
    """The same functions in IPython and in a script, under other hash seeds, have one key."""
    cells = [
        "import ouikit.lab.keys as keys",
        "WORDS = {'relu', 'silu', 'gelu'}; ARMS = {'a': lambda x: x in {'u', 'v', 'w'}}",
        "def cell(lr, seed):\n    '''Say.'''\n    return [a(lr) for a in ARMS.values()], WORDS",
    ]
    show = "print(keys.cell_hash(cell))"
    script = "\n".join([*cells, show])
    shell = "\n".join(
        [
            "from IPython.core.interactiveshell import InteractiveShell as Shell",
            f"for code in {[*cells, show]!r}: Shell.instance().run_cell(code)",
        ]
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "IPYTHONDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for code, seed in ((script, "1"), (script, "2"), (shell, "3"))
    }
    assert len(found) == 1
    assert len(found.pop()) == 64


@pytest.mark.parametrize("dtype", ["float32", "int64", "bfloat16"])
def test_a_tensor_is_its_numbers(dtype):
    """torch's pickle of a tensor holds a random identifier: a sweep over one was never resumed."""
    held = "import torch; from types import SimpleNamespace; HELD = SimpleNamespace(x=torch.{}, words=['a'])"
    cell = "def cell(seed): return HELD.x.sum() * len(HELD.words)"
    one, again, other, shape = (
        key(held.format(f"tensor({numbers}, dtype=torch.{dtype})"), cell)
        for numbers in ("[1, 2]", "[1, 2]", "[1, 3]", "[[1, 2]]")
    )
    assert one == again
    assert len({one, other, shape}) == 3
    assert one != key(held.format("tensor([1, 2], dtype=torch.float64)"), cell)


def test_lock_hash(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"constraints\.txt"):
        lock_hash(tmp_path)
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "constraints.txt").write_text("a==1\n")
    first = lock_hash(tmp_path)
    (tmp_path / "ci" / "constraints.txt").write_text("a==2\n")
    assert len(first) == 64
    assert lock_hash(tmp_path) != first


@pytest.fixture
def locked(tmp_path):
    """A lock that can be edited: `locked(torch="2", …)` writes it and gives the root."""
    (tmp_path / "ci").mkdir()

    def write(**pins):
        lines = [f"{name.replace('_', '-')}=={version}" for name, version in pins.items()]
        (tmp_path / "ci" / "constraints.txt").write_text("\n".join(["# a comment", *lines]))
        return tmp_path

    return write


def test_only_the_pins_that_code_reaches_count(locked):
    code = ["import seaborn as sns"]
    first = reached_lock_hash(locked(seaborn="1", pandas="1", flwr="1"), code)
    assert reached_lock_hash(locked(seaborn="1", pandas="1", flwr="2", ray="1"), code) == first
    assert reached_lock_hash(locked(seaborn="2", pandas="1", flwr="1"), code) != first
    assert reached_lock_hash(locked(seaborn="1", pandas="2", flwr="1"), code) != first, (
        "what seaborn requires"
    )


def test_pins_are_reached_through_our_own_modules_but_not_through_the_laboratory(locked):
    code = ["from ouikit import lab\nfrom ouikit.stats import mean_interval"]
    first = reached_lock_hash(locked(scipy="1", papermill="1"), code)
    assert reached_lock_hash(locked(scipy="2", papermill="1"), code) != first
    assert reached_lock_hash(locked(scipy="1", papermill="2"), code) == first


def test_names_of_imports_extras_and_spellings_find_their_pins(locked):
    root = locked(scikit_learn="1", PyYAML="2", gymnasium="3", box2d="4", seaborn="5")
    assert reached_pins(root, ["sklearn.datasets:load_digits", "math"]) == {"scikit-learn": "1"}
    assert reached_pins(root, ["yaml"]) == {"pyyaml": "2"}
    assert reached_pins(root, ["gymnasium"]) == {"gymnasium": "3", "box2d": "4"}, "our package asks for box2d"


@pytest.mark.parametrize("reference", ["*", "not_installed_anywhere.module:name"])
def test_all_pins_count_where_an_import_is_unclear(locked, reference):
    root = locked(seaborn="1", flwr="2")
    assert reached_pins(root, [reference]) == {"seaborn": "1", "flwr": "2"}


def test_repo_root(tmp_path, monkeypatch):
    assert repo_root(Path(__file__).parent) == Path(__file__).parents[2]
    (tmp_path / "chapters").mkdir()
    with pytest.raises(FileNotFoundError, match="run inside the repository"):
        repo_root(tmp_path / "chapters")
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "chapters")
    assert repo_root() == tmp_path.resolve()
