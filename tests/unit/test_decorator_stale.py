"""@droppable.cache(stale=...): an old result is given at once while one caller computes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import droppable
from droppable.testing import advance_clock


class Source:
    """Gives numbers; the second one only after `go`, or not at all."""

    def __init__(self) -> None:
        self.calls = 0
        self.computing, self.go = threading.Event(), threading.Event()
        self.fails = False

    def ask(self) -> int:
        self.calls += 1
        if self.calls > 1:
            self.computing.set()
            assert self.go.wait(60)
        if self.fails:
            raise LookupError("the source is down")
        return self.calls


def in_thread(call: Any, results: list[Any]) -> threading.Thread:
    def run() -> None:
        try:
            results.append(call())
        except LookupError as error:
            results.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("shared", [False, True])
def test_others_get_the_old_result_while_one_computes(shared: bool) -> None:
    source = Source()
    options: dict[str, Any] = {"cache": droppable.Cache()} if shared else {}

    @droppable.cache(ttl=10, stale=20, **options)
    def function() -> int:
        return source.ask()

    assert function() == 1
    advance_clock(function, 9)
    assert function() == 1
    assert source.calls == 1
    advance_clock(function, 2)
    results: list[Any] = []
    thread = in_thread(function, results)
    assert source.computing.wait(60)
    assert [function() for _ in range(5)] == [1] * 5
    assert source.calls == 2
    source.go.set()
    thread.join()
    assert results == [2]
    assert function() == 2
    assert source.calls == 2
    advance_clock(function, 9)
    assert function() == 2
    advance_clock(function, 22)  # fresh and stale time are both over
    assert function() == 3
    assert function.cache_info()[:2] == (9, 2)


def test_a_failure_reaches_the_one_who_computed() -> None:
    source = Source()

    @droppable.cache(ttl=10, stale=20)
    def function() -> int:
        return source.ask()

    assert function() == 1
    advance_clock(function, 11)
    source.fails = True
    results: list[Any] = []
    thread = in_thread(function, results)
    assert source.computing.wait(60)
    assert function() == 1
    source.go.set()
    thread.join()
    assert results == ["the source is down"]
    with pytest.raises(LookupError):  # the next one tries again
        function()
    source.fails = False
    assert function() == function() == 4


def test_only_one_of_many_computes() -> None:
    calls = []

    @droppable.cache(ttl=10, stale=1000)
    def function(number: int) -> int:
        calls.append(number)
        return len(calls)

    function(0)
    for turn in range(20):
        advance_clock(function, 11)
        start = threading.Barrier(4)
        results: list[Any] = []

        def ask(start: threading.Barrier = start) -> int:
            start.wait()
            return function(0)

        threads = [in_thread(ask, results) for _ in range(4)]
        for thread in threads:
            thread.join()
        assert len(calls) == turn + 2
        assert set(results) <= {turn + 1, turn + 2}
        assert turn + 2 in results


def test_what_was_invalidated_is_not_given_out() -> None:
    calls = []

    @droppable.cache(ttl=10, stale=20)
    def function() -> int:
        calls.append(1)
        return len(calls)

    assert function() == 1
    advance_clock(function, 11)
    assert function.invalidate() is True
    assert function() == 2
    advance_clock(function, 11)
    assert function.refresh() == 3
    assert function() == 3
    assert len(calls) == 3


def test_a_function_that_asks_for_itself_gets_the_old_result() -> None:
    calls = []

    @droppable.cache(ttl=10, stale=20)
    def function() -> int:
        calls.append(1)
        return len(calls) if len(calls) == 1 else function() + 10  # type: ignore[no-any-return]

    assert function() == 1
    advance_clock(function, 11)
    assert function() == 11


def test_coroutine_functions() -> None:
    calls = []

    async def main() -> None:
        go = asyncio.Event()

        @droppable.cache(ttl=10, stale=20)
        async def fetch() -> int:
            calls.append(1)
            if len(calls) > 1:
                await go.wait()
            if len(calls) == 3:
                raise LookupError("not now")
            return len(calls)

        assert await fetch() == 1
        advance_clock(fetch, 11)
        first = asyncio.ensure_future(fetch())
        while len(calls) < 2:
            await asyncio.sleep(0)
        assert [await fetch() for _ in range(3)] == [1, 1, 1]
        go.set()
        assert await first == 2
        assert await fetch() == 2
        advance_clock(fetch, 11)
        with pytest.raises(LookupError, match="not now"):
            await fetch()
        assert await fetch() == 4
        advance_clock(fetch, 31)
        assert await fetch() == 5
        assert fetch.cache_info()[:2] == (7, 2)

    asyncio.run(main())


def test_with_ttl_of_the_result_and_copies() -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    calls = []

    @droppable.cache(ttl=lambda result: 10 if result[0] == 1 else droppable.NEVER, stale=20, copy=True)
    def function(number: int) -> Any:
        calls.append(number)
        return numpy.array([number])

    for number in (1, 2):
        function(number)[0] += 5
    advance_clock(function, 11)
    assert [function(number)[0] for number in (1, 2)] == [1, 2]
    assert calls == [1, 2, 1]


def test_it_needs_a_ttl() -> None:
    with pytest.raises(TypeError, match="stale= needs ttl="):
        droppable.cache(stale=5)(len)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stale must be 0 seconds or more; you gave -1"):
        droppable.cache(ttl=5, stale=-1)(len)  # type: ignore[arg-type]
