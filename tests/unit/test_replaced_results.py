"""A result that was computed anew is the one that later callers get. Limits in vain attempts are not lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import droppable
from droppable._flight.flight import Flight, Outcome
from droppable.testing import advance_clock


class Local:
    """One that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")


UNSTORABLE: list[Callable[[], Any]] = [Local, lambda: bytes(4 << 20)]


@pytest.mark.parametrize("make", UNSTORABLE)
def test_what_replaces_a_result_and_cannot_be_stored_leaves_none(make: Callable[[], Any]) -> None:
    results = [1, make(), 3]

    @droppable.cache(max_bytes="1M")
    def function() -> Any:
        return results[calls.pop()]

    calls = [0]
    assert function() == 1
    calls = [1]
    assert type(function.refresh()) is type(results[1])
    calls = [2]
    assert function() == function() == 3
    function.cache.close()


def test_so_for_coroutine_functions() -> None:
    results = iter([1, Local(), 3])

    @droppable.cache
    async def function() -> Any:
        return next(results)

    async def main() -> None:
        assert await function() == 1
        assert isinstance(await function.refresh(), Local)
        assert await function() == await function() == 3

    asyncio.run(main())


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stale_result_goes_when_the_new_one_cannot_be_stored(is_async: bool) -> None:
    results = iter([1, Local(), 3])

    if is_async:

        @droppable.cache(ttl=60, stale=60)
        async def coroutine() -> Any:
            return next(results)

        memo: Any = coroutine

        def call() -> Any:
            return asyncio.run(memo())
    else:

        @droppable.cache(ttl=60, stale=60)
        def function() -> Any:
            return next(results)

        memo = call = function
    assert call() == 1
    advance_clock(memo, 61)
    assert isinstance(call(), Local)
    assert len(memo.cache) == 0
    assert call() == call() == 3


def test_one_that_keep_turns_down_leaves_the_old_one() -> None:
    results = iter([1, 2])

    @droppable.cache(keep=lambda result: result == 1)
    def function() -> int:
        return next(results)

    assert (function(), function.refresh(), function()) == (1, 2, 1)


def test_what_was_begun_before_a_refresh_is_not_kept_after_it() -> None:
    begun, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    @droppable.cache
    def function() -> list[int]:
        calls.append(len(calls))
        mine = [len(calls)]
        if mine == [1]:
            begun.set()
            assert go_on.wait(60)
        return mine

    got: list[list[int]] = []
    thread = threading.Thread(target=lambda: got.append(function()))
    thread.start()
    assert begun.wait(60)
    assert function.refresh() == [2]
    go_on.set()
    thread.join()
    assert got == [[1]]
    assert function() == [2]


@pytest.mark.parametrize("older_is_first", [True, False])
def test_of_two_refreshes_that_which_began_later_is_kept(older_is_first: bool) -> None:
    begun = [threading.Event(), threading.Event()]
    go_on = [threading.Event(), threading.Event()]
    numbers = iter([0, 1])

    @droppable.cache
    def function() -> list[int]:
        number = next(numbers)
        begun[number].set()
        assert go_on[number].wait(60)
        return [number]

    threads = []
    for number in (0, 1):
        threads.append(threading.Thread(target=function.refresh))
        threads[-1].start()
        assert begun[number].wait(60)
    for number in (0, 1) if older_is_first else (1, 0):
        go_on[number].set()
        threads[number].join()
    assert function() == [1]


class Limit(Exception):
    """As a handler of signals raises it."""


class Fails:
    """Pickles and loads not: in attempt number `limited_at` for a reason that has nothing to do with it."""

    limited_at = 0
    attempts = 0

    @classmethod
    def fail(cls) -> None:
        cls.attempts += 1
        if cls.attempts == cls.limited_at:
            raise Limit
        raise TypeError("not this one")


class FailsToPickle(Fails):
    def __reduce__(self) -> Any:
        self.fail()


class FailsToLoad(Fails):
    def __getstate__(self) -> Any:
        return 1

    def __setstate__(self, state: Any) -> None:
        self.fail()


class Pickles:
    """A serializer."""

    def dumps(self, value: Any, /) -> bytes:
        value.__reduce__()
        return b""

    def loads(self, data: bytes, /) -> Any:
        return data


def at(kind: type[Fails], number: int) -> None:
    kind.attempts, kind.limited_at = 0, number


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("use", ["set", "get_or_create", "function", "serializer", "key", "argument"])
def test_a_time_limit_in_vain_pickling_is_raised_as_it_was(use: str, number: int) -> None:
    cache: Any = droppable.Cache(serializer=Pickles() if use == "serializer" else None)
    function: Any = droppable.cache(cache=cache)(lambda *arguments: FailsToPickle())
    uses: dict[str, Callable[[], Any]] = {
        "set": lambda: cache.set("k", FailsToPickle()),
        "get_or_create": lambda: cache.get_or_create("k", FailsToPickle),
        "function": function,
        "serializer": lambda: cache.set("k", FailsToPickle()),
        "key": lambda: cache.get(FailsToPickle()),
        "argument": lambda: function(FailsToPickle()),
    }
    at(FailsToPickle, number)
    with pytest.raises(Limit):
        uses[use]()
    assert FailsToPickle.attempts <= 3
    if use in ("get_or_create", "function"):
        at(FailsToPickle, 0)
        assert isinstance(uses[use](), FailsToPickle)  # returned, and not kept
    else:
        at(FailsToPickle, 0)
        with pytest.raises(TypeError, match="not this one"):
            uses[use]()


@pytest.mark.parametrize("number", [1, 2])
def test_a_time_limit_in_vain_loading_is_raised_as_it_was(number: int) -> None:
    cache: droppable.Cache[str, Any] = droppable.Cache()
    cache["k"] = FailsToLoad()
    at(FailsToLoad, number)
    with pytest.raises(Limit):
        cache.get("k")
    at(FailsToLoad, 0)
    assert cache.get("k") is None
    assert cache.stats().misses_unloadable == 1


@pytest.mark.parametrize(
    ("name", "value", "must_be"),
    [
        ("layout", 5, "a droppable.lowlevel.Layout, or None"),
        ("serializer", 5, "dumps.value. and loads.data."),
        ("serializer", Limit, "dumps.value. and loads.data."),
    ],
)
def test_layout_and_serializer_are_checked(name: str, value: Any, must_be: str) -> None:
    options: Any = {name: value}
    with pytest.raises(TypeError, match=f"{name} must be .*{must_be}.*you gave"):
        droppable.Cache(**options)


def test_the_name_of_a_function_is_checked() -> None:
    name: Any = []
    with pytest.raises(TypeError, match=r"name must be a str, or None; you gave \[\]"):
        droppable.cache(name=name)


@pytest.mark.filterwarnings("error")
def test_options_said_with_a_shared_cache_are_compared_by_type_first() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("compared")

        __hash__ = None  # type: ignore[assignment]

    odd: Any = Odd()
    with pytest.raises(TypeError, match="serializer= cannot be given together with cache="):
        droppable.cache(cache=droppable.Cache(), serializer=odd)


def test_jitter_names_a_wrong_ttl_and_keeps_a_short_one() -> None:
    wrong: Any = lambda result: "5m"  # noqa: E731
    with pytest.raises(TypeError, match=r"ttl must be .*you gave '5m'"):
        droppable.cache(ttl=wrong, jitter=0.5)(lambda: 1)()
    for _ in range(20):
        assert droppable.cache(ttl=lambda result: 5e-324, jitter=1)(lambda: 1)() == 1


def test_a_flight_that_was_invalidated_after_its_store_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the store and the end of a computation is a moment: who asks then must not get what is out of date."""
    calls: list[int] = []
    stale: list[bool] = []

    @droppable.cache
    def count(number: int) -> int:
        calls.append(number)
        return len(calls)

    land = Flight.land

    def invalidated(flight: Flight, outcome: Outcome) -> None:
        count.invalidate(1)
        stale.append(flight.is_stale())
        land(flight, outcome)

    monkeypatch.setattr(Flight, "land", invalidated)
    assert count(1) == 1
    assert stale == [True]
    monkeypatch.undo()
    assert count(1) == 2
