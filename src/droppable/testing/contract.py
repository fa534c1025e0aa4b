"""`CacheContract`: what every cache on droppable memory owes its users, as tests to inherit.

    from droppable.testing.contract import CacheContract

    class TestMyCache(CacheContract):
        def make(self):
            return MyCache()

The cache needs `cache[key] = value`, `cache[key]`, `del cache[key]`, `cache.get(key, default)`, `key in cache` and
`clear()`. If it is no `droppable.Cache` but holds one, say how its pages are dropped:

        def drop(self, cache, fraction, seed):
            droppable.testing.drop(cache.inner, fraction, seed)

The tests hold under memory pressure too: a value may be gone whenever nobody is looking, but what comes back is right.
"""

import os
import threading
from typing import Any

import pytest

from droppable import UnsupportedError, testing

_MISSING = object()
_TRIES = 20

VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "int": -(1 << 80),
    "float": 1.5,
    "no bytes": b"",
    "bytes": b"\x00abc\xff",
    "zeros": bytes(10_000),
    "some pages": bytes(range(256)) * 100,
    "many pages": bytes(range(1, 251)) * 4000,
    "no text": "",
    "text": "plain",
    "wide text": "\u20ac \U0001f40d \udc80",
    "tuple": (1, "a", None),
    "dict": {"a": [1, 2, {"b": (3,)}], "c": {4, 5}},
}


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


class CacheContract:
    """Inherit it, say how a cache is made, and let pytest find the class."""

    def make(self) -> Any:
        """A new, empty cache with room for some MiB."""
        raise NotImplementedError(f"{type(self).__name__} needs a method make(self) that returns a new, empty cache")

    def drop(self, cache: Any, fraction: float, seed: int) -> None:
        """Lets the kernel take a share of the cache's pages now."""
        try:
            testing.drop(cache, fraction, seed)
        except TypeError as error:
            error.add_note(
                f"Let {type(self).__name__} have a method drop(self, cache, fraction, seed) that calls "
                "droppable.testing.drop() with the droppable.Cache behind it"
            )
            raise
        except UnsupportedError as error:
            pytest.skip(str(error))

    def kept(self, cache: Any, key: Any, value: Any) -> Any:
        """Stores value until it stays for a moment, and returns what comes back."""
        for _ in range(_TRIES):
            cache[key] = value
            got = cache.get(key, _MISSING)
            if got is not _MISSING:
                return got
        pytest.fail(f"{key!r} is gone at once, {_TRIES} times in a row")

    def _delete(self, cache: Any, key: Any) -> None:
        try:
            del cache[key]
        except KeyError:
            pass  # the kernel was faster

    @pytest.fixture
    def cache(self) -> Any:
        """The cache of one test."""
        return self.make()

    @pytest.mark.parametrize("name", VALUES)
    def test_a_value_comes_back_equal(self, cache: Any, name: str) -> None:
        assert _same(self.kept(cache, name, VALUES[name]), VALUES[name])

    def test_a_miss_is_a_key_error_or_the_default(self, cache: Any) -> None:
        assert cache.get("nobody") is None
        assert cache.get("nobody", 5) == 5
        assert "nobody" not in cache
        with pytest.raises(KeyError):
            cache["nobody"]
        with pytest.raises(KeyError):
            del cache["nobody"]

    def test_the_last_value_wins(self, cache: Any) -> None:
        for version in range(50):
            cache["key"] = f"old {version}" * version
            assert self.kept(cache, "key", version) == version

    def test_what_is_deleted_is_gone(self, cache: Any) -> None:
        for size in (0, 10, 100_000):
            self.kept(cache, "key", b"x" * size)
            self._delete(cache, "key")
            assert "key" not in cache
            assert cache.get("key", _MISSING) is _MISSING

    def test_clear(self, cache: Any) -> None:
        for number in range(100):
            cache[number] = number
        cache.clear()
        assert all(cache.get(number, _MISSING) is _MISSING for number in range(100))
        assert self.kept(cache, 1, "again") == "again"

    def test_a_value_is_a_snapshot(self, cache: Any) -> None:
        mine = [1, 2]
        cache["list"] = mine
        mine.append(3)
        theirs = cache.get("list", [1, 2])
        assert theirs == [1, 2]
        theirs.append(4)
        assert cache.get("list", [1, 2]) == [1, 2]

    def test_a_drop_of_everything_is_a_miss(self, cache: Any) -> None:
        for name, value in VALUES.items():
            cache[name] = value
        self.drop(cache, 1.0, 1)
        for name, value in VALUES.items():
            got = cache.get(name, _MISSING)
            assert got is _MISSING or _same(got, value), name
            if got is _MISSING:
                with pytest.raises(KeyError):
                    cache[name]
        for name, value in VALUES.items():
            assert _same(self.kept(cache, name, value), value)

    @pytest.mark.parametrize("seed", range(10))
    def test_drops_here_and_there_never_change_a_value(self, cache: Any, seed: int) -> None:
        stored = {number: bytes([1 + number % 255]) * (37 * number % 30_000) for number in range(300)}
        for number, value in stored.items():
            cache[number] = value
        for step in range(3):
            self.drop(cache, 0.1, 10 * seed + step)
            for number, value in stored.items():
                got = cache.get(number, _MISSING)
                assert got is _MISSING or got == value, number
                assert got is not _MISSING or number not in cache

    def test_arrays_that_are_held_survive_drops(self, cache: Any) -> None:
        numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
        array = numpy.arange(100_000, dtype="f8").reshape(100, 1000)
        held = self.kept(cache, "array", array)
        part = self.kept(cache, "array", array)[10:20, ::7]
        self.drop(cache, 1.0, 2)
        assert (held == array).all()
        assert (part == array[10:20, ::7]).all()
        self._delete(cache, "array")
        cache.clear()
        self.drop(cache, 1.0, 3)
        assert (held == array).all()
        assert (part == array[10:20, ::7]).all()
        with pytest.raises(ValueError, match="read-only"):
            part[0, 0] = 1

    def test_threads_see_whole_values(self, cache: Any) -> None:
        wrong: list[Any] = []
        start = threading.Barrier(4)

        def work(me: int) -> None:
            start.wait()
            for step in range(300):
                key, fill = step % 10, bytes([1 + (me * 50 + step) % 250])
                cache[key] = fill * (1 + step * 97 % 20_000)
                got = cache.get((key + me) % 10, b"")
                if got and got.count(got[:1]) != len(got):
                    wrong.append(got)
                if me == 3 and step % 20 == 0:
                    self.drop(cache, 0.2, step)

        threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_a_forked_child_sees_no_wrong_value(self, cache: Any) -> None:
        stored = {number: bytes([1 + number]) * (100 * number) for number in range(200)}
        for number, value in stored.items():
            cache[number] = value
        child = os.fork()
        if child == 0:
            status = 1
            try:
                right = all(cache.get(number, value) == value for number, value in stored.items())
                cache["child"] = "child"
                right = right and cache.get("child", "child") == "child"
                status = 0 if right else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for number, value in stored.items():
            assert cache.get(number, value) == value
        assert "child" not in cache
