"""Questions that are answered, and those that are not."""

import socket
import threading

import pytest

from ouikit.malleable import Manager, steps
from ouikit.malleable.manager import ask


def test_many_may_ask_at_once():
    with Manager(lambda iteration, size: iteration + size) as manager:
        found = [0] * 8
        threads = [
            threading.Thread(target=lambda i=i: found.__setitem__(i, ask(manager.address, i, 100)))
            for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [100 + i for i in range(8)]
    assert sorted(manager.asked) == [(i, 100) for i in range(8)]


def test_without_a_manager_a_job_keeps_its_size():
    assert ask(None, 3, 5) == 5


def test_a_manager_that_is_silent_or_gone_or_mad_is_warned_of_and_the_size_kept():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.warns(UserWarning, match="gave no size, 4 is kept"):
            assert ask(address, 0, 4, timeout=0.2) == 4
    with pytest.warns(UserWarning, match="gave no size"):
        assert ask(address, 0, 4, timeout=0.2) == 4
    for answer in (lambda iteration, size: 0, lambda iteration, size: 1 // 0):
        with Manager(answer) as mad, pytest.warns(UserWarning, match="4 is kept"):
            assert ask(mad.address, 0, 4) == 4


def test_steps_change_the_size_at_their_iterations_only():
    answer = steps({2: 4, 7: 1})
    assert [answer(iteration, 3) for iteration in (1, 2, 3, 7)] == [3, 4, 3, 1]
