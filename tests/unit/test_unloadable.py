"""Values that were stored and do not load are misses; what is raised meanwhile by somebody else keeps its type."""

from __future__ import annotations

import logging
import pickle
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from droppable import Cache, _log

WEIGHT_BYTES = 100_000  # a pickle of so much lies on pages of its own


class ApiError(Exception):
    """Its __init__ wants more than pickle has for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Named(str):
    def __new__(cls, first: str, last: str) -> Named:
        return super().__new__(cls, f"{first} {last}")


class Fussy:
    def __reduce__(self) -> Any:
        return int, ("no number",)


class Heavy:
    """Large, in place, and its load fails."""

    def __reduce__(self) -> Any:
        return refuses, (pickle.PickleBuffer(b"x" * WEIGHT_BYTES),)


def refuses(_: object) -> None:
    raise ValueError("I will not")


class Limit(Exception):
    """A time limit, as a signal handler raises it: an Exception, that is."""


class Stop(BaseException):
    """One that is none."""


hooks: dict[str, Callable[[], None]] = {}


def loaded(name: str) -> Hooked:
    hooks.get("load", lambda: None)()
    return Hooked(name)


class Hooked:
    """Calls hooks while it is pickled and loaded."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        hooks.get("dump", lambda: None)()
        return loaded, (self.name,)

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hooked) and self.name == other.name


@pytest.fixture(autouse=True)
def _no_hooks() -> Iterator[None]:
    _log.told.clear()
    yield
    hooks.clear()


def raises(error: BaseException, times: int) -> Callable[[], None]:
    left = [times]

    def hook() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise error

    return hook


UNLOADABLE: list[Callable[[], Any]] = [
    lambda: ApiError(404, "no such page"),
    lambda: [1, {"nested": ApiError(404, "no such page")}],
    lambda: Named("Ada", "Lovelace"),
    Fussy,
    Heavy,
]


@pytest.mark.parametrize("make", UNLOADABLE)
class TestMisses:
    def test_each_way_to_ask(self, cache: Cache, make: Callable[[], Any]) -> None:
        for ask, expected in (
            (lambda: cache.get("k"), None),
            (lambda: cache.get("k", 5), 5),
            (lambda: cache.pop("k", 6), 6),
            (lambda: cache.get_or_create("k", lambda: 7), 7),
        ):
            cache["k"] = make()
            assert ask() == expected
            assert cache.get("k") == (7 if expected == 7 else None)
        for fails in (lambda: cache["k"], lambda: cache.pop("k")):
            cache["k"] = make()
            with pytest.raises(KeyError):
                fails()
            assert "k" not in cache

    def test_it_is_counted(self, cache: Cache, make: Callable[[], Any]) -> None:
        cache["k"] = make()
        cache["other"] = 1
        assert cache.get("k") is None
        assert cache.get("k") is None
        stats = cache.stats()
        assert (stats.hits, stats.misses, stats.misses_unloadable, stats.misses_absent) == (0, 2, 1, 1)
        assert stats.sets == stats.entries + stats.deletes == 2
        assert len(cache) == 1

    def test_it_is_told_once_a_type(
        self, cache: Cache, make: Callable[[], Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "droppable"):
            for _ in range(3):
                cache["k"] = make()
                cache.get("k")
        assert len(caplog.records) == 1
        name = {Fussy: "builtins.int", Heavy: f"{__name__}.refuses", Named: "Named"}
        expected = next((text for kind, text in name.items() if isinstance(make(), kind)), f"{__name__}.ApiError")
        assert expected in caplog.text

    def test_the_decorator_computes_each_time(self, make: Callable[[], Any]) -> None:
        import droppable

        calls = []

        @droppable.cache
        def compute(_: int) -> Any:
            calls.append(1)
            return make()

        for _ in range(3):
            assert type(compute(1)) is type(make())
        assert len(calls) == 3


def test_a_serializer_that_cannot_read_what_it_wrote(make_cache: Callable[..., Cache]) -> None:
    class Broken:
        def dumps(self, value: Any, /) -> bytes:
            return b"x"

        def loads(self, data: bytes, /) -> Any:
            raise ValueError("cannot read it")

    cache = make_cache(serializer=Broken())
    cache["k"] = [1]
    assert cache.get("k") is None
    assert cache.stats().misses_unloadable == 1


def test_a_key_that_nobody_can_make_any_more(cache: Cache) -> None:
    cache[Hooked("gone")] = 1
    cache[("tuple", Hooked("gone"))] = 2
    cache["x"] = 3
    hooks["load"] = raises(AttributeError("class is gone"), 100)
    assert list(cache) == ["x"]
    hooks.clear()
    assert len(list(cache)) == 3


def test_pop_leaves_what_was_stored_after_its_miss(cache: Cache) -> None:
    """A miss is told to the logger: Python code, between pop()'s look-up and its end."""

    class Stores(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            cache["k"] = "new"

    handler = Stores()
    logging.getLogger("droppable").addHandler(handler)
    try:
        cache["k"] = Fussy()
        assert cache.pop("k", "none") == "none"
    finally:
        logging.getLogger("droppable").removeHandler(handler)
    assert cache["k"] == "new"


@pytest.mark.parametrize("error", [Limit("late"), TimeoutError("late"), RecursionError("deep")])
class TestErrorsOfOthers:
    """What is raised once has nothing to do with the value: the second attempt shows it."""

    def test_while_a_value_is_loaded(self, cache: Cache, error: Exception) -> None:
        cache["k"] = Hooked("v")
        hooks["load"] = raises(error, 1)
        with pytest.raises(type(error)) as info:
            cache.get("k")
        assert info.value is error
        assert cache["k"] == Hooked("v")

    def test_while_a_value_is_pickled(self, cache: Cache, error: Exception) -> None:
        hooks["dump"] = raises(error, 1)
        with pytest.raises(type(error)) as info:
            cache["k"] = Hooked("v")
        assert info.value is error
        assert "k" not in cache

    def test_while_a_key_is_pickled_or_made(self, cache: Cache, error: Exception) -> None:
        hooks["dump"] = raises(error, 1)
        with pytest.raises(type(error)) as info:
            cache[Hooked("key")] = 1
        assert info.value is error
        cache[Hooked("key")] = 1
        hooks["load"] = raises(error, 1)
        with pytest.raises(type(error)) as info:
            list(cache)
        assert info.value is error
        assert list(cache) == [Hooked("key")]

    def test_while_an_array_is_made(self, cache: Cache, error: Exception) -> None:
        """Its dtype holds an object, so that each hit makes a dtype of its own, by code of Python."""
        numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
        cache["k"] = array = numpy.arange(9, dtype=numpy.dtype("i8", metadata={"hook": Hooked("v")}))
        assert cache.get("k").tolist() == array.tolist()  # from now on the core makes it
        hooks["load"] = raises(error, 1)
        with pytest.raises(type(error)) as info:
            cache.get("k")
        assert info.value is error
        assert cache["k"].tolist() == array.tolist()

    def test_while_a_result_is_kept(self, cache: Cache, error: Exception) -> None:
        hooks["dump"] = raises(error, 1)
        with pytest.raises(type(error)) as info:
            cache.get_or_create("k", lambda: Hooked("v"))
        assert info.value is error
        assert cache.get_or_create("k", lambda: Hooked("w")) == Hooked("w")

    def test_what_fails_again_cannot_be_pickled(self, cache: Cache, error: Exception) -> None:
        hooks["dump"] = raises(error, 2)
        with pytest.raises(TypeError, match="cannot be pickled") as info:
            cache["k"] = Hooked("v")
        assert type(info.value.__cause__) is type(error)


@pytest.mark.parametrize("error", [MemoryError("full"), Stop(), KeyboardInterrupt()])
class TestNeverMisses:
    @pytest.mark.parametrize("times", [1, 2])
    def test_while_a_value_is_loaded(self, cache: Cache, error: BaseException, times: int) -> None:
        cache["k"] = Hooked("v")
        hooks["load"] = raises(error, times)
        for _ in range(times):
            with pytest.raises(type(error)):
                cache.get("k")
        assert cache["k"] == Hooked("v")

    def test_after_another_error(self, cache: Cache, error: BaseException) -> None:
        """The second attempt is interrupted: that is what counts."""
        cache["k"] = Hooked("v")
        errors = [ValueError("first"), error]
        hooks["load"] = lambda: raises(errors.pop(0), 1)() if errors else None
        with pytest.raises(type(error)):
            cache.get("k")
        assert cache["k"] == Hooked("v")
        errors[:] = [ValueError("first"), error]
        hooks["dump"] = hooks["load"]
        with pytest.raises(type(error)):
            cache["other"] = Hooked("v")


def test_a_real_signal_while_a_value_is_pickled(cache: Cache) -> None:
    def late(*_: object) -> None:
        raise Limit("late")

    before = signal.signal(signal.SIGUSR1, late)
    try:
        hooks["dump"] = lambda: (hooks.pop("dump"), signal.raise_signal(signal.SIGUSR1), None)[2]
        with pytest.raises(Limit):
            cache["k"] = [Hooked("v")]
        cache["k"] = [Hooked("v")]
        hooks["load"] = lambda: (hooks.pop("load"), signal.raise_signal(signal.SIGUSR1), None)[2]
        with pytest.raises(Limit):
            cache.get("k")
        assert cache["k"] == [Hooked("v")]
    finally:
        signal.signal(signal.SIGUSR1, before)
