"""Other threads run while much memory is given back, copied, marked or looked at."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import droppable
from droppable import Cache
from droppable.lowlevel import Mapping

Call = Callable[[], object]
MUCH = 4 << 20


@pytest.fixture(autouse=True)
def nobody_is_asked_for_the_gil() -> Iterator[None]:
    """A thread gets the GIL only where another one gives it away by itself: none asks for it within this time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


def assert_others_run(prepare: Callable[[], Call]) -> None:
    """Whether another thread gets its turn during the calls that prepare() returns.

    It waits for the GIL during the call, and one that gives the GIL away cannot fail to be overtaken for ever, as it
    takes many microseconds; one that does not never is.
    """
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("this Python has no GIL")
    for _ in range(2000):
        call = prepare()
        wake, awake, ran = threading.Lock(), threading.Lock(), threading.Lock()
        for lock in (wake, awake, ran):
            lock.acquire()

        def other(wake: Any = wake, awake: Any = awake, ran: Any = ran) -> None:
            awake.release()
            wake.acquire()  # without the GIL
            ran.release()

        thread = threading.Thread(target=other)
        thread.start()
        awake.acquire()
        wake.release()
        call()
        overtaken = ran.acquire(blocking=False)
        del call
        thread.join()
        if overtaken:
            return
    pytest.fail("no other thread ran during 2000 calls: the GIL was held")


def filled(make_cache: Callable[..., Cache]) -> Cache:
    cache = make_cache()
    cache["much"] = bytes(MUCH)
    for number in range(50):
        cache[number] = bytes(1000)
    return cache


@pytest.mark.parametrize("what", ["clear", "close", "_settle"])
def test_of_a_cache(make_cache: Callable[..., Cache], what: str) -> None:
    assert_others_run(lambda: getattr(filled(make_cache), what))


def test_the_last_reference(make_cache: Callable[..., Cache]) -> None:
    def prepare() -> Call:
        caches = [filled(make_cache)]
        return caches.clear

    assert_others_run(prepare)


def test_a_cycle(make_cache: Callable[..., Cache]) -> None:
    import gc

    def prepare() -> Call:
        cache = filled(make_cache)
        cache.itself = cache  # type: ignore[attr-defined]
        return gc.collect

    assert_others_run(prepare)


@pytest.mark.parametrize("what", ["set", "get", "view"])
def test_large_values(make_cache: Callable[..., Cache], what: str) -> None:
    much = bytes(MUCH)

    def prepare() -> Call:
        cache = filled(make_cache)  # a new one: its second view would be pinned already
        calls: dict[str, Call] = {
            "set": lambda: cache.set("k", much),
            "get": lambda: cache.get("much"),
            "view": lambda: cache.view("much"),
        }
        return calls[what]

    assert_others_run(prepare)


def test_a_small_value_that_evicts_a_large_one(make_cache: Callable[..., Cache]) -> None:
    """The GIL is kept for small values; at its end this call finds that megabytes go."""
    small = bytes(4000)

    def prepare() -> Call:
        cache = make_cache(max_bytes=9 * MUCH)
        for number in range(8):  # more than are kept to be written again
            cache["much", number] = bytes(MUCH)

        def evict() -> None:
            number = 0
            while any(("much", large) in cache for large in range(8)):
                number += 1
                cache[number] = small

        return evict

    assert_others_run(prepare)


def test_the_last_reference_to_a_large_array(numpy: Any) -> None:
    cache = Cache(backing="lazyfree")

    def prepare() -> Call:
        for number in range(20):  # more than the window of pins holds
            cache[number] = numpy.ones(MUCH, "u1")
        held = [cache[number] for number in range(20)]
        return held.clear

    assert_others_run(prepare)


def region(length: int = MUCH) -> droppable.Region:
    region = droppable.Region(length, backing="lazyfree", on_drop="raise")
    region.write(0, bytes(length))
    return region


def test_of_a_region() -> None:
    much = bytes(MUCH)
    kept = region()
    into = bytearray(MUCH)
    # A settle is not among them: what write() left is settled already, and takes too little time to be overtaken in.
    calls: dict[str, Callable[[], Call]] = {
        "close": lambda: region().close,
        "last reference": lambda: [region()].clear,
        "read": lambda: kept.read,
        "read_into": lambda: lambda: kept.read_into(into),
        "write": lambda: lambda: kept.write(0, much),
        "census": lambda: kept.census,
        "page_states": lambda: kept.page_states,
        "purge": lambda: region().purge,
        "hold": lambda: region(16 * MUCH).pin().__enter__,  # a page of it takes some tens of nanoseconds
        "resize": lambda: lambda: region().resize(MUCH * 2),
    }
    for name, prepare in calls.items():
        try:
            assert_others_run(prepare)
        except pytest.fail.Exception as error:
            pytest.fail(f"{name}: {error}")


def test_the_end_of_a_hold() -> None:
    kept = region()

    def prepare() -> Call:
        kept.purge()
        hold = kept.hold("write", 0, MUCH)
        return hold.finish

    assert_others_run(prepare)

    def forgotten() -> Call:
        kept.purge()
        return [kept.hold("write", 0, MUCH)].clear

    assert_others_run(forgotten)


def test_of_a_mapping() -> None:
    def mapping() -> Mapping:
        made = Mapping(MUCH)
        made.pin()
        return made

    assert_others_run(lambda: mapping().close)
    assert_others_run(lambda: [mapping()].clear)
    assert_others_run(lambda: mapping().purge)
