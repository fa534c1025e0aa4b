"""What changes an entry that is there: touch, incr, transform, pop, and what add answers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from droppable import NEVER, Cache, ClosedError, RefusedError, ValueTooLargeError
from droppable.testing import advance_clock, drop, settle

Make = Callable[..., Cache]
THREADS = 4
HOUR = 3600


def in_threads(work: Callable[[int], object]) -> None:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def in_a_child(work: Callable[[], bool]) -> bool:
    """What work() said in a forked child."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        said = False
        try:
            said = work()
        finally:
            os._exit(0 if said else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TestTouch:
    @pytest.mark.parametrize("value", [b"small", "a str", 17, b"page" * 5000, b"large" * 100_000])
    @pytest.mark.parametrize("before", [None, 5, HOUR])
    @pytest.mark.parametrize("after", [10, 2 * HOUR, timedelta(minutes=3)])
    def test_it_expires_then_and_not_before(self, cache: Cache, value: Any, before: Any, after: Any) -> None:
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        cache.set("k", value, ttl=before)
        assert cache.touch("k", after) is True
        assert seconds - 1 < cache.expires_in("k") <= seconds
        advance_clock(cache, seconds - 1)
        assert cache.get("k") == value
        advance_clock(cache, 2)
        assert cache.get("k") is None
        assert cache.touch("k", after) is False

    def test_never(self, cache: Cache) -> None:
        cache.set("k", 1, ttl=5)
        assert cache.touch("k", NEVER) is True
        assert cache.expires_in("k") == NEVER
        advance_clock(cache, HOUR)
        assert cache["k"] == 1
        assert cache.touch("k", ttl=5) is True
        advance_clock(cache, 6)
        assert "k" not in cache

    def test_none_is_the_default_of_the_cache(self, make_cache: Make) -> None:
        cache = make_cache(ttl=50)
        cache.set("k", 1, ttl=5)
        assert cache.touch("k", None) is True
        assert 49 < cache.expires_in("k") <= 50

    def test_it_is_no_store(self, cache: Cache) -> None:
        cache["k"] = b"1" * 10_000
        before = cache.stats()
        for _ in range(1000):
            assert cache.touch("k", HOUR)
        after = cache.stats()
        assert (after.sets, after.replaced, after.entries) == (before.sets, before.replaced, before.entries)
        assert cache["k"] == b"1" * 10_000

    def test_a_computation_of_the_key_goes_on(self, cache: Cache) -> None:
        cache.set("k", 1, ttl=5)
        encoded = cache._lease("k")
        assert cache.touch("k", HOUR)
        assert not encoded.stale

    def test_what_was_dropped_is_not_there(self, cache: Cache) -> None:
        cache["k"] = b"v" * 50_000
        settle(cache)
        drop(cache)
        assert cache.touch("k", HOUR) is False
        with pytest.raises(KeyError, match="'k'"):
            cache.expires_in("k")

    def test_an_array_that_is_held_stays(self, make_cache: Make, numbers: Any) -> None:
        cache = make_cache()
        cache["k"] = numbers
        held = cache["k"]
        assert cache.touch("k", 5)
        advance_clock(cache, 6)
        assert cache.get("k") is None
        assert (held == numbers).all()

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), "5m", b"", []])
    def test_a_ttl_that_is_none(self, cache: Cache, ttl: Any) -> None:
        cache["k"] = 1
        with pytest.raises((TypeError, ValueError), match="ttl must be"):
            cache.touch("k", ttl)
        assert cache.expires_in("k") == NEVER

    def test_in_four_threads(self, cache: Cache) -> None:
        def work(number: int) -> None:
            for i in range(2000):
                key = i % 7
                if number == 0:
                    cache.set(key, bytes([key]) * (100 if i % 2 else 9000), ttl=HOUR)
                elif number == 1 and i % 50 == 0:
                    drop(cache, 0.2)
                else:
                    cache.touch(key, HOUR + i)
                value = cache.get(key)
                assert value is None or value[:1] == bytes([key])

        in_threads(work)


class TestIncr:
    def test_counts(self, cache: Cache) -> None:
        assert cache.incr("n", initial=0) == 1
        assert cache.incr("n") == 2
        assert cache.incr("n", 40) == 42
        assert cache.incr("n", delta=-2, initial=7) == 40
        assert cache["n"] == 40

    def test_ints_of_any_size(self, cache: Cache) -> None:
        cache["n"] = 2**200
        assert cache.incr("n", 2**100) == 2**200 + 2**100
        assert cache.incr("n", -(2**201)) == 2**100 - 2**200
        assert cache["n"] == 2**100 - 2**200

    def test_absent(self, cache: Cache) -> None:
        with pytest.raises(KeyError, match="'n'"):
            cache.incr("n")
        assert "n" not in cache

    @pytest.mark.parametrize("value", [1.5, "1", True, None, [1], b"1"])
    def test_no_int(self, cache: Cache, value: Any) -> None:
        cache["n"] = value
        with pytest.raises(TypeError, match=r"incr\(\) counts in int, and the value of 'n' is of type"):
            cache.incr("n", initial=0)
        assert cache["n"] == value

    @pytest.mark.parametrize("name", ["delta", "initial"])
    @pytest.mark.parametrize("given", [1.5, "1", False, []])
    def test_arguments_that_are_no_int(self, cache: Cache, name: str, given: Any) -> None:
        with pytest.raises(TypeError, match=f"{name} must be an int; you gave "):
            cache.incr("n", **{name: given})

    def test_it_expires_when_it_would_have(self, make_cache: Make) -> None:
        cache = make_cache(ttl=20)
        assert cache.incr("n", initial=0) == 1
        advance_clock(cache, 5)
        assert cache.incr("n", initial=0) == 2
        assert 14 < cache.expires_in("n") <= 15
        cache.touch("n", NEVER)
        assert cache.incr("n") == 3
        assert cache.expires_in("n") == NEVER
        cache.touch("n", 5)
        advance_clock(cache, 6)
        assert cache.incr("n", initial=10) == 11
        assert 19 < cache.expires_in("n") <= 20

    def test_four_threads_lose_none(self, cache: Cache) -> None:
        rounds = 2000
        cache["n"] = 0
        cache["m"] = 0

        def work(number: int) -> None:
            for i in range(rounds):
                cache.incr("n" if (i + number) % 2 else "m")
                if number == 0 and i % 10 == 0:
                    cache.touch("n", HOUR + i)

        in_threads(work)
        if cache.stats().dropped:
            pytest.skip("memory is short: the kernel took a counter")
        assert cache["n"] + cache["m"] == THREADS * rounds

    def test_four_threads_with_drops(self, cache: Cache) -> None:
        """What was counted since the last drop is there, and each sum is one more than a sum that was there."""
        seen: list[set[int]] = [set() for _ in range(THREADS)]

        def count(number: int) -> None:
            try:
                seen[number].add(cache.incr("n", initial=0))
            except RefusedError:  # its page was dropped while it was written: nothing changed
                pass

        def work(number: int) -> None:
            for i in range(500):
                count(number)
                if number == 0 and i % 100 == 50:
                    settle(cache)
                    drop(cache)

        in_threads(work)
        highest = max(max(sums) for sums in seen)
        assert highest <= THREADS * 500
        assert set().union(*seen) == set(range(1, highest + 1))

    def test_a_child_counts_for_itself(self, cache: Cache) -> None:
        cache["n"] = 5
        assert in_a_child(lambda: cache.incr("n", initial=100) == 101)
        assert cache.incr("n") == 6

    def test_closed(self, cache: Cache) -> None:
        cache["n"] = 5
        cache.close()
        for call in (
            lambda: cache.incr("n"),
            lambda: cache.touch("n", 1),
            lambda: cache.expires_in("n"),
            lambda: cache.transform("n", int, default=1),
            lambda: cache._find("n"),
            lambda: cache.pop("n", None),
            lambda: cache.delete("n"),
        ):
            with pytest.raises(ClosedError):
                call()


class TestTransform:
    def test_puts_the_result_in_its_place(self, cache: Cache) -> None:
        cache["k"] = [1]
        assert cache.transform("k", lambda value: [*value, 2]) == [1, 2]
        assert cache["k"] == [1, 2]
        assert cache.transform(key="new", function=len, default="abc", ttl=5) == 3
        assert 4 < cache.expires_in("new") <= 5

    def test_absent(self, cache: Cache) -> None:
        with pytest.raises(KeyError, match="'k'"):
            cache.transform("k", list)
        assert cache.transform("k", str, default=None) == "None"

    def test_the_result_is_what_a_hit_gives(self, cache: Cache, numpy: Any) -> None:
        given: list[Any] = []

        def double(value: Any) -> Any:
            given.append(value * 2)
            return given[-1]

        for length in (10, 1000, 100_000):
            array = cache.transform(length, double, default=numpy.arange(length))
            assert (array == numpy.arange(length) * 2).all()
            assert not array.flags.writeable
            assert array is not given[-1]
        assert cache.transform("b", lambda _: bytearray(b"x"), default=0) == b"x"
        mutable = cache.transform("l", lambda value: given, default=0)
        assert mutable is not given

    def test_the_expiry_stays_unless_it_is_given(self, make_cache: Make) -> None:
        cache = make_cache(ttl=100)
        cache.set("k", 1, ttl=10)
        advance_clock(cache, 3)
        assert cache.transform("k", lambda value: value + 1) == 2
        assert 6 < cache.expires_in("k") <= 7
        assert cache.transform("k", lambda value: value + 1, ttl=NEVER) == 3
        assert cache.expires_in("k") == NEVER
        assert cache.transform("new", lambda value: value + 1, default=0) == 1
        assert 99 < cache.expires_in("new") <= 100

    def test_a_function_that_raises_changes_nothing(self, cache: Cache) -> None:
        cache["k"] = 1
        with pytest.raises(ZeroDivisionError):
            cache.transform("k", lambda value: value / 0)
        assert cache["k"] == 1
        assert cache._lease("k").stale is False

    def test_a_result_that_cannot_be_stored(self, make_cache: Make) -> None:
        cache = make_cache(max_bytes=1_000_000)
        cache["k"] = 1
        with pytest.raises(TypeError, match="cannot be pickled"):
            cache.transform("k", lambda _: threading.Lock())
        with pytest.raises(ValueTooLargeError):
            cache.transform("k", lambda _: bytes(2_000_000))
        assert cache["k"] == 1

    @pytest.mark.parametrize("change", ["set", "delete", "pop", "clear", "incr", "transform", "get_or_create"])
    def test_a_key_that_is_changed_meanwhile(self, cache: Cache, change: str) -> None:
        """Once, by somebody else: it runs again, with what is there then."""
        seen: list[int] = []
        cache["k"] = 10

        def meanwhile() -> None:
            match change:
                case "set":
                    cache["k"] = 20
                case "delete":
                    cache.delete("k")
                case "pop":
                    cache.pop("k")
                case "clear":
                    cache.clear()
                case "incr":
                    cache.incr("k", 10)
                case "transform":
                    cache.transform("k", lambda value: value + 10)
                case "get_or_create":
                    settle(cache)
                    drop(cache)
                    cache.get_or_create("k", lambda: 20)

        def function(value: int) -> int:
            seen.append(value)
            if len(seen) == 1:
                meanwhile()
            return value + 1

        there = change not in ("delete", "pop", "clear")
        assert cache.transform("k", function, default=0) == (21 if there else 1)
        assert seen == ([10, 20] if there else [10, 0])
        assert cache["k"] == seen[-1] + 1

    def test_what_was_dropped_or_expired_meanwhile(self, cache: Cache) -> None:
        for leave in (lambda: (settle(cache), drop(cache)), lambda: advance_clock(cache, 6)):
            seen: list[int] = []
            cache.set("k", 10, ttl=5)

            def function(value: int, seen: list[int] = seen, leave: Callable[[], object] = leave) -> int:
                seen.append(value)
                if len(seen) == 1:
                    leave()
                return value + 1

            assert cache.transform("k", function, default=0) == 1
            assert seen == [10, 0]
            assert cache.expires_in("k") == NEVER

    def test_a_touch_meanwhile_is_no_change(self, cache: Cache) -> None:
        seen: list[int] = []
        cache.set("k", 10, ttl=5)

        def function(value: int) -> int:
            seen.append(value)
            cache.touch("k", HOUR)
            return value + 1

        assert cache.transform("k", function) == 11
        assert seen == [10]
        assert cache.expires_in("k") > 5

    @pytest.mark.parametrize("change", ["set", "delete", "transform"])
    def test_a_function_that_changes_its_key_each_time(self, cache: Cache, change: str) -> None:
        cache["k"] = 1
        changes = {
            "set": lambda: cache.set("k", 5),
            "delete": lambda: cache.delete("k"),
            "transform": lambda: cache.transform("k", lambda value: value + 1),
        }

        def function(value: int) -> int:
            changes[change]()
            return value

        with pytest.raises(RuntimeError, match="'k' was changed each of the 100 times"):
            cache.transform("k", function, default=0)

    def test_four_threads_lose_none(self, cache: Cache) -> None:
        rounds = 300
        cache["k"] = ()

        def appended(own: tuple[int, int]) -> bool:
            try:
                cache.transform("k", lambda value: (*value, own))
            except RuntimeError as error:  # without a GIL, others may be first a hundred times
                if "changed each of the 100 times" not in str(error):
                    raise
                return False
            return True

        def work(number: int) -> None:
            for i in range(rounds):
                while not appended((number, i)):
                    pass

        in_threads(work)
        if cache.stats().dropped:
            pytest.skip("memory is short: the kernel took the value")
        assert sorted(cache["k"]) == [(number, i) for number in range(THREADS) for i in range(rounds)]

    def test_closed_by_the_function(self, cache: Cache) -> None:
        def function(value: int) -> int:
            cache.close()
            return value

        with pytest.raises(ClosedError):
            cache.transform("k", function, default=1)

    def test_a_fork_in_the_function(self, cache: Cache) -> None:
        """The child's cache is empty, and the function runs again there."""
        children: list[int] = []
        cache["k"] = 1

        def function(value: int) -> int:
            if not children:
                children.append(os.fork())
            return value + 1

        result = cache.transform("k", function, default=100)
        if children == [0]:
            os._exit(0 if result == 101 == cache.get("k") else 1)
        assert result == 2
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0

    def test_a_signal_handler_that_raises(self, cache: Cache) -> None:
        cache["k"] = 1

        def handler(number: int, frame: object) -> None:
            raise TimeoutError

        old = signal.signal(signal.SIGUSR1, handler)
        try:
            with pytest.raises(TimeoutError):
                cache.transform("k", lambda value: signal.raise_signal(signal.SIGUSR1))
        finally:
            signal.signal(signal.SIGUSR1, old)
        assert cache["k"] == 1
        assert cache.transform("k", lambda value: value + 1) == 2

    def test_no_function(self, cache: Cache) -> None:
        with pytest.raises(TypeError, match="function must be callable with the old value; you gave 3"):
            cache.transform("k", 3)  # type: ignore[arg-type]


class TestFind:
    def test_value_and_seconds(self, cache: Cache) -> None:
        assert cache._find("k") is None
        cache.set("k", [1], ttl=10)
        found = cache._find("k")
        assert found is not None
        assert found[0] == [1]
        assert 9 < found[1] <= 10
        cache["k"] = b"1" * 100_000
        assert cache._find("k") == (b"1" * 100_000, NEVER)


class TestPop:
    def test_one_of_four_threads_gets_it(self, cache: Cache) -> None:
        got: list[list[int]] = [[] for _ in range(THREADS)]
        turns = threading.Barrier(THREADS)

        def work(number: int) -> None:
            for i in range(200):
                if number == 0:
                    cache["k"] = [i]
                turns.wait()
                value = cache.pop("k", None)
                if value is not None:
                    got[number] += value
                if number == 1:
                    cache.touch("k", HOUR)
                turns.wait()

        in_threads(work)
        if cache.stats().dropped:
            pytest.skip("memory is short: the kernel took a value")
        assert sorted(i for values in got for i in values) == list(range(200))


class TestNamespace:
    def test_its_entries_and_no_others(self, cache: Cache) -> None:
        part: Any = cache.namespace("part")
        for call in (
            lambda: part.incr("n"),
            lambda: part.expires_in("n"),
            lambda: part.transform("n", int),
        ):
            with pytest.raises(KeyError) as caught:
                call()
            assert caught.value.args == ("n",)
        assert part.touch("n", 5) is False
        assert (part._find("n"), part.get_many(["n"]), part.delete_many(["n"])) == (None, {}, 0)
        cache["n"] = "outside"
        assert part.incr("n", initial=0) == 1
        assert part.incr("n", 5) == 6
        assert part.transform("n", lambda value: value * 2) == 12
        assert part.transform("new", lambda value: value + 1, default=0, ttl=5) == 1
        assert part.touch("n", 10) is True
        assert 9 < part.expires_in("n") <= 10
        assert part._find("new")[0] == 1
        assert part.set_many({"a": 1, "b": 2}) == []
        assert part.get_many(["a", "b", "c", "n"]) == {"a": 1, "b": 2, "n": 12}
        assert part.delete_many(["a", "c"]) == 1
        assert part.delete("b") is True
        assert cache.get_many(["a", "b", "n", "new"]) == {"n": "outside"}

    def test_a_key_error_of_the_function(self, cache: Cache) -> None:
        part: Any = cache.namespace("part")
        part["k"] = {}
        with pytest.raises(KeyError, match="'missing'"):
            part.transform("k", lambda value: value["missing"])


class TestDisabled:
    def test_nothing_is_there(self, make_cache: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DROPPABLE_DISABLE", "1")
        cache = make_cache()
        assert cache.incr("n", initial=0) == 1
        assert cache.incr("n", initial=0) == 1
        assert cache.transform("k", len, default="abc") == 3
        assert cache.touch("k", 5) is False
        assert cache._find("k") is None
        assert cache.set_many({"a": 1, "b": 2}) == []
        assert cache.get_many(["a", "b"]) == {}
        assert cache.delete_many(["a", "b"]) == 0
        stats = cache.stats()
        assert (stats.sets, stats.evicted, stats.entries) == (5, 5, 0)
