"""Jobs inside a real Slurm that grow and shrink; and, without one, what is said when it refuses or is silent.

The Slurm is that of `ci/slurm.sh`. Where its packages are missing, or without root, those tests are skipped.
"""

import os
import shutil
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT

from ouikit.malleable import Allocation, JobFailedError, SlurmError, launch, steps
from ouikit.malleable.slurm import call, is_there, read_granted, read_history

PROGRAM = Path(__file__).with_name("program.py")
DAEMONS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")
PLACES = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
ABLE = os.geteuid() == 0 and all(shutil.which(name, path=PLACES) for name in DAEMONS)
if not ABLE:
    warnings.warn("SKIPPED: no Slurm can be started here; jobs inside it are NOT tested", stacklevel=1)
real = pytest.mark.skipif(not ABLE, reason="no Slurm can be started here (root, Debian's packages)")


def given(folder):
    """Living processes that were given a path of this folder, those of this test's own process left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found += [process.name()] * (str(folder) in " ".join(process.environ().values()))
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def slurm():
    """A Slurm for the tests of this file; afterwards nothing of it is left."""
    waits = [ROOT / "ci" / "slurm.sh", "sh", "-c", "echo $SLURM_CONF; read line"]
    process = subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    configuration = process.stdout.readline().strip()
    assert configuration, "ci/slurm.sh has started no Slurm"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", configuration)
        yield configuration
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert given(Path(configuration).parent) == []
    assert not Path(configuration).parent.exists()


@real
@pytest.mark.slow
def test_nodes_follow_a_job_through_six_changes(slurm, tmp_path):
    sizes = [1, 2, 4, 2, 1, 4, 2]
    plain = launch(PROGRAM, tmp_path / "plain", "10")
    assert is_there()
    with Allocation() as allocation:
        asks = steps(dict(enumerate(sizes[1:])))
        found = launch(PROGRAM, tmp_path / "changed", "10", manager=asks, allocation=allocation)
        assert allocation.nodes == found["size"] == 2
    assert [int(change["after"]) for change in found["changes"]] == sizes[1:]
    np.testing.assert_array_equal(found["halo"], plain["halo"])
    history = allocation.history()
    assert [held.nodes for held in history] == sizes
    assert [held.state for held in history[:-1]] == ["RESIZING"] * 6
    assert allocation.nodes == 0
    assert given(tmp_path) == []


@real
@pytest.mark.slow
def test_a_job_that_waits_starts_on_the_nodes_that_are_given_back(slurm):
    with Allocation(4) as first:
        waiting = call("sbatch", "--parsable", "--nodes=2", "--wrap=sleep 3", "--output=/dev/null").strip()
        time.sleep(1)
        assert call("squeue", "--jobs", waiting, "-ho%T").strip() == "PENDING"
        first.resize(2)
        until = time.monotonic() + 20
        while (state := call("squeue", "--jobs", waiting, "-ho%T").strip()) != "RUNNING":
            assert time.monotonic() < until, state
            time.sleep(0.1)
        theirs, ours = (call("squeue", "--jobs", job, "-ho%N").strip() for job in (waiting, str(first.job)))
        assert (ours, theirs) == ("n[1-2]", "n[3-4]")
    while call("squeue", "--noheader"):
        assert time.monotonic() < until + 20
        time.sleep(0.1)


@real
@pytest.mark.slow
def test_a_job_for_which_there_are_no_nodes_keeps_its_size(slurm, tmp_path):
    with Allocation(3), Allocation(patience=5) as allocation:
        with pytest.warns(
            UserWarning, match="1 processes does not grow to 2: too few nodes became free within 5 s"
        ):
            found = launch(PROGRAM, tmp_path, "7", manager=steps({1: 2}), allocation=allocation)
        assert (found["size"], found["changes"], allocation.nodes) == (1, [], 1)
        assert len(call("squeue", "-h").splitlines()) == 2  # no helper waits


@real
@pytest.mark.slow
def test_a_job_that_hangs_leaves_nothing_behind(slurm, tmp_path):
    with Allocation() as allocation, pytest.raises(JobFailedError, match="no result"):
        launch(PROGRAM, tmp_path, "7", "hangs", manager=steps({1: 2}), timeout=10, allocation=allocation)
    assert given(tmp_path) == []
    assert call("squeue", "-h") == ""


@real
@pytest.mark.slow
def test_what_slurm_lacks_is_refused_in_its_words(slurm):
    with pytest.raises(SlurmError, match=r"Slurm refused `salloc .*--nodes=9"):
        Allocation(9, patience=1).__enter__()
    with pytest.raises(SlurmError, match=r"salloc .*--partition=absent`: .*(?i:invalid partition)"):
        Allocation(options=["--partition=absent"]).__enter__()
    with Allocation() as allocation, pytest.raises(ValueError, match="one node or more: got 0"):
        allocation.resize(0)
    with pytest.raises(SlurmError, match="already finished"):
        allocation._update(allocation.job, 1)


@real
def test_a_controller_that_is_gone_is_named(tmp_path, monkeypatch):
    text = "ClusterName=gone\nSlurmctldHost=localhost\nSlurmctldPort=1\nAuthType=auth/munge\n"
    (tmp_path / "slurm.conf").write_text(text + "NodeName=n1\nPartitionName=all Nodes=ALL\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    assert not is_there()
    with pytest.raises(SlurmError, match="salloc"):
        Allocation(patience=1).__enter__()


def test_without_slurm_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not is_there()
    with pytest.raises(FileNotFoundError, match=r"there is no salloc: install Slurm, or let ci/slurm\.sh"):
        Allocation().__enter__()


def test_a_client_that_fails_or_is_silent_is_an_error_with_its_words(monkeypatch):
    with pytest.raises(SlurmError, match=r"Slurm refused `sh -c .*`: not today$"):
        call("sh", "-c", "echo not today >&2; exit 1")
    monkeypatch.setenv("SLURM_CONF", "/its/slurm.conf")
    with pytest.raises(SlurmError, match=r"no answer to `sleep 9` in 0.2 s: .* in /its/slurm\.conf"):
        call("sleep", "9", patience=0.2)


def test_an_allocation_has_one_node_or_more():
    with pytest.raises(ValueError, match="one node or more: got 0"):
        Allocation(0)


def test_words_of_slurm_that_are_not_understood_are_shown():
    assert read_granted("salloc: Pending job allocation 3\nsalloc: Granted job allocation 3\n") == 3
    with pytest.raises(SlurmError, match="Pending job allocation 3"):
        read_granted("salloc: Pending job allocation 3")
    with pytest.raises(SlurmError, match=r"'two\|n1\|RUNNING\|Unknown'"):
        read_history("two|n1|RUNNING|Unknown")


def test_sizes_are_read_in_the_order_of_time():
    """Lines of sacct 22.05.8, which puts what it wrote last first now and then."""
    said = (
        "4|n[1-4]|RESIZING|2026-11-30T05:18:10\n1|n1|RESIZING|2026-11-30T05:18:07\n"
        "1|n1|CANCELLED by 0|2026-11-30T05:18:13\n2|n[1-2]|RESIZING|2026-11-30T05:18:12\n"
    )
    assert [held.nodes for held in read_history(said)] == [1, 4, 2, 1]
    assert read_history(said)[-1].state == "CANCELLED by 0"
    assert read_history("") == []
