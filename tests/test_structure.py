"""The rules of the tree, so that twenty chapters and their package stay one book."""

import ast
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, imported

from ouikit.lab import check
from ouikit.lab.book import cite
from ouikit.lab.chapter import chapters
from ouikit.lab.paper import AREAS

SLUGS = {
    *("oui_weight_decay", "oui_observable", "ouidecay", "ppo_learning_rate", "regime_change"),
    *("greenlightning", "glai", "lambda_gelu", "fedsq", "fedoui", "atypical_clients"),
    *("adam_balanced", "adam_memory", "sinusoidal_init", "stablegrad"),
    *("gemm_mixed_precision", "gemm_generators", "gemm_versal", "malleability", "hevc_biglittle"),
}
SCIENCE_ONLY = {"torch", "gymnasium", "flwr", "stable_baselines3"}
LABORATORY = ROOT / "ouikit" / "lab"


def test_the_laboratory_imports_no_science():
    for path in LABORATORY.rglob("*.py"):
        for name in imported(path):
            assert name.partition(".")[0] not in SCIENCE_ONLY, f"{path.name} imports {name}"
            ours = name.startswith("ouikit.") and not name.startswith("ouikit.lab")
            assert not ours, f"{path.name} imports the science: {name}"


def test_the_science_imports_no_laboratory_and_nobody_a_chapter():
    for path in (ROOT / "ouikit").rglob("*.py"):
        for name in imported(path):
            assert not name.startswith("chapters"), f"{path.name} imports a chapter"
            if LABORATORY not in path.parents:
                assert not name.startswith("ouikit.lab"), f"{path.name} imports {name}"


@pytest.mark.parametrize(
    ("library", "room"),
    [
        ("flwr", "fl"),
        ("gymnasium", "rl"),
        ("stable_baselines3", "rl"),
        ("optuna", "rl"),
        ("lightning", "integrations"),
        ("transformers", "integrations"),
        ("deepxde", "integrations"),
        ("mpi4py", "malleable"),
        ("av", "video"),
        ("tvm", "products"),
    ],
)
def test_a_stack_stays_in_its_room(library, room):
    for path in (ROOT / "ouikit").rglob("*.py"):
        inside = {ROOT / "ouikit" / room, ROOT / "ouikit" / "integrations"} & set(path.parents)
        uses = any(name.partition(".")[0] == library for name in imported(path))
        assert inside or not uses, f"{path} imports {library}, which belongs in ouikit/{room}/"


# Rooms of the science and modules of its face; an import leads to an earlier level only.
LEVELS = [
    {"watch", "stats", "data"},
    {"gates"},
    {"patterns"},
    {"oui"},
    {"probe"},
    {"nn"},
    {"train", "signals", "optim", "products", "machines", "malleable", "video", "plots"},
    {"rl", "fl", "integrations"},
    {"bench"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
ROOMS = sorted(path.name for path in (ROOT / "ouikit").iterdir() if (path / "__init__.py").exists())


def test_every_room_has_a_place_and_says_what_is_in_it():
    assert set(ROOMS) - {"lab"} <= LEVEL.keys()
    for room in ROOMS:
        tree = ast.parse((ROOT / "ouikit" / room / "__init__.py").read_text())
        assert ast.get_docstring(tree), f"ouikit/{room}/__init__.py does not say what is in the room"


def test_the_face_is_six_modules_and_no_more():
    loose = {path.stem for path in (ROOT / "ouikit").glob("*.py")} - {"__init__"}
    assert loose <= {"gates", "patterns", "oui", "probe", "train", "stats"}


def test_no_arrow_between_rooms_leads_up_or_in_a_circle():
    for path in (ROOT / "ouikit").rglob("*.py"):
        room = path.relative_to(ROOT / "ouikit").with_suffix("").parts[0]
        if room in ("lab", "__init__"):  # the laboratory has its own tests, the face's own list is lazy
            continue
        for name in imported(path):
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if package == "ouikit" and other in LEVEL and other != room:
                assert LEVEL[other] < LEVEL[room], f"{path.relative_to(ROOT)} imports {name}"


def test_the_base_install_is_enough_for_the_face_and_the_signals():
    """numpy and torch alone: `pip install ouikit` without extras."""
    code = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set(sys.argv[1:]):
            raise ModuleNotFoundError(f"{name} is not installed")

sys.meta_path.insert(0, Absent())
import ouikit, ouikit.patterns, ouikit.oui, ouikit.probe, ouikit.optim, ouikit.signals
for module in pkgutil.iter_modules(ouikit.signals.__path__, "ouikit.signals."):
    if module.name != "ouikit.signals.screening":  # rules on tables of runs, which are pandas'
        importlib.import_module(module.name)
ouikit.OUI, ouikit.balance_oui, ouikit.pairwise_oui, ouikit.fixed_pairs
"""
    absent = """scipy pandas matplotlib seaborn sklearn PIL kornia flwr ray gymnasium stable_baselines3 optuna
        lightning transformers yaml pydantic nbformat papermill pyarrow loky distributed ouigemm"""
    done = subprocess.run(
        [sys.executable, "-c", code, *absent.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_command_waits_for_no_torch_and_no_pandas():
    """Whoever asks for a list, or for a book in which nothing changed, has no tables to read."""
    code = """import sys, ouikit.lab.commands
sys.exit(", ".join({"torch", "pandas"} & sys.modules.keys()) or None)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_chapter_has_the_form():
    found = chapters(ROOT)
    assert found
    assert [line for chapter in found for line in check.problems(chapter)] == []


def test_chapters_are_pairs_and_nothing_else():
    paths = [path for path in (ROOT / "chapters").iterdir() if not path.name.startswith(".")]
    assert {path.suffix for path in paths} == {".ipynb", ".yaml"}
    assert sorted(path.stem for path in paths) == sorted(c.slug for c in chapters(ROOT) for _ in range(2))


def test_the_book_knows_the_twenty_papers_each_once():
    written = {chapter.slug: chapter.paper for chapter in chapters(ROOT)}
    assert written.keys() >= SLUGS
    assert {paper.area for paper in written.values()} == set(AREAS)


def test_the_table_of_contents_leaves_the_papers_to_their_yaml():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    assert "chapters/" not in str(toc)
    made = {"results", "gallery", "benchmarks", "status"}
    listed = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    assert all((ROOT / "book" / f"{file}.md").exists() for file in listed - made)


def test_conda_users_get_the_one_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-c ci/constraints.txt", "torch", "-e .[all]", "-e ./kernels[test]"]
    setup = (ROOT / "ci" / "env.sh").read_text()
    for part in ("-c ci/constraints.txt", " torch ", "-e '.[all]'", "-e './kernels[test]'"):
        assert part in setup
    assert "python=3.11" in environment["dependencies"]


def test_the_lock_pins_every_direct_dependency():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (all_of_them,) = extras["all"]
    locked = all_of_them.removeprefix("ouikit[").removesuffix("]").split(",")
    assert set(extras) - set(locked) == {"all", "fl-data"}  # which wants an older fsspec than the lock has
    kernels = tomllib.loads((ROOT / "kernels" / "pyproject.toml").read_text())
    wanted = [*project["dependencies"], *(d for name in locked for d in extras[name])]
    wanted += [*kernels["build-system"]["requires"], *kernels["project"]["dependencies"]]
    wanted += kernels["project"]["optional-dependencies"]["test"]
    names = {re.split(r"[\[<>=~!;]", line)[0].lower().replace("_", "-") for line in wanted} - {"ouikit"}
    pinned = re.findall(r"^([A-Za-z0-9_.-]+)==[^+\s]+$", (ROOT / "ci" / "constraints.txt").read_text(), re.M)
    assert names <= {name.lower().replace("_", "-").replace(".", "-") for name in pinned}


def test_the_readmes_commands_are_targets_and_ci_runs_everything():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert targets == {"env", "book", "test", "check", "serve", "bench", "clean"}
    commands = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.M)
    assert commands == ["book", "check", "test"]
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    workflows = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").iterdir())
    assert ".ci/run" in workflows
    assert "schedule" in workflows


def test_the_readmes_links_lead_somewhere():
    for place in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / place).exists(), f"README.md links to {place}"


def test_the_readmes_tree_is_the_tree():
    tree = re.search(r"## The tree\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    top, inside = (re.findall(rf"^{indent}(\w+)/ ", tree, re.M) for indent in ("", "  "))
    assert {"chapters", "ouikit", "kernels", "book", "ci", "tests"} <= set(top)
    assert all((ROOT / folder).is_dir() for folder in top)
    assert sorted(inside) == ROOMS, "the README names every room of ouikit, and no other"


def test_the_citation_file_says_of_its_papers_what_their_yaml_says():
    """`ouikit book` writes the references, so a new chapter needs no edit here."""
    listed = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    written = [cite.reference(chapter.paper.citation) for chapter in chapters(ROOT)]
    for entry in listed:
        assert entry in written, f"{entry['title']}: run `make book`, which writes the references anew"


def test_the_api_pages_print_no_sentence_as_a_type():
    """What stands before a colon in the first line of `Returns:` is taken for the type that is returned."""
    for path in (path for room in ("ouikit", "kernels/ouigemm") for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for line in re.findall(r"^(?:Returns|Yields):\n +(.*)$", ast.get_docstring(node) or "", re.M):
                    assert ":" not in re.sub(r"`[^`]*`", "", line), f"{path.name}, {node.name}: {line}"


def test_no_file_speaks_of_one_machine():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    machine = re.compile(r"(?<![\w./-])/(?:root|home|opt|srv|work)/[\w.]")
    for name in files:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yml", ".yaml", ".toml", ".sh", ".ipynb", ".json", ".txt", ".css"}:
            assert not machine.search(path.read_text()), f"{name} has an absolute path of one machine"


@pytest.mark.parametrize("path", sorted((ROOT / "ouikit").rglob("*.py")), ids=lambda p: p.stem)
def test_a_file_and_what_it_offers_say_what_they_are_for(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path.name} does not say what it is for"
    public = (n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_")
    for node in public:
        assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_every_example_of_a_docstring_runs():
    """CI runs all of them (`ci/test.mk`); none may be marked as one to leave out."""
    for path in [*(ROOT / "ouikit").rglob("*.py"), *(ROOT / "kernels" / "ouigemm").rglob("*.py")]:
        assert "doctest: +SKIP" not in path.read_text(), f"{path} has an example that is not run"
    assert "--doctest-modules ouikit kernels/ouigemm" in (ROOT / "ci" / "test.mk").read_text()
