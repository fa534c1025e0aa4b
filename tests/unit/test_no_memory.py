"""Each allocation of a call fails in turn: the call gives the right value or raises MemoryError, and nothing is lost.

CPython's own test module makes the allocator fail at its Nth call. Each operation runs in a process of its own, so that
a crash is a failure of that operation: `python tests/unit/test_no_memory.py 'stores keys'`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib.util
import logging
import mmap
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from droppable import Dropped, UnsupportedError

MOST_ALLOCATIONS = 400
ENOUGH = 40
"""So many calls in a row that went well have no allocation left that could fail."""
REGION_BYTES = 1 << 16
PAGE_BYTES = mmap.PAGESIZE

OTHERS = {
    "error return without exception set": "pickle.whichmodule, written in C, forgets to raise",
    "numpy.": "NumPy's functions in C forget to raise, or answer with an exception set",
    "import of module": "pickle, whatever the import of a module raised",
    "can't allocate lock": "threading.Lock() where there is no memory",
    "deallocated bytearray object has exported buffers": "PyByteArray_FromStringAndSize() reads a count not yet set",
}
"""What CPython and NumPy raise or print in the place of MemoryError, a part of its message each."""

Call = Callable[[], Any]
"""Makes the call once, and asserts that what it gave is right."""


class Point:
    """A value and a key that is pickled."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x

    def __hash__(self) -> int:
        return hash(self.x)


def keys() -> list[Any]:
    """One of each kind that has a form of its own, small and large, and nested."""
    return [
        1, -(2**90), 2**2000, 1.5, 2 + 3j, True, None, Ellipsis, "text", "ä" * 5000, b"bytes", bytes(5000),
        (), (1, "a", (2, b"c")), tuple(range(300)), frozenset({1, 2, (3,)}), frozenset(range(50)), range(3), Point(4),
        (Point(5), "x"), Point, len,
    ]  # fmt: skip


def values() -> list[Any]:
    import numpy

    array = numpy.arange(3000.0)
    return [
        1, "text", b"x" * 100, bytes(200_000), "y" * 20_000, array, array.reshape(30, 100), numpy.arange(0),
        {"a": array, "b": [array]}, [1, 2], {"k": 1}, Point(7), None, True, 1.5, 2**70, (1, "b"),
    ]  # fmt: skip


def same(got: Any, expected: Any) -> bool:
    import numpy

    if isinstance(expected, numpy.ndarray):
        return bool((got.shape == expected.shape) and (got == expected).all())
    if isinstance(expected, dict) and "b" in expected:
        return same(got["a"], expected["a"]) and same(got["b"][0], expected["b"][0])
    return type(got) is type(expected) and bool(got == expected)


def of_a_cache(make: Callable[[Any], Iterator[Call]]) -> Callable[[], Iterator[Call]]:
    def calls() -> Iterator[Call]:
        from droppable import Cache

        with Cache[Any, Any]() as cache:
            yield from make(cache)
            stats = cache.stats()
            left = stats.dropped + stats.evicted + stats.expired + stats.deletes + stats.replaced + stats.cleared
            assert stats.sets == stats.entries + left, stats
            cache.set("after", 1)
            assert cache["after"] == 1
            gc.collect()
            cache.clear()
            assert cache.stats().pinned_bytes == 0

    return calls


@of_a_cache
def stores_keys(cache: Any) -> Iterator[Call]:
    for number, key in enumerate(keys()):

        def call(key: Any = key, number: int = number) -> None:
            cache.set(key, number)
            assert cache.get(key) == number
            assert key in cache
            assert cache.discard(key)

        yield call


@of_a_cache
def stores_values(cache: Any) -> Iterator[Call]:
    for number, value in enumerate(values()):

        def call(value: Any = value, number: int = number) -> None:
            cache[number] = value
            assert same(cache[number], value)
            assert same(cache.get(number, copy=True), value)
            del cache[number]

        yield call


@of_a_cache
def takes_many(cache: Any) -> Iterator[Call]:
    wanted: dict[Any, Any] = {key: (number, "v" * number) for number, key in enumerate(keys()[:14])}

    def call() -> None:
        assert cache.set_many(wanted) == []
        found = cache.get_many(wanted)
        assert found == {key: wanted[key] for key in found}
        assert cache.delete_many(list(wanted)[:3]) <= 3

    yield call


@of_a_cache
def lists_keys(cache: Any) -> Iterator[Call]:
    short = {key for key in keys() if key not in ("ä" * 5000, bytes(5000))}
    cache.set_many(dict.fromkeys(short, 1))
    listed = set(cache)
    assert len(listed) > len(short) // 2

    def call() -> None:
        assert set(cache) == listed

    yield call


@of_a_cache
def changes(cache: Any) -> Iterator[Call]:
    def add() -> None:
        cache.discard("key")
        assert cache.add("key", "value", ttl=100)
        assert not cache.add("key", "other")
        assert cache.pop("key") == "value"

    def count() -> None:
        cache["n"] = 2**70
        assert cache.incr("n", 3) == 2**70 + 3

    def transform() -> None:
        cache["t"] = [1]
        assert cache.transform("t", lambda value: [*value, 2]) == [1, 2]
        assert cache["t"] == [1, 2]

    def lives() -> None:
        cache.set("ttl", 1, ttl=50)
        assert cache.touch("ttl", 100)
        assert 50 < cache.expires_in("ttl") <= 100

    def compute() -> None:
        cache.discard(("made", 1))
        assert cache.get_or_create(("made", 1), lambda: {"a": 1}) == {"a": 1}
        assert cache.get(("made", 1), {"a": 1}) == {"a": 1}

    def prefix() -> None:
        cache["pre-1"] = cache["pre-2"] = 1
        assert cache.delete_prefix("pre-") == 2

    yield from (add, count, transform, lives, compute, prefix)


@of_a_cache
def has_namespaces(cache: Any) -> Iterator[Call]:
    part = cache.namespace("part")

    def call() -> None:
        part["key"] = (1, "value")
        assert part.get("key") == (1, "value")
        assert cache.get("key") is None
        assert list(part) == ["key"]
        part.clear()
        assert len(part) == 0

    yield call


def decorates() -> Iterator[Call]:
    import droppable

    class Owner:
        def __init__(self, number: int) -> None:
            self.number = number

        @droppable.cache(self_key="number")
        def method(self, a: Any, *, b: int = 1) -> tuple[Any, ...]:
            return (a, b)

    @droppable.cache
    def function(*args: Any, **kwargs: Any) -> list[Any]:
        return [args, kwargs]

    owner = Owner(3)

    def hit() -> None:
        assert function(1, "a", c=(2,)) == [(1, "a"), {"c": (2,)}]

    def method() -> None:
        assert owner.method((1, 2), b=3) == ((1, 2), 3)

    def other() -> None:
        assert Owner(4).method("x") == ("x", 1)

    def invalidate() -> None:
        assert function(5) == [(5,), {}]
        function.invalidate(5)
        assert function.cache_info().hits > 0

    def bound() -> None:
        assert function.cache_key(1) == function.cache_key(1)
        assert owner.method.cache_key(1) == owner.method.cache_key(1)
        assert owner.method.__self__ is owner

    yield from (hit, method, other, invalidate, bound)
    function.cache.close()


def has_regions() -> Iterator[Call]:
    from droppable.lowlevel import RawRegion

    def drop(region: RawRegion) -> None:
        with contextlib.suppress(UnsupportedError):
            region.page_out(0, REGION_BYTES)

    def reads() -> None:
        with contextlib.closing(RawRegion(REGION_BYTES, name="memory")) as region:
            region.write(5, b"bytes")
            assert region.read(5, 10) == b"bytes"
            buffer = bytearray(5)
            region.read_into(buffer, 5)
            assert buffer == b"bytes"
            assert region.name == "memory"

    def looks() -> None:
        with contextlib.closing(RawRegion(REGION_BYTES, "raise")) as region:
            region.write(0, b"x" * REGION_BYTES)
            region.settle(0, REGION_BYTES)
            assert region.census_counts(0, REGION_BYTES)[0] == REGION_BYTES // PAGE_BYTES
            assert len(region.page_states(0, REGION_BYTES)) == REGION_BYTES // PAGE_BYTES
            drop(region)
            with contextlib.suppress(Dropped):
                assert region.read(0, 3 * PAGE_BYTES) == b"x" * 3 * PAGE_BYTES

    def holds() -> None:
        region = RawRegion(REGION_BYTES)
        hold = region.hold("write", 0, PAGE_BYTES)
        memoryview(hold)[0:3] = b"abc"
        hold.finish()
        assert bytes(memoryview(region)[0:3]) == b"abc"

    yield from (reads, looks, holds)


def maps() -> Iterator[Call]:
    from droppable.lowlevel import Mapping

    def call() -> None:
        with Mapping(REGION_BYTES, "lazyfree") as mapping:
            memoryview(mapping)[0:2] = b"ab"
            mapping.mark()
            assert mapping.census().pages == REGION_BYTES // PAGE_BYTES
            assert mapping.page_states()[0] == 1

    yield call


def draws() -> Iterator[Call]:
    from droppable import random

    source = random.SystemRandom()

    def call() -> None:
        assert len(random.token_bytes(10)) == 10
        assert len(random.token_hex(10)) == 20
        assert len(random.token_urlsafe(9)) == 12
        assert 0 <= random.randbelow(10**40) < 10**40
        assert random.uuid4().version == 4
        assert 0 <= source.random() < 1
        assert source.getrandbits(1000) < 1 << 1000
        buffer = bytearray(3000)
        random.fill(buffer)
        assert buffer != bytes(3000)

    yield call


def tells_of_the_system() -> Iterator[Call]:
    from droppable import lowlevel

    def call() -> None:
        assert lowlevel.headroom().usage_bytes > 0
        assert lowlevel.probe("lazyfree")[1]

    yield call


OPERATIONS: dict[str, Callable[[], Iterator[Call]]] = {
    "stores keys": stores_keys,
    "stores values": stores_values,
    "takes many": takes_many,
    "lists keys": lists_keys,
    "changes": changes,
    "has namespaces": has_namespaces,
    "decorates": decorates,
    "has regions": has_regions,
    "maps": maps,
    "draws": draws,
    "tells of the system": tells_of_the_system,
}


def fail_in_turn(call: Call) -> int:
    """How many of the call's allocations were told of."""
    from _testcapi import remove_mem_hooks, set_nomemory

    told = in_a_row = 0
    for number in range(MOST_ALLOCATIONS):
        raised = False
        set_nomemory(number, number + 1)
        try:
            call()
        except MemoryError:
            raised = True
        except (RuntimeError, SystemError, pickle.PicklingError) as error:
            raised = True
            if not any(part in str(error) for part in OTHERS):
                raise
        finally:
            remove_mem_hooks()
        told += raised
        in_a_row = 0 if raised else in_a_row + 1
        if in_a_row == ENOUGH:
            break
    call()
    return told


def main() -> None:
    faulthandler.enable()
    logging.getLogger("droppable").addHandler(logging.NullHandler())  # results that cannot be kept for want of memory
    with contextlib.closing(OPERATIONS[sys.argv[1]]()) as calls:  # type: ignore[type-var]
        told = 0
        for call in calls:
            call()  # what only the first call does
            told += fail_in_turn(call)
    print(told)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_allocation_fails(name: str) -> None:
    if importlib.util.find_spec("_testcapi") is None:
        pytest.skip("this Python has no _testcapi, whose allocator fails on order")
    pytest.importorskip("numpy", reason="NumPy is not installed")
    command = [sys.executable, str(Path(__file__)), name]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    told = [line for line in ran.stderr.splitlines() if not any(part in line for part in OTHERS)]
    assert (ran.returncode, told) == (0, [])
    assert int(ran.stdout) > 0


if __name__ == "__main__":
    main()
