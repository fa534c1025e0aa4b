"""A change that others overtake again and again gets its turn: `transform()`, also with a lower tier."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import droppable

WAIT_SECONDS = 60
TRIES_UNTIL_A_TURN = 10


@pytest.fixture(params=["cache", "tiers"])
def cache(request: pytest.FixtureRequest) -> Iterator[droppable.Cache[str, int]]:
    with droppable.Cache(below={} if request.param == "tiers" else None) as made:
        yield made


class Overtaking:
    """A thread that changes a key of the cache once each time that `change` is called, or as often as it can."""

    def __init__(self, cache: droppable.Cache[str, int], change: Callable[[], object]) -> None:
        self.changes = 0
        self._ends = False
        self._change = change
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ends:
            self._change()
            self.changes += 1

    def __enter__(self) -> Overtaking:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends = True
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("change", ["incr", "transform"])
def test_a_slow_change_is_not_overtaken_for_ever(cache: droppable.Cache[str, int], change: str) -> None:
    """The function always ends after another change, but where its turn keeps others from changing the key."""
    cache["sum"] = 0
    fast = (
        (lambda: cache.incr("sum")) if change == "incr" else (lambda: cache.transform("sum", lambda value: value + 1))
    )
    runs = 0
    with Overtaking(cache, fast) as others:

        def slow(value: int) -> int:
            nonlocal runs
            runs += 1
            before = others.changes
            pause = threading.Event()
            for _ in range(1000):  # a tenth of a second, if nobody changes it
                if others.changes > before + 1:
                    break
                pause.wait(0.0001)
            return value + 1_000_000

        assert cache.transform("sum", slow) > 1_000_000
    assert runs > TRIES_UNTIL_A_TURN
    assert cache["sum"] == 1_000_000 + others.changes


def test_a_turn_ends_with_its_change(cache: droppable.Cache[str, int]) -> None:
    """After a failure too: the next change of another thread waits for nobody."""
    cache["sum"] = 0
    runs = 0

    def fail(value: int) -> int:
        nonlocal runs
        runs += 1
        cache["sum"] = value + 1  # by a set, which never waits
        if runs > TRIES_UNTIL_A_TURN + 1:
            raise LookupError("on purpose")
        return value

    with pytest.raises(LookupError, match="on purpose"):
        cache.transform("sum", fail)
    done = threading.Event()
    other = threading.Thread(target=lambda: (cache.incr("sum"), done.set()))
    other.start()
    assert done.wait(4)  # a turn that was left would have held it up for five seconds
    other.join()
    assert cache["sum"] == runs + 1


def test_a_function_that_changes_its_own_key_is_told(cache: droppable.Cache[str, int]) -> None:
    cache["sum"] = 0
    with pytest.raises(RuntimeError, match="100 times"):
        cache.transform("sum", lambda value: cache.incr("sum"))
    assert cache["sum"] == 100
    assert cache.transform("sum", lambda value: value + 1) == 101


def test_a_function_may_wait_for_a_thread_that_changes_the_key(cache: droppable.Cache[str, int]) -> None:
    """That thread waits for the turn, and the function for the thread: for five seconds in all, not for ever."""
    cache["sum"] = 0
    runs = 0

    def wait(value: int) -> int:
        nonlocal runs
        runs += 1
        if runs <= TRIES_UNTIL_A_TURN + 2:
            other = threading.Thread(target=cache.incr, args=("sum",))
            other.start()
            other.join(WAIT_SECONDS)
            assert not other.is_alive()
        return value + 1000

    assert cache.transform("sum", wait) == 1000 + TRIES_UNTIL_A_TURN + 2


def test_other_keys_do_not_wait() -> None:
    with droppable.Cache[str, int]() as cache:
        cache["sum"] = cache["other"] = 0

        def change_both(value: int) -> int:
            cache.incr("other")
            other = threading.Thread(target=cache.incr, args=("other",))
            other.start()
            other.join(4)
            assert not other.is_alive()
            if cache["other"] < 2 * (TRIES_UNTIL_A_TURN + 5):
                cache.incr("sum")
            return value + 1000

        assert cache.transform("sum", change_both) > 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_does_not_wait_for_its_parents_turn(cache: droppable.Cache[str, int]) -> None:
    cache["sum"] = 0
    statuses = []
    runs = 0

    def fork(value: int) -> int:
        nonlocal runs
        runs += 1
        if runs <= TRIES_UNTIL_A_TURN:
            cache.incr("sum")
        else:
            pid = os.fork()
            if pid == 0:
                signal.alarm(4)
                other = threading.Thread(target=lambda: cache.incr("sum", initial=0))
                other.start()
                other.join()
                os._exit(0)
            statuses.append(os.waitpid(pid, 0)[1])
        return value + 1000

    assert cache.transform("sum", fork) == 1000 + TRIES_UNTIL_A_TURN
    assert statuses == [0]


def test_an_exception_of_a_handler_ends_the_wait(cache: droppable.Cache[str, int]) -> None:
    """The main thread waits for another one's turn, and is interrupted there."""
    cache["sum"] = 0
    has_turn, may_end = threading.Event(), threading.Event()
    runs = 0

    def hold(value: int) -> int:
        nonlocal runs
        runs += 1
        if runs <= TRIES_UNTIL_A_TURN:
            cache["sum"] = value + 1
        else:
            has_turn.set()
            may_end.wait(WAIT_SECONDS)
        return value + 1000

    def interrupt(*_: Any) -> None:
        raise TimeoutError("told by the handler")

    holder = threading.Thread(target=cache.transform, args=("sum", hold))
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        holder.start()
        assert has_turn.wait(WAIT_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeoutError, match="told by the handler"):
            cache.transform("sum", lambda value: value)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        may_end.set()
        holder.join(WAIT_SECONDS)
    assert cache["sum"] == 1000 + TRIES_UNTIL_A_TURN
