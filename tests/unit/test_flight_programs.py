"""The single flight in real programs: invalidation, own keys in pools and tasks, closed loops, cancellation, forks.

Each of these hung, kept what was out of date, or shared what one caller changed, in some cache or other.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import sys
import threading
import traceback
import urllib.error
import weakref
from collections.abc import Callable
from email.message import Message
from typing import Any

import pytest

import droppable
from droppable import Cache
from tests.unit.test_flight import WAIT_SECONDS, in_threads, run, until_waiting, waiting


class Thread(threading.Thread):
    """A daemon, so that a hang fails one test and not the run; `result()` waits for what its function gives."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self.call = lambda: function(*arguments)
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self.call()
        except BaseException as error:
            self.error = error

    def result(self) -> Any:
        self.join(WAIT_SECONDS)
        assert not self.is_alive(), "it hangs"
        if self.error is not None:
            raise self.error
        return self.value


def changed_by_set(cache: Cache) -> None:
    cache.set("k", "new")


def changed_by_setitem(cache: Cache) -> None:
    cache["k"] = "new"


def changed_by_add(cache: Cache) -> None:
    assert cache.add("k", "new")


def changed_by_discard(cache: Cache) -> None:
    cache.discard("k")


def changed_by_pop(cache: Cache) -> None:
    cache.pop("k", None)


def changed_by_failing_pop(cache: Cache) -> None:
    with pytest.raises(KeyError):
        cache.pop("k")


def changed_by_failing_del(cache: Cache) -> None:
    with pytest.raises(KeyError):
        del cache["k"]


def changed_by_clear(cache: Cache) -> None:
    cache.clear()


CHANGES = [
    changed_by_set,
    changed_by_setitem,
    changed_by_add,
    changed_by_discard,
    changed_by_pop,
    changed_by_failing_pop,
    changed_by_failing_del,
    changed_by_clear,
]


class TestInvalidation:
    @pytest.mark.parametrize("change", CHANGES)
    def test_what_was_read_before_is_returned_and_not_kept(self, cache: Cache, change: Callable[[Cache], None]) -> None:
        source = {"k": "old"}
        started, go = threading.Event(), threading.Event()

        def load() -> str:
            value = source["k"]
            started.set()
            assert go.wait(WAIT_SECONDS)
            return value

        first = Thread(cache.get_or_create, "k", load)
        assert started.wait(WAIT_SECONDS)
        joined = Thread(cache.get_or_create, "k", load)
        until_waiting(cache, 1)
        source["k"] = "new"
        change(cache)
        late = Thread(cache.get_or_create, "k", lambda: source["k"])
        assert late.result() == "new"  # it does not join what began before
        go.set()
        assert first.result() == joined.result() == "old"
        assert cache.get_or_create("k", lambda: source["k"]) == "new"

    @pytest.mark.parametrize("change", CHANGES)
    def test_tasks(self, cache: Cache, change: Callable[[Cache], None]) -> None:
        source = {"k": "old"}

        async def main() -> None:
            started, go = asyncio.Event(), asyncio.Event()

            async def load() -> str:
                value = source["k"]
                started.set()
                await go.wait()
                return value

            async def quick() -> str:
                return source["k"]

            first = asyncio.create_task(cache.aget_or_create("k", load))
            await started.wait()
            source["k"] = "new"
            change(cache)
            assert await cache.aget_or_create("k", quick) == "new"
            go.set()
            assert await first == "old"
            assert await cache.aget_or_create("k", quick) == "new"

        run(main())

    def test_other_keys_and_other_ways_of_going_change_nothing(self, cache: Cache) -> None:
        from droppable.testing import advance_clock, drop

        def load() -> str:
            cache["other"] = 1
            cache.discard("another")
            cache.pop("another", None)
            advance_clock(cache, 100)
            drop(cache, fraction=1.0, seed=1)
            return "value"

        cache.set("k", "expires", ttl=1)
        advance_clock(cache, 2)
        assert cache.get_or_create("k", load) == "value"
        assert cache.get("k") == "value"

    def test_the_decorator(self) -> None:
        source = ["old"]

        @droppable.cache
        def read() -> str:
            value = source[0]
            if value == "old":
                source[0] = "new"
                read.cache_clear()
            return value

        assert read() == "old"
        assert read() == "new"

    def test_nothing_is_left_open(self, cache: Cache) -> None:
        """Leases end with their computations, whatever became of those: a set walks no list of them."""

        def fails() -> None:
            raise LookupError

        errors = []
        for number in range(100):
            try:
                cache.get_or_create(number, fails)
            except LookupError as error:
                errors.append(error)  # kept, with their frames
        lease = cache._lease(b"s")
        assert not lease.stale
        assert all(not flight.lease for flight in cache._flights.table.values())
        with pytest.raises(ValueError, match="ended"):
            cache._keep(Cache()._lease(b"s"), b"s", 1, None, None, 1)
        assert cache._keep(lease, b"s", 1, None, None, 1)[0] == 1


class Counter:
    number = 0

    @droppable.cache
    def step(self) -> int:
        self.number += 1
        return self.number


class Lazy:
    connection: Any = None

    @droppable.cache
    def ask(self, what: int) -> int:
        self.connection = threading.Lock()
        return what


class Client:
    def __init__(self, language: str) -> None:
        self.language = language

    @droppable.cache
    async def greet(self, who: str) -> str:
        await asyncio.sleep(0)
        return f"{self.language}:{who}"


class TestKeysThatChange:
    def test_a_method_that_changes_self(self) -> None:
        counter = Counter()
        assert [counter.step() for _ in range(4)] == [1, 2, 3, 4]
        assert Counter().step() == 1

    def test_a_key_that_cannot_be_pickled_any_more(self) -> None:
        first = Lazy()
        assert first.ask(1) == 1
        assert Lazy.ask.cache_info().currsize == 1
        second = Lazy()
        assert second.ask(1) == 1
        assert second.connection is None, "it was computed again"

    def test_an_object_as_a_key_of_get_or_create(self, cache: Cache) -> None:
        key = Key("a")

        def load() -> str:
            key.name = "b"
            return "of a"

        assert cache.get_or_create(key, load) == "of a"
        assert cache.get(Key("b")) is None
        assert cache.get(Key("a")) == "of a"

    def test_an_async_method_whose_self_changes(self) -> None:
        """The key is that of the call, not of the moment when it is awaited or has its result."""

        async def main() -> None:
            client = Client("en")
            first = asyncio.create_task(client.greet("bob"))
            await asyncio.sleep(0)
            client.language = "de"
            assert await first == "de:bob"  # the result of what was called with "en"
            assert await Client("de").greet("bob") == "de:bob"
            assert Client.greet.cache_info().currsize == 2
            second = client.greet("ann")
            client.language = "it"
            assert await second == "it:ann"
            client.language = "de"
            assert await client.greet("ann") == "it:ann"

        run(main())


class Key:
    """An object whose key is its pickle."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.name == self.name


class TestValuesOfOnesOwn:
    @pytest.mark.parametrize("value", [["a"], {"a": [1]}, [b"x" * 300_000]])
    @pytest.mark.parametrize("kept", [True, False])
    def test_each_waiter_may_change_his(self, cache: Cache, value: Any, kept: bool) -> None:
        def factory() -> Any:
            until_waiting(cache, 3)
            if not kept:
                cache.discard("k")
            return value

        results = in_threads(4, lambda _: cache.get_or_create("k", factory))
        assert [list(result) for result in results] == [list(value)] * 4
        assert len({id(result) for result in results}) == 4

    def test_a_bytearray_is_bytes_for_all(self, cache: Cache) -> None:
        made = bytearray(b"ab")

        def factory() -> bytearray:
            until_waiting(cache, 3)
            return made

        def ask(_: int) -> Any:
            result = cache.get_or_create("k", factory)
            made[0] = 0
            return result

        assert in_threads(4, ask) == [b"ab"] * 4

    def test_small_ones_that_can_never_fit(self, make_cache: Callable[..., Cache]) -> None:
        cache = make_cache(max_bytes=100)

        def factory() -> list[str]:
            until_waiting(cache, 3)
            return ["a" * 200]

        results = in_threads(4, lambda _: cache.get_or_create("k", factory))
        assert len({id(result) for result in results}) == 4
        assert (cache.stats().unstorable_too_large, cache.stats().refused) == (1, 0)

    def test_arrays(self, cache: Cache, numpy: Any) -> None:
        for length in (10, 5_000, 100_000):

            def factory(length: int = length) -> Any:
                until_waiting(cache, 3)
                return numpy.arange(length, dtype="f8")

            results = in_threads(4, lambda _, length=length, factory=factory: cache.get_or_create(length, factory))
            assert all((result == numpy.arange(length)).all() for result in results)
            assert not any(result.flags.writeable for result in results)
            results[0].shape = (length // 2, 2)
            assert results[1].shape == (length,)

    def test_what_cannot_be_loaded_is_shared_by_those_who_waited(self, cache: Cache) -> None:
        def factory() -> Unloadable:
            until_waiting(cache, 2)
            return Unloadable(1, 2)

        results = in_threads(3, lambda _: cache.get_or_create("k", factory))
        assert [type(result) for result in results] == [Unloadable] * 3

    def test_tasks(self, cache: Cache) -> None:
        async def factory() -> list[str]:
            while waiting(cache) < 4:
                await asyncio.sleep(0)
            return ["a"]

        async def main() -> None:
            results = await asyncio.gather(*(cache.aget_or_create("k", factory) for _ in range(4)))
            for result in results:
                result.append("mine")
            assert [len(result) for result in results] == [2] * 4

        run(main())


class Unloadable(Exception):
    """Pickles, and does not unpickle: very common."""

    def __init__(self, code: int, text: object) -> None:
        super().__init__(text)
        self.code = code


class Odd(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a}{b}")
        self.a = a


class Mark:
    """What a frame holds, to see whether it is freed."""


def noted() -> Exception:
    error = ValueError("x")
    error.add_note("a note")
    return error


class WithSlots(Exception):
    __slots__ = ("place",)
    place: int


def with_slots(place: int) -> Exception:
    error = WithSlots("x")
    error.place = place
    return error


def named_late(name: str) -> Exception:
    error = OSError(2, "x")
    error.filename = name
    return error


class TestErrors:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: ValueError("x"),
            lambda: Odd(1, 2),
            lambda: OSError(2, "no", "file"),
            lambda: ImportError("x", name="n"),
            lambda: UnicodeDecodeError("utf8", b"x", 0, 1, "why"),
            lambda: KeyError("k"),
            lambda: StopIteration(3),
            lambda: ExceptionGroup("g", [ValueError()]),
            noted,
        ],
    )
    def test_each_has_his_own_and_frames_are_freed(self, cache: Cache, make: Callable[[], Exception]) -> None:
        frames: list[weakref.ref[Mark]] = []

        def factory() -> None:
            mark = Mark()
            frames.append(weakref.ref(mark))
            until_waiting(cache, 5)
            raise make()

        def ask() -> tuple[Any, ...]:
            try:
                cache.get_or_create("k", factory)
            except Exception as error:
                if hasattr(error, "__notes__"):
                    error.add_note("mine")
                    notes.append(len(error.__notes__))
                depth = len(traceback.extract_tb(error.__traceback__))
                return type(error), str(error), error.args, getattr(error, "filename", None), depth, id(error)
            raise AssertionError

        notes: list[int] = []
        gc.collect()
        gc.disable()
        try:
            threads = [Thread(ask) for _ in range(6)]
            results = [thread.result() for thread in threads]
            del threads
            assert len({result[:4] for result in results if result[0] is not ExceptionGroup}) <= 1
            depths = sorted(result[4] for result in results)
            assert depths[1:] == [depths[1]] * 5
            assert len(frames) == 1
            assert frames[0]() is None, "kept without the garbage collector"
            assert notes in ([], [2] * 6)
        finally:
            gc.enable()

    @pytest.mark.parametrize(
        ("make", "names"),
        [
            (lambda: with_slots(5), ["place"]),
            (lambda: AttributeError("x", name="n", obj=Mark), ["name", "obj"]),
            (lambda: NameError("x", name="n"), ["name"]),
            (lambda: urllib.error.HTTPError("url", 404, "x", Message(), None), ["filename", "code", "reason", "url"]),
            (lambda: named_late("file"), ["filename", "errno"]),
            (lambda: SyntaxError("x", ("file", 1, 2, "text")), ["filename", "lineno", "text"]),
            (lambda: UnicodeDecodeError("utf8", b"x" * 1000, 500, 900, "why"), ["start", "end", "object"]),
            (lambda: BlockingIOError(11, "x", 300), ["characters_written", "errno"]),
        ],
    )
    def test_all_attributes_reach_who_waited(
        self, cache: Cache, make: Callable[[], Exception], names: list[str]
    ) -> None:
        def factory() -> None:
            until_waiting(cache, 2)
            raise make()

        def ask(_: int) -> list[Any]:
            try:
                cache.get_or_create("k", factory)
            except Exception as error:
                return [getattr(error, name) for name in names]
            raise AssertionError

        error = make()
        assert in_threads(3, ask) == [[getattr(error, name) for name in names]] * 3

    def test_waiters_errors_are_different_objects(self, cache: Cache) -> None:
        kept: list[Exception] = []

        def factory() -> None:
            until_waiting(cache, 3)
            raise Odd(1, 2)

        def ask(_: int) -> None:
            try:
                cache.get_or_create("k", factory)
            except Odd as error:
                kept.append(error)

        in_threads(4, ask)
        assert len({id(error) for error in kept}) == 4
        assert {(str(error), error.a) for error in kept if isinstance(error, Odd)} == {("12", 1)}

    def test_no_noise_in_an_event_loop(self, cache: Cache) -> None:
        seen: list[str] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: seen.append(context["message"]))
            for steps in range(12):
                go = asyncio.Event()

                async def factory(go: asyncio.Event = go) -> None:
                    await go.wait()
                    raise ValueError("boom")

                tasks = [asyncio.create_task(cache.aget_or_create("k", factory)) for _ in range(3)]
                for _ in range(5):
                    await asyncio.sleep(0)
                go.set()
                for _ in range(steps):
                    await asyncio.sleep(0)
                for task in tasks[1:]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                gc.collect()

        asyncio.run(main(), debug=True)
        assert not seen

    def test_frames_are_freed_in_tasks(self, cache: Cache) -> None:
        frames: list[weakref.ref[Mark]] = []

        async def factory() -> None:
            mark = Mark()
            frames.append(weakref.ref(mark))
            while waiting(cache) < 5:
                await asyncio.sleep(0)
            raise Odd(1, 2)

        async def ask() -> int:
            try:
                await cache.aget_or_create("k", factory)
            except Odd as error:
                return len(traceback.extract_tb(error.__traceback__))
            raise AssertionError

        async def main() -> None:
            gc.collect()
            gc.disable()
            depths = await asyncio.gather(*(ask() for _ in range(5)))
            await asyncio.sleep(0)
            assert max(depths) <= 8
            assert len(frames) == 1
            assert frames[0]() is None, "kept without the garbage collector"

        try:
            run(main())
        finally:
            gc.enable()


def own_key_in_wait_for(cache: Cache) -> Any:
    return run(nested(cache, 2, lambda task: asyncio.wait_for(task, WAIT_SECONDS)))


def own_key_in_gather(cache: Cache) -> Any:
    async def gather(task: Any) -> Any:
        return (await asyncio.gather(task, asyncio.sleep(0)))[0]

    return run(nested(cache, 2, gather))


def own_key_in_task_group(cache: Cache) -> Any:
    async def group(task: Any) -> Any:
        async with asyncio.TaskGroup() as tasks:
            made = tasks.create_task(task)
        return made.result()

    return run(nested(cache, 2, group))


async def nested(cache: Cache, depth: int, how: Callable[[Any], Any]) -> str:
    async def factory() -> str:
        return "ok" if depth == 0 else await how(nested(cache, depth - 1, how))

    return await cache.aget_or_create("k", factory)


def own_key_in_a_pool(cache: Cache) -> Any:
    def factory() -> str:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(cache.get_or_create, "k", lambda: "ok") for _ in range(4)]
            return jobs[0].result(WAIT_SECONDS)

    return cache.get_or_create("k", factory)


def own_key_in_a_thread(cache: Cache) -> Any:
    def factory() -> str:
        out: list[str] = []
        thread = threading.Thread(target=lambda: out.append(cache.get_or_create("k", lambda: "ok")), daemon=True)
        thread.start()
        thread.join()
        return out[0]

    return cache.get_or_create("k", factory)


def own_key_in_to_thread(cache: Cache) -> Any:
    async def factory() -> str:
        return await asyncio.to_thread(cache.get_or_create, "k", lambda: "ok")

    return run(cache.aget_or_create("k", factory))


def own_key_in_an_executor(cache: Cache) -> Any:
    async def inner() -> str:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, cache.get_or_create, "k", lambda: "ok")

    async def factory() -> str:
        results = await asyncio.gather(inner(), asyncio.sleep(0))
        return results[0]

    return run(cache.aget_or_create("k", factory))


async def quick() -> str:
    return "ok"


def own_key_in_asyncio_run(cache: Cache) -> Any:
    return cache.get_or_create("k", lambda: run(cache.aget_or_create("k", quick)))


def own_key_in_asyncio_run_in_a_pool(cache: Cache) -> Any:
    def factory() -> Any:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: run(cache.aget_or_create("k", quick))).result(WAIT_SECONDS)

    return cache.get_or_create("k", factory)


class TestNoDeadlock:
    @pytest.mark.parametrize(
        "program",
        [
            own_key_in_wait_for,
            own_key_in_gather,
            own_key_in_task_group,
            own_key_in_a_pool,
            own_key_in_a_thread,
            own_key_in_to_thread,
            own_key_in_an_executor,
            own_key_in_asyncio_run,
            own_key_in_asyncio_run_in_a_pool,
        ],
    )
    def test_a_factory_that_asks_for_its_own_key(self, cache: Cache, program: Callable[[Cache], Any]) -> None:
        assert Thread(program, cache).result() == "ok"
        assert not cache._flights.table

    @pytest.mark.parametrize("caches", [1, 2])
    def test_two_that_need_each_other(self, make_cache: Callable[..., Cache], caches: int) -> None:
        both = [make_cache() for _ in range(caches)]
        meet = threading.Barrier(2)

        def ask(number: int, seen: tuple[int, ...]) -> Any:
            def factory() -> Any:
                if not seen:
                    meet.wait(WAIT_SECONDS)
                return (number,) if number in seen else (number, ask(1 - number, (*seen, number)))

            return both[number % caches].get_or_create(number, factory)

        threads = [Thread(ask, number, ()) for number in range(2)]
        assert [thread.result()[0] for thread in threads] == [0, 1]

    def test_three_that_need_each_other_in_threads_tasks_and_loops(self, make_cache: Callable[..., Cache]) -> None:
        caches = [make_cache() for _ in range(6)]

        async def in_task(number: int, seen: tuple[int, ...]) -> Any:
            async def factory() -> Any:
                await asyncio.sleep(0.01)
                if number in seen:
                    return number
                further = (*seen, number)
                return (
                    number,
                    await in_task((number + 1) % 3, further),
                    await asyncio.to_thread(in_thread, (number + 2) % 3, further),
                )

            return await caches[number].aget_or_create("k", factory)

        def in_thread(number: int, seen: tuple[int, ...]) -> Any:
            def factory() -> Any:
                return number if number in seen else (number, in_thread((number + 1) % 3, (*seen, number)))

            return caches[3 + number].get_or_create("k", factory)

        async def main(number: int) -> list[Any]:
            return await asyncio.gather(*(in_task((number + i) % 3, ()) for i in range(3)))

        threads = [Thread(lambda number=number: run(main(number))) for number in range(3)]
        threads += [Thread(in_thread, number, ()) for number in range(3)]
        assert len([thread.result() for thread in threads]) == 6

    def test_patience_ends(self, make_cache: Callable[..., Cache]) -> None:
        """A worker that was there before, fed by a queue: nobody can see for whom it works."""
        import queue

        cache = make_cache(wait_seconds=0.2)
        jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
        done: queue.SimpleQueue[str] = queue.SimpleQueue()
        Thread(lambda: done.put(cache.get_or_create(jobs.get(), lambda: "ok")))

        def factory() -> str:
            jobs.put("k")
            return done.get()

        assert Thread(cache.get_or_create, "k", factory).result() == "ok"

    def test_patience_of_tasks(self, make_cache: Callable[..., Cache]) -> None:
        cache = make_cache(wait_seconds=0.1)
        go = threading.Event()
        leader = Thread(cache.get_or_create, "k", lambda: go.wait(WAIT_SECONDS) and "late")
        while not cache._flights.table:
            os.sched_yield()
        assert run(cache.aget_or_create("k", quick)) == "ok"
        go.set()
        assert leader.result() == "late"

    def test_those_who_wait_for_one_who_took_over_get_the_elders_value(self, make_cache: Callable[..., Cache]) -> None:
        cache = make_cache(wait_seconds=0.1)
        go, never = threading.Event(), threading.Event()
        elder = Thread(cache.get_or_create, "k", lambda: go.wait(WAIT_SECONDS) and "elder")
        while not cache._flights.table:
            os.sched_yield()
        (first,) = cache._flights.table.values()
        heir = Thread(cache.get_or_create, "k", lambda: never.wait(WAIT_SECONDS) and "heir")
        while first.heir is None:
            os.sched_yield()
        cache._flights.wait_seconds = WAIT_SECONDS
        waiter = Thread(cache.get_or_create, "k", lambda: "nobody")
        while not first.heir.waiters:
            os.sched_yield()
        go.set()
        assert elder.result() == waiter.result() == "elder"
        never.set()
        assert heir.result() == "heir"

    @pytest.mark.parametrize("how", ["close", "drop", "stop"])
    def test_a_loop_that_went_away(self, cache: Cache, how: str) -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        loop: Any = asyncio.new_event_loop()
        task: Any = loop.create_task(cache.aget_or_create("k", never))
        while not cache._flights.table:
            loop.run_until_complete(asyncio.sleep(0))
        waiter = Thread(cache.get_or_create, "k", lambda: "ok")
        kept = loop if how == "stop" else None
        if how == "close":
            task._log_destroy_pending = False
            loop.close()
        elif how == "drop":
            task._log_destroy_pending = False
            loop.close()
            del loop, task
            gc.collect()
        assert waiter.result() == "ok"
        cache.discard("k")
        assert run(cache.aget_or_create("k", quick)) == "ok"
        cache.discard("k")
        assert Thread(cache.get_or_create, "k", lambda: "ok").result() == "ok"
        if kept is not None:
            task.cancel()
            kept.run_until_complete(asyncio.gather(task, return_exceptions=True))
            kept.close()

    def test_an_interrupt_out_of_the_loop(self, cache: Cache) -> None:
        async def interrupted() -> None:
            await asyncio.sleep(0)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(cache.aget_or_create("k", interrupted))
        assert Thread(cache.get_or_create, "k", lambda: "ok").result() == "ok"

    def test_finalisers_that_use_the_cache(self, cache: Cache) -> None:
        asked = []

        class Node:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                asked.append(cache.get_or_create(("del", len(asked)), lambda: 1))
                cache.get_or_create("same", lambda: 1)

        def work() -> str:
            for number in range(1500):
                Node()
                cache.get_or_create(number, lambda: 1)
                cache.get_or_create("same", lambda: 2)
                if number % 10 == 0:
                    cache.discard("same")
            return "done"

        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            threads = [Thread(work) for _ in range(2)]
            assert [thread.result() for thread in threads] == ["done"] * 2
        finally:
            gc.set_threshold(*before)
        assert len(asked) > 1000


class TestCancellation:
    def test_the_first_of_two(self, cache: Cache) -> None:
        calls = []

        async def main() -> None:
            go = asyncio.Event()

            async def slow() -> int:
                calls.append(1)
                await go.wait()
                return 1

            first = asyncio.create_task(cache.aget_or_create("k", slow))
            second = asyncio.create_task(cache.aget_or_create("k", slow))
            while waiting(cache) < 2:
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            go.set()
            assert await second == 1

        run(main())
        assert len(calls) == 1

    def test_a_thread_waits_on(self, cache: Cache) -> None:
        async def main() -> None:
            go = asyncio.Event()

            async def slow() -> int:
                await go.wait()
                return 1

            first = asyncio.create_task(cache.aget_or_create("k", slow))
            await asyncio.sleep(0)
            thread = asyncio.create_task(asyncio.to_thread(cache.get_or_create, "k", lambda: 2))
            while waiting(cache) < 2:
                await asyncio.sleep(0.001)
            first.cancel()
            await asyncio.wait([first])
            go.set()
            assert await thread == 1

        run(main())

    def test_the_last_one_with_no_linger_waits_for_the_cleaning_up(self, make_cache: Callable[..., Cache]) -> None:
        cache = make_cache(linger_seconds=0)
        log = []

        async def main() -> None:
            async def slow() -> None:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    await asyncio.sleep(0)
                    log.append("cleaned up")
                    raise

            first = asyncio.create_task(cache.aget_or_create("k", slow))
            while waiting(cache) < 1:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert log == ["cleaned up"]
            assert len(asyncio.all_tasks()) == 2  # this one, and the one that bounds it
            assert not cache._flights.table

        run(main())

    def test_it_lingers_for_the_next_caller(self, cache: Cache) -> None:
        """Each caller's deadline is shorter than the work: it is done once all the same."""
        calls = []

        async def main() -> None:
            go = asyncio.Event()

            async def slow() -> int:
                calls.append(1)
                await go.wait()
                return 1

            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(cache.aget_or_create("k", slow), 0.01)
            last = asyncio.create_task(cache.aget_or_create("k", slow))
            await asyncio.sleep(0)
            go.set()
            assert await last == 1

        run(main())
        assert len(calls) == 1

    def test_it_ends_when_nobody_comes(self, make_cache: Callable[..., Cache]) -> None:
        cache = make_cache(linger_seconds=0.01)

        async def main() -> None:
            ended = asyncio.Event()

            async def slow() -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cache.aget_or_create("k", slow), 0.01)
            await ended.wait()
            await asyncio.sleep(0)
            assert not cache._flights.table

        run(main())

    def test_a_factory_that_cancels_itself(self, cache: Cache) -> None:
        async def bad() -> None:
            raise asyncio.CancelledError("mine")

        async def main() -> None:
            asked = (asyncio.create_task(cache.aget_or_create("k", bad)) for _ in range(4))
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(result) for result in results] == [asyncio.CancelledError] * 4

        run(main())

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
    def test_eager_tasks(self, cache: Cache) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
            calls = []

            async def slow() -> int:
                calls.append(1)
                await asyncio.sleep(0)
                return 1

            assert await asyncio.gather(*(cache.aget_or_create("k", slow) for _ in range(5))) == [1] * 5
            assert len(calls) == 1
            assert await cache.aget_or_create("j", quick) == "ok"

        run(main())


def in_child(check: Callable[[], bool]) -> int:
    """The exit status of a child in which check() ran; in the child it does not return."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class TestForks:
    def test_own_key_in_the_child(self, cache: Cache) -> None:
        def check() -> bool:
            other = Thread(cache.get_or_create, "k", lambda: 1)
            return bool(other.result() == 1 and cache.get_or_create("k", lambda: 2) in (1, 2))

        assert cache.get_or_create("k", lambda: in_child(check)) == 0

    def test_a_factory_that_goes_on_in_the_child(self, cache: Cache) -> None:
        """What it computes there is returned; later calls compute and keep."""
        children: list[int] = []

        def factory() -> str:
            children.append(os.fork())
            if children[0] == 0:
                signal.alarm(30)
            return "value"

        value = cache.get_or_create("k", factory)
        if children[0] == 0:
            again = cache.get_or_create("k", lambda: "again")
            kept = cache.get("k")
            os._exit(0 if value == "value" and again == kept and not cache._flights.table else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        assert cache.get("k") == "value"

    def test_keys_that_other_threads_compute(self, cache: Cache) -> None:
        go, begun = threading.Event(), threading.Barrier(3)

        def factory() -> int:
            begun.wait(WAIT_SECONDS)
            assert go.wait(WAIT_SECONDS)
            return 1

        threads = [Thread(cache.get_or_create, number, factory) for number in range(2)]
        begun.wait(WAIT_SECONDS)
        assert in_child(lambda: [cache.get_or_create(number, lambda: 2) for number in range(2)] == [2, 2]) == 0
        go.set()
        assert [thread.result() for thread in threads] == [1, 1]

    def test_a_loop_that_ran(self, cache: Cache) -> None:
        async def main() -> int:
            async def slow() -> int:
                return in_child(lambda: Thread(cache.get_or_create, "k", lambda: 1).result() == 1)

            return await cache.aget_or_create("k", slow)

        assert run(main()) == 0

    def test_forks_beside_threads(self, cache: Cache) -> None:
        stop = threading.Event()

        def work(me: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                cache.get_or_create((me, number % 500), lambda: b"z")
                if number % 700 == 0:
                    cache.clear()

        def ask_for_all() -> bool:
            return len([cache.get_or_create((me, 1), lambda: 1) for me in range(3)]) == 3

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        threads = [Thread(work, me) for me in range(3)]
        try:
            for _ in range(15):
                assert cache.get_or_create("f", lambda: in_child(ask_for_all)) == 0
                cache.discard("f")
        finally:
            stop.set()
            sys.setswitchinterval(before)
        for thread in threads:
            thread.result()


def test_a_recursive_function_reaches_as_deep_as_frames_allow() -> None:
    """Two frames a level beside its own: in Python 3.11 a limit of 1000 is reached at about 330 levels."""

    @droppable.cache
    def count(number: int) -> int:
        return 0 if number == 0 else count(number - 1) + 1

    before = sys.getrecursionlimit()
    depth = 0
    frame: Any = sys._getframe()
    while frame is not None:
        depth += 1
        frame = frame.f_back
    sys.setrecursionlimit(1000 + depth)
    try:
        assert count(300) == 300
    finally:
        sys.setrecursionlimit(before)


def test_waits_are_seconds() -> None:
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"wait_seconds must be more than 0 seconds; you gave {wrong}"):
            Cache(wait_seconds=wrong)
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match=f"linger_seconds must be 0 seconds or more; you gave {wrong}"):
            droppable.cache(linger_seconds=wrong)(len)
