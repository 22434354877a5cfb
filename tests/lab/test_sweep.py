"""The table that a sweep returns, what it computes and what it reads back, and what it refuses."""

import json
import math
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from ouikit.lab.spec import LOCAL
from ouikit.lab.sweep import SweepError, by_value, sweep
from ouikit.lab.sweep.cells import Cell, DamagedCellError, Store, StoreError
from ouikit.lab.sweep.executors import start


def product_cell(a, b, seed):
    return [
        {"metric": "product", "value": a * b, "step": 1},
        {"metric": "seed", "value": seed, "arm": "plain"},
    ]


def logging_cell(folder):
    """A cell that leaves a file for each call."""

    def cell(i, seed):
        (folder / f"{i}-{seed}-{time.time_ns()}").touch()
        return [{"metric": "m", "value": i + seed / 10}]

    return cell


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def called(log):
    """The `i` of every call, sorted."""
    return sorted(float(path.name.split("-")[0]) for path in log.iterdir())


def counts(rows):
    return {name: rows.attrs["cells"][name] for name in ("total", "computed", "cached", "diverged")}


NOTEBOOK = """
from functools import cache, lru_cache
import math

@cache
def doubled(i):
    calls.append(i)
    return 2 * i

@lru_cache(maxsize=7)
def cell(i, seed):
    value = doubled(i) + doubled(i) + math.factorial(3)
    return [{"metric": "m", "value": value}, {"metric": "calls", "value": len(calls)}]

calls = []
"""


@pytest.mark.parametrize("jobs", [0, 1])
def test_cells_of_a_notebook_may_use_cached_functions(tmp_path, jobs):
    notebook = {"__name__": "__main__"}
    exec(NOTEBOOK, notebook)
    again = pickle.loads(by_value.dumps(notebook["cell"]))
    assert again.cache_parameters() == {"maxsize": 7, "typed": False}
    rows = sweep(notebook["cell"].__wrapped__, {"i": [5]}, seeds=[0], store=tmp_path, jobs=jobs)
    assert rows["value"].tolist() == [26, 1]


def test_the_table_by_hand(tmp_path):
    rows = sweep(product_cell, {"b": [2, 0.5], "a": [10]}, seeds=[7, 3], store=tmp_path, jobs=0)
    nan, none = math.nan, None
    expected = pd.DataFrame(
        [
            (2.0, 10, 7, 1.0, none, "product", 20.0),
            (2.0, 10, 7, nan, "plain", "seed", 7.0),
            (2.0, 10, 3, 1.0, none, "product", 20.0),
            (2.0, 10, 3, nan, "plain", "seed", 3.0),
            (0.5, 10, 7, 1.0, none, "product", 5.0),
            (0.5, 10, 7, nan, "plain", "seed", 7.0),
            (0.5, 10, 3, 1.0, none, "product", 5.0),
            (0.5, 10, 3, nan, "plain", "seed", 3.0),
        ],
        columns=["b", "a", "seed", "step", "arm", "metric", "value"],
    )
    pd.testing.assert_frame_equal(rows, expected)
    assert counts(rows) == {"total": 4, "computed": 4, "cached": 0, "diverged": 0}
    again = sweep(product_cell, {"b": [2, 0.5], "a": [10]}, seeds=[7, 3], store=tmp_path, jobs=0)
    pd.testing.assert_frame_equal(again, rows)
    assert counts(again) == {"total": 4, "computed": 0, "cached": 4, "diverged": 0}
    assert again.attrs["cells"]["seconds"] == rows.attrs["cells"]["seconds"] > 0


def test_a_grid_may_be_a_list_of_unlike_points(tmp_path):
    def cell(seed, a=0, b=0):
        return pd.DataFrame({"metric": ["sum"], "value": [a + b + seed]})

    rows = sweep(cell, [{"a": 1}, {"b": 2}, {}], seeds=[10], store=tmp_path, jobs=0)
    assert rows.value.tolist() == [11, 12, 10]
    assert rows.fillna({"a": -1, "b": -1})[["a", "b"]].to_numpy().tolist() == [[1, -1], [-1, 2], [-1, -1]]


def test_rows_keep_the_order_of_the_grid_whatever_finishes_first(tmp_path):
    def cell(i, seed):
        time.sleep(0.15 * (3 - i))
        return [{"metric": "finished", "value": time.time()}]

    with ThreadPoolExecutor(4) as threads:
        rows = sweep(cell, {"i": [0, 1, 2, 3]}, store=tmp_path, engine=threads, jobs=4)
        assert threads.submit(int).result() == 0, "a caller's executor is left running"
    assert rows.i.tolist() == [0, 1, 2, 3]
    assert rows.value.is_monotonic_decreasing, "the last point was to finish first"


def test_processes_and_this_process_give_the_same_table(tmp_path):
    def cell(lr, seed):
        return [{"metric": "x", "value": np.random.default_rng(seed).normal() * lr, "pid": os.getpid()}]

    grid = {"lr": np.logspace(-3, 0, 3)}
    here = sweep(cell, grid, seeds=range(2), store=tmp_path / "a", jobs=0)
    there = sweep(cell, grid, seeds=range(2), store=tmp_path / "b", jobs=2)
    pd.testing.assert_frame_equal(here.drop(columns="pid"), there.drop(columns="pid"))
    assert set(here.pid) == {os.getpid()}
    assert os.getpid() not in set(there.pid)
    assert there.pid.nunique() == 2


def test_cells_have_one_thread(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    def cell(seed):
        import torch
        from threadpoolctl import threadpool_info

        return [
            {"metric": "torch", "value": torch.get_num_threads()},
            {"metric": "libraries", "value": max(library["num_threads"] for library in threadpool_info())},
            {"metric": "environment", "value": int(os.environ["OMP_NUM_THREADS"])},
        ]

    assert sweep(cell, {}, store=tmp_path / "there", jobs=1).value.tolist() == [1, 1, 1]
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert sweep(cell, {}, store=tmp_path / "here", jobs=0).value.tolist() == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_workers_load_their_libraries_with_one_thread():
    """Not only while a cell runs: pools that a library makes when it is loaded are small from the start."""
    with start(LOCAL, 1) as engine:
        for library in engine.executor.submit(threadpool_info).result():
            assert library["num_threads"] == 1


def test_only_missing_cells_are_computed(tmp_path, log):
    cell = logging_cell(log)

    def run(grid, seeds=(0,), **options):
        for path in log.iterdir():
            path.unlink()
        sweep(cell, {"i": grid}, seeds=seeds, store=tmp_path / "cells", jobs=0, **options)
        return called(log)

    assert run([1, 2]) == [1, 2]
    assert run([2, 1, 3]) == [3]
    assert run([1, 2], seeds=[0, 1]) == [1, 2]
    assert run([1, 1.0]) == [1], "1.0 is another value than 1"
    assert run([1, 2], context="other data") == [1, 2]
    assert run([1, 2], force=True) == [1, 2]
    assert run([1, 2, 3]) == []


def test_another_code_is_another_cell(tmp_path):
    def make(factor):
        def cell(i, seed):
            return [{"metric": "m", "value": i * factor}]

        return cell

    values = [sweep(make(f), {"i": [3]}, store=tmp_path, jobs=0).value.item() for f in (1, 2, 1)]
    assert values == [3, 6, 3]
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_a_diverged_cell_is_a_result(tmp_path, log):
    def cell(lr, seed):
        (log / f"{int(lr)}-{time.time_ns()}").touch()
        return [
            {"metric": "loss", "value": v}
            for v in (0.1, math.nan if lr > 5 else 1, math.inf if lr > 7 else 1)
        ]

    rows = sweep(cell, {"lr": [1, 6, 8]}, store=tmp_path / "cells", jobs=0)
    again = sweep(cell, {"lr": [1, 6, 8]}, store=tmp_path / "cells", jobs=0)
    assert counts(rows) == {"total": 3, "computed": 3, "cached": 0, "diverged": 2}
    assert counts(again) == {"total": 3, "computed": 0, "cached": 3, "diverged": 2}
    np.testing.assert_array_equal(again.value, [0.1, 1, 1, 0.1, math.nan, 1, 0.1, math.nan, math.inf])
    assert called(log) == [1, 6, 8]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"))


@given(
    st.lists(st.tuples(st.floats(), SCALARS), min_size=1),
    st.dictionaries(st.text("abc", min_size=1), SCALARS),
)
def test_a_cell_comes_back_as_it_was_written(tmp_path_factory, rows, arguments):
    cell = Cell(arguments, {"value": [v for v, _ in rows], "note": [n for _, n in rows]}, 0.25, 0.5)
    with Store(tmp_path_factory.getbasetemp() / "roundtrip") as store:
        store.write("00c0ffee", cell)
        found = store.read("00c0ffee")
    assert repr(found.columns) == repr(cell.columns)  # as repr, NaN is NaN, and 1, 1.0 and True are three
    assert found.arguments.keys() == cell.arguments.keys()
    assert found.seconds == cell.seconds
    assert found.diverged == (not all(math.isfinite(v) for v, _ in rows))


def test_a_cell_file_is_strict_json_with_its_point(tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    sweep(lambda lr, seed: [{"metric": "m", "value": math.nan}], {"lr": [0.5]}, store=tmp_path, jobs=0)
    (path,) = tmp_path.glob("*.json")
    body = json.loads(path.read_text(), parse_constant=refuse)["body"]
    assert body["arguments"] == {"lr": 0.5, "seed": 0}
    assert body["diverged"] is True
    assert body["columns"] == [["metric", ["m"]], ["value", [{"float": "nan"}]]]


def test_no_damage_of_one_byte_goes_unseen(tmp_path):
    """Every truncation and every flipped bit of a small cell's file."""
    store = Store(tmp_path)
    with store:
        store.write("00c0ffee", Cell({"i": 1, "seed": 0}, {"metric": ["m"], "value": [0.5]}, 0.1, 0.1))
    path = tmp_path / "00c0ffee.json"
    good = path.read_bytes()
    flipped = (
        good[:n] + bytes([good[n] ^ 1 << bit]) + good[n + 1 :] for n in range(len(good)) for bit in range(8)
    )
    for bad in [*(good[:n] for n in range(len(good))), *flipped, good + b" ", good * 2]:
        path.write_bytes(bad)
        with pytest.raises(DamagedCellError, match="00c0ffee"):
            store.read("00c0ffee")
    (tmp_path / "0000beef.json").write_bytes(good)
    with pytest.raises(DamagedCellError, match="another cell"):
        store.read("0000beef")


def test_what_killed_runs_left_is_swept_up(tmp_path):
    old, young = tmp_path / "a.json.1-2.tmp", tmp_path / "b.json.3-4.tmp"
    for path in (old, young):
        path.touch()
    os.utime(old, (time.time() - 3600,) * 2)
    with Store(tmp_path):
        assert [path.name for path in tmp_path.glob("*.tmp")] == [young.name]
    assert not (tmp_path / "probe").exists()


def test_failures_are_listed_and_the_rest_is_kept(tmp_path, log):
    def cell(i, seed):
        (log / f"{i}-{time.time_ns()}").touch()
        if i in (1, 3):
            raise ArithmeticError(f"no inverse of {i}")
        return [{"metric": "m", "value": i}]

    store = tmp_path / "cells"
    for expected in ([0, 1, 2, 3, 4], [0, 1, 1, 2, 3, 3, 4]):
        with pytest.raises(SweepError, match="2 of 5 cells failed") as caught:
            sweep(cell, {"i": range(5)}, store=store, jobs=0)
        assert called(log) == expected
    assert [arguments for arguments, _ in caught.value.failures] == [{"i": 1, "seed": 0}, {"i": 3, "seed": 0}]
    text = str(caught.value)
    assert all(
        part in text for part in ("i=1, seed=0", "ArithmeticError: no inverse of 3", __file__, str(store))
    )
    assert "(3) are kept" in text


def test_many_failures_are_shortened(tmp_path):
    with pytest.raises(SweepError, match="and 4 more") as caught:
        sweep(lambda i, seed: 1 / 0, {"i": range(9)}, store=tmp_path, jobs=0)
    assert len(caught.value.failures) == 9


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"metric": "m", "value": 1}, "return a DataFrame or a list of rows"),
        (0.5, "return a DataFrame or a list of rows"),
        ([], "return a DataFrame or a list of rows"),
        ([("m", 1)], "return a DataFrame or a list of rows"),
        ([{"metric": "m"}], "no 'value'"),
        (pd.DataFrame({"loss": [1.0]}), "no 'metric'"),
        (pd.DataFrame({"metric": [], "value": []}), "no 'metric'"),
        ([{"metric": "m", "value": None}], "'m' is None, which is not a number"),
        ([{"metric": "m", "value": "high"}], "'m' is 'high', which is not a number"),
        ([{"metric": 3, "value": 1}], "metric 3 is a int"),
        ([{"metric": "m", "value": 1, "i": 3}], r"\['i'\], which the sweep adds itself"),
        ([{"metric": "m", "value": 1, "weights": [1, 2]}], "'weights' holds"),
    ],
)
def test_what_a_cell_must_return(tmp_path, returned, message):
    with pytest.raises(SweepError, match=message):
        sweep(lambda i, seed: returned, {"i": [1]}, store=tmp_path, jobs=0)


@pytest.mark.parametrize(
    ("grid", "options", "error", "message"),
    [
        ({"i": [1, 2, 1]}, {}, ValueError, "i=1, seed=0 twice"),
        ({"i": [1]}, {"seeds": [3, 3]}, ValueError, "seed=3 twice"),
        ({"i": [1]}, {"seeds": []}, ValueError, "seeds is empty"),
        ({"i": [1]}, {"seeds": [0.5]}, TypeError, "seed 0.5"),
        ({"i": [1]}, {"seeds": [True]}, TypeError, "seed True"),
        ({"i": []}, {}, ValueError, "no points"),
        ([], {}, ValueError, "no points"),
        ({"i": "relu"}, {}, TypeError, "give a list of values"),
        ({"i": 3}, {}, TypeError, "give a list of values"),
        ({"i": [object()]}, {}, TypeError, "the grid's 'i': <object"),
        ({"i": [1], "seed": [1]}, {}, ValueError, "seeds="),
        ({"ii": [1]}, {}, TypeError, "did you mean 'i'"),
        ({}, {}, TypeError, "missing a required argument: 'i'"),
        ({"i": [1]}, {"jobs": -1}, ValueError, "jobs=-1"),
        ({"i": [1]}, {"engine": "locl"}, ValueError, "did you mean 'local'"),
        ({"i": [1]}, {"engine": "dask://nowhere"}, ValueError, "dask://HOST:PORT"),
        ({"i": [1]}, {"engine": "dask://127.0.0.1:1"}, ConnectionError, "127.0.0.1:1 "),
    ],
)
def test_what_is_refused_before_anything_runs(tmp_path, log, grid, options, error, message):
    with pytest.raises(error, match=message):
        sweep(logging_cell(log), grid, store=tmp_path / "cells", **{"jobs": 0} | options)
    assert called(log) == []


def test_a_file_in_the_place_of_the_store(tmp_path, log):
    (tmp_path / "cells").touch()
    with pytest.raises(StoreError, match=r"cells: File exists.*OUIKIT_RUNS"):
        sweep(logging_cell(log), {"i": [1]}, store=tmp_path / "cells", jobs=0)
    assert called(log) == []


@pytest.mark.parametrize(
    ("wanted", "environment", "shown"),
    [(None, "", False), (True, "", True), (False, "1", True), (True, "0", False)],
)
def test_progress_is_silent_off_a_terminal(tmp_path, log, capfd, monkeypatch, wanted, environment, shown):
    monkeypatch.setenv("OUIKIT_PROGRESS", environment)
    cell = logging_cell(log)
    sweep(cell, {"i": [1]}, store=tmp_path / "cells", jobs=0, progress=False)
    capfd.readouterr()
    sweep(cell, {"i": [1, 2]}, store=tmp_path / "cells", jobs=0, progress=wanted, title="learning")
    out, err = capfd.readouterr()
    assert out == ""
    assert bool(err) == shown
    if shown:
        assert all(part in err for part in ("learning", "2/2", "1 cached"))


def test_time_and_memory_of_all_processes_are_counted(tmp_path):
    def cell(i, seed):
        burnt = sum(k * k for k in range(300_000))  # CPU time, and 80 MB
        held = bytearray(80 * 2**20)
        return [{"metric": "m", "value": burnt + len(held)}]

    there = sweep(cell, {"i": range(4)}, store=tmp_path / "there", jobs=2).attrs
    assert there["cells"]["cpu_seconds"] > 0
    assert there["workers"]["cpu_seconds"] > there["cells"]["cpu_seconds"], "workers also start"
    assert there["workers"]["peak_memory_mb"] > 2 * 80, "of two at a time"
    again = sweep(cell, {"i": range(4)}, store=tmp_path / "there", jobs=2).attrs
    assert again["workers"]["cpu_seconds"] == again["cells"]["cpu_seconds"] == there["cells"]["cpu_seconds"]
    here = sweep(cell, {"i": range(4)}, store=tmp_path / "here", jobs=0).attrs
    assert here["workers"] == {"cpu_seconds": 0, "peak_memory_mb": 0}, "this process knows its own"
