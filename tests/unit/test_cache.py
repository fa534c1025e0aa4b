"""droppable.Cache: every method, its bounds, and every kind of bad input."""

from __future__ import annotations

import ctypes
import dataclasses
import io
import threading
from collections.abc import Callable
from typing import Any

import pytest

import droppable
from droppable import Cache, ClosedError, DroppableError, UnsupportedError, ValueTooLargeError
from droppable.lowlevel import Layout, page_size_bytes, probe
from droppable.testing import advance_clock, drop, settle

PAGE = page_size_bytes()
NARROW = Layout(shards=1, segment_bytes=32768, span_bytes=262144)
MISS = object()

Make = Callable[..., Cache]


class TestFace:
    def test_a_mapping(self, cache: Cache) -> None:
        assert len(cache) == 0
        cache["a"] = 1
        cache["b"] = b"2"
        assert cache["a"] == 1
        assert cache["b"] == b"2"
        assert ("a" in cache, "c" in cache) == (True, False)
        assert len(cache) == 2
        assert sorted(cache) == ["a", "b"]
        del cache["a"]
        assert "a" not in cache
        with pytest.raises(KeyError, match="'a'"):
            cache["a"]
        with pytest.raises(KeyError, match="'a'"):
            del cache["a"]

    def test_get_and_its_default(self, cache: Cache) -> None:
        assert cache.get("k") is None
        assert cache.get("k", MISS) is MISS
        assert cache.get("k", default=5) == 5
        cache["k"] = None
        assert cache.get("k", MISS) is None

    def test_set_says_whether_it_was_stored(self, cache: Cache) -> None:
        assert cache.set("k", "v") is True
        assert cache.set(key="k", value="w", ttl=10, cost=0.5) is True
        assert cache["k"] == "w"

    def test_add_keeps_what_is_there(self, cache: Cache) -> None:
        assert cache.add("k", 1) is True
        assert cache.add("k", 2) is False
        assert cache["k"] == 1
        cache.discard("k")
        assert cache.add("k", 3, ttl=5) is True
        advance_clock(cache, 6)
        assert cache.add("k", 4) is True
        assert cache["k"] == 4

    def test_add_for_large_values(self, cache: Cache) -> None:
        assert cache.add("k", b"1" * 100_000) is True
        assert cache.add("k", b"2" * 100_000) is False
        assert cache["k"] == b"1" * 100_000

    def test_pop(self, cache: Cache) -> None:
        cache["k"] = [1]
        assert cache.pop("k") == [1]
        assert "k" not in cache
        assert cache.pop("k", 5) == 5
        assert cache.pop("k", None) is None
        with pytest.raises(KeyError, match="'k'"):
            cache.pop("k")

    def test_discard(self, cache: Cache) -> None:
        cache["k"] = 1
        assert cache.discard("k") is True
        assert cache.discard("k") is False

    def test_iteration_sees_every_key_once(self, cache: Cache) -> None:
        keys = [*range(3000), *(f"key {number}" for number in range(3000)), (1, "a"), b"b", None, 2.5]
        for key in keys:
            cache[key] = b"v"
        seen = list(cache)
        assert len(seen) == len(keys)
        assert set(seen) == set(keys)

    def test_iteration_while_keys_come_and_go(self, cache: Cache) -> None:
        for key in range(2000):
            cache[key] = key
        seen = set()
        for key in cache:
            seen.add(key)
            cache.discard(key)
            cache[key + 10_000] = key
            if len(seen) > 5000:
                break
        assert seen >= set(range(2000)) or len(seen) > 1000

    def test_clear(self, cache: Cache) -> None:
        for key in range(1000):
            cache[key] = b"v" * key * 10
        cache.clear()
        assert (len(cache), list(cache)) == (0, [])
        assert cache.stats().stored_bytes == 0
        cache[1] = 2
        assert cache[1] == 2

    def test_a_view(self, cache: Cache) -> None:
        for size in (0, 10, PAGE - 1, PAGE, 100_000, 3_000_000):
            data = bytes(range(1, 251)) * (size // 250 + 1)
            cache["k"] = data[:size]
            with cache.view("k") as memory:
                assert memory == data[:size]
                assert (memory.readonly, memory.format, memory.itemsize) == (True, "B", 1)
            with pytest.raises(ValueError, match="released"):
                bytes(memory)

    def test_a_view_of_an_array_shows_its_elements(self, cache: Cache, numpy: Any) -> None:
        array = numpy.arange(3000, dtype=">i4").reshape(3, 1000)
        cache["c"] = array
        cache["f"] = numpy.asfortranarray(array)
        with cache.view("c") as memory:
            assert memory == array.tobytes()
        with cache.view("f") as memory:
            assert memory == array.T.tobytes()

    def test_a_view_of_something_else(self, cache: Cache, numpy: Any) -> None:
        cache["str"] = "text"
        cache["dict"] = {"a": numpy.zeros(10_000)}
        for key in ("str", "dict"):
            with pytest.raises(TypeError, match=r"neither bytes nor an array; use get\(\)"):
                cache.view(key)
        with pytest.raises(KeyError, match="nobody"):
            cache.view("nobody")
        assert cache.stats().pinned_bytes == 0

    def test_repr(self, cache: Cache) -> None:
        cache["k"] = b"v" * 1000
        assert repr(cache).startswith("<droppable.Cache: 1 entries, 1")
        cache.close()
        assert repr(cache) == "<droppable.Cache: closed>"

    def test_a_subclass(self, backing: str) -> None:
        class Mine(Cache):
            extra = 5

        with Mine(backing=backing) as mine:  # type: ignore[arg-type]
            mine["k"] = "v"
            assert (mine["k"], mine.extra) == ("v", 5)

    def test_max_bytes_is_told(self, make_cache: Make) -> None:
        assert make_cache().max_bytes is None
        assert make_cache(max_bytes=1 << 20).max_bytes == 1 << 20


class TestStats:
    def test_hits_and_misses_by_cause(self, make_cache: Make) -> None:
        cache = make_cache(layout=NARROW)
        cache["here"] = 1
        cache.set("short", 2, ttl=10)
        assert cache["here"] == 1
        assert cache.get("never") is None
        advance_clock(cache, 11)
        assert cache.get("short") is None
        before = cache.stats()
        assert (before.hits, before.misses_absent, before.misses_expired) == (1, 1, 1)
        drop(cache)
        assert cache.get("here") is None
        after = cache.stats()
        assert after.misses_dropped == 1
        assert after.misses == after.misses_absent + after.misses_expired + after.misses_evicted + after.misses_dropped
        assert after.misses == 3
        for number in range(100):  # through the span, and round again
            cache[number] = bytes(20_000)
            cache[number] = b"x" * 20_000
        assert cache.stats().evicted > 0
        for number in range(100):
            cache.get(number)
        assert cache.stats().misses_evicted > 0  # those of late; an older one's slot has been used for others

    def test_contains_counts_nothing(self, cache: Cache) -> None:
        cache["k"] = 1
        assert "k" in cache
        assert "l" not in cache
        assert (cache.stats().hits, cache.stats().misses) == (0, 0)

    def test_sets_deletes_entries_and_bytes(self, cache: Cache) -> None:
        for key in range(10):
            cache[key] = b"x" * 5000
        cache[0] = b"y" * 5000
        del cache[1]
        stats = cache.stats()
        assert (stats.sets, stats.deletes, stats.entries) == (11, 1, 9)
        assert 9 * 5000 < stats.stored_bytes < 9 * 5000 * 1.1
        assert stats.mapped_bytes >= stats.stored_bytes
        for key in list(cache):
            del cache[key]
        assert (cache.stats().entries, cache.stats().stored_bytes) == (0, 0)

    def test_each_set_is_in_one_count(self, cache: Cache) -> None:
        for key in range(3000):
            cache[key] = b"x" * (key % 9000)
        for key in range(0, 3000, 7):
            cache[key] = b"again"
        for key in range(0, 3000, 11):
            cache.pop(key, None)
        cache.set("soon", b"gone", ttl=1e-9)
        advance_clock(cache, 1)  # the clock is a coarse one: it may not have moved since
        for share, clears in ((0.3, False), (1.0, False), (0.3, True)):
            for key in range(5000, 7000):
                cache[key] = b"x" * 600
            drop(cache, share, seed=1)
            if clears:
                cache.clear()
                cache["k"] = b"v"
            there = {key for key in ["soon", "k", *range(7000)] if cache.get(key) is not None}
            there = {key for key in there if key in cache}
            stats = cache.stats()
            assert len(cache) == stats.entries == len(there)
            assert set(cache) == there
            assert stats.sets == (
                stats.entries
                + stats.deletes
                + stats.evicted
                + stats.expired
                + stats.replaced
                + stats.cleared
                + stats.dropped
            )
        assert cache.stats().cleared <= 2000

    def test_pinned_bytes(self, backing: str, cache: Cache, numpy: Any) -> None:
        cache["k"] = numpy.ones(100_000)
        array = cache["k"]
        again = cache["k"][5:10]
        expected = -(-800_000 // PAGE) * PAGE if backing == "lazyfree" else 0
        assert cache.stats().pinned_bytes == expected
        del array
        assert cache.stats().pinned_bytes == expected
        del again
        assert cache.stats().pinned_bytes == 0

    def test_frozen(self, cache: Cache) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            cache.stats().hits = 5  # type: ignore[misc]


class TestExpiry:
    def test_of_one_entry_and_of_all(self, make_cache: Make) -> None:
        cache = make_cache(ttl=100)
        cache["own"] = 1
        cache.set("short", 2, ttl=10)
        cache.set("long", b"3" * 100_000, ttl=1000)
        advance_clock(cache, 11)
        assert [cache.get(key) for key in ("own", "short")] == [1, None]
        advance_clock(cache, 100)
        assert cache.get("own") is None
        assert cache["long"] == b"3" * 100_000
        advance_clock(cache, 1000)
        assert "long" not in cache
        assert list(cache) == []

    def test_the_last_set_counts(self, cache: Cache) -> None:
        cache.set("k", 1, ttl=10)
        cache.set("k", 2, ttl=1000)
        advance_clock(cache, 20)
        assert cache["k"] == 2
        cache["k"] = 3  # no ttl: for ever
        advance_clock(cache, 1e9)
        assert cache["k"] == 3

    @pytest.mark.parametrize("ttl", [0, -1, -0.5, float("nan"), float("-inf")])
    def test_not_a_time(self, cache: Cache, ttl: float) -> None:
        cache["k"] = 1
        for call in (cache.set, cache.add):
            with pytest.raises(ValueError, match="ttl must be more than 0 seconds; you gave"):
                call("k", 2, ttl=ttl)
        assert cache["k"] == 1
        with pytest.raises(ValueError, match="ttl must be more than 0"):
            Cache(ttl=ttl)

    def test_a_miss_is_expired_also_where_the_memory_was_given_back(self, make_cache: Make) -> None:
        cache = make_cache(ttl=5)
        for number in range(200):
            cache[number] = b"x" * 3000
        advance_clock(cache, 10)
        assert len(cache) == 0  # this looks for what expired
        assert not any(number in cache for number in range(100))
        assert all(cache.get(number) is None for number in range(100, 200))
        stats = cache.stats()
        assert stats.expired == 200
        assert (stats.misses_expired, stats.misses_evicted, stats.misses_dropped) == (100, 0, 0)

    def test_not_a_number(self, cache: Cache) -> None:
        for name in ("ttl", "cost"):
            for call in (cache.set, cache.add):
                with pytest.raises(TypeError, match=f"{name} must be seconds .*; you gave 'soon'"):
                    call("k", 1, **{name: "soon"})  # type: ignore[arg-type]
        assert "k" not in cache
        with pytest.raises(TypeError, match=r"ttl must be seconds .*; you gave \[\]"):
            Cache(ttl=[])  # type: ignore[arg-type]
        for name in ("wait_seconds", "linger_seconds"):
            with pytest.raises(TypeError, match=f"{name} must be seconds .* you gave None"):
                Cache(**{name: None})  # type: ignore[arg-type]

    @pytest.mark.parametrize("ttl", [float("inf"), 1e300, 1e-300, 10**15])
    def test_extremes(self, cache: Cache, ttl: float) -> None:
        assert cache.set("k", 1, ttl=ttl) is True
        assert cache.get("k", MISS) in (1, MISS)
        assert "k" in cache or ttl < 1


class TestMaxBytes:
    @pytest.mark.parametrize("max_bytes", [100_000, 1 << 20, 16 << 20])
    def test_it_is_kept(self, make_cache: Make, max_bytes: int) -> None:
        cache = make_cache(max_bytes=max_bytes)
        for number in range(3 * max_bytes // 1000):
            cache[number] = b"x" * 1000
            if number % 1000 == 0:
                assert cache.stats().stored_bytes <= max_bytes
        stats = cache.stats()
        assert max_bytes * 0.5 < stats.stored_bytes <= max_bytes
        assert stats.evicted > 0
        assert cache.get(3 * max_bytes // 1000 - 1) == b"x" * 1000

    def test_what_is_used_stays(self, make_cache: Make) -> None:
        cache = make_cache(max_bytes=1 << 20)
        cache["used"] = "used"
        for number in range(10_000):
            cache[number] = b"x" * 1000
            assert cache.get("used") == "used"

    def test_too_large_for_it(self, make_cache: Make, numpy: Any) -> None:
        cache = make_cache(max_bytes=100_000)
        cache["k"] = "old"
        for value in (b"x" * 100_001, numpy.zeros(20_000), "x" * 200_000, {"a": bytes(100_001)}):
            for call in (cache.set, cache.add):
                with pytest.raises(ValueTooLargeError, match="raise max_bytes, or store it in parts"):
                    call("large", value)
        assert cache["k"] == "old"
        assert "large" not in cache
        cache["x" * 200_000] = 1  # a long key is not in the way: its digest is stored
        assert cache["x" * 200_000] == 1

    @pytest.mark.parametrize("max_bytes", [0, -1])
    def test_out_of_range(self, max_bytes: int) -> None:
        with pytest.raises(ValueError, match=r"max_bytes must be a size of more than 0 bytes .*, or None; you gave"):
            Cache(max_bytes=max_bytes)

    @pytest.mark.parametrize("max_bytes", [1 << 64, (1 << 64) + 4096, 1 << 80])
    def test_more_than_64_bits_hold(self, max_bytes: int) -> None:
        with pytest.raises(ValueError, match=f"max_bytes must be from 0 to {2**64 - 1}; you gave {max_bytes}"):
            Cache(max_bytes=max_bytes)
        with pytest.raises(ValueError, match=f"span_bytes must be from 0 to {2**64 - 1}; you gave {max_bytes}"):
            Cache(layout=Layout(span_bytes=max_bytes))

    def test_more_than_there_is(self, make_cache: Make) -> None:
        cache = make_cache(max_bytes=(1 << 64) - 1)
        cache["k"] = b"v" * 100_000
        assert cache["k"] == b"v" * 100_000


class TestBadInput:
    def test_words_that_are_not_known(self) -> None:
        with pytest.raises(ValueError, match="backing must be 'auto', 'lazyfree' or 'droppable'; you gave 'swap'"):
            Cache(backing="swap")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="fork must be 'wipe' or 'share'; you gave 'keep'"):
            Cache(fork="keep")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="fork='share' needs backing='lazyfree'"):
            Cache(backing="droppable", fork="share")
        with pytest.raises(TypeError):
            Cache(size=5)  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        "layout",
        [
            Layout(shards=3),
            Layout(shards=128),
            Layout(shards=(1 << 32) + 4),
            Layout(shards=-1),
            Layout(segment_bytes=12345),
            Layout(segment_bytes=1 << 30),
            Layout(segment_bytes=(1 << 64) + (1 << 20)),
        ],
        ids=str,
    )
    def test_layouts(self, layout: Layout) -> None:
        with pytest.raises(ValueError):
            Cache(layout=layout)

    @pytest.mark.parametrize("segment_bytes", [0, 1 << 16])
    def test_shards_that_max_bytes_has_no_room_for(self, segment_bytes: int) -> None:
        layout = Layout(shards=4, segment_bytes=segment_bytes)
        with pytest.raises(ValueError, match=r"max_bytes.* 4 \* shards \* segment_bytes .* shards=4, .*=400000$"):
            Cache(max_bytes=400_000, layout=layout)
        with Cache(max_bytes=16 << 16, layout=layout) as cache:
            for i in range(16_000):
                cache.set(i, bytes(100))
            assert len(cache) * 100 > cache.max_bytes / 4

    def test_a_kernel_without_the_backing(self) -> None:
        if probe("droppable")[0]:
            pytest.skip("this kernel has MAP_DROPPABLE; kernels before 6.11 take this test")
        with pytest.raises(UnsupportedError, match="this kernel does not offer it") as caught:
            Cache(backing="droppable")
        assert isinstance(caught.value, OSError)
        with pytest.raises(UnsupportedError):
            droppable.cache(backing="droppable")(len)

    def test_arguments(self, cache: Cache) -> None:
        with pytest.raises(TypeError, match=r"get\(\) missing required argument: 'key'"):
            cache.get()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"set\(\) missing required argument: 'value'"):
            cache.set("k")  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="unexpected keyword argument 'timeout'"):
            cache.set("k", 1, timeout=5)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="multiple values for argument 'key'"):
            cache.get("k", key="k")  # type: ignore[misc]
        with pytest.raises(TypeError, match="at most 2 arguments"):
            cache.get("k", 1, 2)  # type: ignore[call-arg]

    @pytest.mark.parametrize("cost", [-1, float("nan")])
    def test_cost(self, cache: Cache, cost: float) -> None:
        with pytest.raises(ValueError, match="cost must be 0 seconds or more; you gave"):
            cache.set("k", 1, cost=cost)
        assert cache.set("k", 1, cost=0) is True
        assert cache.set("k", 1, cost=float("inf")) is True

    def test_closed(self, cache: Cache) -> None:
        cache["k"] = 1
        cache.close()
        cache.close()
        calls: list[Callable[[], Any]] = [
            lambda: cache["k"],
            lambda: cache.__setitem__("k", 1),
            lambda: cache.__delitem__("k"),
            lambda: "k" in cache,
            lambda: list(cache),
            lambda: cache.get("k"),
            lambda: cache.set("k", 1),
            lambda: cache.set("k", b"x" * 1_000_000),
            lambda: cache.add("k", 1),
            lambda: cache.pop("k", None),
            lambda: cache.discard("k"),
            lambda: cache.view("k"),
            lambda: cache.get_or_create("k", lambda: 1),
            lambda: cache.clear(),
            lambda: settle(cache),
            lambda: drop(cache),
        ]
        for number, call in enumerate(calls):
            with pytest.raises(ClosedError, match="is closed: your code called close"):
                pytest.fail(f"call {number} gave {call()!r}")
        assert issubclass(ClosedError, DroppableError | ValueError)
        assert cache._counts()["entries"] == 0

    def test_closed_by_the_block(self, make_cache: Make) -> None:
        with make_cache() as cache:
            cache["k"] = 1
        with pytest.raises(ClosedError):
            cache.get("k")

    def test_made_twice(self, cache: Cache) -> None:
        cache["k"] = 1
        with pytest.raises(RuntimeError, match="make a new one"):
            cache.__init__()  # type: ignore[misc]
        assert cache["k"] == 1

    def test_never_made(self) -> None:
        cache = Cache.__new__(Cache)
        with pytest.raises(ClosedError):
            cache.get("k")
        with pytest.raises(ClosedError):
            cache["k"] = 1


class TestPins:
    """What is held, and what becomes of its key and its cache meanwhile."""

    @pytest.mark.parametrize("what", ["delete", "overwrite", "clear", "close", "drop", "expire", "pop"])
    def test_an_array_stays_whatever_happens(self, make_cache: Make, what: str, numbers: Any) -> None:
        cache = make_cache()
        cache.set("k", numbers, ttl=1000)
        held = cache["k"]
        part = cache["k"][5::1000]
        match what:
            case "delete":
                del cache["k"]
            case "overwrite":
                for number in range(5):
                    cache["k"] = numbers + number + 1
            case "clear":
                cache.clear()
            case "close":
                cache.close()
            case "drop":
                drop(cache)
            case "expire":
                advance_clock(cache, 2000)
                assert cache.get("k") is None
            case "pop":
                assert (cache.pop("k") == numbers).all()
        if what != "close":
            for number in range(20):  # whoever takes the pages next would write to them
                cache[number] = numbers + number
            drop(cache, 0.5, seed=1)
        assert (held == numbers).all()
        assert (part == numbers[5::1000]).all()
        del held, part
        counts = cache._counts()
        assert counts["pinned_bytes"] == 0
        if what == "close":
            assert counts["mapped_bytes"] == 0

    def test_the_memory_comes_back(self, make_cache: Make, numbers: Any) -> None:
        cache = make_cache()
        cache["k"] = numbers
        held = cache["k"]
        del cache["k"]
        assert cache.stats().stored_bytes == 0
        del held
        assert drop(cache).resident_pages < len(numbers) * 8 // PAGE

    def test_a_view_outlives_its_cache(self, make_cache: Make) -> None:
        cache = make_cache()
        cache["k"] = b"v" * 1_000_000
        with cache.view("k") as memory:
            cache.close()
            assert memory == b"v" * 1_000_000
            del cache
            assert memory == b"v" * 1_000_000

    def test_an_array_made_from_a_view_outlives_the_block(self, make_cache: Make, numpy: Any, numbers: Any) -> None:
        cache = make_cache()
        cache["k"] = numbers
        with cache.view("k") as memory:
            array = numpy.frombuffer(memory)
        drop(cache)
        assert (array == numbers).all()
        del array, memory
        assert cache.stats().pinned_bytes == 0

    def test_nobody_may_write(self, make_cache: Make, numpy: Any, numbers: Any) -> None:
        cache = make_cache()
        for value in (b"v" * 100, b"v" * 100_000):
            cache["bytes"] = value
            with cache.view("bytes") as memory:
                with pytest.raises(TypeError, match="read-only"):
                    memory[0] = 1
                with pytest.raises(TypeError, match=r"read-only|not writable"):
                    ctypes.c_char.from_buffer(memory)
                array = numpy.frombuffer(memory, "u1")
                with pytest.raises(ValueError, match="WRITEABLE"):
                    array.flags.writeable = True
                with pytest.raises((BufferError, ValueError, TypeError)):
                    numpy.ndarray(10, "u1", memory)[0] = 1
        for value in (numbers[:5], numbers):
            cache["array"] = value
            array = cache["array"]
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 5
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
            with pytest.raises(ValueError, match="read-only"):
                array += 1
            copy = array.copy()
            copy[0] = -1
            assert cache["array"][0] == 0

    def test_no_call_writes_through_the_pin(self, cache: Cache, numbers: Any) -> None:
        cache["k"] = numbers
        owner = cache["k"].base
        with pytest.raises(TypeError, match="read-write"):
            io.BytesIO(b"x" * 100).readinto(owner)
        with pytest.raises(TypeError, match="not writable"):
            (ctypes.c_char * 8).from_buffer(owner)
        assert memoryview(owner).readonly
        assert (cache["k"] == numbers).all()

    def test_threads_share_a_pin(self, make_cache: Make, numbers: Any) -> None:
        cache = make_cache()
        cache["k"] = numbers
        start = threading.Barrier(4)
        wrong = []

        def hold() -> None:
            start.wait()
            for _ in range(200):
                array = cache.get("k")
                if array is None:
                    cache["k"] = numbers
                elif array[-1] != 99_999 or array.sum() != numbers.sum():
                    wrong.append(array)

        def trouble() -> None:
            start.wait()
            for number in range(100):
                drop(cache, 0.3, seed=number)
                cache.discard("k")

        threads = [threading.Thread(target=target) for target in (hold, hold, hold, trouble)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert cache.stats().pinned_bytes == 0


def test_one_of_several_adders_wins(cache: Cache) -> None:
    for size in (10, 100_000):
        start = threading.Barrier(4)
        won: list[int] = []

        def add(me: int, size: int = size, start: threading.Barrier = start, won: list[int] = won) -> None:
            start.wait()
            if cache.add(size, bytes([me]) * size):
                won.append(me)

        threads = [threading.Thread(target=add, args=(me,)) for me in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert cache[size] == bytes(won) * size


def test_pop_gives_each_value_to_one(cache: Cache) -> None:
    cache_count, got = 2000, []
    for number in range(cache_count):
        cache[number] = number
    start = threading.Barrier(4)

    def take() -> None:
        start.wait()
        mine = [cache.pop(number, None) for number in range(cache_count)]
        got.extend(value for value in mine if value is not None)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(cache_count))
    assert len(cache) == 0


def test_close_while_others_use_it(make_cache: Make, numpy: Any) -> None:
    for _ in range(20):
        cache = make_cache(layout=Layout(2, 1 << 16, 8 << 20))
        start = threading.Barrier(4)
        failures: list[BaseException] = []

        def use(cache: Cache = cache, start: threading.Barrier = start, failures: list[Any] = failures) -> None:
            data = numpy.ones(50_000, "u1")
            start.wait()
            try:
                while True:
                    cache["bytes"] = b"b" * 300_000
                    cache["array"] = data
                    array = cache.get("array", data)
                    text = cache.get("bytes", b"b")
                    assert array.all()
                    assert text.count(b"b") == len(text)
            except ClosedError:
                pass
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait()
        while cache.stats().sets < 50:
            pass
        cache.close()
        for thread in threads:
            thread.join()
        assert not failures
        assert cache._counts()["mapped_bytes"] == 0


class TestSerializer:
    class Upper:
        def dumps(self, value: Any, /) -> bytes:
            if isinstance(value, set):
                raise TypeError("no sets, please")
            return repr(value).upper().encode()

        def loads(self, data: bytes, /) -> Any:
            if b"BAD" in data:
                raise ValueError("cannot read it")
            return data.decode()

    def test_it_takes_what_has_no_form_of_its_own(self, make_cache: Make, numpy: Any) -> None:
        cache = make_cache(serializer=self.Upper())
        cache["list"] = ["a"]
        cache["long"] = ["a" * 100_000]
        assert cache["list"] == "['A']"
        assert cache["long"] == "['" + "A" * 100_000 + "']"
        cache["bytes"] = b"b"
        cache["str"] = "s"
        cache["array"] = numpy.arange(10_000)
        assert (cache["bytes"], cache["str"], cache["array"][-1]) == (b"b", "s", 9999)

    def test_its_errors_are_the_callers(self, make_cache: Make) -> None:
        cache = make_cache(serializer=self.Upper())
        with pytest.raises(TypeError, match="no sets, please"):
            cache["k"] = {1}
        assert "k" not in cache
        cache["k"] = ["bad"]
        assert cache.get("k") is None  # what does not load is a miss
        assert "k" not in cache
        cache["k"] = ["good"]
        assert cache["k"] == "['GOOD']"

    def test_it_may_give_text(self, make_cache: Make) -> None:
        import json

        cache = make_cache(serializer=json)
        cache["k"] = {"name": "Ad\u00e4"}
        assert cache["k"] == {"name": "Ad\u00e4"}
        assert cache.get_or_create("made", lambda: [1, None]) == cache["made"] == [1, None]

    def test_it_may_give_any_buffer(self, make_cache: Make) -> None:
        class Buffers:
            def dumps(self, value: Any, /) -> Any:
                return value(repr("it").encode())

            def loads(self, data: bytes, /) -> Any:
                return data

        cache = make_cache(serializer=Buffers())
        for kind in (bytearray, memoryview):
            cache["k"] = kind
            assert cache["k"] == b"'it'"

    @pytest.mark.parametrize("given", [None, 5, ["bytes"]])
    def test_it_must_give_bytes(self, make_cache: Make, given: Any) -> None:
        class Wrong:
            def dumps(self, value: Any, /) -> Any:
                return given

            def loads(self, data: bytes, /) -> Any:
                raise AssertionError("there is nothing to load")

        cache = make_cache(serializer=Wrong())
        said = rf"serializer\.dumps\(\) must return bytes or str; yours has returned one of type {type(given).__name__}"
        for store in (lambda: cache.set("k", [1]), lambda: cache.get_or_create("k", lambda: [1])):
            with pytest.raises(TypeError, match=said):
                store()
        assert "k" not in cache
