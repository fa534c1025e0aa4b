"""@droppable.cache: functions and methods, sync and async, as functools' caches and a little more."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import droppable
from droppable import CacheInfo, Memo, ValueTooLargeError
from droppable.testing import advance_clock, drop

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

Decorate = Callable[..., Any]


@pytest.fixture
def memo(backing: str) -> Decorate:
    """`droppable.cache` with the test's backing."""
    return functools.partial(droppable.cache, backing=backing)


class TestFunctions:
    def test_without_and_with_arguments(self) -> None:
        @droppable.cache
        def plain(number: int) -> int:
            return number + 1

        @droppable.cache(ttl=5, max_bytes=1 << 20, key=str)
        def fancy(number: int) -> int:
            return number + 2

        assert (plain(1), fancy(1)) == (2, 3)
        assert isinstance(plain, Memo)
        assert fancy.cache_info().maxsize == 1 << 20

    def test_it_looks_like_the_function(self, memo: Decorate) -> None:
        def original(a: int, b: str = "x") -> str:
            """What it does."""
            return b * a

        wrapped = memo()(original)
        assert wrapped.__wrapped__ is original
        assert (wrapped.__name__, wrapped.__doc__, wrapped.__module__) == ("original", "What it does.", __name__)
        assert inspect.signature(wrapped) == inspect.signature(original)
        assert wrapped.__wrapped__(2) == "xx"
        assert wrapped.cache_info().currsize == 0

    def test_info_and_clear(self, memo: Decorate) -> None:
        calls = []

        @memo()
        def square(number: int) -> int:
            calls.append(number)
            return number * number

        assert square.cache_info() == CacheInfo(0, 0, None, 0, 0)
        assert [square(number) for number in (1, 2, 1, 2, 3)] == [1, 4, 1, 4, 9]
        assert calls == [1, 2, 3]
        assert square.cache_info() == (2, 3, None, 3, 0)
        square.cache_clear()
        assert square.cache_info().currsize == 0
        assert square(1) == 1
        assert calls == [1, 2, 3, 1]

    def test_a_dropped_result_is_computed_again(self, memo: Decorate) -> None:
        calls = []

        @memo()
        def large(number: int) -> bytes:
            calls.append(number)
            return bytes([number]) * 100_000

        assert large(1) == large(1) == b"\1" * 100_000
        drop(large)
        assert large(1) == b"\1" * 100_000
        assert calls == [1, 1]

    def test_results_expire(self, memo: Decorate) -> None:
        calls = []

        @memo(ttl=60)
        def now() -> None:
            calls.append(1)

        assert (now(), now(), len(calls)) == (None, None, 1)
        advance_clock(now, 61)
        now()
        assert len(calls) == 2

    def test_arguments_by_type_and_value(self, memo: Decorate) -> None:
        @memo()
        def kind(value: Any) -> str:
            return f"{value!r}"

        values = (1, 1.0, True, "1", b"1", (1,), (1.0,), None, 0, False, 0.0, "", b"", ())
        assert [kind(value) for value in values] == [repr(value) for value in values]
        assert [kind(value) for value in values] == [repr(value) for value in values]
        assert kind.cache_info().hits == len(values)

    def test_arguments_by_place_and_name(self, memo: Decorate) -> None:
        calls = []

        @memo()
        def show(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
            calls.append(1)
            return args, kwargs

        forms: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((), {}),
            (("a",), {}),
            (("a", 1), {}),
            ((), {"a": 1}),
            ((("a", 1),), {}),
            ((0, "a", 1), {}),
            ((0,), {"a": 1}),
            ((), {"a": 1, "b": 2}),
            ((), {"a": ("b", 2)}),
            (("a", 1, "b", 2), {}),
            (("b", 2), {"a": 1}),
            ((1,), {}),
            ((1, 1), {}),
        ]
        for args, kwargs in forms * 2:
            assert show(*args, **kwargs) == (args, kwargs)
        assert len(calls) == len(forms)
        assert show(b=2, a=1) == ((), {"a": 1, "b": 2})
        assert len(calls) == len(forms)

    def test_key(self, memo: Decorate) -> None:
        calls = []

        @memo(key=lambda path, verbose=False: path)
        def read(path: str, verbose: bool = False) -> str:
            calls.append(path)
            return path.upper()

        assert read("a") == read("a", verbose=True) == read("a", True) == "A"
        assert calls == ["a"]
        assert read.cache_key("a", verbose=True) == "a"
        assert read.cache_key("a") in read.cache

    def test_cache_key_names_the_entry(self, memo: Decorate) -> None:
        @memo()
        def function(a: int, b: int = 0) -> int:
            return a + b

        function(1, b=2)
        assert function.cache_key(1, b=2) in function.cache
        assert function.cache.discard(function.cache_key(1, b=2))
        assert function.cache_info().currsize == 0

    def test_none_is_a_result(self, memo: Decorate) -> None:
        calls = []

        @memo()
        def nothing() -> None:
            calls.append(1)

        assert [nothing(), nothing()] == [None, None]
        assert calls == [1]

    def test_an_exception_is_not_kept(self, memo: Decorate) -> None:
        calls = []

        @memo()
        def fails_once(number: int) -> int:
            calls.append(number)
            if len(calls) == 1:
                raise LookupError("the first time")
            return number

        with pytest.raises(LookupError, match="the first time"):
            fails_once(5)
        assert fails_once(5) == 5
        assert calls == [5, 5]

    def test_arrays_come_back_read_only_and_in_place(self, memo: Decorate) -> None:
        @memo()
        def ones(count: int) -> Any:
            return numpy.ones(count)

        ones(100_000)
        assert not ones(100_000).flags.writeable
        assert ones(100_000).sum() == 100_000

    def test_recursion(self, memo: Decorate) -> None:
        @memo()
        def fibonacci(n: int) -> int:
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)  # type: ignore[no-any-return]

        assert fibonacci(80) == 23416728348467685
        assert fibonacci.cache_info().misses < 200

    def test_a_function_that_asks_for_itself(self, memo: Decorate) -> None:
        depth = []

        @memo()
        def circle(number: int) -> int:
            depth.append(number)
            return circle(number) if len(depth) < 5 else 42  # type: ignore[no-any-return]

        assert circle(1) == 42
        assert len(depth) == 5
        assert circle(1) == 42
        assert len(depth) == 5

    def test_by_name_in_pickles(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # A module that the pool's processes can import from wherever these tests were started.
        (tmp_path / "doubles.py").write_text("import droppable\n@droppable.cache\ndef double(n): return 2 * n\n")
        monkeypatch.syspath_prepend(tmp_path)
        double = importlib.import_module("doubles").double
        assert pickle.loads(pickle.dumps(double)) is double
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            assert list(pool.map(double, [1, 2, 1])) == [2, 4, 2]


class TestBadInput:
    def test_not_a_function(self) -> None:
        for thing in (5, "name", None):
            with pytest.raises(TypeError):
                droppable.cache(thing)(1)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="decorates functions; you gave 5"):
            droppable.cache(ttl=1)(5)  # type: ignore[type-var]

    def test_options(self) -> None:
        for options, match in (({"ttl": -1}, "ttl"), ({"max_bytes": 0}, "max_bytes"), ({"backing": "x"}, "backing")):
            with pytest.raises(ValueError, match=match):
                droppable.cache(**options)(len)  # type: ignore[call-overload]

    def test_arguments_that_cannot_be_keys(self, memo: Decorate) -> None:
        calls = []

        @memo()
        def function(*values: Any, **named: Any) -> int:
            calls.append(1)
            return 5

        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            function([1])
        with pytest.raises(TypeError, match="unhashable type: 'dict'"):
            function(a={})
        with pytest.raises(TypeError, match=r"your key of type .* cannot be pickled"):
            function(lambda: 1)
        assert calls == []

    def test_a_result_that_cannot_be_pickled(self, memo: Decorate) -> None:
        @memo()
        def function(number: int) -> Any:
            return threading.Lock() if number else 5

        with pytest.raises(TypeError, match="your value of type lock cannot be pickled"):
            function(1)
        assert function(0) == 5
        assert function.cache_info().currsize == 1

    def test_a_result_that_is_too_large_is_returned_and_counted(self, memo: Decorate) -> None:
        calls = []

        @memo(max_bytes=100_000)
        def function(size: int) -> bytes:
            calls.append(size)
            return b"x" * size

        for _ in range(2):
            assert function(200_000) == b"x" * 200_000
        assert calls == [200_000, 200_000]
        assert function.cache.stats().refused == 2
        with pytest.raises(ValueTooLargeError):
            function.cache.set("k", b"x" * 200_000)

    def test_closed(self, memo: Decorate) -> None:
        @memo()
        def function() -> int:
            return 5

        function.cache.close()
        with pytest.raises(droppable.ClosedError):
            function()


class Account:
    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    def __getstate__(self) -> Any:
        return self.name

    def __setstate__(self, state: Any) -> None:
        self.__init__(state)  # type: ignore[misc]

    @droppable.cache
    def greet(self, greeting: str, *, mark: str = "!") -> str:
        """Says it."""
        self.calls += 1
        return f"{greeting}, {self.name}{mark}"

    @droppable.cache
    async def agreet(self) -> str:
        self.calls += 1
        return f"hello, {self.name}"

    @staticmethod
    @droppable.cache
    def static(number: int) -> int:
        return number + 1

    @classmethod
    @droppable.cache
    def of_class(cls, number: int) -> str:
        return f"{cls.__name__} {number}"


class Heir(Account):
    pass


class TestMethods:
    def test_self_is_an_argument_by_value(self) -> None:
        ann, bob, other_ann = Account("Ann"), Account("Bob"), Account("Ann")
        assert ann.greet("hi") == ann.greet("hi") == "hi, Ann!"
        assert bob.greet("hi") == "hi, Bob!"
        assert other_ann.greet("hi") == "hi, Ann!"
        assert (ann.calls, bob.calls, other_ann.calls) == (1, 1, 0)
        ann.name = "Anna"
        assert ann.greet("hi", mark="?") == "hi, Anna?"
        assert Account.greet(bob, "hi") == "hi, Bob!"
        assert bob.calls == 1

    def test_a_bound_method_has_the_caches_face(self) -> None:
        ann = Account("Ann")
        assert ann.greet.cache_info() == Account.greet.cache_info()
        assert ann.greet.__wrapped__ is Account.greet.__wrapped__
        assert ann.greet.__self__ is ann
        assert (ann.greet.__name__, ann.greet.__doc__) == ("greet", "Says it.")
        assert list(inspect.signature(ann.greet).parameters) == ["greeting", "mark"]
        ann.greet.cache_clear()
        assert ann.greet.cache_info().currsize == 0

    def test_static_and_class_methods(self) -> None:
        assert Account.static(1) == Account("x").static(1) == 2
        assert Account.of_class(1) == "Account 1"
        assert Heir.of_class(1) == "Heir 1"
        assert Account.of_class(1) == "Account 1"

    def test_async_methods(self) -> None:
        async def main() -> None:
            ann = Account("Ann")
            assert await asyncio.gather(*(ann.agreet() for _ in range(5))) == ["hello, Ann"] * 5
            assert ann.calls == 1

        asyncio.run(main())

    def test_the_cache_keeps_no_object_alive(self) -> None:
        import weakref

        ann = Account("Eve")
        ann.greet("hi")
        gone = weakref.ref(ann)
        del ann
        assert gone() is None


class TestAsync:
    def test_a_result_is_awaited_once(self, memo: Decorate) -> None:
        calls = []

        @memo()
        async def fetch(number: int) -> int:
            calls.append(number)
            await asyncio.sleep(0)
            return number + 1

        async def main() -> None:
            assert await asyncio.gather(*(fetch(number % 3) for number in range(30))) == [1, 2, 3] * 10
            assert sorted(calls) == [0, 1, 2]
            assert await fetch(0) == 1
            drop(fetch)
            assert await fetch(0) == 1
            assert len(calls) == 4

        asyncio.run(main())
        asyncio.run(main_again(fetch))
        assert fetch.cache_info().currsize >= 1

    def test_it_is_told_to_be_a_coroutine_function(self, memo: Decorate) -> None:
        @memo()
        async def fetch() -> int:
            return 1

        coroutine = fetch()
        assert inspect.iscoroutine(coroutine)
        assert asyncio.run(coroutine) == 1
        if sys.version_info >= (3, 12):
            assert inspect.iscoroutinefunction(fetch)

    def test_an_exception_reaches_all_and_is_not_kept(self, memo: Decorate) -> None:
        calls = []

        @memo()
        async def fetch() -> int:
            calls.append(1)
            await asyncio.sleep(0)
            if len(calls) == 1:
                raise LookupError("not today")
            return 7

        async def main() -> None:
            results = await asyncio.gather(*(fetch() for _ in range(5)), return_exceptions=True)
            assert [str(result) for result in results] == ["not today"] * 5
            assert calls == [1]
            assert await fetch() == 7

        asyncio.run(main())

    def test_recursion(self, memo: Decorate) -> None:
        @memo()
        async def fibonacci(n: int) -> int:
            return n if n < 2 else sum(await asyncio.gather(fibonacci(n - 1), fibonacci(n - 2)))

        assert asyncio.run(fibonacci(40)) == 102334155

    def test_bad_arguments_are_told_where_they_are_awaited(self, memo: Decorate) -> None:
        @memo()
        async def fetch(value: Any) -> int:
            return 1

        with pytest.raises(TypeError, match="unhashable"):
            asyncio.run(fetch([]))


async def main_again(fetch: Any) -> None:
    """A second event loop finds what the first one left."""
    assert await fetch(0) == 1
