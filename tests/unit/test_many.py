"""Many keys at once: get_many, set_many, delete_many."""

from __future__ import annotations

import threading
from collections import ChainMap, UserDict
from collections.abc import Callable
from typing import Any

import pytest

from droppable import Cache, ClosedError, ValueTooLargeError
from droppable.lowlevel import EncodedKey, new_scope
from droppable.testing import advance_clock, drop, settle

Make = Callable[..., Cache]
COUNTS = [0, 1, 2, 63, 64, 65, 128, 1000]


def value_of(number: int) -> Any:
    """Of each kind and layout: bytes in the log and on pages, str, what is pickled, nothing."""
    return [
        number.to_bytes(8, "little") * 12,
        f"text {number}" * (number % 50),
        f"t\u00e9xt {number}",
        (number, [number]),
        bytes([number % 255 + 1]) * 9000,
        bytes([number % 255 + 1]) * 80_000,
        b"",
        None,
    ][number % 8]


class TestGetMany:
    @pytest.mark.parametrize("count", COUNTS)
    def test_gives_what_get_gives(self, cache: Cache, count: int) -> None:
        for number in range(0, count, 2):
            cache[f"key {number}"] = value_of(number)
        found = cache.get_many([f"key {number}" for number in range(count)])
        assert found == {f"key {number}": value_of(number) for number in range(0, count, 2)}
        assert list(found) == [f"key {number}" for number in range(0, count, 2)]
        stats = cache.stats()
        assert stats.hits == (count + 1) // 2
        assert stats.misses == count // 2

    def test_any_iterable_of_any_keys(self, cache: Cache) -> None:
        keys = [1, "1", b"1", (1, "a"), None, frozenset([1, 2]), 2.5, "long" * 2000]
        for key in keys:
            cache[key] = repr(key)
        wanted = {key: repr(key) for key in keys}
        assert cache.get_many(keys) == wanted
        assert cache.get_many(tuple(keys)) == wanted
        assert cache.get_many(iter(keys)) == wanted
        assert cache.get_many(dict.fromkeys(keys)) == wanted
        assert cache.get_many(dict.fromkeys(keys).keys()) == wanted
        assert cache.get_many(set(keys)) == wanted
        assert cache.get_many([EncodedKey(key) for key in keys]) == {EncodedKey(key): repr(key) for key in keys}

    def test_keys_of_each_length(self, cache: Cache) -> None:
        """Short ones stand in one buffer; what does not fit there has memory of its own."""
        keys: list[Any] = ["k" * length for length in range(5000)]
        keys += [b"k" * length for length in range(0, 5000, 100)] + [10**length for length in range(40)]
        for number, key in enumerate(keys):
            cache[key] = str(number)
        wanted = {key: str(number) for number, key in enumerate(keys)}
        assert cache.get_many(keys) == wanted
        assert cache.get_many(keys[::-1]) == wanted
        part = cache.namespace("part")
        assert part.get_many(keys) == {}
        assert part.set_many(wanted) == []
        assert part.get_many(keys) == wanted

    def test_small_values_of_each_kind(self, cache: Cache) -> None:
        """As get() gives them, with and without a time to live; arrays have a meta beside their bytes."""
        numpy = pytest.importorskip("numpy")
        arrays = {("array", n): numpy.arange(n, dtype="i4") for n in range(0, 100, 7)}
        others = {("value", n): value_of(n) for n in range(40)}
        cache.set_many(arrays)
        cache.set_many(others, ttl=100)
        found = cache.get_many([*arrays, *others])
        assert {key: found[key] for key in others} == others
        for key, array in arrays.items():
            assert found[key].dtype == array.dtype
            assert numpy.array_equal(found[key], array)
            assert not found[key].flags.writeable

    def test_a_key_that_is_given_twice(self, cache: Cache) -> None:
        cache["a"] = 1
        cache[1] = "int"
        cache[True] = "bool"
        assert cache.get_many(["a"] * 200) == {"a": 1}
        assert cache.get_many([1, True]) == {1: "bool"}

    def test_arrays(self, cache: Cache, numpy: Any) -> None:
        arrays = {length: numpy.arange(length) for length in (1, 100, 1000, 100_000)}
        cache.set_many(arrays)
        found = cache.get_many(list(arrays))
        assert list(found) == list(arrays)
        for length, array in found.items():
            assert (array == arrays[length]).all()
            assert not array.flags.writeable

    def test_expired_and_dropped(self, cache: Cache) -> None:
        cache.set_many({number: b"v" * 200 for number in range(100)}, ttl=5)
        cache.set_many({number: b"v" * 200 for number in range(100, 200)}, ttl=50)
        advance_clock(cache, 6)
        assert sorted(cache.get_many(range(200))) == list(range(100, 200))
        settle(cache)
        drop(cache)
        assert cache.get_many(range(200)) == {}
        stats = cache.stats()
        assert stats.hits == 100
        assert stats.sets == stats.entries + stats.dropped + stats.expired

    def test_a_value_that_does_not_load(self, cache: Cache) -> None:
        class Gone:
            def __reduce__(self) -> Any:
                return (raise_key_error, ())

        cache.set_many({"a": 1, "b": Gone(), "c": 3})
        assert cache.get_many(["a", "b", "c"]) == {"a": 1, "c": 3}
        stats = cache.stats()
        assert (stats.hits, stats.misses_unloadable, stats.deletes, stats.entries) == (2, 1, 1, 2)
        assert "b" not in cache

    @pytest.mark.parametrize("keys", ["abc", b"abc", 5, None])
    def test_no_keys(self, cache: Cache, keys: Any) -> None:
        for call in (cache.get_many, cache.delete_many):
            with pytest.raises(TypeError, match="keys must be a list or another iterable of keys; you gave "):
                call(keys)

    def test_a_key_that_is_none(self, cache: Cache) -> None:
        cache["a"] = 1
        with pytest.raises(TypeError, match="unhashable"):
            cache.get_many(["a", [1]])
        assert cache.get_many(["a"]) == {"a": 1}

    def test_a_list_that_changes_while_its_keys_are_encoded(self, cache: Cache) -> None:
        keys: list[Any] = []
        for number in range(300):
            cache[number] = number
        Hooked.hook = keys.clear
        keys[:] = [1, 2, Hooked(), 3, 4]
        assert cache.get_many(keys) == {1: 1, 2: 2}
        Hooked.hook = lambda: keys.extend(range(100, 300))
        keys[:] = [1, 2, Hooked(), 3]
        found = cache.get_many(keys)
        assert {1, 2, 3} <= found.keys()
        assert all(found[key] == key for key in found)

    def test_a_value_whose_class_uses_the_cache(self, cache: Cache) -> None:
        cache["inner"] = 5
        cache.set_many({number: Nested() for number in range(100)})
        Nested.cache = cache
        assert set(cache.get_many(range(100)).values()) == {5}

    def test_in_four_threads_with_drops(self, cache: Cache) -> None:
        keys = [f"key {number}" for number in range(300)]
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for i in range(60):
                    if number == 0:
                        cache.set_many({key: value_of(at) for at, key in enumerate(keys)}, ttl=3600)
                    elif number == 1 and i % 10 == 0:
                        drop(cache, 0.3)
                    for key, value in cache.get_many(keys).items():
                        assert value == value_of(int(key[4:]))
                    if number == 2:
                        cache.delete_many(keys[i::7])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        stats = cache.stats()
        left = stats.dropped + stats.evicted + stats.expired + stats.deletes + stats.replaced + stats.cleared
        assert stats.sets == stats.entries + left


def raise_key_error() -> None:
    raise KeyError


class Hooked:
    """A key that does something while it is encoded."""

    hook: Callable[[], object]

    def __reduce__(self) -> Any:
        Hooked.hook()
        return (Hooked, ())


class Nested:
    cache: Cache

    def __reduce__(self) -> Any:
        return (load_nested, ())


def load_nested() -> Any:
    return Nested.cache.get_many(["inner"])["inner"]


class TestSetMany:
    def test_mappings_and_pairs(self, cache: Cache) -> None:
        for number, items in enumerate(
            [
                {"a": 1, "b": 2},
                UserDict({"a": 1, "b": 2}),
                ChainMap({"a": 1}, {"b": 2}),
                [("a", 1), ("b", 2)],
                iter([["a", 1], ("b", 2)]),
                zip("ab", (1, 2), strict=True),
            ]
        ):
            assert cache.set_many(items) == []
            assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
            assert cache.stats().sets == 2 * number + 2
            cache.clear()

    def test_ttl(self, make_cache: Make) -> None:
        cache = make_cache(ttl=100)
        cache.set_many({"a": 1})
        cache.set_many({"b": 1}, ttl=5)
        assert 99 < cache.expires_in("a") <= 100
        assert 4 < cache.expires_in("b") <= 5
        with pytest.raises(TypeError, match="ttl must be seconds"):
            cache.set_many({"c": 1}, ttl="5m")  # type: ignore[arg-type]
        assert "c" not in cache

    def test_a_value_that_cannot_be_stored(self, make_cache: Make) -> None:
        """What stands before it is stored; it and what stands behind it keep their older values."""
        cache = make_cache(max_bytes=1_000_000)
        for bad, error in ((threading.Lock(), TypeError), (bytes(2_000_000), ValueTooLargeError)):
            cache.set_many({"a": 1, "b": 1, "c": 1})
            with pytest.raises(error):
                cache.set_many([("a", 2), ("b", bad), ("c", 2)])
            assert cache.get_many("abc"[i] for i in range(3)) == {"a": 2, "b": 1, "c": 1}

    @pytest.mark.parametrize("items", [5, "ab", b"ab", None])
    def test_no_items(self, cache: Cache, items: Any) -> None:
        with pytest.raises(
            TypeError, match="items must be a mapping or an iterable of pairs of key and value; you gave"
        ):
            cache.set_many(items)

    @pytest.mark.parametrize("item", [5, "ab", (1,), (1, 2, 3), None])
    def test_no_pair(self, cache: Cache, item: Any) -> None:
        with pytest.raises(TypeError, match="is no pair"):
            cache.set_many([("a", 1), item])
        assert cache["a"] == 1


class TestDeleteMany:
    def test_counts_what_was_there(self, cache: Cache) -> None:
        cache.set_many({number: number for number in range(100)})
        assert cache.delete_many(range(50, 200)) == 50
        assert cache.delete_many(range(50, 200)) == 0
        assert cache.delete_many([0, 0, 1]) == 2
        assert len(cache) == 48
        assert cache.stats().deletes == 52

    def test_computations_of_the_keys_are_out_of_date(self, cache: Cache) -> None:
        lease = cache._lease("absent")
        assert cache.delete_many(["absent"]) == 0
        assert lease.stale


def test_a_part_of_the_cache(cache: Cache) -> None:
    scope = new_scope()
    assert cache._set_many({"a": 1, "b": 2}, None, scope) == []
    cache["a"] = "outside"
    assert cache._get_many(["a", "b"], scope) == {"a": 1, "b": 2}
    assert cache.get_many(["a", "b"]) == {"a": "outside"}
    assert cache[EncodedKey("b", scope)] == 2
    assert cache._delete_many(["a", "b", "c"], scope) == 2
    assert cache["a"] == "outside"
    with pytest.raises(TypeError, match="scope must be bytes"):
        cache._get_many(["a"], "scope")  # type: ignore[arg-type]


def test_closed(cache: Cache) -> None:
    cache["a"] = 1
    cache.close()
    for call in (
        lambda: cache.get_many(["a"]),
        lambda: cache.set_many({"a": 1}),
        lambda: cache.delete_many(["a"]),
    ):
        with pytest.raises(ClosedError):
            call()


def test_closed_meanwhile(cache: Cache) -> None:
    Hooked.hook = cache.close
    for call in (
        lambda: cache.get_many([Hooked()]),
        lambda: cache.set_many([("a", Hooked())]),
        lambda: cache.delete_many([Hooked()]),
    ):
        with pytest.raises(ClosedError):
            call()
