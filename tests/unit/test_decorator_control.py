"""@droppable.cache: what a decorated function has beside the call, what it refuses, and what its errors say."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import pydoc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import droppable
from droppable import CacheInfo
from droppable.testing import advance_clock


def module_level(number: int) -> int:
    return number


module_level_cached = droppable.cache(module_level)


class TestInvalidate:
    def test_it_tells_whether_there_was_a_result(self) -> None:
        calls = []

        @droppable.cache
        def function(a: int, b: int = 0) -> int:
            calls.append(a)
            return a + b

        assert function.invalidate(1) is False
        assert function(1, b=2) == 3
        assert function.invalidate(1) is False
        assert function.invalidate(1, b=2) is True
        assert function.discard(1, b=2) is False
        assert function(1, b=2) == 3
        assert calls == [1, 1]

    def test_a_running_computation_is_returned_and_not_kept(self) -> None:
        computing, go = threading.Event(), threading.Event()
        answers = iter(["old", "new"])

        @droppable.cache
        def function(a: int) -> str:
            answer = next(answers)
            if answer == "old":
                computing.set()
                assert go.wait(60)
            return answer

        results = []
        thread = threading.Thread(target=lambda: results.append(function(1)))
        thread.start()
        assert computing.wait(60)
        assert function.invalidate(1) is False
        assert function(1) == "new"  # nobody joins what began before
        go.set()
        thread.join()
        assert results == ["old"]
        assert function(1) == "new"

    @pytest.mark.parametrize("shared", [False, True])
    def test_so_is_one_during_cache_clear(self, shared: bool) -> None:
        computing, go = threading.Event(), threading.Event()
        answers = iter(["old", "new"])
        options: dict[str, Any] = {"cache": droppable.Cache()} if shared else {}

        @droppable.cache(**options)
        def function(a: int) -> str:
            answer = next(answers)
            if answer == "old":
                computing.set()
                assert go.wait(60)
            return answer

        results = []
        thread = threading.Thread(target=lambda: results.append(function(1)))
        thread.start()
        assert computing.wait(60)
        function.cache_clear()
        go.set()
        thread.join()
        assert results == ["old"]
        assert function(1) == function(1) == "new"
        assert function.cache_info()[:2] == (1, 1)

    def test_of_coroutine_functions(self) -> None:
        calls = []

        @droppable.cache
        async def function(a: int) -> int:
            calls.append(a)
            await asyncio.sleep(0)
            return len(calls)

        async def main() -> None:
            assert await function(1) == 1
            assert function.invalidate(1) is True
            assert await function(1) == 2
            running = asyncio.ensure_future(function(2))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert calls == [1, 1, 2]
            assert function.invalidate(2) is False
            assert await running == 3
            assert await function(2) == 4

        asyncio.run(main())


class TestRefresh:
    def test_it_computes_and_stores(self) -> None:
        calls = []

        @droppable.cache(ttl=60)
        def function(a: int) -> int:
            calls.append(a)
            return len(calls)

        assert (function(5), function(5)) == (1, 1)
        assert function.refresh(5) == 2
        assert function(5) == 2
        advance_clock(function, 40)
        assert function.refresh(5) == 3
        advance_clock(function, 40)
        assert function(5) == 3
        assert function.refresh(6) == 4
        assert function(6) == 4
        assert function.cache_info()[:2] == (4, 1)

    def test_a_failure_changes_nothing(self) -> None:
        fails = False

        @droppable.cache
        def function() -> int:
            if fails:
                raise LookupError("not now")
            return 1

        assert function() == 1
        fails = True
        with pytest.raises(LookupError, match="not now"):
            function.refresh()
        assert function() == 1

    def test_others_get_the_old_one_meanwhile(self) -> None:
        computing, go = threading.Event(), threading.Event()
        calls = []

        @droppable.cache
        def function() -> int:
            calls.append(1)
            if len(calls) == 2:
                computing.set()
                assert go.wait(60)
            return len(calls)

        assert function() == 1
        results = []
        thread = threading.Thread(target=lambda: results.append(function.refresh()))
        thread.start()
        assert computing.wait(60)
        assert function() == 1
        go.set()
        thread.join()
        assert results == [2]
        assert function() == 2

    def test_what_was_invalidated_meanwhile_is_not_kept(self) -> None:
        @droppable.cache
        def function() -> int:
            function.invalidate()
            return 1

        assert function.refresh() == 1
        assert function.cache_key() not in function.cache

    def test_of_coroutine_functions(self) -> None:
        calls = []

        @droppable.cache(keep=lambda result: result != 3)
        async def function(a: int) -> int:
            calls.append(a)
            return len(calls)

        async def main() -> None:
            assert await function(1) == 1
            assert await function.refresh(1) == 2
            assert await function(1) == 2
            assert await function.refresh(1) == 3  # not to be kept
            assert await function(1) == 2

        asyncio.run(main())


class TestCounts:
    def test_cache_info_unpacks_into_four(self) -> None:
        @droppable.cache(max_bytes="1M")
        def function(a: int) -> int:
            return a

        for number in (1, 1, 2):
            function(number)
        hits, misses, maxsize, currsize = info = function.cache_info()
        assert (hits, misses, maxsize, currsize) == (1, 2, 1 << 20, 2) == info
        assert (info.hits, info.misses, info.maxsize, info.currsize, info.dropped) == (1, 2, 1 << 20, 2, 0)
        assert repr(info) == "CacheInfo(hits=1, misses=2, maxsize=1048576, currsize=2, dropped=0)"
        other = CacheInfo(1, 2, None, 3, 4)
        for again in (copy.copy(other), copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
            assert (again, again.dropped) == (other, 4)

    def test_each_call_is_a_hit_or_a_miss(self) -> None:
        @droppable.cache
        def function(number: int) -> int:
            if number == 3:
                raise LookupError
            return number

        start = threading.Barrier(4)

        def ask() -> None:
            start.wait()
            for number in range(1000):
                try:
                    function(number % 10)
                except LookupError:
                    pass

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hits, misses, _, entries = function.cache_info()
        assert hits + misses == 4000
        assert misses >= 400 + 9
        assert entries == 9

    def test_cache_clear_sets_them_back(self) -> None:
        @droppable.cache
        def function(number: int) -> int:
            return number

        for number in (1, 1, 2):
            function(number)
        function.cache_clear()
        assert function.cache_info() == (0, 0, None, 0)
        function(1)
        assert function.cache_info() == (0, 1, None, 1)

    def test_cache_parameters(self) -> None:
        @droppable.cache(max_bytes="64K", ttl=5, normalize=True)
        def function(number: int) -> int:
            return number

        parameters = function.cache_parameters()
        assert parameters["maxsize"] == 65536
        assert parameters["typed"] is True
        assert (parameters["ttl"], parameters["normalize"], parameters["self_key"]) == (5, True, None)
        parameters["maxsize"] = 1
        assert function.cache_parameters()["maxsize"] == 65536


class TestNormalize:
    @pytest.fixture
    def calls(self) -> list[Any]:
        return []

    def test_one_call_in_many_forms(self, calls: list[Any]) -> None:
        @droppable.cache(normalize=True)
        def function(a: int, b: int = 2, *, c: int = 3, d: int = 4) -> tuple[int, ...]:
            calls.append(a)
            return a, b, c, d

        forms = [
            function(1),
            function(1, 2),
            function(1, b=2),
            function(a=1),
            function(b=2, a=1, d=4),
            function(1, c=3),
        ]
        assert forms == [(1, 2, 3, 4)] * 6
        assert calls == [1]
        assert function.cache_key(a=1) == function.cache_key(1, 2, d=4) == (2, 1, 2, "c", 3, "d", 4)
        assert function(1, 2, c=4) == (1, 2, 4, 4)

    def test_all_kinds_of_parameters(self, calls: list[Any]) -> None:
        def function(a: int, /, b: int = 2, *args: int, c: int = 3, **kwargs: int) -> Any:
            calls.append(1)
            return [a, b, args, c, kwargs]

        cached = droppable.cache(normalize=True)(function)
        plain = droppable.cache(function)
        for args, kwargs in (
            ((1,), {}),
            ((1, 2), {}),
            ((1, 2, 5, 6), {}),
            ((1, 2, 5), {"c": 4}),
            ((1,), {"c": 3}),
            ((1,), {"x": 1, "y": 2}),
            ((1,), {"y": 2, "x": 1}),
            ((1,), {"a": 2, "len": 3, "pair": 4}),
        ):
            assert cached(*args, **kwargs) == cached(*args, **kwargs) == function(*args, **kwargs)
            assert list(cached(*args, **kwargs)[4]) == [name for name in kwargs if name != "c"]
            assert plain(*args, **kwargs) == function(*args, **kwargs)
        assert cached.cache_key(1) == cached.cache_key(1, b=2, c=3)
        assert cached.cache_key(1, x=1, y=2) != cached.cache_key(1, y=2, x=1)

    def test_awkward_names(self) -> None:
        @droppable.cache(normalize=True)
        def function(len: int, pair: int = 1, key: Any = None, *part: int, name: str = "n", **items: int) -> Any:
            return [len, pair, key, part, name, items]

        assert function(1, pair=2, part=3) == function(1, 2, part=3) == [1, 2, None, (), "n", {"part": 3}]
        assert function.cache_info()[:2] == (1, 1)

    def test_defaults_of_any_type(self, calls: list[Any]) -> None:
        @droppable.cache(normalize=True)
        def function(a: tuple[int, ...] = (1, 2), *, b: frozenset[int] = frozenset({1})) -> int:
            calls.append(1)
            return len(a) + len(b)

        assert function() == function((1, 2)) == function(b=frozenset({1})) == 3
        assert calls == [1]

    def test_wrong_calls_are_told_as_the_function_would(self) -> None:
        @droppable.cache(normalize=True)
        def function(a: int, *, b: int) -> int:
            return a

        with pytest.raises(TypeError, match=r"function\(\) missing 1 required keyword-only argument: 'b'"):
            function(1)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
            function(1, b=2, c=3)  # type: ignore[call-arg]

    def test_an_unknown_signature(self) -> None:
        def function() -> int:
            return 1

        function.__signature__ = "not known"  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="normalize=True needs to know the signature"):
            droppable.cache(normalize=True)(function)


class TestErrorsNameTheArgument:
    def test_unhashable(self) -> None:
        @droppable.cache
        def render(page: str, rows: Any, *more: Any, title: Any = "", **others: Any) -> str:
            return page

        for args, kwargs, name in (
            (("a", [1]), {}, "argument 'rows' of"),
            (("a", 1), {"title": {}}, "argument 'title' of"),
            (("a", 1), {"x": {1}}, "argument 'x' of"),
            (("a", 1, 2, (3, [])), {}, "argument number 4 of"),
        ):
            with pytest.raises(TypeError, match=f"{name} .*unhashable type: .*key=") as caught:
                render(*args, **kwargs)
            assert isinstance(caught.value.__cause__, TypeError)

    def test_what_cannot_be_pickled(self) -> None:
        class Holder:
            def __init__(self) -> None:
                self.lock = threading.Lock()

            @droppable.cache
            def method(self, x: int) -> int:
                return x

        @droppable.cache
        def function(a: int, thing: Any) -> int:
            return a

        with pytest.raises(TypeError, match=r"argument 'thing' of .*function, of type lock, .*cannot pickle.*key="):
            function(1, threading.Lock())
        with pytest.raises(TypeError, match=r"argument 'self' of .*Holder.method, of type .*Holder,.*self_key="):
            Holder().method(1)
        with pytest.raises(TypeError, match="argument 'self' of"):
            Holder.method.invalidate(Holder(), 1)

    def test_with_key(self) -> None:
        @droppable.cache(key=lambda a: [a])
        def gives_a_list(a: int) -> int:
            return a

        @droppable.cache(key=lambda a: a.name)
        def raises(a: int) -> int:
            return a

        def refuses(a: int) -> int:
            raise TypeError("mine")

        with pytest.raises(
            TypeError, match=r"what key= of .*gives_a_list gave, of type list, cannot be a key: unhashable"
        ):
            gives_a_list(1)
        with pytest.raises(AttributeError, match="no attribute 'name'"):
            raises(1)
        with pytest.raises(TypeError, match=r"^mine$"):
            droppable.cache(key=refuses)(module_level)(1)

    def test_where_it_is_awaited_or_called(self) -> None:
        @droppable.cache
        async def fetch(value: Any) -> int:
            return 1

        with pytest.raises(TypeError, match=r"argument 'value' of .*fetch"):
            asyncio.run(fetch([]))


class TestWhatIsRefused:
    def test_classes(self) -> None:
        with pytest.raises(TypeError, match=r"decorates functions and methods; .*Thing is a class\. Decorate"):

            @droppable.cache
            class Thing:
                pass

        with pytest.raises(TypeError, match="int is a class"):
            droppable.cache(ttl=5)(int)

    def test_generators(self) -> None:
        def generate(n: int) -> Iterator[int]:
            yield n

        async def agenerate(n: int) -> AsyncIterator[int]:
            yield n

        class Generates:
            def __call__(self) -> Iterator[int]:
                yield 1

        for function in (generate, functools.partial(generate, 1), Generates()):
            with pytest.raises(TypeError, match=r"a generator function: .*only once.*Return a list"):
                droppable.cache(function)
        with pytest.raises(TypeError, match=r"agenerate is an asynchronous generator function"):
            droppable.cache(agenerate)

    def test_properties(self) -> None:
        with pytest.raises(TypeError, match="stands below @property"):
            droppable.cache(property(lambda self: 1))  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="cached_property keeps its result"):
            droppable.cache(functools.cached_property(lambda self: 1))  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="is a class"):
            droppable.cache(classmethod(int))  # type: ignore[call-overload]

    def test_what_is_no_function(self) -> None:
        with pytest.raises(TypeError, match="decorates functions; you gave '128'"):
            droppable.cache("128")  # type: ignore[call-overload]


class TestLikeAFunction:
    def test_copies_and_pickles_are_itself(self) -> None:
        for make in (copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))):
            assert make(module_level_pickled) is module_level_pickled

    def test_partials_and_objects(self) -> None:
        class Adds:
            def __init__(self, more: int) -> None:
                self.more = more

            def __call__(self, number: int) -> int:
                return number + self.more

        part = droppable.cache(functools.partial(max, 5))
        adds = droppable.cache(Adds(2))
        assert (part(3), part(7), part(3)) == (5, 7, 5)
        assert adds(1) == adds(1) == 3
        assert (part.__name__, adds.__name__) == ("max", "Adds")
        assert part.cache_info()[:2] == (1, 2)
        assert adds.cache_info()[:2] == (1, 1)

    def test_help_and_signature(self) -> None:
        @droppable.cache
        def function(a: int, b: str = "x") -> bytes:
            """Says what it does."""
            return b""

        text = pydoc.plain(pydoc.render_doc(function))
        assert "function(a: 'int', b: 'str' = 'x') -> 'bytes'" in text
        assert "Says what it does." in text
        assert inspect.signature(function) == inspect.signature(function.__wrapped__)

    @pytest.mark.parametrize("wrap", [lambda f: f, lambda f: functools.partial(f, 1)])
    def test_frameworks_see_coroutine_functions(self, wrap: Callable[..., Any]) -> None:
        async def fetch(number: int = 0) -> int:
            return number

        class Fetches:
            async def __call__(self) -> int:
                return 5

            @droppable.cache(self_key=droppable.INSTANCE)
            async def method(self) -> int:
                return 6

        for function in (droppable.cache(wrap(fetch)), droppable.cache(Fetches()), Fetches().method):
            assert inspect.iscoroutinefunction(function)
            assert isinstance(asyncio.run(function()), int)
        assert not inspect.iscoroutinefunction(module_level_cached)


@droppable.cache
def module_level_pickled(number: int) -> int:
    return number


class TestShared:
    def test_functions_share_a_cache_and_no_keys(self) -> None:
        shared = droppable.Cache()
        shared[1] = "mine"

        @droppable.cache(cache=shared)
        def one(number: int) -> str:
            return f"one {number}"

        @droppable.cache(cache=shared, key=lambda number: number)
        def two(number: int) -> str:
            return f"two {number}"

        for _ in range(2):
            assert (one(1), two(1), shared[1]) == ("one 1", "two 1", "mine")
        one(2)
        assert one.cache is two.cache is shared
        assert one.cache_info() == (1, 2, None, 2)
        assert two.cache_info() == (1, 1, None, 1)
        assert one.cache_key(1) in shared
        assert two.cache_key(1) in shared
        assert list(shared) == [1]

    def test_cache_clear_forgets_its_own(self) -> None:
        shared = droppable.Cache()
        calls = []

        def make(name: str) -> Any:
            @droppable.cache(cache=shared)
            def function(number: int) -> str:
                calls.append(name)
                return name

            return function

        one, two = make("one"), make("two")
        shared["k"] = 1
        one(1), two(1)
        one.cache_clear()
        assert one.cache_info() == (0, 0, None, 0)
        assert two.cache_info() == (0, 1, None, 1)
        assert shared["k"] == 1
        one(1), two(1), one(1)
        assert calls == ["one", "two", "one"]
        assert one.cache_info()[:2] == (1, 1)

    def test_methods_and_coroutines_too(self) -> None:
        shared = droppable.Cache(ttl=60)

        class Thing:
            id = 1

            @droppable.cache(cache=shared, self_key="id")
            def plain(self) -> str:
                return "plain"

            @droppable.cache(cache=shared, self_key="id")
            async def fetch(self) -> str:
                return "fetch"

        thing = Thing()
        assert (thing.plain(), asyncio.run(thing.fetch()), thing.plain(), asyncio.run(thing.fetch())) == (
            *("plain", "fetch"),
            *("plain", "fetch"),
        )
        assert thing.fetch.cache_info()[:2] == thing.plain.cache_info()[:2] == (1, 1)
        advance_clock(shared, 61)
        thing.plain()
        assert thing.plain.cache_info()[:2] == (1, 2)

    def test_what_is_said_where_the_cache_is_made(self) -> None:
        shared = droppable.Cache()
        for options in ({"max_bytes": 5}, {"backing": "droppable"}, {"fork": "share"}, {"wait_seconds": 3}):
            with pytest.raises(TypeError, match=f"{next(iter(options))}= cannot be given together with cache="):
                droppable.cache(cache=shared, **options)  # type: ignore[call-overload]
        with pytest.raises(
            TypeError, match=r"the name of a cache, what droppable.connect\(\) gives, or None; you gave {}"
        ):
            droppable.cache(cache={})  # type: ignore[call-overload]


class TestNamesAndNamespaces:
    def test_by_name(self) -> None:
        @droppable.cache(cache="test_by_name")
        def one(number: int) -> int:
            return number

        @droppable.cache(cache="test_by_name")
        def two(number: int) -> int:
            return number + 1

        assert (one(1), two(1), one(1)) == (1, 2, 1)
        assert one.cache is two.cache is droppable.named("test_by_name")
        assert one.cache_info() == (1, 1, None, 1)
        one.cache.close()

    def test_in_a_namespace(self) -> None:
        cache = droppable.Cache()
        user = cache.namespace("user:17")
        calls: list[Any] = []

        class Thing:
            id = 5

            @droppable.cache(cache=user, self_key="id", normalize=True)
            def method(self, number: int = 1) -> int:
                calls.append(number)
                return number

        @droppable.cache(cache=user)
        def function(*numbers: int) -> int:
            calls.append(numbers)
            return sum(numbers)

        @droppable.cache(cache=user, key=lambda number: number)
        async def fetch(number: int) -> int:
            calls.append(number)
            return number

        user["mine"] = 1
        thing = Thing()
        for _ in range(2):
            assert (thing.method(), thing.method(1), function(1, 2), asyncio.run(fetch(7))) == (1, 1, 3, 7)
        assert calls == [1, (1, 2), 7]
        assert list(user) == ["mine"]
        assert function.cache is cache
        assert function.cache_key(1, 2) in cache
        assert function.cache_info() == (1, 1, None, 1)
        assert function.invalidate(1, 2) is True
        assert function(1, 2) == 3
        function.cache_clear()
        assert (function(1, 2), user["mine"], thing.method()) == (3, 1, 1)
        assert len(calls) == 5
        user.clear()  # what its functions kept goes with it
        assert (function(1, 2), thing.method(), asyncio.run(fetch(7))) == (3, 1, 7)
        assert len(calls) == 8
        assert function.cache_info()[:2] == (0, 2)


class TestKeeping:
    def test_keep(self) -> None:
        calls = []

        @droppable.cache(keep=lambda result: result is not None)
        def find(number: int) -> int | None:
            calls.append(number)
            return number or None

        assert (find(0), find(0), find(1), find(1)) == (None, None, 1, 1)
        assert calls == [0, 0, 1]

    def test_ttl_of_the_result(self) -> None:
        calls = []

        @droppable.cache(ttl=lambda result: result)
        def function(seconds: float) -> float:
            calls.append(seconds)
            return seconds

        function(10), function(100)
        advance_clock(function, 50)
        function(10), function(100)
        assert calls == [10, 100, 10]

    def test_jitter_shortens(self) -> None:
        calls = []

        @droppable.cache(ttl=100, jitter=0.5)
        def function(number: int) -> int:
            calls.append(number)
            return number

        for number in range(200):
            function(number)
        advance_clock(function, 49)
        for number in range(200):
            function(number)
        assert len(calls) == 200
        advance_clock(function, 26)
        for number in range(200):
            function(number)
        assert 200 < len(calls) < 400  # about half of 200 are gone
        advance_clock(function, 27)
        calls.clear()
        for number in range(200):
            function(number)
        assert len(calls) > 0

    def test_options_are_checked_when_the_function_is_decorated(self) -> None:
        for options, error, match in (
            ({"jitter": 2}, ValueError, "jitter must be a fraction from 0 to 1; you gave 2"),
            ({"keep": 5}, TypeError, "keep must be a function of the result; you gave 5"),
            ({"key": "id"}, TypeError, "key must be a function of the arguments; you gave 'id'"),
            ({"ttl": "5m"}, TypeError, "ttl must be .*; you gave '5m'"),
            ({"ttl": 0}, ValueError, "ttl must be more than 0 seconds; you gave 0"),
        ):
            with pytest.raises(error, match=match):
                droppable.cache(**options)(module_level)  # type: ignore[call-overload]

    def test_a_serializer_and_fork(self) -> None:
        class Text:
            def dumps(self, value: Any, /) -> bytes:
                return str(value).encode()

            def loads(self, data: bytes, /) -> Any:
                return int(data)

        @droppable.cache(serializer=Text(), fork="share", backing="lazyfree")
        def function(number: int) -> Any:
            return number

        assert function(5) == function(5) == 5
        assert function.cache_parameters()["fork"] == "share"


class TestCopy:
    def test_arrays_may_be_written_to_at_each_call(self) -> None:
        numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

        @droppable.cache(copy=True)
        def ones(count: int) -> Any:
            return numpy.ones(count)

        @droppable.cache(copy=True)
        async def aones(count: int) -> Any:
            return numpy.ones(count)

        for count in (10, 100_000):
            for call in (ones, ones, ones.refresh, ones):
                array = call(count)
                array += 1
                assert array.sum() == 2 * count
            for acall in (aones, aones, aones.refresh, aones):
                array = asyncio.run(acall(count))
                array += 1
                assert array.sum() == 2 * count

    def test_a_refresh_gives_what_a_hit_gives(self) -> None:
        numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

        @droppable.cache
        def zeros(count: int) -> Any:
            return numpy.zeros(count)

        @droppable.cache
        def locks() -> Any:
            return threading.Lock()

        for call in (zeros, zeros, zeros.refresh):
            assert not call(10).flags.writeable
        assert locks.refresh() is not locks.refresh()  # cannot be stored, and is returned
