"""Calls within calls, and beside them: __init__ twice at once, never, and close() in the middle of anything."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import droppable
from droppable import Cache, ClosedError
from droppable.lowlevel import CoreMemo, RawRegion

Make = Callable[..., Cache]


class Number:
    """What an argument converts to, after `before` was called."""

    def __init__(self, value: int, before: Callable[[], object]) -> None:
        self.value = value
        self.before = before

    def __index__(self) -> int:
        self.before()
        return self.value

    def __float__(self) -> float:
        self.before()
        return float(self.value)

    def __le__(self, other: int) -> bool:
        return self.value <= other


def mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


class TestInit:
    @pytest.mark.parametrize("argument", ["max_bytes", "ttl"])
    def test_within_itself(self, make_cache: Make, argument: str) -> None:
        cache = Cache.__new__(Cache)
        made: list[Any] = []

        def inner() -> None:
            cache.__init__()  # type: ignore[misc]
            cache["k"] = "inner"
            made.append(cache)

        with pytest.raises(RuntimeError, match="there already"):
            cache.__init__(**{argument: Number(1 << 30, inner)})  # type: ignore[misc]
        assert made == [cache]
        assert cache["k"] == "inner"

    def test_beside_itself(self) -> None:
        """One thread is in the middle of its arguments while the other one makes the cache."""
        cache = Cache.__new__(Cache)
        inside, done = threading.Event(), threading.Event()
        told: list[str] = []

        def slow() -> None:
            def wait() -> None:
                inside.set()
                done.wait()

            try:
                cache.__init__(ttl=Number(60, wait))  # type: ignore[misc,arg-type]
            except RuntimeError as error:
                told.append(str(error))

        thread = threading.Thread(target=slow)
        thread.start()
        inside.wait()
        cache.__init__()  # type: ignore[misc]
        cache["k"] = "v"
        done.set()
        thread.join()
        assert told == ["this cache is there already; make a new one"]
        assert cache["k"] == "v"

    def test_of_many_threads_one_makes_it(self) -> None:
        for _ in range(20):
            cache = Cache.__new__(Cache)
            begin = threading.Barrier(4)
            results: list[bool] = []

            def make(cache: Cache = cache, begin: threading.Barrier = begin, results: list[bool] = results) -> None:
                begin.wait()
                try:
                    cache.__init__()  # type: ignore[misc]
                    results.append(True)
                except RuntimeError:
                    results.append(False)

            threads = [threading.Thread(target=make) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(results) == [False, False, False, True]
            cache["k"] = 1
            assert cache["k"] == 1

    def test_nothing_is_left_of_those_that_failed(self) -> None:
        class Serializer:
            def dumps(self, value: Any, /) -> bytes:
                return b""

            def loads(self, data: bytes, /) -> Any:
                return None

        def attempt() -> list[weakref.ref[Any]]:
            cache = Cache.__new__(Cache)
            serializers = [Serializer(), Serializer()]
            inner = Number(1 << 30, lambda: Cache.__init__(cache, serializer=serializers[0]))
            with pytest.raises(RuntimeError, match="there already"):
                cache.__init__(max_bytes=inner, serializer=serializers[1])  # type: ignore[misc,arg-type]
            return [weakref.ref(one) for one in (cache, *serializers)]

        attempt()
        gc.collect()
        before = mappings()
        for _ in range(30):
            gone = attempt()
            gc.collect()
            assert [reference() for reference in gone] == [None] * 3
        assert mappings() <= before + 5  # of Python's own allocator

    def test_after_one_that_failed(self) -> None:
        cache = Cache.__new__(Cache)
        with pytest.raises(ValueError, match="ttl"):
            cache.__init__(ttl=-1)  # type: ignore[misc]
        with pytest.raises(ClosedError, match="never made"):
            cache["k"]
        with pytest.raises(ValueError, match=r"shards|making a cache"):
            cache.__init__(layout=droppable.lowlevel.Layout(shards=3))  # type: ignore[misc]
        with pytest.raises(ClosedError, match="never made"):
            cache["k"]
        cache.__init__()  # type: ignore[misc]
        cache["k"] = 1
        assert cache["k"] == 1

    def test_of_a_region_and_a_memo_change_nothing(self, cache: Cache) -> None:
        region = RawRegion(65536)
        region.write(0, b"kept")
        region.__init__(131072)  # type: ignore[misc]
        assert (len(region), region.read(0, 4)) == (65536, b"kept")
        memo = droppable.cache(lambda number: number + 1)
        assert memo(1) == 2
        CoreMemo.__init__(memo, cache, print, print, None, True)  # type: ignore[arg-type]
        assert (memo(1), memo.cache_info().hits) == (2, 1)

    def test_arguments_of_a_region_that_call_back(self) -> None:
        made: list[RawRegion] = []
        region = RawRegion(Number(65536, lambda: made.append(RawRegion(65536))))  # type: ignore[arg-type]
        region.write(0, b"outer")
        made[0].write(0, b"inner")
        assert (region.read(0, 5), made[0].read(0, 5)) == (b"outer", b"inner")


class TestNeverMade:
    def test_every_method_says_so(self) -> None:
        cache = Cache.__new__(Cache)
        calls: dict[str, Callable[[], object]] = {
            "get": lambda: cache.get("k"),
            "[]": lambda: cache["k"],
            "set": lambda: cache.set("k", 1),
            "[]=": lambda: cache.__setitem__("k", 1),
            "del": lambda: cache.__delitem__("k"),
            "add": lambda: cache.add("k", 1),
            "pop": lambda: cache.pop("k", None),
            "discard": lambda: cache.discard("k"),
            "in": lambda: "k" in cache,
            "len": lambda: len(cache),
            "iter": lambda: list(cache),
            "clear": cache.clear,
            "view": lambda: cache.view("k"),
            "get_or_create": lambda: cache.get_or_create("k", int),
            "_settle": cache._settle,
            "_drop": lambda: cache._drop(1.0, 1),
            "_advance_clock": lambda: cache._advance_clock(1),
            "_walk": lambda: cache._walk(0),
            "_raw": lambda: cache._raw("k"),
        }
        for name, call in calls.items():
            with pytest.raises(ClosedError, match="never made"):
                pytest.fail(f"{name} gave {call()!r}")
        assert "Cache" in repr(cache)
        cache.close()


class Closing:
    """Closes a cache at one of the moments when a call runs Python code."""

    def __init__(self, cache: Cache, when: str) -> None:
        self.cache, self.when = cache, when

    def act(self, when: str) -> None:
        if self.when == when:
            self.cache.close()

    def __hash__(self) -> int:
        self.act("hash")
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Closing)

    def __reduce__(self) -> Any:
        self.act("pickle")
        return closing_again, (id(self.cache), self.when)


caches: weakref.WeakValueDictionary[int, Cache] = weakref.WeakValueDictionary()


def closing_again(number: int, when: str) -> Closing:
    found = Closing(caches[number], when)
    found.act("unpickle")
    return found


class TestCloseInTheMiddle:
    @pytest.mark.parametrize("when", ["hash", "pickle"])
    def test_by_a_key(self, make_cache: Make, when: str) -> None:
        calls: list[Callable[[Cache, Any], object]] = [
            lambda cache, key: cache.get(key),
            lambda cache, key: cache[key],
            lambda cache, key: cache.set(key, 1),
            lambda cache, key: cache.add(key, 1),
            lambda cache, key: cache.pop(key),
            lambda cache, key: cache.discard(key),
            lambda cache, key: key in cache,
            lambda cache, key: cache.view(key),
        ]
        for number, call in enumerate(calls):
            cache = make_cache()
            cache["other"] = 1
            with pytest.raises(ClosedError):
                pytest.fail(f"call {number} gave {call(cache, Closing(cache, when))!r}")

    def test_by_a_value_that_is_stored(self, make_cache: Make) -> None:
        cache = make_cache()
        with pytest.raises(ClosedError):
            cache["k"] = [Closing(cache, "pickle"), bytes(300_000)]

    def test_by_a_value_that_is_loaded(self, make_cache: Make) -> None:
        cache = make_cache()
        caches[id(cache)] = cache
        cache["k"] = [Closing(cache, "unpickle"), bytes(300_000)]
        assert cache["k"][1] == bytes(300_000)  # it was there when it was looked up
        with pytest.raises(ClosedError):
            cache["k"]

    def test_by_a_key_that_is_walked_over(self, make_cache: Make) -> None:
        cache = make_cache()
        caches[id(cache)] = cache
        for number in range(100):
            cache[number] = number
            cache[(number, Closing(cache, "unpickle"))] = number
        with pytest.raises(ClosedError):
            list(cache)

    def test_by_numbers(self, make_cache: Make) -> None:
        for call in (
            lambda cache, number: cache.set("k", 1, ttl=number),
            lambda cache, number: cache.set("k", 1, cost=number),
            lambda cache, number: cache.add("k", 1, number),
        ):
            cache = make_cache()
            with pytest.raises(ClosedError):
                call(cache, Number(1, cache.close))

    def test_by_the_last_reference_in_another_thread(self, make_cache: Make, numbers: Any) -> None:
        for _ in range(20):
            cache = make_cache()
            cache["k"] = numbers
            held = cache["k"]
            box = [cache]
            del cache
            thread = threading.Thread(target=box.clear)
            thread.start()
            assert held.sum() == numbers.sum()
            thread.join()
            assert held.sum() == numbers.sum()

    def test_while_threads_call_everything(self, make_cache: Make, numbers: Any) -> None:
        for _ in range(10):
            cache = make_cache()
            begin = threading.Barrier(4)
            wrong: list[BaseException] = []

            def work(number: int, cache: Cache = cache, begin: Any = begin, wrong: Any = wrong) -> None:
                begin.wait()
                try:
                    for round in range(10_000):
                        cache.set((number, round), numbers)
                        got = cache.get((number, round))
                        assert got is None or got.size == numbers.size
                        cache.pop((number, round - 1), None)
                        next(iter(cache), None)
                except ClosedError:
                    return
                except BaseException as error:
                    wrong.append(error)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
            for thread in threads:
                thread.start()
            begin.wait()
            cache["k"] = numbers
            cache.close()
            for thread in threads:
                thread.join()
            assert wrong == []


class TestHolds:
    def test_the_end_counts_every_buffer_that_was_given_out(self) -> None:
        """Views that are asked for while the hold ends: each is counted, or refused."""
        region = droppable.Region(65536)
        for _ in range(50):
            hold = region.hold("read", 0, 4096)
            begin = threading.Barrier(4)
            views: list[memoryview] = []

            def look(hold: Any = hold, begin: Any = begin, views: Any = views) -> None:
                begin.wait()
                with suppress(BufferError):
                    while True:
                        views.append(memoryview(hold))

            threads = [threading.Thread(target=look) for _ in range(3)]
            for thread in threads:
                thread.start()
            begin.wait()
            counted = hold.finish()
            for thread in threads:
                thread.join()
            assert counted == len(views)
            assert hold.finish() == counted
            views.clear()
            assert hold.finish() == 0
        region.close()

    def test_a_block_is_entered_by_one_thread_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second one comes while the first one is being let in."""
        region = droppable.Region(65536)
        block = region.reading(0, 4096)
        holds: list[Any] = []
        hold = droppable.Region.hold

        def hold_slowly(*arguments: Any) -> Any:
            holds.append(hold(*arguments))
            with pytest.raises(RuntimeError, match="entered already"):
                block.__enter__()
            return holds[-1]

        monkeypatch.setattr(droppable.Region, "hold", hold_slowly)
        for _ in range(2):
            with block as memory:
                assert len(memory) == 4096
        assert len(holds) == 2
        monkeypatch.undo()
        with pytest.raises(ValueError, match="do not lie"):
            region.reading(0, 1 << 20).__enter__()
        region.close()
