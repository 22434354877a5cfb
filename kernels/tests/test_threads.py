"""Threads of the pool, threads of the program, and fork."""

import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from oracle import assert_product, random_operands

import ouigemm
from ouigemm.ladder import TYPES


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("m", "n", "k"), [(300, 300, 300), (1, 4000, 700), (3000, 5, 300), (70, 80, 5000)])
def test_bits_do_not_depend_on_threads(rung, kind, m, n, k, rng):
    a, b = random_operands(rng, kind, m, n, k)
    one = ouigemm.gemm(a, b, isa=rung, threads=1)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(ouigemm.gemm(a, b, isa=rung, threads=threads), one)


def test_concurrent_calls(rung):
    """Only one of them has the pool at a time; all are right."""
    problems = [random_operands(np.random.default_rng(i), "u8s8", 90 + i, 200, 600) for i in range(24)]
    weights = ouigemm.pack(problems[0][1], isa=rung)

    def solve(problem):
        a, b = problem
        assert_product(ouigemm.gemm(a, b, isa=rung, threads=2), a, b)
        assert_product(ouigemm.gemm(a, weights, threads=3), a, problems[0][1])

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(solve, problems))


def test_the_gil_is_released(rng):
    """Another Python thread runs on while a product runs, which is made large enough to take 0.1 s."""
    ticks, done, size = [], threading.Event(), 256

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    begin = end = 0.0
    while end - begin < 0.1:
        size *= 2
        a, b = random_operands(rng, "s16", 512, 512, size)
        begin = time.perf_counter()
        ouigemm.gemm(a, b, isa="portable", threads=1)
        end = time.perf_counter()
    done.set()
    ticker.join()
    assert sum(begin < t < end for t in ticks) > 5


def _product_is_right(a, b):
    assert_product(ouigemm.gemm(a, b, threads=3), a, b)


def _child(a, b):
    try:
        _product_is_right(a, b)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _forked(a, b):
    """Exit code of a forked child that computes with threads; None if it hangs."""
    child = os.fork()
    if child == 0:
        _child(a, b)
    for _ in range(600):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own(rng):
    a, b = random_operands(rng, "u8s8", 300, 300, 300)
    _product_is_right(a, b)
    assert _forked(a, b) == 0
    _product_is_right(a, b)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_in_the_middle_of_a_product(rng):
    a, b = random_operands(rng, "u8s8", 300, 300, 300)
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            ouigemm.gemm(a, b, threads=2)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        assert [_forked(a, b) for _ in range(5)] == [0] * 5
    finally:
        stop.set()
        thread.join()


def test_spawned_processes(rng):
    a, b = random_operands(rng, "u8s8", 200, 200, 300)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_product_is_right, args=(a, b))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def _ends_in_the_middle():
    """Daemon threads compute while the interpreter ends."""
    matrix, started = np.ones((600, 600), np.float32), []
    calls = [
        lambda: ouigemm.gemm(matrix, matrix, threads=1),
        lambda: ouigemm.gemm(matrix, matrix, threads=2),
        lambda: ouigemm.pack(matrix),
        lambda: ouigemm.hamming(matrix.view(np.uint8)),
    ]

    def repeat(call, running):
        while True:
            call()
            running.set()

    for call in calls:
        started.append(threading.Event())
        threading.Thread(target=repeat, args=(call, started[-1]), daemon=True).start()
    for running in started:
        running.wait(60)


def test_the_interpreter_ends_while_a_daemon_thread_computes(capfd):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_ends_in_the_middle)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert capfd.readouterr().err == ""
