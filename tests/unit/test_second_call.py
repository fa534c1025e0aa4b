"""The second call behaves as the first: a miss gives what a hit gives, to the caller and to all who waited."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import decimal
import logging
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import droppable
from droppable import Cache, UnpicklableError, ValueTooLargeError, _log
from droppable.testing import advance_clock
from tests.unit.test_flight import in_threads, run, until_waiting, waiting

LARGE_BYTES = 1 << 20


@dataclasses.dataclass
class Point:
    x: int
    marks: list[str]


class Slotted:
    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and other.data == self.data

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _nothing_was_told() -> Iterator[None]:
    _log.told.clear()
    yield
    _log.told.clear()


# What a factory makes, and what every call gives.
VALUES: dict[str, tuple[Callable[[], Any], Any]] = {
    "bytes": (lambda: b"x" * 10, b"x" * 10),
    "large bytes": (lambda: b"x" * LARGE_BYTES, b"x" * LARGE_BYTES),
    "str": (lambda: "t\u20acxt", "t\u20acxt"),
    "int": (lambda: 1 << 70, 1 << 70),
    "none": (lambda: None, None),
    "tuple": (lambda: (1, "a", None, 2.5, b"b"), (1, "a", None, 2.5, b"b")),
    "nested tuple": (lambda: (1, [2]), (1, [2])),
    "bytearray": (lambda: bytearray(b"abc"), b"abc"),
    "large bytearray": (lambda: bytearray(LARGE_BYTES), bytes(LARGE_BYTES)),
    "memoryview": (lambda: memoryview(bytearray(b"abcdef"))[::2], b"ace"),
    "list": (lambda: [1, [2]], [1, [2]]),
    "large list": (lambda: [b"x" * LARGE_BYTES, []], [b"x" * LARGE_BYTES, []]),
    "dict": (lambda: {"a": {1, 2}}, {"a": {1, 2}}),
    "object": (lambda: Point(1, ["a"]), Point(1, ["a"])),
    "large object": (lambda: Slotted(b"x" * LARGE_BYTES), Slotted(b"x" * LARGE_BYTES)),
    "date": (lambda: datetime.date(2020, 1, 1), datetime.date(2020, 1, 1)),
    "decimal": (lambda: decimal.Decimal("1.5"), decimal.Decimal("1.5")),
}
MUTABLE = {name for name in VALUES if any(word in name for word in ("list", "dict", "object", "nested"))}


def asks(cache: Cache, factory: Callable[[], Any], **options: Any) -> dict[str, Callable[[object], Any]]:
    """The ways to ask for a key's value, by their names."""

    async def make() -> Any:
        return factory()

    return {
        "get_or_create": lambda key: cache.get_or_create(key, factory, **options),
        "aget_or_create": lambda key: run(cache.aget_or_create(key, make, **options)),
    }


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("way", ["get_or_create", "aget_or_create", "decorator", "async decorator"])
def test_a_miss_gives_what_a_hit_gives(backing: Any, name: str, way: str) -> None:
    make, expected = VALUES[name]
    made: list[Any] = []

    def factory() -> Any:
        made.append(make())
        return made[-1]

    @droppable.cache(backing=backing)
    def function() -> Any:
        return factory()

    @droppable.cache(backing=backing)
    async def coroutine() -> Any:
        return factory()

    cache = Cache(backing=backing)
    ways = {"decorator": lambda _: function(), "async decorator": lambda _: run(coroutine())}
    ask = {**asks(cache, factory), **ways}[way]
    miss, hit = ask("k"), ask("k")
    assert len(made) == 1
    for got in (miss, hit):
        assert type(got) is type(expected)
        assert got == expected
    if name in MUTABLE:
        assert miss is not made[0]
        assert hit is not miss
        target = miss if isinstance(miss, (list, dict)) else None
        if target is not None:
            target.clear()
            assert ask("k") == expected
    if name in ("str", "int", "bytes", "tuple"):
        assert miss is made[0]  # nobody can change it: no copy
    for of in (cache, function.cache, coroutine.cache):
        stats = of.stats()
        assert (stats.unstorable, stats.refused) == (0, 0)
        assert stats.hits + stats.misses in (0, 2 + (name in MUTABLE and isinstance(miss, (list, dict))))


@pytest.mark.parametrize("length", [3, 1000, 200_000])
class TestArrays:
    def test_they_are_read_only_from_the_first_call_on(self, cache: Cache, numpy: Any, length: int) -> None:
        array = numpy.arange(length, dtype="f8")
        for way, ask in asks(cache, lambda: array).items():
            for _ in range(3):
                got = ask(way)
                assert (got == numpy.arange(length)).all()
                with pytest.raises(ValueError, match="read-only"):
                    got[0] = 5
        array[0] = 99  # the factory's own: what was given does not change with it
        assert cache["get_or_create"][0] == 0

    def test_a_copy_is_writable_on_every_call(self, cache: Cache, numpy: Any, length: int) -> None:
        def factory() -> Any:
            return numpy.arange(length, dtype="f8")

        for way, ask in asks(cache, factory, copy=True).items():
            for _ in range(3):
                got = ask(way)
                assert (got == numpy.arange(length)).all()
                got[:] = 7  # on memory of his own
            assert (cache.get(way, copy=True) == numpy.arange(length)).all()
            cache.get(way, copy=True)[:] = 8
            assert (cache[way] == numpy.arange(length)).all()
            assert not cache[way].flags.writeable

    def test_the_decorator_copies(self, backing: Any, numpy: Any, length: int) -> None:
        @droppable.cache(backing=backing, copy=True)
        def function() -> Any:
            return numpy.arange(length, dtype="f8")

        @droppable.cache(backing=backing, copy=True)
        async def coroutine() -> Any:
            return numpy.arange(length, dtype="f8")

        for ask in (function, lambda: run(coroutine()), function.refresh):
            for _ in range(3):
                got = ask()
                assert (got == numpy.arange(length)).all()
                got[:] = 7

    def test_fortran_order_structures_and_frames(self, cache: Cache, numpy: Any, length: int) -> None:
        array = numpy.asfortranarray(numpy.arange(2 * length, dtype="i4").reshape(2, length))
        value = {"f": array, "c": array.T.copy()}
        for copy in (False, True):
            for key, made in (("array", array), ("dict", value)):
                cache.discard(key)
                for _ in range(2):
                    got = cache.get_or_create(key, lambda made=made: made, copy=copy)
                    parts = [got] if key == "array" else list(got.values())
                    for part in parts:
                        assert part is not array
                        assert part.flags.writeable == copy
                        if part.flags.writeable:
                            part[:] = 0
            assert array[1, -1] == 2 * length - 1

    def test_each_waiter_has_his_own(self, cache: Cache, numpy: Any, length: int) -> None:
        for copy in (False, True):

            def factory() -> Any:
                until_waiting(cache, 3)
                return numpy.arange(length, dtype="f8")

            results = in_threads(4, lambda _, copy=copy: cache.get_or_create(("k", copy), factory, copy=copy))
            assert len({id(result) for result in results}) == 4
            assert all(result.flags.writeable == copy for result in results)
            if copy:
                for number, result in enumerate(results):
                    result[:] = number
                assert [result[-1] for result in results] == [0, 1, 2, 3]
            assert (cache["k", copy] == numpy.arange(length)).all()


def test_no_third_copy_of_a_large_array(cache: Cache, backing: str, numpy: Any) -> None:
    """A miss gives the very memory of the cache, as a hit does, and asks for no more."""
    if backing == "droppable":
        pytest.skip("droppable memory cannot be pinned: a hit is a copy too")
    array = numpy.arange(8 << 20, dtype="u1")
    got = cache.get_or_create("k", lambda: array)
    held = cache.stats().pinned_bytes
    assert held >= 8 << 20
    again = cache["k"]
    assert cache.stats().pinned_bytes == held
    assert got.__array_interface__["data"] == again.__array_interface__["data"]
    stats = cache.stats()
    assert (stats.hits, stats.misses) == (1, 1)  # the miss that stored it counts as no hit


class TestCopies:
    def test_of_what_is_not_there(self, cache: Cache) -> None:
        assert cache.get("k", copy=True) is None
        assert cache.get("k", 5, copy=True) == 5
        assert cache.get("k", default=6, copy=False) == 6

    @pytest.mark.parametrize("name", VALUES)
    def test_of_other_values(self, cache: Cache, name: str) -> None:
        make, expected = VALUES[name]
        cache["k"] = make()
        for _ in range(2):
            got = cache.get("k", copy=True)
            assert type(got) is type(expected)
            assert got == expected

    def test_it_is_given_by_name(self, cache: Cache) -> None:
        with pytest.raises(TypeError, match="at most 2 arguments"):
            cache.get("k", None, True)  # type: ignore[misc]
        with pytest.raises(TypeError, match="at most 3 arguments"):
            cache.get_or_create("k", int, None, True)  # type: ignore[misc]

    def test_with_a_serializer(self, make_cache: Callable[..., Cache], numpy: Any) -> None:
        cache = make_cache(serializer=pickle)
        assert cache.get_or_create("k", lambda: (1, 2), copy=True) == (1, 2)
        got = cache.get_or_create("a", lambda: numpy.arange(5), copy=True)
        got[0] = 1
        assert cache["a"][0] == 0


def test_a_serializer_decides_what_a_miss_gives(make_cache: Callable[..., Cache]) -> None:
    import json

    class Text:
        @staticmethod
        def dumps(value: Any) -> bytes:
            return json.dumps(value).encode()

        @staticmethod
        def loads(data: bytes) -> Any:
            return json.loads(data)

    cache = make_cache(serializer=Text())
    for _ in range(2):
        assert cache.get_or_create("k", lambda: (1, 2)) == [1, 2]
        assert cache.get_or_create("d", lambda: {1: None}) == {"1": None}
        assert cache.get_or_create("t", lambda: "as it is") == "as it is"


class Holder:
    """Cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class TestUnstorable:
    def test_what_cannot_be_pickled_is_returned_counted_and_told_once(
        self, cache: Cache, caplog: pytest.LogCaptureFixture
    ) -> None:
        made: list[Any] = []

        def factory() -> Any:
            made.append(Holder())
            return made[-1]

        with warnings.catch_warnings(), caplog.at_level(logging.DEBUG, "droppable"):
            warnings.simplefilter("error")
            for way, ask in asks(cache, factory).items():
                for _ in range(2):
                    assert ask(way) is made[-1]
        assert len(made) == 4
        stats = cache.stats()
        assert (stats.unstorable_unpicklable, stats.unstorable, stats.refused) == (4, 4, 0)
        assert len(cache) == 0
        assert len(caplog.records) == 2  # the two functions
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
        assert "factory cannot be kept" in caplog.text
        assert "your value of type Holder cannot be pickled" in caplog.text

    def test_who_waited_gets_the_same_object(self, cache: Cache) -> None:
        def factory() -> Any:
            until_waiting(cache, 3)
            return Holder()

        results = in_threads(4, lambda _: cache.get_or_create("k", factory))
        assert [type(result) for result in results] == [Holder] * 4
        assert len({id(result) for result in results}) == 1

    @pytest.mark.parametrize("size", [1000, LARGE_BYTES])
    def test_what_can_never_fit(
        self, make_cache: Callable[..., Cache], caplog: pytest.LogCaptureFixture, size: int
    ) -> None:
        cache = make_cache(max_bytes=size - 1)
        made: list[Any] = []

        def factory() -> Any:
            made.append([b"x" * size])
            return made[-1]

        for _ in range(2):
            assert cache.get_or_create("k", factory) is made[-1]
        stats = cache.stats()
        assert (stats.unstorable_too_large, stats.unstorable, stats.refused, stats.sets) == (2, 2, 0, 0)
        assert len(caplog.records) == 1
        assert "ValueTooLargeError" in caplog.text
        assert f"max_bytes of {size - 1}" in caplog.text

    @pytest.mark.parametrize("size", [1000, LARGE_BYTES])
    def test_who_waited_for_it_has_his_own(self, make_cache: Callable[..., Cache], size: int) -> None:
        cache = make_cache(max_bytes=size - 1)

        def factory() -> Any:
            until_waiting(cache, 3)
            return [b"x" * size]

        results = in_threads(4, lambda _: cache.get_or_create("k", factory))
        assert results == [[b"x" * size]] * 4
        assert len({id(result) for result in results}) == 4
        assert cache.stats().unstorable_too_large == 1

    def test_the_message_of_set_has_both_sizes(self, make_cache: Callable[..., Cache]) -> None:
        cache = make_cache(max_bytes=100_000)
        for call in (cache.set, cache.add):
            with pytest.raises(ValueTooLargeError, match=r"your value of 200000 bytes .* max_bytes of 100000; raise"):
                call("k", b"x" * 200_000)
        assert cache.stats().unstorable == 0  # nothing was computed

    def test_two_functions_are_told_each(self, caplog: pytest.LogCaptureFixture) -> None:
        @droppable.cache
        def one() -> Any:
            return threading.Lock()

        @droppable.cache
        async def other() -> Any:
            return threading.Lock()

        for _ in range(3):
            one()
            run(other())
        assert len(caplog.records) == 2
        assert ".one cannot be kept" in caplog.text
        assert ".other cannot be kept" in caplog.text

    def test_what_is_not_to_be_kept_is_no_fault(self, cache: Cache) -> None:
        keeping = droppable._flight.Keeping(keep=lambda value: False)
        made = [1]
        got = cache._flights.do(cache, droppable.lowlevel.EncodedKey("k"), lambda: made, keeping)
        assert got == made
        assert got is not made
        assert cache.stats().unstorable == 0

    def test_what_was_invalidated_is_as_from_a_hit_too(self, cache: Cache) -> None:
        made = bytearray(b"abc")

        def factory() -> Any:
            cache.discard("k")
            return made

        assert cache.get_or_create("k", factory) == b"abc"
        assert type(cache.get_or_create("k", factory)) is bytes
        assert "k" not in cache


class TestErrorsOfSet:
    KINDS = (UnpicklableError, pickle.PicklingError, pickle.PickleError, TypeError, droppable.DroppableError)

    @pytest.mark.parametrize("make", [Holder, lambda: lambda: 1, threading.Lock, lambda: (x for x in "ab")])
    def test_it_is_an_error_of_pickle_and_of_the_type(self, cache: Cache, make: Callable[[], Any]) -> None:
        for call in (partial(cache.set, "k"), partial(cache.add, "k"), partial(cache.__setitem__, "k")):
            for kind in self.KINDS:
                with pytest.raises(kind, match=r"your value of type .* cannot be pickled: ."):
                    call(make())
        assert "k" not in cache

    def test_a_key(self, cache: Cache) -> None:
        with pytest.raises(UnpicklableError, match=r"your key of type .* cannot be pickled"):
            cache.set(lambda: 1, 1)

    def test_a_serializer_that_cannot(self, make_cache: Callable[..., Cache]) -> None:
        class Picky:
            def dumps(self, value: Any) -> bytes:
                raise ValueError("not mine")

            def loads(self, data: bytes) -> Any:
                raise AssertionError

        cache = make_cache(serializer=Picky())
        with pytest.raises(UnpicklableError, match="your serializer cannot take your value of type list: not mine"):
            cache.set("k", [])
        made: list[Any] = []
        assert cache.get_or_create("k", lambda: made) is made
        assert cache.stats().unstorable_unpicklable == 1


class TestMemory:
    """MemoryError, and what is no Exception, are no misses and no causes."""

    class Raises:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def __reduce__(self) -> Any:
            raise self.error

    def test_no_memory_to_encode_it(self, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
        made = self.Raises(MemoryError())
        assert cache.get_or_create("k", lambda: made) is made
        stats = cache.stats()
        assert (stats.unstorable_refused, stats.unstorable, stats.refused) == (1, 1, 1)
        assert "MemoryError" in caplog.text
        with pytest.raises(MemoryError):
            cache.set("k", made)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_an_interrupt(self, cache: Cache, error: type[BaseException]) -> None:
        with pytest.raises(error):
            cache.get_or_create("k", lambda: self.Raises(error()))
        assert cache.stats().unstorable == 0
        assert not cache._flights.table

    def test_address_space(self, run_python: Callable[..., str]) -> None:
        assert (
            run_python(
                """
            import resource, logging
            from droppable import Cache
            logging.disable()
            cache = Cache()
            value = bytearray(300 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (200 << 20, resource.RLIM_INFINITY))
            assert cache.get_or_create("k", lambda: value) is value
            print(cache.stats().unstorable_refused)
            """
            ).strip()
            == "1"
        )


class TestCoroutines:
    def test_a_coroutine_function_is_not_called(self, cache: Cache) -> None:
        calls: list[int] = []

        async def factory() -> int:
            calls.append(1)
            return 5

        class Client:
            async def fetch(self) -> int:
                calls.append(1)
                return 5

        for wrong in (factory, partial(factory), partial(partial(factory)), Client().fetch):
            with pytest.raises(TypeError, match=r"use aget_or_create\(\); you gave "):
                cache.get_or_create("k", wrong)
        assert not calls

    def test_a_coroutine_is_closed(self, cache: Cache) -> None:
        async def later() -> int:
            return 5

        made: list[Any] = []

        def factory() -> Any:
            made.append(later())
            return made[-1]

        with pytest.raises(TypeError, match=r"factory gave a coroutine, .* Use aget_or_create\(\)"):
            cache.get_or_create("k", factory)
        assert made[0].cr_frame is None  # closed: nothing warns that it was never awaited
        assert "k" not in cache
        assert not cache._flights.table

    def test_a_function_where_a_coroutine_function_belongs(self, cache: Cache) -> None:
        with pytest.raises(TypeError, match=r"factory must be a coroutine function, or use get_or_create\(\); .* 5"):
            run(cache.aget_or_create("k", lambda: 5))  # type: ignore[arg-type,return-value]
        with pytest.raises(TypeError, match=r"factory must be a function without arguments; you gave 5"):
            run(cache.aget_or_create("k", 5))  # type: ignore[arg-type]


def test_tasks_have_their_own(cache: Cache) -> None:
    async def factory() -> list[str]:
        while waiting(cache) < 4:
            await asyncio.sleep(0)
        return ["a"]

    async def main() -> list[Any]:
        return await asyncio.gather(*(cache.aget_or_create("k", factory) for _ in range(4)))

    results = run(main())
    assert results == [["a"]] * 4
    assert len({id(result) for result in results}) == 4


def test_an_expired_value_is_computed_anew(cache: Cache) -> None:
    made = iter(range(9))
    assert cache.get_or_create("k", lambda: [next(made)], ttl=5, copy=True) == [0]
    assert cache.get_or_create("k", lambda: [next(made)], ttl=5) == [0]
    advance_clock(cache, 6)
    assert cache.get_or_create("k", lambda: [next(made)], ttl=5) == [1]


class TestLogging:
    def test_a_handler_that_raises_does_not_reach_the_caller(
        self, cache: Cache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Broken(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise RuntimeError("no disk")

        logger = logging.getLogger("droppable")
        handler = Broken()
        logger.addHandler(handler)
        try:
            for raises, words in ((True, "RuntimeError: no disk"), (False, "")):
                monkeypatch.setattr(logging, "raiseExceptions", raises)
                _log.told.clear()
                assert type(cache.get_or_create("k", threading.Lock)) is type(threading.Lock())
                assert words in capsys.readouterr().err
                assert raises or not capsys.readouterr().err
        finally:
            logger.removeHandler(handler)

    def test_a_time_limit_that_strikes_there_is_raised(self, cache: Cache) -> None:
        import signal

        class Limit(Exception):
            pass

        def strike(*_: object) -> None:
            raise Limit

        class Slow(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                signal.raise_signal(signal.SIGUSR1)

        logger = logging.getLogger("droppable")
        handler, before = Slow(), signal.signal(signal.SIGUSR1, strike)
        logger.addHandler(handler)
        try:
            with pytest.raises(Limit):
                cache.get_or_create("k", threading.Lock)
        finally:
            logger.removeHandler(handler)
            signal.signal(signal.SIGUSR1, before)

    def test_what_is_told_is_bounded(self) -> None:
        for number in range(2000):
            _log.tell_once(f"of {number}", "%s", number)
        assert len(_log.told) <= 1000
        assert sys.getsizeof(_log.told) < 100_000
