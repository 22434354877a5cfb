"""The federated rooms: which way their imports point, what is imported when, what needs no Flower."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, imported

from ouikit import fl

ROOMS = ("setting", "strategies", "read", "run")  # each may import those before it
FLOWER = {"strategies", "run"}  # may import `ouikit.fl.flower`
WITHOUT_FLOWER = (
    *("ouikit.fl", "ouikit.fl.read.outcome", "ouikit.fl.read.readings", "ouikit.fl.read.detection"),
    *("ouikit.fl.read.averaging", "ouikit.fl.setting.federation", "ouikit.fl.strategies.weights"),
    *("ouikit.fl.strategies.risk", "ouikit.signals.divergence"),
)
FILES = sorted((ROOT / "ouikit" / "fl").rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_the_rooms_before_them(room):
    allowed = {*ROOMS[: ROOMS.index(room) + 1], *({"flower"} if room in FLOWER else ())}
    for path in (ROOT / "ouikit" / "fl" / room).rglob("*.py"):
        others = {name.split(".")[2] for name in imported(path) if name.startswith("ouikit.fl.")}
        assert others <= allowed, f"{room}/{path.name} imports {others - allowed}"


def test_modules_of_the_rooms_form_no_circle():
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    names.pop("ouikit.fl.__init__")  # lists its lazy names
    arrows = {name: {other for other in names if _uses(path, other)} for name, path in names.items()}
    while leaves := {name for name, others in arrows.items() if not others}:
        arrows = {name: others - leaves for name, others in arrows.items() if name not in leaves}
    assert arrows == {}, f"a circle among {sorted(arrows)}"


def _uses(path: Path, other: str) -> bool:
    return any(name == other or name.startswith(f"{other}.") for name in imported(path))


def test_flower_is_imported_in_one_place():
    users = {path.name for path in FILES if any(n.partition(".")[0] == "flwr" for n in imported(path))}
    assert users == {"flower.py", "ray.py"}  # the simulation is an extra of its own


def test_no_signal_knows_of_federations():
    for path in (ROOT / "ouikit" / "signals").rglob("*.py"):
        assert not any(name.startswith("ouikit.fl") for name in imported(path)), path.name


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


BLOCK = """
import os, sys
for name in ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK"):
    os.environ.pop(name, None)


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocked())
"""


def without(libraries: set[str], code: str) -> subprocess.CompletedProcess[str]:
    """A new process in which libraries cannot be imported."""
    return run(f"BLOCKED = {libraries!r}\n{BLOCK}\n{code}")


def test_settings_numbers_and_readings_need_no_flower_and_leave_its_environment_alone():
    imports = "\n".join(f"import {name}" for name in WITHOUT_FLOWER)
    done = without({"flwr"}, f"{imports}\nassert not [n for n in os.environ if n.startswith('FLWR_')]")
    assert done.returncode == 0, done.stderr


def test_divergences_need_only_numpy_and_torch():
    heavy = {"flwr", "scipy", "sklearn", "pandas", "matplotlib"}
    done = without(heavy, "import ouikit.signals.divergence")
    assert done.returncode == 0, done.stderr


def test_a_saved_run_is_read_without_flower(tmp_path):
    import torch

    outcome = fl.Outcome({"w": torch.arange(3.0)}, [{"round": 0, "accuracy": 0.1, "loss": 2.0}])
    outcome.save(tmp_path)
    code = "from pathlib import Path\nfrom ouikit.fl import Outcome\n"
    code += f"print(Outcome.load(Path({str(tmp_path)!r})).checksum())"
    done = without({"flwr"}, code)
    assert done.stdout.strip() == outcome.checksum(), done.stderr


@pytest.mark.parametrize("name", ["FedOUI", "simulate", "identify"])
def test_without_flower_the_error_says_what_to_install(name):
    done = without({"flwr"}, f"from ouikit.fl import {name}")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "ImportError: this needs Flower: pip install 'ouikit[fl]'"


def test_every_exported_name_is_there_and_listed_once():
    tree = ast.parse(Path(fl.__file__).read_text())
    (listed,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in listed.body for alias in node.names}
    assert typed == set(fl.__all__) == set(fl._HOME)
    assert len(fl.__all__) == len(set(fl.__all__))
    assert set(fl.__all__) <= set(dir(fl))
    for name in fl.__all__:
        assert getattr(fl, name).__module__.startswith("ouikit.fl.") or name.endswith("_app")
    with pytest.raises(AttributeError, match="no attribute 'FedSGD'"):
        fl.FedSGD  # noqa: B018
