"""The contest of generated products and libraries: right results, honest halves. No times are asserted."""

import numpy as np
import pytest

pytest.importorskip("tvm")

from ouikit.bench import generators
from ouikit.products.layer_shapes import operations

SHAPE = (20, 24, 28)


def test_every_library_computes_the_product():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-9, 10, size).astype("float32") for size in ((20, 28), (28, 24)))
    out = np.empty((20, 24), "float32")
    for name, arm in generators.libraries(a, b, out).items():
        out[:] = np.nan
        arm()
        np.testing.assert_array_equal(out, a @ b, err_msg=name)


def test_one_half_chooses_and_the_other_judges(monkeypatch):
    """The tile that was quickest in the first half is taken, whatever it does in the second."""
    seconds = {(6, 2): [1.0, 2.0, 0.1, 0.2], (8, 3): [0.5, 3.0, 4.0, 5.0]}

    def measured(arms, rounds):
        assert rounds == 4
        return dict(zip(arms, seconds.values(), strict=True))

    monkeypatch.setattr(generators, "seconds_each", measured)
    first, second = generators.trials(SHAPE, ["B3A2C0"], count=2, peers=False)
    work = operations(SHAPE) / 1e9
    assert (first.choosing, first.judging) == (work / 1.0, work / 0.1)
    assert (second.choosing, second.judging) == (work / 0.5, work / 4.0)
    assert generators.sweep(SHAPE, ["B3A2C0"], count=2) == second


@pytest.mark.parametrize("rounds", [0, 3])
def test_rounds_must_have_two_halves(rounds):
    with pytest.raises(ValueError, match=f"rounds is {rounds}: give an even number"):
        generators.trials(SHAPE, rounds=rounds)


def test_files_are_those_of_the_loaded_libraries():
    files = generators.library_files()
    assert files["OpenBLAS"].stat().st_size > 1 << 20
    assert "numpy" in str(files["OpenBLAS"])
