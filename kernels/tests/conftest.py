"""Fixtures of the kernels' tests.

OUIGEMM_ISA=avx2 (or =portable, or any other rung of this machine) forces the ladder in every call that names
no rung: `OUIGEMM_ISA=portable pytest kernels/tests`. Tests with the fixture `rung` run every rung anyway.
"""

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


@pytest.fixture
def unforced(monkeypatch):
    """For what the ladder picks by itself; every other test heeds OUIGEMM_ISA."""
    monkeypatch.delenv("OUIGEMM_ISA", raising=False)
