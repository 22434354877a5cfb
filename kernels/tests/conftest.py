import numpy as np
import pytest
from oracle import RUNGS


def pytest_addoption(parser):
    parser.addoption("--fuzz-cases", type=int, default=1000, help="random products of test_fuzz.py")
    parser.addoption("--fuzz-seed", type=int, default=0, help="seed of the first of them")


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(params=list(RUNGS))
def rung(request):
    """Every rung of this build, by name; one that the machine lacks is reported as skipped."""
    absent = RUNGS[request.param]["absent"]
    if absent is not None:
        pytest.skip(f"{request.param} is absent: no {absent}")
    return request.param


@pytest.fixture(autouse=True)
def no_forced_rung(monkeypatch):
    monkeypatch.delenv("OUIGEMM_ISA", raising=False)
