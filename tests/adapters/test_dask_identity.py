"""What `memoize` takes for the same: no two calls that a function could tell apart, and equal calls again and again."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import importlib
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import droppable
from droppable.lowlevel import EncodedKey

pytest.importorskip("distributed", reason="Dask's distributed is not installed: make adapters")
numpy = pytest.importorskip("numpy")
cloudpickle = pytest.importorskip("cloudpickle")

from droppable.adapters import dask as adapter  # noqa: E402
from droppable.adapters._dask_arguments import arguments_part  # noqa: E402

WAIT_SECONDS = 60.0  # only a hang takes that long
SQUARE = numpy.arange(9).reshape(3, 3)


def part(*args: Any, **kwargs: Any) -> EncodedKey:
    return EncodedKey(arguments_part(args, kwargs, keeps_order=False))


class Quiet(str):
    """All of them look the same."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


@dataclasses.dataclass
class Scaled:
    number: int

    def scaled(self, factor: int) -> Scaled:
        self.factor = factor  # no field
        return self


def adder(number: Any) -> Callable[[int], int]:
    return lambda other: int(number + other)


def structured(name: str) -> Any:
    return numpy.dtype([(name, "i4")])


PAIRS: dict[str, tuple[Any, Any]] = {
    "a matrix and its transpose": (SQUARE, SQUARE.T),
    "orders of memory": (SQUARE, numpy.asfortranarray(SQUARE)),
    "text in pieces": (numpy.array(["a-b", "c"], object), numpy.array(["a", "b-c"], object)),
    "masks": (numpy.ma.array([1, 2], mask=[0, 1]), numpy.ma.array([1, 3], mask=[0, 1])),
    "arrays and records": (numpy.zeros(2, structured("a")), numpy.zeros(2, structured("a")).view(numpy.recarray)),
    "names of fields": (structured("a"), structured("b")),
    "long slices": (slice(numpy.arange(5000)), slice(numpy.arange(5000)[::-1].copy())),
    "reprs": (Quiet("a"), Quiet("b")),
    "subclasses of str": (Quiet("a"), "a"),
    "orders of a dict": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "defaults of a dict": (collections.defaultdict(int, a=1), {"a": 1}),
    "named tuples": (collections.namedtuple("P", "x y")(1, 2), collections.namedtuple("P", "y x")(1, 2)),
    "attributes beside fields": (Scaled(1).scaled(2), Scaled(1).scaled(3)),
    "members of enums": (enum.IntEnum("I", {"A": 1}).A, enum.IntEnum("I", {"A": 1, "B": 2}).A),
    "closures": (adder(1), adder(2)),
    "closures over arrays": (adder(SQUARE), adder(SQUARE.T)),
    "partials of arrays": (functools.partial(adder, SQUARE), functools.partial(adder, SQUARE.T)),
    "methods": (SQUARE.sum, SQUARE.T.sum),
    "signs of zero": (0.0, -0.0),
    "numbers and truth": (1, True),
    "tuples and lists": ((1, 2), [1, 2]),
    "shapes without elements": (numpy.zeros((0, 3)), numpy.zeros((3, 0))),
    "types without elements": (numpy.zeros(0, "i4"), numpy.zeros(0, "f4")),
    "dimensions": (numpy.array(5), numpy.array([5])),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_a_function_can_tell_apart_is_told_apart(name: str) -> None:
    one, other = PAIRS[name]
    assert part(one) != part(other)
    assert part([one]) != part([other])
    assert part(named=one) != part(named=other)


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_is_the_same_again(name: str) -> None:
    for value in PAIRS[name]:
        assert part(value) == part(value)
        assert part([value, value]) == part([value, value])


def test_frames_whose_columns_changed_places() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    one = pandas.DataFrame({"a": [1, 2], "b": [0.5, 0.6], "c": [3, 4]})
    other = pandas.DataFrame({"a": [1, 2], "b": [3, 4], "c": [0.5, 0.6]})
    assert part(one) != part(other)
    assert part(one) == part(one.copy()) == part(pickle.loads(pickle.dumps(one)))


@pytest.mark.parametrize(
    "value",
    [
        SQUARE, SQUARE.T, [1, [2, {"a": 3}]], {"a", "b", "c"}, numpy.float64(3), Path("a"), structured("a"), Scaled(1),
        numpy.array([1, "a", None], object), numpy.timedelta64(3, "s"), numpy.add, len, int, bytearray(b"x"),
        adder(SQUARE),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_that_was_sent_is_the_same(value: Any) -> None:
    assert part(value) == part(cloudpickle.loads(cloudpickle.dumps(value)))


def test_what_contains_itself_or_the_same_again_and_again() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert part(circle) == part(circle)
    assert part(circle) != part([1, [1]])
    tree: Any = []
    for _ in range(100):  # 2 to the 100th paths
        tree = [tree, tree]
    assert part(tree) == part(tree)


def test_the_order_of_names_counts_where_it_is_seen() -> None:
    @adapter.memoize
    def names(**kwargs: int) -> list[str]:
        return list(kwargs)

    assert names(a=1, b=2) == ["a", "b"]
    assert names(b=2, a=1) == ["b", "a"]
    names.cache.close()


def generate() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("function", [generate, functools.partial(generate)])
def test_generator_functions_are_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="function must not be a generator function"):
        adapter.memoize(function)


FACTOR = 2


def times(number: int) -> int:
    return FACTOR * number


@adapter.memoize
def factorial(number: int) -> int:
    """Refers to itself by its name."""
    return 1 if number < 2 else number * factorial(number - 1)


@pytest.fixture
def by_value() -> Iterator[None]:
    """As functions of a notebook: workers cannot import this module."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    droppable.named("dask:").close()


def sent(memoized: Any) -> Any:
    return pickle.loads(cloudpickle.dumps(memoized))


@pytest.mark.usefixtures("by_value")
def test_a_global_that_changed_since_memoize_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    memoized = adapter.memoize(times)
    assert sent(memoized)(1) == 2
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3)
    assert sent(memoized)(1) == 3
    hits = memoized.cache.stats().hits
    assert sent(memoized)(1) == 3
    assert memoized.cache.stats().hits == hits + 1


@pytest.mark.usefixtures("by_value")
def test_a_function_that_refers_to_itself_can_be_sent() -> None:
    assert sent(factorial)(5) == 120
    hits = factorial.cache.stats().hits
    assert sent(sent(factorial))(5) == 120
    assert factorial.cache.stats().hits == hits + 1


def test_a_decorated_function_of_a_module_is_sent_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "dask_decorated.py").write_text(
        "import threading\nfrom droppable.adapters.dask import memoize\nlock = threading.Lock()\n"
        "@memoize\ndef load(number):\n    with lock:\n        return number\n"
    )
    module = importlib.import_module("dask_decorated")
    assert sent(module.load) is module.load
    assert module.load(3) == 3
    module.load.cache.close()


def test_a_cache_that_is_closed_meanwhile_fails_no_task() -> None:
    """As where the plugin is unregistered."""
    computing, closed = threading.Event(), threading.Event()

    class Slow:
        def __call__(self, number: int) -> int:
            computing.set()
            assert closed.wait(WAIT_SECONDS)
            return number

        def __dask_tokenize__(self) -> str:
            return "slow"

    memoized = adapter.memoize(Slow(), name="closed meanwhile")
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(memoized(7))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert computing.wait(WAIT_SECONDS)
    memoized.cache.close()
    closed.set()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert results == [7, 7, 7]
    memoized.cache.close()


def test_a_closed_cache_of_the_function_itself_is_told() -> None:
    other: Any = droppable.Cache()
    other.close()

    def fails(number: int) -> int:
        return int(other[number])

    class Fails:
        def __call__(self, number: int) -> int:
            return fails(number)

        def __dask_tokenize__(self) -> str:
            return "fails"

    memoized = adapter.memoize(Fails(), name="fails")
    with pytest.raises(droppable.ClosedError):
        memoized(1)
    memoized.cache.close()
