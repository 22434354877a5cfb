"""The parameters cell is documentation, default and type check at once; records have typed fields."""

import dataclasses
import json
import textwrap

import cloudpickle
import nbformat
import pytest
from conftest import edit

from ouikit.lab import check, notebook
from ouikit.lab.chapter import Chapter
from ouikit.lab.cli import main
from ouikit.lab.keys import cell_hash
from ouikit.lab.parameters import Parameter, ParameterError, parse, resolve
from ouikit.lab.run import execute

CELL = """\
epochs: int = 60  # passes over the data
lr: float = 0.05  # learning rate
seeds: list[int] = [0, 1]  # one run each
device: str = "auto"  # cpu, cuda or auto
shuffle: bool = True  # shuffle the data
"""


def test_parameters_are_read_with_type_default_and_help():
    known = parse(CELL)
    assert {name: p.kind for name, p in known.items()} == {
        "epochs": "int", "lr": "float", "seeds": "list[int]", "device": "str", "shuffle": "bool",
    }  # fmt: skip
    assert known["lr"].help == "learning rate"
    assert resolve(known, {"lr": 1, "seeds": (3,)}) == {
        "epochs": 60, "lr": 1.0, "seeds": [3], "device": "auto", "shuffle": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        *(
            ("str", text, text)
            for text in ("2024", "1e3", "None", "007", "True", "[1]", "it's", "", "a b", "(")
        ),
        ("str", "'quoted'", "quoted"),
        ("str", '"2024"', "2024"),
        ("list[str]", "[adam, sgd]", ["adam", "sgd"]),
        ("list[str]", " ['adam', 2024, 1e3, None]", ["adam", "2024", "1e3", "None"]),
        ("list[str]", "a, b", ["a", "b"]),
        ("list[str]", "[]", []),
        ("list[str]", "adam", "adam"),  # which is then refused, with an example
        ("list[str]", "[007]", "[007]"),
        ("int", "2024", 2024),
        ("float", "1e3", 1000.0),
        ("float", "high", "high"),
        ("list[int]", "[1, 2]", [1, 2]),
        ("int", "[" * 10_000, "[" * 10_000),
    ],
)
def test_the_declared_type_decides_what_a_typed_text_means(kind, text, value):
    assert Parameter("x", kind, None, "").read(text) == value


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"epoch": 1}, "unknown parameter 'epoch'; did you mean 'epochs'"),
        ({"zzz": 1}, "there are: epochs, lr"),
        ({"epochs": "many"}, "'epochs' is int, but got 'many'"),
        ({"epochs": 1.5}, "is int"),
        ({"epochs": True}, "is int"),
        ({"seeds": 3}, "write a list"),
        ({"seeds": [0.5]}, "is list"),
        ({"shuffle": 1}, "is bool"),
        ({"device": 0}, "is str"),
    ],
)
def test_a_wrong_value_is_refused(overrides, words):
    with pytest.raises(ParameterError, match=words):
        resolve(parse(CELL), overrides)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("epochs = 60  # passes", "write `name: type"),
        ("epochs: int = 60", "needs a comment"),
        ("sizes: dict = {}  # sizes", "use bool, int"),
        ("epochs: int = 'x'  # passes", "is int"),
    ],
)
def test_a_wrong_parameters_cell_is_refused(source, words):
    with pytest.raises(ValueError, match=words):
        parse(source)


RECORDS = '''\
class Task:
    """A training to repeat at every rate."""

    env: str  # Gymnasium's name of the environment
    activation: str = "tanh"  # of the hidden layers
    reward_scale: float = 0.02  # factor on rewards, for learning only
    steps: int = 40_000  # environment steps
    widths: list[int] = [64, 64]  # of the hidden layers


tasks: list[Task] = [{"env": "CartPole-v1"}]  # the trainings
lr: float = 0.1  # learning rate
'''
FULL = {"activation": "tanh", "reward_scale": 0.02, "steps": 40_000, "widths": [64, 64]}


def test_records_are_read_with_fields_and_defaults_are_filled_in():
    known = parse(RECORDS)
    task = known["tasks"].record
    assert (task.name, task.help) == ("Task", "A training to repeat at every rate.")
    assert list(map(str, task.fields))[:2] == ["env: str", "activation: str = 'tanh'"]
    assert task.fields[3].help == "environment steps"
    assert resolve(known, {}) == {"tasks": [{"env": "CartPole-v1", **FULL}], "lr": 0.1}
    given = [{"steps": 10, "env": "Acrobot-v1"}, {"env": "CartPole-v1", "reward_scale": 1}]
    assert resolve(known, {"tasks": given})["tasks"] == [
        {"env": "Acrobot-v1", **FULL, "steps": 10},
        {"env": "CartPole-v1", **FULL, "reward_scale": 1.0},
    ]
    resolve(known, {})["tasks"][0]["widths"].append(1)
    assert resolve(known, {})["tasks"][0]["widths"] == [64, 64]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            [{"env": "x", "activaton": "relu"}],
            "'tasks', item 0 has no field 'activaton'; did you mean 'activ",
        ),
        ([{"env": "x", "zzz": 1}], "has no field 'zzz'; there are: env, activation"),
        (
            [{"env": "x"}, {"steps": 1}],
            "item 1: field 'env' is missing; a Task has env: str, activation: str =",
        ),
        (
            [{"env": "x", "steps": "40k"}],
            "item 0: field 'steps' is int, but got '40k' .str.; for example 40000",
        ),
        ([{"env": 3}], "field 'env' is str, but got 3"),
        ([{"env": "x", "widths": 64}], "field 'widths' is list.int.*write a list"),
        (["CartPole-v1/tanh"], "item 0 is a Task, but got 'CartPole-v1/tanh'; write a dict with env: str"),
        ({"env": "x"}, "'tasks' is list.Task.*write a list of dicts, for example .*CartPole"),
    ],
)
def test_a_wrong_record_is_refused(value, words):
    with pytest.raises(ParameterError, match=words):
        resolve(parse(RECORDS), {"tasks": value})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("list[Task]", "Task", "a list of a class above"),
        ("list[Task]", "list[Tusk]", "a list of a class above"),
        ('[{"env": "CartPole-v1"}]  #', "  #", "write `name: type = default"),
        ('    """A training to repeat at every rate."""\n', "", "docstring"),
        ("class Task:", "class Task(dict):", "docstring and lines of fields"),
        ("  # environment steps", "", "needs a comment"),
        ("    env: str ", '    env: str = "x" ', None),
        ("steps: int = 40_000", "steps: int", "Task.steps has no default; such fields come first"),
        ("steps: int", "steps: dict", "Task.steps: use bool"),
        ('"env": "CartPole-v1"', '"enw": "CartPole-v1"', "no field 'enw'; did you mean 'env'"),
        ("40_000", '"many"', "Task.steps is int, but got 'many'"),
        ("    env: str  #", "    env = 1  #", "write `name: type"),
    ],
)  # fmt: skip
def test_a_wrong_record_type_is_refused(old, new, words):
    assert old in RECORDS
    source = RECORDS.replace(old, new).replace("tasks: list[Task] =   #", "tasks: list[Task]  #")
    if words is None:
        parse(source)
    else:
        with pytest.raises(ValueError, match=words):
            parse(source)


@pytest.fixture
def tasks(repo):
    """The toy chapter with a record parameter; the sweep goes over its records."""
    pair = repo / "chapters" / "toy.ipynb"
    lines = textwrap.dedent(RECORDS).splitlines(keepends=True)
    as_json = "".join(f"    {json.dumps(line)},\n" for line in lines)
    edit(pair, '    "gain: float = 1.0', as_json + '    "gain: float = 1.0')
    edit(pair, "def cell(x: int, seed: int):\\n", "def cell(x: int, task: dict, seed: int):\\n")
    edit(pair, "gain * x +", "gain * Task(**task).steps / 40_000 * x +")
    edit(
        pair, 'begin(\\"toy\\", globals())', 'begin(\\"toy\\", globals()); tasks = study.records(\\"tasks\\")'
    )
    edit(pair, '{\\"x\\": [0, 1]}', '{\\"x\\": [0, 1], \\"task\\": [vars(t) for t in tasks]}')
    edit(repo / "chapters" / "toy.yaml", "  extended: {", '  extended: {tasks: [{env: "CartPole-v1"}], ')
    return repo


def test_scales_are_equal_after_defaults_are_filled_in(tasks):
    chapter = Chapter("toy", tasks)
    assert chapter.place({"tasks": [{"env": "CartPole-v1", "steps": 40_000}]}).scale == "reduced"
    assert chapter.resolve("extended").parameters["tasks"] == [{"env": "CartPole-v1", **FULL}]
    placed = chapter.place({"tasks": [{"env": "CartPole-v1", "steps": 4}], "seeds": [0, 1, 2, 3, 4]})
    assert (placed.scale, placed.nearest) == ("exploratory", "extended")
    full = chapter.key(chapter.resolve().parameters)
    assert chapter.key(chapter.place({"tasks": [{"steps": 40_000, "env": "CartPole-v1"}]}).parameters) == full
    edit(tasks / "chapters" / "toy.yaml", "env:", "enw:")
    (found,) = check.problems(Chapter("toy", tasks))
    assert "scales.extended: parameter 'tasks', item 0 has no field 'enw'; did you mean 'env'?" in found


@pytest.mark.slow
def test_records_reach_the_notebook_as_frozen_dataclasses(tasks, capsys):
    assert check.problems(Chapter("toy", tasks)) == []
    assert main(["run", "toy", "-p", "tasks=[{'env': 'a', 'steps': 80_000}]", "--jobs", "2"]) == 0
    assert "grows: 2" in capsys.readouterr().out
    chapter = Chapter("toy", tasks)
    settings = chapter.resolve(overrides={"tasks": [{"env": "a", "steps": 80_000}]})
    run = execute(chapter, chapter.spec(settings))
    assert run.cached
    assert run.record["run"]["parameters"]["tasks"] == [{"env": "a", **FULL, "steps": 80_000}]
    assert main(["run", "toy", "-p", "tasks=[{'enw': 'a'}]"]) == 2
    assert "did you mean 'env'" in capsys.readouterr().err


def test_a_record_is_hashable_pickles_and_counts_in_the_key_of_a_cell():
    source = RECORDS.replace("    widths: list[int] = [64, 64]  # of the hidden layers\n", "")
    space: dict = {"__name__": "__main__"}
    exec(source + "def cell(seed): return TASK.steps, Task", space)
    made = parse(source)["tasks"].record.make(space["Task"])
    assert made is space["Task"]
    keys = set()
    for steps in (1, 1, 2):
        space["TASK"] = made(env="a", steps=steps)
        keys.add(cell_hash(space["cell"]))
    assert len(keys) == 2
    assert len({made(env="a"), made(env="a"), made(env="b")}) == 2
    assert dataclasses.asdict(made(env="a")) == vars(made(env="a"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        space["TASK"].steps = 3
    assert vars(cloudpickle.loads(cloudpickle.dumps(space["TASK"]))) == vars(space["TASK"])


def test_help_shows_the_fields_of_records(tasks, capsys):
    assert main(["run", "toy", "--help"]) == 0
    shown = capsys.readouterr().out
    for words in ("tasks: list[Task] = [{", "env: str\n", "steps: int = 40000", "environment steps"):
        assert words in shown


def test_hidden_cells_and_the_parameters_may_be_long(tasks):
    path = tasks / "chapters" / "toy.ipynb"
    nb = notebook.read(path)
    nb.cells[-1].source = "x = 1\n" * 16 + nb.cells[-1].source

    def complaints():
        nbformat.write(nb, path)
        return [line for line in check.problems(Chapter("toy", tasks)) if "lines" in line]

    (problem,) = complaints()  # the parameters cell is no shorter
    assert "visible code cell 6 has 17 lines; 15 at most" in problem
    nb.cells[-1].metadata["tags"] = ["hide-input"]
    assert complaints() == []


def test_only_scales_beyond_the_reduced_one_start_workers(repo, monkeypatch):
    monkeypatch.delenv("OUIKIT_JOBS")
    toy = Chapter("toy", repo)
    reduced, mine = toy.resolve(), toy.resolve(overrides={"gain": 3.0})
    assert [toy.spec(reduced).jobs, toy.spec(mine).jobs, toy.spec(reduced, jobs=3).jobs] == [0, None, 3]
    monkeypatch.setenv("OUIKIT_JOBS", "2")
    assert [toy.spec(reduced).jobs, toy.spec(mine).jobs] == [2, 2]
