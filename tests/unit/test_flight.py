"""One computation for many waiters: threads, tasks, both; errors, cancellation, recursion, forks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from droppable import Cache

WAIT_SECONDS = 60.0  # only a hang takes that long


def in_threads(count: int, function: Callable[[int], Any]) -> list[Any]:
    """function(0), function(1), ... at once, each in a thread: results or exceptions."""

    def run(number: int) -> Any:
        try:
            return function(number)
        except BaseException as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run, number) for number in range(count)]
        return [future.result(WAIT_SECONDS) for future in futures]


def waiting(cache: Cache) -> int:
    """Callers that wait for a computation. Of a task's computation the first caller is one of them."""
    return sum(len(flight.waiters) for flight in cache._flights.table.copy().values())


def until_waiting(cache: Cache, count: int) -> None:
    """Returns when that many callers wait."""
    while waiting(cache) < count:
        os.sched_yield()


def run(main: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(main, WAIT_SECONDS)

    return asyncio.run(bounded())


class TestThreads:
    def test_one_computes(self, cache: Cache) -> None:
        calls: list[int] = []
        everybody = threading.Barrier(8)

        def factory() -> list[int]:
            calls.append(threading.get_ident())
            until_waiting(cache, 7)
            return [1, 2, 3]

        def ask(number: int) -> Any:
            everybody.wait(WAIT_SECONDS)
            return cache.get_or_create("k", factory)

        assert in_threads(8, ask) == [[1, 2, 3]] * 8
        assert len(calls) == 1
        assert cache["k"] == [1, 2, 3]
        assert not cache._flights.table
        assert not waiting(cache)

    def test_who_comes_after_an_invalidation_computes_anew(self, cache: Cache) -> None:
        begun, asked = threading.Event(), threading.Event()

        def old() -> str:
            begun.set()
            while not asked.is_set():
                assert not waiting(cache), "the second caller waits for this one"
                os.sched_yield()
            return "old"

        def new() -> str:
            asked.set()
            return "new"

        def ask(number: int) -> Any:
            if number == 0:
                return cache.get_or_create("k", old)
            begun.wait(WAIT_SECONDS)
            cache.discard("k")
            return cache.get_or_create("k", new)

        assert in_threads(2, ask) == ["old", "new"]
        assert cache["k"] == "new"

    def test_an_exception_reaches_all_and_is_not_kept(self, cache: Cache) -> None:
        calls: list[int] = []

        def factory() -> int:
            calls.append(1)
            until_waiting(cache, 5)
            raise LookupError("sorry")

        results = in_threads(6, lambda number: cache.get_or_create("k", factory))
        assert [type(result) for result in results] == [LookupError] * 6
        assert len(calls) == 1
        assert "k" not in cache
        assert cache.get_or_create("k", lambda: 5) == 5

    def test_an_interrupted_computation_is_taken_over(self, cache: Cache) -> None:
        calls: list[int] = []

        def factory() -> int:
            calls.append(1)
            if len(calls) == 1:
                until_waiting(cache, 3)
                raise KeyboardInterrupt
            return 7

        results = in_threads(4, lambda number: cache.get_or_create("k", factory))
        assert sorted(map(repr, results)) == ["7", "7", "7", "KeyboardInterrupt()"]
        assert len(calls) == 2

    def test_other_keys_go_on(self, cache: Cache) -> None:
        blocked, go = threading.Event(), threading.Event()

        def slow() -> int:
            blocked.set()
            assert go.wait(WAIT_SECONDS)
            return 1

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(cache.get_or_create, "slow", slow)
            assert blocked.wait(WAIT_SECONDS)
            assert cache.get_or_create("quick", lambda: 2) == 2
            cache["slow"] = 3
            assert cache.get_or_create("slow", lambda: 4) == 3
            go.set()
            assert future.result(WAIT_SECONDS) == 1
        assert cache["slow"] == 3  # it was set while the other one was computed

    def test_a_factory_may_ask_for_its_own_key(self, cache: Cache) -> None:
        depth: list[int] = []

        def factory() -> int:
            depth.append(1)
            return cache.get_or_create("k", factory) if len(depth) < 3 else 9

        assert cache.get_or_create("k", factory) == 9
        assert len(depth) == 3
        assert cache["k"] == 9

    def test_two_that_call_each_other(self, cache: Cache) -> None:
        """Thread 0 computes a and wants b, thread 1 computes b and wants a: none may wait for the other forever."""
        for _ in range(20):
            cache.clear()
            both = threading.Barrier(2)

            def compute(mine: str, other: str, both: threading.Barrier = both) -> str:
                try:
                    both.wait(5)  # the second call in a thread finds nobody else
                except threading.BrokenBarrierError:
                    pass
                return mine + cache.get_or_create(other, lambda: other)

            assert in_threads(
                2,
                lambda number: cache.get_or_create("ab"[number], lambda: compute("ab"[number], "ba"[number])),
            ) in (["ab", "ba"], ["abab", "ba"], ["ab", "baba"], ["aba", "ba"], ["ab", "bab"])

    def test_a_ring_of_three(self, cache: Cache) -> None:
        everybody = threading.Barrier(3)

        def ask(number: int) -> str:
            def factory() -> str:
                everybody.wait(WAIT_SECONDS)
                following = (number + 1) % 3
                return str(number) + cache.get_or_create(following, lambda: f"({following})")

            return cache.get_or_create(number, factory)

        results = in_threads(3, ask)
        assert [result[0] for result in results] == ["0", "1", "2"]

    def test_it_is_looked_for_once_more_before_it_is_computed(self, cache: Cache) -> None:
        """Between a caller's miss and his turn somebody else may have stored it."""
        calls: list[int] = []
        everybody = threading.Barrier(4)

        def factory() -> int:
            calls.append(1)
            return 1

        def ask(number: int) -> None:
            for key in range(300):
                if key % 50 == 0:
                    everybody.wait(WAIT_SECONDS)
                assert cache.get_or_create(key, factory) == 1

        assert in_threads(4, ask) == [None] * 4
        assert len(calls) == 300

    def test_ttl_and_cost_are_stored(self, cache: Cache) -> None:
        from droppable.testing import advance_clock

        assert cache.get_or_create("k", lambda: 1, ttl=10) == 1
        assert cache.get_or_create("k", lambda: 2, 10) == 1
        advance_clock(cache, 11)
        assert cache.get_or_create("k", lambda: 3) == 3
        for ttl in (-1, float("nan")):
            with pytest.raises(ValueError, match="ttl"):
                cache.get_or_create("other", lambda: 1, ttl=ttl)

    def test_no_function(self, cache: Cache) -> None:
        with pytest.raises(TypeError, match="factory must be a function without arguments; you gave 5"):
            cache.get_or_create("k", 5)  # type: ignore[arg-type]
        assert not cache._flights.table
        assert cache.get_or_create("k", lambda: 5) == 5


class TestTasks:
    def test_one_computes(self, cache: Cache) -> None:
        calls: list[int] = []

        async def factory() -> int:
            calls.append(1)
            await asyncio.sleep(0)
            return 5

        async def main() -> None:
            assert await asyncio.gather(*(cache.aget_or_create("k", factory) for _ in range(20))) == [5] * 20

        run(main())
        assert len(calls) == 1

    def test_a_computation_outlives_its_cancelled_first_caller(self, cache: Cache) -> None:
        calls: list[int] = []
        begun = []

        async def factory() -> int:
            calls.append(1)
            begun[0].set()
            await begun[1].wait()
            return 5

        async def main() -> None:
            begun.extend((asyncio.Event(), asyncio.Event()))
            leader = asyncio.create_task(cache.aget_or_create("k", factory))
            await begun[0].wait()
            waiters = [asyncio.create_task(cache.aget_or_create("k", factory)) for _ in range(3)]
            while waiting(cache) < 4:
                await asyncio.sleep(0)
            leader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leader
            begun[1].set()
            assert await asyncio.gather(*waiters) == [5, 5, 5]
            assert len(calls) == 1

        run(main())
        assert not cache._flights.table

    def test_a_cancelled_waiter_leaves_the_others_alone(self, cache: Cache) -> None:
        go = []

        async def factory() -> int:
            await go[0].wait()
            return 5

        async def main() -> None:
            go.append(asyncio.Event())
            tasks = [asyncio.create_task(cache.aget_or_create("k", factory)) for _ in range(3)]
            while waiting(cache) < 3:
                await asyncio.sleep(0)
            tasks[1].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[1]
            assert waiting(cache) == 2
            go[0].set()
            assert await tasks[0] == await tasks[2] == 5

        run(main())
        assert not waiting(cache)

    def test_a_waiter_that_times_out(self, cache: Cache) -> None:
        async def factory() -> int:
            await asyncio.Event().wait()
            return 5

        async def main() -> None:
            leader = asyncio.create_task(cache.aget_or_create("k", factory))
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cache.aget_or_create("k", factory), 0.01)
            leader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leader

        run(main())

    def test_an_error_reaches_all(self, cache: Cache) -> None:
        async def factory() -> int:
            await asyncio.sleep(0)
            raise LookupError("sorry")

        async def main() -> None:
            results = await asyncio.gather(
                *(cache.aget_or_create("k", factory) for _ in range(5)), return_exceptions=True
            )
            assert [type(result) for result in results] == [LookupError] * 5

        run(main())
        assert "k" not in cache

    def test_a_task_may_ask_for_its_own_key(self, cache: Cache) -> None:
        depth: list[int] = []

        async def factory() -> int:
            depth.append(1)
            return await cache.aget_or_create("k", factory) if len(depth) < 3 else 9

        async def main() -> None:
            assert await cache.aget_or_create("k", factory) == 9

        run(main())

    def test_tasks_that_want_each_others_keys(self, cache: Cache) -> None:
        async def compute(mine: str, other: str) -> str:
            await asyncio.sleep(0)
            return mine + await cache.aget_or_create(other, lambda: compute(other, mine) if False else leaf(other))

        async def leaf(name: str) -> str:
            return name

        async def main() -> None:
            results = await asyncio.gather(
                cache.aget_or_create("a", lambda: compute("a", "b")),
                cache.aget_or_create("b", lambda: compute("b", "a")),
            )
            assert [result[0] for result in results] == ["a", "b"]

        run(main())

    def test_a_blocking_call_within_a_task(self, cache: Cache) -> None:
        """A thread that blocks stops its other tasks too: it must not wait for one of them."""
        calls: list[str] = []

        async def slow() -> str:
            calls.append("async")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return "async"

        async def main() -> None:
            leader = asyncio.create_task(cache.aget_or_create("k", slow))
            while not calls:
                await asyncio.sleep(0)
            assert cache.get_or_create("k", lambda: "sync") == "sync"
            assert await leader == "async"

        run(main())

    def test_threads_and_tasks_wait_for_one_another(self, cache: Cache) -> None:
        calls: list[str] = []

        def in_thread() -> str:
            calls.append("thread")
            until_waiting(cache, 3)
            return "thread"

        async def in_task() -> str:
            calls.append("task")
            return "task"

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(1) as pool:
                leader = loop.run_in_executor(pool, cache.get_or_create, "k", in_thread)
                while not calls:
                    await asyncio.sleep(0)
                results = await asyncio.gather(*(cache.aget_or_create("k", in_task) for _ in range(3)))
                assert results == ["thread"] * 3
                assert await leader == "thread"

        run(main())
        assert calls == ["thread"]

    def test_a_thread_waits_for_a_task(self, cache: Cache) -> None:
        async def in_task() -> str:
            while waiting(cache) < 2:
                await asyncio.sleep(0)
            return "task"

        async def main() -> None:
            loop = asyncio.get_running_loop()
            leader = asyncio.create_task(cache.aget_or_create("k", in_task))
            await asyncio.sleep(0)
            with ThreadPoolExecutor(1) as pool:
                assert await loop.run_in_executor(pool, cache.get_or_create, "k", lambda: "thread") == "task"
            assert await leader == "task"

        run(main())

    def test_a_stop_iteration_from_a_thread_reaches_a_task(self, cache: Cache) -> None:
        """An exception that no future takes as it is must not leave anybody waiting."""

        def in_thread() -> str:
            until_waiting(cache, 1)
            raise StopIteration("enough")

        async def in_task() -> str:
            return "task"

        async def main() -> None:
            with ThreadPoolExecutor(1) as pool:
                leader = pool.submit(cache.get_or_create, "k", in_thread)
                while not cache._flights.table:
                    await asyncio.sleep(0)
                with pytest.raises(RuntimeError):
                    await cache.aget_or_create("k", in_task)
                assert isinstance(leader.exception(WAIT_SECONDS), StopIteration)

        run(main())


def test_a_child_does_not_wait_for_its_parents_computations(cache: Cache) -> None:
    """Whoever was computing is not in the child."""
    status = []

    def factory() -> int:
        child = os.fork()
        if child == 0:
            with ThreadPoolExecutor(1) as pool:
                ok = pool.submit(cache.get_or_create, "k", lambda: 7).result(WAIT_SECONDS) == 7
            os._exit(0 if ok else 1)
        status.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return 5

    assert cache.get_or_create("k", factory) == 5
    assert status == [0]


def test_each_who_waited_has_a_generator_of_his_own() -> None:
    """Generators cannot be copied, and what one caller takes from one the others would miss."""

    def numbers() -> Iterator[int]:
        yield from range(5)

    for make in (numbers, lambda: open(os.devnull, "rb"), contextlib.contextmanager(numbers)):  # noqa: SIM115
        cache: Any = Cache()
        gate = threading.Event()

        def compute(make: Any = make, gate: threading.Event = gate) -> Any:
            gate.wait(WAIT_SECONDS)
            return make()

        def open_gate(cache: Cache = cache, gate: threading.Event = gate) -> None:
            until_waiting(cache, 2)
            gate.set()

        opener = threading.Thread(target=open_gate)
        opener.start()

        def ask(number: int, cache: Any = cache, compute: Any = compute) -> Any:
            return cache.get_or_create("k", compute)

        results = in_threads(3, ask)
        opener.join()
        assert len({id(result) for result in results}) == 3
        for result in results:
            getattr(result, "close", lambda: None)()
