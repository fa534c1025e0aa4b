"""A lower tier at its edges: mappings that keep objects or cannot list keys, closed caches, forks, event loops."""

import asyncio
import collections
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import droppable
from droppable import Cache, ClosedError
from droppable._tiers.below import Expiring
from droppable.lowlevel import CoreCache

WAIT_SECONDS = 30.0  # only a hang takes that long


def lose(cache: Any) -> None:
    """What the cache has is gone; what lies below stays."""
    CoreCache.clear(cache)


class NoKeys:
    """A mapping that can be changed, and that cannot list its keys."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}

    def __getitem__(self, key: Any) -> Any:
        return self.values[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.values[key] = value

    def __delitem__(self, key: Any) -> None:
        del self.values[key]


class Full(dict[Any, Any]):
    """Its disk is full."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", [collections.UserDict, NoKeys, dict, collections.OrderedDict])
def test_a_mapping_that_keeps_objects_gets_copies(kind: type) -> None:
    cache: Any = Cache(below=kind())
    for key in ("first", "second"):
        value = [1]
        cache[key] = value
        value.append(2)
        lose(cache)
        assert cache[key] == [1]
        cache[key].append(3)
        lose(cache)
        assert cache[key] == [1]


def test_a_mapping_that_keeps_no_objects_is_read_once_to_find_out() -> None:
    reads: list[str] = []

    class Copying(collections.UserDict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            reads.append(key)
            return list(self.data[key])

    cache: Any = Cache(below=Copying())
    for key in ("a", "b", "c"):
        cache[key] = [1]
    assert reads == ["a"]


def test_a_look_up_makes_no_entry() -> None:
    below: Any = collections.defaultdict(list)
    cache: Any = Cache(below=below)
    assert cache.get("k") is None
    assert cache.get_or_create("k", lambda: "computed") == "computed"
    assert below == {"k": "computed"}


@pytest.mark.parametrize("value", [memoryview(b"abc"), bytearray(b"abc")], ids=["memoryview", "bytearray"])
@pytest.mark.parametrize("write", ["through", "behind"])
def test_bytes_like_values_lie_below_as_bytes(value: Any, write: Any) -> None:
    below: dict[str, Any] = {}
    with Cache(below=below, write=write) as made:
        cache: Any = made
        cache["k"] = value
        assert cache.get_or_create("computed", lambda: value) == b"abc"
        cache.flush()
        assert below == {"k": b"abc", "computed": b"abc"}
        assert cache.tier_stats().failures == 0


CHANGES: dict[str, Callable[[Any], object]] = {
    "set": lambda cache: cache.set("a", 2),
    "[]": lambda cache: cache.__setitem__("a", 2),
    "set_many": lambda cache: cache.set_many({"a": 2}),
    "add": lambda cache: cache.add("c", 2),
    "discard": lambda cache: cache.discard("a"),
    "del": lambda cache: cache.__delitem__("a"),
    "delete_many": lambda cache: cache.delete_many(["a"]),
    "delete_prefix": lambda cache: cache.delete_prefix("a"),
    "pop": lambda cache: cache.pop("a"),
    "touch": lambda cache: cache.touch("a", 5),
    "incr": lambda cache: cache.incr("a"),
    "transform": lambda cache: cache.transform("a", lambda value: value + 1),
    "get_or_create": lambda cache: cache.get_or_create("c", lambda: 3),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_closed_cache_leaves_its_lower_tier_alone(name: str) -> None:
    below: dict[str, Any] = {"a": 1, "b": 1}
    cache: Any = Cache(below=below)
    cache.close()
    with pytest.raises(ClosedError):
        CHANGES[name](cache)
    assert below == {"a": 1, "b": 1}


@pytest.mark.parametrize("cost", [-1, math.nan, "x"])
def test_a_wrong_argument_changes_nothing(cost: Any) -> None:
    below: dict[str, Any] = {}
    cache: Any = Cache(below=below)
    cache["k"] = 1
    with pytest.raises((ValueError, TypeError), match="cost must be"):
        cache.set("k", 2, cost=cost)
    assert cache["k"] == below["k"] == 1


def test_what_cannot_be_cleared_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(dict[Any, Any]):
        def clear(self) -> None:
            raise KeyError("no such table")

    for below in (NoKeys(), Odd()):
        cache: Any = Cache(below=below)
        cache["k"] = 1
        cache.clear()
        assert cache.get("k") is None
        assert cache.tier_stats().failures <= 1


def test_a_prefix_of_keys_that_cannot_be_listed_is_not_read() -> None:
    class Broken(dict[Any, Any]):
        def __iter__(self) -> Iterator[Any]:
            raise OSError(5, "Input/output error")

    for below in (NoKeys(), Broken()):
        cache: Any = Cache(below=below)
        cache["ab"] = 1
        lose(cache)
        cache.delete_prefix("a")
        assert cache.get("ab") is None


@pytest.mark.parametrize("expires_at", ["soon", None, math.nan])
def test_a_time_that_is_none_is_a_failure_of_the_mapping(expires_at: Any) -> None:
    cache: Any = Cache(below={"k": Expiring(1, expires_at)})
    assert cache.get("k") is None
    assert "k" not in cache
    assert cache.get_or_create("k", lambda: 5) == 5
    assert cache.tier_stats().failures >= 1


def test_what_is_known_of_a_mapping_that_fails_has_a_bound() -> None:
    cache: Any = Cache(below=Full())
    for number in range(11_000):
        cache[number] = b""
    assert cache.tier_stats().distrusted == 10_000


def test_a_value_too_large_for_the_cache_is_added_below() -> None:
    below: dict[str, Any] = {}
    cache: Any = Cache(below=below, max_bytes="1M")
    large = b"x" * (8 << 20)
    assert cache.add("k", large) is True
    assert cache.add("k", b"") is False
    assert cache.setdefault("k", b"") == large
    assert below == {"k": large}
    with pytest.raises(droppable.ValueTooLargeError):
        Cache(below=Full(), max_bytes="1M").add("k", large)


class Gated(dict[Any, Any]):
    """Writes wait until the gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.is_inside = threading.Event()

    def __setitem__(self, key: Any, value: Any) -> None:
        if not self.gate.is_set():
            self.is_inside.set()
        assert self.gate.wait(WAIT_SECONDS)
        super().__setitem__(key, value)


def in_child(check: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            check()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_child_reads_nothing_older_than_what_its_parent_had_set() -> None:
    below = Gated()
    cache: Any = Cache(below=below, write="behind")
    cache["k"] = cache["deleted"] = "old"
    cache.flush()
    below.gate.clear()
    cache["k"] = cache["deleted"] = "new"

    def check() -> None:
        assert cache.get("k") == "new"
        lose(cache)
        assert cache.get("k") == "new"
        below.gate.set()
        assert cache.tier_stats().pending == 0  # those are the parent's to write
        assert cache.discard("deleted") is True
        assert cache.get("deleted") is None
        assert cache.delete_prefix("k") == 1
        assert cache.get("k") is None

    in_child(check)
    below.gate.set()
    cache.close()
    assert below["k"] == "new"


def test_the_first_threads_of_a_child_lose_nothing() -> None:
    for _ in range(40):
        below: dict[Any, Any] = {}
        cache: Any = Cache(below=below, write="behind")

        def check(cache: Any = cache, below: dict[Any, Any] = below) -> None:
            sys.setswitchinterval(1e-6)
            barrier = threading.Barrier(8)

            def write(number: int) -> None:
                barrier.wait(WAIT_SECONDS)
                cache[number] = number

            threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT_SECONDS)
            cache.flush()
            assert below == {number: number for number in range(8)}

        in_child(check)


@pytest.mark.parametrize("write", ["through", "behind"])
def test_an_event_loop_does_not_wait_while_others_write(write: Any) -> None:
    below = Gated()
    with Cache(below=below, write=write) as made:
        cache: Any = made
        below.gate.clear()
        writer = threading.Thread(target=cache.set, args=("slow", 1))
        writer.start()
        assert below.is_inside.wait(WAIT_SECONDS)

        async def compute() -> int:
            return 2

        async def main() -> None:
            keys = range(150)  # some of them share the lock that the writer holds
            tasks = [asyncio.create_task(cache.aget_or_create(key, compute)) for key in keys]
            while len(cache) < len(keys):  # all are stored in the cache while the gate is closed: nobody stops the loop
                await asyncio.sleep(0)
            assert not below
            below.gate.set()
            assert await asyncio.wait_for(asyncio.gather(*tasks), WAIT_SECONDS) == [2] * len(keys)

        asyncio.run(main())
        writer.join()
        cache.flush()
        assert len(below) == 151


def test_what_a_coroutine_computed_does_not_replace_what_was_set_meanwhile() -> None:
    below = Gated()
    cache: Any = Cache(below=below)

    async def main() -> None:
        below.gate.clear()

        async def compute() -> str:
            return "computed"

        task = asyncio.create_task(cache.aget_or_create("k", compute))
        while len(cache) == 0:
            await asyncio.sleep(0)
        setter = threading.Thread(target=cache.set, args=("k", "set"))
        setter.start()
        below.gate.set()
        await task
        await asyncio.to_thread(setter.join)

    asyncio.run(main())
    cache.flush()
    lose(cache)
    assert cache["k"] == "set"


def test_what_finds_no_room_to_wait_is_written_by_a_thread() -> None:
    below: dict[str, bytes] = {}
    large = b"x" * (17 << 20)

    async def compute() -> bytes:
        return large

    with Cache(below=below) as made:
        cache: Any = made
        assert asyncio.run(cache.aget_or_create("k", compute)) == large
        assert below == {"k": large}


class Transforming:
    """Transforms another key while it is pickled."""

    def __init__(self, cache: Any, key: str) -> None:
        self.cache, self.key = cache, key

    def __reduce__(self) -> Any:
        self.cache.transform(self.key, lambda value: value, "transformed")
        return str, ("pickled",)


def test_transforms_from_within_changes_do_not_wait_for_each_other() -> None:
    cache: Any = Cache(below={})
    names = [f"key {number}" for number in range(40)]
    over = [threading.Event(), threading.Event()]

    def work(me: int) -> None:
        for _ in range(30):
            for one, other in zip(names, reversed(names), strict=True):
                cache[one if me else other] = Transforming(cache, other if me else one)
        over[me].set()

    for me in range(2):
        threading.Thread(target=work, args=(me,), daemon=True).start()
    assert all(event.wait(WAIT_SECONDS) for event in over)
    for name in names:
        assert cache.get(name) in ("transformed", "pickled")


def test_what_is_written_while_keys_are_listed_is_listed() -> None:
    """A key that waits comes to the mapping and then waits no more. So what waits is looked at before the mapping."""
    written = threading.Event()

    class Slow(dict[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            assert written.wait(WAIT_SECONDS)
            super().__setitem__(key, value)

        def __iter__(self) -> Iterator[Any]:
            names = list(super().__iter__())
            written.set()
            cache.flush()
            return iter(names)

    below = Slow()
    with droppable.Cache(below=below, write="behind") as cache:
        cache["k"] = 1
        assert cache.delete_prefix("k") == 1
        assert cache.get("k") is None
        assert dict(below.items()) == {}
