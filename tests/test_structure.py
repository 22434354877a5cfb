"""The rules of the tree, so that twenty chapters and their package stay one book."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from ouikit.lab import check
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


def imported(path: Path) -> set[str]:
    """Modules that a file imports anywhere, as written."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: write imports in full, so that their direction can be seen"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


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
    ],
)
def test_a_stack_stays_in_its_room(library, room):
    for path in (ROOT / "ouikit").rglob("*.py"):
        inside = {ROOT / "ouikit" / room, ROOT / "ouikit" / "integrations"} & set(path.parents)
        uses = any(name.partition(".")[0] == library for name in imported(path))
        assert inside or not uses, f"{path} imports {library}, which belongs in ouikit/{room}/"


def test_importing_the_laboratory_loads_no_torch():
    code = "import sys, ouikit, ouikit.lab, ouikit.lab.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_chapter_has_the_form():
    found = chapters(ROOT)
    assert found
    assert [line for chapter in found for line in check.problems(chapter)] == []


def test_chapters_are_pairs_and_nothing_else():
    paths = [path for path in (ROOT / "chapters").iterdir() if not path.name.startswith(".")]
    assert {path.suffix for path in paths} == {".ipynb", ".yaml"}
    assert sorted(path.stem for path in paths) == sorted(c.slug for c in chapters(ROOT) for _ in range(2))


def test_the_book_knows_twenty_papers_each_once():
    planned = yaml.safe_load((ROOT / "book" / "planned.yml").read_text())
    assert set(planned) == SLUGS
    assert {paper["area"] for paper in planned.values()} == set(AREAS)
    assert {chapter.paper.area for chapter in chapters(ROOT)} <= set(AREAS)


def test_the_table_of_contents_lists_only_what_exists():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    listed = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    for file in listed:
        if file.startswith("chapters/"):
            assert (ROOT / f"{file}.ipynb").exists(), f"_toc.yml lists {file}"


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


def test_the_readmes_commands_are_targets_and_ci_runs_the_second():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert targets == {"env", "book", "test", "serve", "bench", "clean"}
    commands = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.M)
    assert commands == ["book", "test"]
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    workflows = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").iterdir())
    assert ".ci/run" in workflows
    assert "schedule" in workflows


def test_the_readmes_links_lead_somewhere():
    for place in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / place).exists(), f"README.md links to {place}"


def test_the_readmes_tree_is_the_tree():
    rooms = re.findall(r"^([\w/]+/) {1,}", (ROOT / "README.md").read_text(), re.M)
    assert len(rooms) >= 7
    for room in rooms:
        assert (ROOT / room).is_dir(), f"the README names {room}"


def test_the_citation_names_every_written_paper():
    cited = (ROOT / "CITATION.cff").read_text()
    for chapter in chapters(ROOT):
        assert chapter.paper.arxiv is None or f"arXiv:{chapter.paper.arxiv}" in cited, chapter.slug


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
def test_a_file_is_one_idea(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 400, f"{path.name} is more than one idea"
    assert ast.get_docstring(tree), f"{path.name} does not say what it is for"
    public = (n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_")
    for node in public:
        assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
