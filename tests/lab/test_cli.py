"""The command line: exit codes, suggestions, and a chapter from nothing."""

import json
import subprocess
import sys
from collections import Counter, namedtuple
from types import SimpleNamespace

import pytest
from conftest import ROOT, edit

from ouikit import __version__
from ouikit.lab import begin, commands, kernel, keys
from ouikit.lab.chapter import Chapter
from ouikit.lab.cli import main
from ouikit.lab.parameters import Parameter
from ouikit.lab.run import Run
from ouikit.lab.spec import HANDED_ON, handed_on

SimpleChapter = namedtuple("SimpleChapter", "slug")
OUTPUT = '"outputs": [{"name": "stdout", "output_type": "stream", "text": ["x"]}]'


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rnu"], "did you mean 'run'"),
        (["run", "tyo"], "did you mean 'toy'"),
        (["run", "toy", "-p", "gian=1"], "did you mean 'gain'"),
        (["run", "toy", "-p", "gain=high"], "'gain' is float"),
        (["run", "toy", "-p", "gain"], "NAME=VALUE"),
        (["run", "toy", "--scale", "extendd"], "did you mean 'extended'"),
        (["check", "tyo"], "did you mean 'toy'"),
        (["bench", "ouii"], "did you mean 'oui'"),
        (["new", "My-Paper", "--title", "x"], "lower-case"),
        (["new", "my_paper", "--title", " "], "the title is empty"),
        (["run", "toy", "-p", "gain=1", "-p", "gain=2"], "given twice"),
        (["run", "toy", "--engine", "dusk"], "dask://HOST:PORT"),
        (["run", "toy", "--engine", "flower://nowhere"], "flower://HOST:PORT"),
        (["run", "toy", "--jobs", "-1"], "0 or more"),
    ],
)
def test_a_wrong_call_exits_with_2_and_a_suggestion(repo, capsys, words, hint):
    try:
        code = main(words)
    except SystemExit as stop:  # argparse's own way out
        code = stop.code
    assert code == 2
    assert hint in capsys.readouterr().err


def test_help_shows_the_chapters_own_parameters(repo, capsys):
    assert main(["run", "toy", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "seeds: list[int] = [0, 1, 2]" in shown
    assert "how much the number grows" in shown
    assert "extended" in shown


def test_a_broken_chapter_does_not_hide_the_others(repo, capsys):
    for half in (".ipynb", ".yaml"):
        (repo / "chapters" / f"also{half}").write_bytes((repo / "chapters" / f"toy{half}").read_bytes())
    (repo / "chapters" / "also.yaml").write_text("paper: [")
    assert main(["list"]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("toy ")
    assert "also " in shown.err
    assert "also.yaml" in shown.err


def test_list_and_run(repo, capsys):
    edit(repo / "chapters" / "toy.yaml", "source: text", "source: ours")  # is not counted as the paper's
    assert main(["list"]) == 0
    assert "not run yet" in capsys.readouterr().out
    assert main(["run", "toy", "-p", "gain=3", "--jobs", "0"]) == 0
    assert "reproduced  grows: 3" in capsys.readouterr().out
    assert main(["run", "toy", "-p", "gain=3", "--publish"]) == 2  # refused before anything is computed
    assert main(["run", "toy", "--publish"]) == 2
    assert main(["run", "toy", "--jobs", "0"]) == 0
    main(["list"])
    assert "1 of 1 reproduced" in capsys.readouterr().out


def test_new_writes_a_pair_that_passes_check_and_never_overwrites(repo, capsys):
    title = 'About $\\lambda$ and "things"'
    assert main(["new", "my_second", "--title", title]) == 0
    assert main(["check", "my_second"]) == 0
    assert Chapter("my_second").paper.title == title
    assert main(["new", "my_second", "--title", "x"]) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_new_chapter_runs_at_once(repo):
    main(["new", "my_second", "--title", "About things"])
    assert main(["run", "my_second", "--jobs", "0"]) == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("toy.ipynb", "## Method", "## Methods", "sections must be"),
        ("toy.ipynb", "# A toy paper", "A toy paper", "the first cell must be the title"),
        ("toy.ipynb", "alt=", "alternative=", "no alt text"),
        ("toy.ipynb", "Words.", "It is 0.71 [0.66, 0.75].", "prose states a result of a run"),
        ("toy.ipynb", "study.provenance()", "%matplotlib inline", "is not plain Python"),
        ("toy.ipynb", "gain: float = 1.0", "gain: float = abs(1)", "parameters cell"),
        ("toy.ipynb", "study.provenance()", "1", "must call provenance() exactly once"),
        ("toy.ipynb", '"outputs": []', OUTPUT, "not in normal form"),
        ("toy.yaml", "seeds: [0, 1, 2, 3, 4]", "seed: [0]", "scales.extended: unknown parameter 'seed'"),
        ("toy.yaml", "    status: reproduced\n", "", "claims.grows: no verdict is registered"),
        ("toy.yaml", "evidence: measured", "evidence: guessed", "evidence"),
    ],
)  # fmt: skip
def test_check_finds_what_is_wrong(repo, capsys, name, old, new, words):
    assert main(["check"]) == 0
    edit(repo / "chapters" / name, old, new)
    assert main(["check"]) == 1
    assert words in capsys.readouterr().err


def test_check_fix_restores_the_normal_form(repo):
    edit(repo / "chapters" / "toy.ipynb", '"execution_count": null', '"execution_count": 3')
    assert main(["check"]) == 1
    assert main(["check", "--fix"]) == 0


def test_bench_prints_ratios_and_writes_their_record(repo, capsys, monkeypatch):
    row = {"name": "ours / peer", "value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "unit": "time",
           "target": "<= 1", "met": True, "note": ""}  # fmt: skip
    (repo / "toybench.py").write_text("\ndef run(progress): ...\n")
    monkeypatch.setattr(commands, "BENCHMARKS", repo)
    bench = SimpleNamespace(run=lambda progress: [row], THREADS=2)
    monkeypatch.setitem(sys.modules, "ouikit.bench.toybench", bench)
    assert main(["bench", "toybench", "--publish"]) == 0
    assert "0.5 [0.4, 0.6]" in capsys.readouterr().out
    for folder in (".runs/bench", "book/results/bench"):
        kept = json.loads((repo / folder / "toybench.json").read_text())
        assert kept["rows"] == [row]
        assert kept["made_by"]["cpu"]
        assert kept["made_by"]["threads"] == 2, "as many as the benchmark says"
    assert main(["bench", "toybench", "--publish", "--machine", "amx"]) == 0
    beside = repo / "book/results/bench"
    names = {path.stem: json.loads(path.read_text())["name"] for path in beside.glob("*.json")}
    assert names == {name: name for name in ("toybench", "toybench-amx")}


BASE_INSTALL = """
import sys
for name in ("nbformat", "papermill", "pandas", "yaml", "IPython", "loky", "cloudpickle", "tqdm", "filelock"):
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
from ouikit.lab.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--version"], 0, f"ouikit {__version__}\n"),
        (["list"], 1, "pip install 'ouikit[lab,science]'"),
        (["run", "toy"], 1, "is missing"),
        (["--help"], 1, "pip install"),
    ],
)
def test_without_the_laboratorys_packages_the_command_says_what_to_install(repo, words, code, said):
    done = subprocess.run(
        [sys.executable, "-c", BASE_INSTALL, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert said in done.stdout + done.stderr


@pytest.fixture
def counted(monkeypatch):
    """How often each value of a parameter was checked, and how often the key of a run was computed."""
    calls = Counter()
    check, key = Parameter.check, keys.run_key

    def counting_check(parameter, value, *where):
        calls[parameter.name, str(value)] += 1
        return check(parameter, value, *where)

    def counting_key(*words, **rest):
        calls["key"] += 1
        return key(*words, **rest)

    monkeypatch.setattr(Parameter, "check", counting_check)
    monkeypatch.setattr(keys, "run_key", counting_key)
    return calls


def test_a_run_is_resolved_once_in_the_command_and_never_again(repo, monkeypatch, counted):
    specs = []

    def no_kernel(*_):
        specs.append(handed_on())
        raise kernel.StoppedError("not executed here")

    monkeypatch.setattr(kernel, "execute", no_kernel)
    assert main(["run", "toy", "-p", "gain=3.0", "-p", "seeds=[7, 8]"]) == 1
    assert (counted["gain", "3.0"], counted["seeds", "[7, 8]"], counted["key"]) == (1, 1, 1)
    assert max(counted.values()) == 1

    counted.clear()
    monkeypatch.setenv(HANDED_ON, specs[0].to_json())
    study = begin("toy", {"gain": 3.0, "seeds": [7, 8]})  # as in the kernel
    assert study.run == specs[0]
    assert (counted["gain", "3.0"], counted["seeds", "[7, 8]"], counted["key"]) == (1, 1, 0)
    assert max(counted.values()) == 1


def test_the_book_shows_what_is_there_before_anything_is_run(repo, monkeypatch, capsys):
    published = []

    def publish_book(root, runs, html):
        published.append([json.loads((run / "record.json").read_text())["run"]["slug"] for run in runs])
        return html

    monkeypatch.setattr("ouikit.lab.book.publish_book", publish_book)
    for half in (".ipynb", ".yaml"):
        text = (repo / "chapters" / f"toy{half}").read_text()
        (repo / "chapters" / f"also{half}").write_text(text.replace('toy\\"', 'also\\"'))
    assert main(["book", "--only", "toi"]) == 2
    assert "did you mean 'toy'" in capsys.readouterr().err
    assert main(["book", "--only", "toy"]) == 0
    assert published == [[], ["toy"]]
    assert "still to run: 1 chapters" in capsys.readouterr().err
    published.clear()
    edit(repo / "chapters" / "toy.ipynb", "0.01 * seed", "0.02 * seed")
    assert main(["book", "--at-once", "1"]) == 0
    assert published == [[], ["toy", "also"]]  # what took the least before comes first
    published.clear()
    assert main(["book"]) == 0
    assert published == [["also", "toy"]]


def test_the_book_holds_what_there_is_and_a_failed_chapter_is_an_exit_code(repo, monkeypatch, capsys):
    monkeypatch.setattr("ouikit.lab.book.publish_book", lambda root, runs, html: html)
    monkeypatch.setattr(kernel, "execute", lambda *_: (_ for _ in ()).throw(OSError("No space left")))
    assert main(["book"]) == 1
    said = capsys.readouterr()
    assert "toy: OSError: No space left" in said.err
    assert said.err.endswith("ouikit: failed: toy\n")
    assert said.out.endswith("index.html\n")


def began(begin):
    """The chapter of a pair begins before the pair comes."""

    def pair(outcome):
        begin(outcome[0].slug)
        return outcome

    return pair


def test_the_book_is_shown_again_while_chapters_wait_however_many_were_there(tmp_path, monkeypatch):
    waiting = [SimpleChapter(slug) for slug in ("a", "b", "c")]
    runs = [(chapter, Run(tmp_path / chapter.slug, {"result": {}}, cached=False)) for chapter in waiting]
    monkeypatch.setattr(commands, "execute_all", lambda specs, at_once, begin: map(began(begin), runs))
    monkeypatch.setattr(commands, "REFRESH", -1)
    folders, shown = {f"there{i}": tmp_path for i in range(5)}, []
    specs, costs = dict.fromkeys(waiting), dict.fromkeys(waiting, 1.0)
    assert commands._run_waiting(specs, costs, 1, folders, lambda: shown.append(len(folders))) == []
    assert shown == [6, 7]  # after the last one the book is built anyway


def test_a_reader_who_has_seen_enough_hears_no_complaint():
    command = [sys.executable, "-c", "import sys; from ouikit.lab.cli import main; sys.exit(main(['list']))"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.close()  # before the first line is written
        assert process.stderr.read() == b""
        assert process.wait() == 128 + 13  # as a program that the signal ended


def test_what_benchmarks_share_is_no_benchmark(capsys):
    for shared in ("timing", "memory"):
        assert main(["bench", shared]) == 2
        assert f"no benchmark {shared!r}" in capsys.readouterr().err
