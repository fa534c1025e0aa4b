"""@droppable.cache: functions and methods, sync and async, as functools' caches and a little more."""

from __future__ import annotations

import asyncio
import copy
import datetime
import functools
import gc
import importlib
import inspect
import pickle
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import droppable
from droppable import CacheInfo, Memo, ValueTooLargeError
from droppable.testing import advance_clock, drop

Decorate = Callable[..., Any]


@pytest.fixture
def memo(backing: str) -> Decorate:
    """`droppable.cache` with the test's backing."""
    return functools.partial(droppable.cache, backing=backing)


class Model:
    predict: Any

    def __init__(self, fill: int) -> None:
        self.weights = bytearray([fill]) * (6 << 20)


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
        assert square.cache_info() == (2, 3, None, 3)
        assert square.cache_info().dropped == 0
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

    def test_the_order_of_keywords_matters_where_the_function_can_see_it(self, memo: Decorate) -> None:
        @memo()
        def query(**fields: int) -> str:
            return "&".join(f"{name}={value}" for name, value in fields.items())

        assert (query(a=1, b=2), query(b=2, a=1)) == ("a=1&b=2", "b=2&a=1")
        assert (query(a=1, b=2), query(b=2, a=1)) == ("a=1&b=2", "b=2&a=1")
        assert query.cache_info()[:2] == (2, 2)
        assert query.cache_key(a=1, b=2) != query.cache_key(b=2, a=1)

        @memo()
        def plain(a: int = 0, b: Any = 0, *, c: int = 0) -> tuple[Any, ...]:
            return a, b, c

        when = datetime.date(2020, 1, 1)  # the way of keys that are no plain numbers
        assert plain(a=1, b=when, c=3) == plain(c=3, b=when, a=1) == plain(b=when, c=3, a=1) == (1, when, 3)
        assert plain(a=1, c=2) == plain(c=2, a=1) == (1, 0, 2)
        assert plain.cache_info()[:2] == (3, 2)
        assert plain.cache_key(a=1, c=2) == plain.cache_key(c=2, a=1)

        @memo()
        def fill(*args: Any, **fields: Any) -> list[str]:
            return list(fields)

        assert fill(when, x=when, y=2) == ["x", "y"]
        assert fill(when, y=2, x=when) == ["y", "x"]

    def test_large_arguments_are_kept(self, memo: Decorate) -> None:
        calls = []

        @memo(max_bytes=1 << 20)
        def length(data: bytes) -> int:
            calls.append(1)
            return len(data)

        for size in (4000, 1 << 20, 5 << 20, 5 << 20 | 1):
            assert length(bytes(size)) == length(bytes(size)) == size
        assert len(calls) == 4
        assert length(bytes(1 << 20) + b"x") == (1 << 20) + 1

    def test_a_large_self(self, memo: Decorate, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []

        @memo()
        def predict(self: Model, number: int) -> int:
            calls.append(number)
            return self.weights[0] + number

        monkeypatch.setattr(Model, "predict", predict, raising=False)
        one, two = Model(1), Model(2)
        for _ in range(2):
            assert (one.predict(1), two.predict(1), Model(1).predict(2)) == (2, 3, 3)
        assert len(calls) == 3
        two.weights[-1] = 1
        assert two.predict(1) == 3
        assert len(calls) == 4

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
        assert len(calls) == len(forms) + 1  # which comes first, the function can tell

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

    def test_arrays_come_back_read_only_and_in_place(self, memo: Decorate, numpy: Any) -> None:
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


class Word(str):
    """Not a native key: it goes through its pickle."""


class TestTheCall:
    """A hit is looked up by bytes made of the arguments; everything else goes by the key as an object."""

    @pytest.mark.parametrize("count", range(12))
    @pytest.mark.parametrize("named", [0, 1, 2, 7, 8, 9, 40])
    def test_any_number_of_arguments(self, memo: Decorate, count: int, named: int) -> None:
        calls = []

        def function(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return [args, kwargs]

        show = memo()(function)
        function.__signature__ = inspect.Signature()  # type: ignore[attr-defined]  # which tells of no **kwargs
        show_in_any_order = memo()(function)

        args = tuple(range(count))
        kwargs = {f"name{number * 7 % 41}": number for number in range(named)}
        backwards = dict(reversed(kwargs.items()))
        assert show_in_any_order(*args, **kwargs) == show_in_any_order(*args, **backwards) == [args, kwargs]
        assert calls == [1]
        key = show_in_any_order.cache_key(*args, **backwards)
        assert key == (count, *args, *(part for item in sorted(kwargs.items()) for part in item))
        assert key in show_in_any_order.cache
        assert list(show_in_any_order.cache) == [key]

        assert show(*args, **kwargs) == show(*args, **backwards) == [args, kwargs]
        assert len(calls) == 1 + (2 if named > 1 else 1)
        key = show.cache_key(*args, **backwards)
        assert key == (count, *args, *(part for item in backwards.items() for part in item))
        assert key in show.cache

    @pytest.mark.parametrize(
        "argument",
        [
            *("", "x" * 1000, "é\udc80", b"y" * 300, 1 << 100, -(1 << 63), 0.0, -0.0, float("inf"), None, True),
            *(("a", (1, ("b",))), Word("w"), (1, Word("w")), frozenset({1}), range(3), Path("x")),
        ],
        ids=lambda argument: f"{argument!r:.20}",
    )
    def test_any_type_of_argument(self, memo: Decorate, argument: Any) -> None:
        calls = []

        @memo()
        def function(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return args, kwargs

        forms: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((argument,), {}),
            ((1, argument, 2), {}),
            ((), {"é": argument, "a": 1}),
            ((argument,), {"b": 1}),
        ]
        for args, kwargs in forms:
            calls.clear()
            assert function(*args, **kwargs) == function(*args, **kwargs) == (args, kwargs)
            assert calls == [1]
            assert function.cache_key(*args, **kwargs) in function.cache

    def test_names_of_arguments_that_the_decorator_has_itself(self, memo: Decorate) -> None:
        names = dict.fromkeys(("key", "self", "cache", "miss", "info", "args", "kwargs", "function", "looks_up"), 1)

        @memo()
        def show(**kwargs: int) -> dict[str, int]:
            return kwargs

        @memo(key=lambda **kwargs: tuple(sorted(kwargs)))
        def show_by_key(**kwargs: int) -> dict[str, int]:
            return kwargs

        assert show(**names) == show(**names) == show_by_key(**names) == show_by_key(**names) == names

    def test_ways_to_call(self, memo: Decorate) -> None:
        @memo()
        def join(a: str, b: str = "b", *, c: str = "c") -> str:
            return a + b + c

        assert [functools.partial(join, "x")("y"), functools.partial(join, c="z")("x")] == ["xyc", "xbz"]
        assert list(map(join, "xy", "yz")) == ["xyc", "yzc"]
        assert join.__call__("x", c="y") == Memo.__call__(join, "x", c="y") == "xby"
        assert join.__get__(None, str) is join
        assert join.__get__("x")() == "xbc"
        assert join.cache_info().hits == 2
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
            join()
        with pytest.raises(TypeError):
            Memo.__call__(5, "x")

    def test_the_key_function_is_asked_once(self, memo: Decorate) -> None:
        asked = []

        def identify(number: int) -> int:
            asked.append(number)
            if number < 0:
                raise LookupError("no such number")
            return number % 10

        @memo(key=identify)
        def function(number: int) -> int:
            return number

        assert [function(11), function(21)] == [11, 11]
        assert asked == [11, 21]
        with pytest.raises(LookupError, match="no such number"):
            function(-1)

    def test_references_are_given_back(self, memo: Decorate) -> None:
        class Result:
            """Cannot be pickled, being local: it is returned as it is."""

        @memo()
        def function(*args: Any, **kwargs: Any) -> Any:
            if "fail" in kwargs:
                raise LookupError
            return Result() if "local" in kwargs else args

        @memo(key=lambda *args: args)
        def by_key(*args: Any) -> Any:
            return args

        argument = ("argument", 1 << 70, b"x" * 500)
        named = {f"name{number}": argument for number in range(10)}

        def calls(times: int) -> None:
            for number in range(times):
                function(argument, number)
                function(argument, number)
                by_key(argument, Word(number))
                by_key(argument, Word(number))
                function(*(argument,) * 20, **named)
                assert type(function(argument, local=1, **named)) is Result
                for fails, kwargs in ((LookupError, {"fail": 1}), (TypeError, {"x": []})):
                    with pytest.raises(fails):
                        function(argument, **kwargs, **named)

        calls(1)
        watched = (argument, *argument, function, function.cache, function.__wrapped__, by_key)
        gc.collect()
        before = [sys.getrefcount(thing) for thing in watched]
        calls(50)
        gc.collect()
        assert [sys.getrefcount(thing) for thing in watched] == before

    def test_it_is_an_object_like_a_function(self, memo: Decorate) -> None:
        @memo()
        def function() -> int:
            return 1

        function.note = "mine"
        assert function.note == vars(function)["note"] == "mine"
        assert weakref.ref(function)() is function
        assert {function: 1}[function] == 1
        with pytest.raises(AttributeError):
            function.cache = None
        with pytest.raises(TypeError):
            Memo.cache_info = None  # type: ignore[assignment,method-assign]
        with pytest.raises(TypeError):
            type("Heir", (Memo,), {})
        with pytest.raises(TypeError):
            Memo()
        assert Memo[[int], str].__origin__ is Memo  # type: ignore[attr-defined]

    def test_copies_are_the_same(self) -> None:
        assert copy.copy(Account.greet) is Account.greet
        assert copy.deepcopy([Account.greet])[0] is Account.greet
        assert Account.greet.__reduce__() == "Account.greet"

    def test_a_circle_of_references_is_collected(self, memo: Decorate) -> None:
        def make() -> Any:
            @memo(key=lambda number: (number, function is None))
            def function(number: int) -> int:
                return 0 if number == 0 else function(number - 1) + 1  # type: ignore[no-any-return]

            assert function(5) == 5
            function.itself = function
            return weakref.ref(function)

        gone = make()
        gc.collect()
        assert gone() is None


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
        with pytest.raises(TypeError, match=r"argument number 1 of .*, of type function, cannot be .*key="):
            function(lambda: 1)
        assert calls == []

    def test_a_result_that_cannot_be_pickled(self, memo: Decorate) -> None:
        @memo()
        def function(number: int) -> Any:
            return threading.Lock() if number else 5

        lock = function(1)
        assert type(lock) is type(threading.Lock())
        assert function(1) is not lock
        assert function.cache.stats().unstorable_unpicklable == function.cache.stats().unstorable == 2
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
        assert (function.cache.stats().unstorable_too_large, function.cache.stats().refused) == (2, 0)
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.14 on
            assert asyncio.iscoroutinefunction(fetch)
        if sys.version_info >= (3, 12):
            assert inspect.iscoroutinefunction(fetch)

    def test_frameworks_see_coroutine_functions(self, memo: Decorate) -> None:
        class Service:
            @memo()
            async def method(self) -> int:
                return 1

            @staticmethod
            @memo(key=lambda: 1)
            async def static() -> int:
                return 2

            @memo()
            def plain(self) -> int:
                return 3

        async def outer() -> int:
            return 4

        @functools.wraps(outer)
        def not_one() -> int:
            return 5

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert asyncio.iscoroutinefunction(Service().method)
            assert asyncio.iscoroutinefunction(Service.method)
            assert asyncio.iscoroutinefunction(Service.static)
            assert not asyncio.iscoroutinefunction(Service().plain)
            assert not asyncio.iscoroutinefunction(memo()(not_one))

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
