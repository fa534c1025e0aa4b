"""`ChunkedArray`: when it computes, what it hands out, and what it says to wrong arguments. Indices: tests/property."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import droppable
from droppable import ChunkedArray, testing

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

WHOLE = numpy.arange(60_000, dtype="f8").reshape(300, 200)
CHUNKS = (100, 200)  # three of them, of 160 KB


class Fill:
    """Cuts chunks out of WHOLE, and counts."""

    def __init__(self) -> None:
        self.asked: list[tuple[slice, ...]] = []

    def __call__(self, where: tuple[slice, ...]) -> Any:
        self.asked.append(where)
        return WHOLE[where]


@pytest.fixture
def fill() -> Fill:
    return Fill()


def make(fill: Callable[[tuple[slice, ...]], Any], **more: Any) -> ChunkedArray:
    return ChunkedArray(WHOLE.shape, WHOLE.dtype, CHUNKS, fill, **more)


def test_only_the_chunks_that_are_asked_for_are_computed_and_each_once(fill: Fill) -> None:
    with make(fill) as array:
        assert fill.asked == []
        assert numpy.array_equal(array[110:120], WHOLE[110:120])
        assert numpy.array_equal(array[150:199, ::7], WHOLE[150:199, ::7])
        assert fill.asked == [(slice(100, 200), slice(0, 200))]
        assert numpy.array_equal(array[90:110], WHOLE[90:110])
        assert len(fill.asked) == 2
        assert array.stats().computed == 2
        assert array.stats().computed_again == 0
        assert array.stats().chunks == 3


def test_what_was_lost_is_computed_again_and_counted(fill: Fill) -> None:
    with make(fill) as array:
        assert numpy.array_equal(numpy.asarray(array), WHOLE)
        testing.drop(array)
        assert numpy.array_equal(array[0], WHOLE[0])
        assert (array.stats().computed, array.stats().computed_again) == (4, 1)
        assert array.stats().fill_seconds > 0
        assert numpy.array_equal(numpy.asarray(array), WHOLE)
        assert (array.stats().computed, array.stats().computed_again) == (6, 3)
        assert array.cache.stats().misses == 6


def test_one_thread_computes_a_chunk_and_the_others_wait() -> None:
    begun = threading.Barrier(8, timeout=60)
    computed = []

    def slow(where: tuple[slice, ...]) -> Any:
        computed.append(where)
        return WHOLE[where]

    def read(array: ChunkedArray) -> Any:
        begun.wait()
        return array[250]

    with make(slow) as array, ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(read, [array] * 8))
    assert all(numpy.array_equal(row, WHOLE[250]) for row in rows)
    assert len(computed) == 1


def test_results_cannot_be_changed_and_stay_while_they_are_held(fill: Fill) -> None:
    with make(fill) as array:
        inside, across, chosen = array[10:20], array[90:110], array[[5, 250]]
        for result in (inside, across, chosen, *(block for _, block in array.blocks())):
            with pytest.raises(ValueError, match="read-only"):
                result[0, 0] = 1.0
        testing.drop(array)
        assert numpy.array_equal(inside, WHOLE[10:20])
    assert numpy.array_equal(inside, WHOLE[10:20])  # also after close()


def test_an_array_of_numpy_is_new_memory_of_the_callers(fill: Fill) -> None:
    with make(fill) as array:
        mine = numpy.asarray(array)
        mine[0, 0] = -1.0
        assert array[0, 0] == 0.0
        assert numpy.asarray(array, dtype="f4").dtype == numpy.float32
        assert numpy.sum(array) == numpy.sum(WHOLE)
        with pytest.raises(ValueError, match="copy"):
            array.__array__(copy=False)


def test_a_fill_that_hands_out_its_own_memory_keeps_it_as_it_is() -> None:
    own = WHOLE.copy()
    with make(lambda where: own[where]) as array:
        for _, block in array.blocks():
            assert not block.flags.writeable
        assert own.flags.writeable
        own[0, 0] = 7.0  # the cache has a copy
        assert array[0, 0] == 0.0


def test_blocks_are_all_of_it_in_order(fill: Fill) -> None:
    copy = numpy.zeros_like(WHOLE)
    with make(fill) as array:
        places = []
        for where, block in array.blocks():
            copy[where] = block
            places.append(where[0].start)
    assert places == [0, 100, 200]
    assert numpy.array_equal(copy, WHOLE)


def test_what_it_tells_of_itself(fill: Fill) -> None:
    with make(fill) as array:
        assert (array.shape, array.dtype, array.ndim, array.size) == ((300, 200), WHOLE.dtype, 2, 60_000)
        assert (array.nbytes, array.chunks, len(array)) == (480_000, CHUNKS, 300)
        assert repr(array) == "<droppable.ChunkedArray: shape (300, 200), float64, chunks of (100, 200)>"
        rows = list(array)
        assert len(rows) == 300
        assert numpy.array_equal(rows[299], WHOLE[299])
        assert isinstance(array[0, 0], numpy.float64)
        assert array[2, 3, ...].shape == ()


def test_an_axis_may_be_one_chunk_and_an_array_may_be_empty() -> None:
    assert ChunkedArray((7, 9), "i4", (2, None), numpy.zeros).chunks == (2, 9)
    assert ChunkedArray((7, 9), "i4", 3, numpy.zeros).chunks == (3, 3)
    assert ChunkedArray(7, "i4", 100, numpy.zeros).chunks == (7,)
    empty = ChunkedArray((0, 5), "i4", 2, numpy.zeros)
    assert numpy.asarray(empty).shape == (0, 5)
    assert list(empty.blocks()) == []
    assert empty.stats().chunks == 0
    scalar = ChunkedArray((), "i4", (), lambda where: 5)
    assert scalar[()] == 5
    with pytest.raises(TypeError, match="unsized"):
        len(scalar)
    with pytest.raises(TypeError, match="0-d"):
        iter(scalar)


def test_arrays_of_one_name_in_one_cache_have_the_same_chunks(fill: Fill) -> None:
    with droppable.Cache[Any, Any]() as cache:
        first, second = make(fill, cache=cache, name="heights"), make(fill, cache=cache, name="heights")
        other = make(fill, cache=cache)
        assert numpy.array_equal(first[0], second[0])
        assert len(fill.asked) == 1
        assert numpy.array_equal(other[0], WHOLE[0])
        assert len(fill.asked) == 2
        first.close()  # which closes no cache of others
        assert numpy.array_equal(second[0], WHOLE[0])
        second.clear()
        assert numpy.array_equal(first[0], WHOLE[0])
        assert len(fill.asked) == 3
        wrong = ChunkedArray((300, 200), "f4", CHUNKS, fill, cache=cache, name="heights")
        with pytest.raises(ValueError, match="name='heights' is that of another array in this cache"):
            wrong[0]


def test_chunks_may_be_in_a_namespace_and_above_a_slower_mapping(fill: Fill) -> None:
    with droppable.Cache[Any, Any]() as cache:
        array = make(fill, cache=cache.namespace("maps"))
        assert numpy.array_equal(array[0], WHOLE[0])
        assert array.cache is cache
    disk: dict[Any, Any] = {}
    for _ in range(2):  # the second one computes nothing
        with droppable.Cache[Any, Any](below=disk) as tiers:
            array = make(fill, cache=tiers, name="heights")
            assert numpy.array_equal(array[0], WHOLE[0])
    assert len(fill.asked) == 2


def test_clear_lets_fill_give_something_else() -> None:
    value = 1
    with ChunkedArray(10, "i8", 4, lambda where: numpy.full(where[0].stop - where[0].start, value)) as array:
        assert array[:].tolist() == [1] * 10
        value = 2
        assert array[:].tolist() == [1] * 10
        array.clear()
        assert array[:].tolist() == [2] * 10
        assert array.stats().computed_again == 0


@pytest.mark.parametrize(
    ("filled", "error", "words"),
    [
        (lambda where: numpy.zeros(3), ValueError, r"must return the shape \(100, 200\); it returned the shape \(3,\)"),
        (lambda where: None, ValueError, r"it returned the shape \(\)"),
        (
            lambda where: numpy.zeros((100, 200), "c16"),
            TypeError,
            "float64, or what can be cast to it; it returned comp",
        ),
        (lambda where: {}[0], KeyError, "0"),
    ],
)
def test_a_wrong_fill_raises_and_stores_nothing(filled: Any, error: type[Exception], words: str) -> None:
    with make(filled) as array:
        for _ in range(2):
            with pytest.raises(error, match=words):
                array[0]
        assert array.stats().computed == 0
        assert len(array.cache) == 0


def test_what_can_be_cast_is_cast() -> None:
    with ChunkedArray((4,), "f4", 2, lambda where: [where[0].start, 1]) as array:
        assert array[:].tolist() == [0.0, 1.0, 2.0, 1.0]
        assert array[:].dtype == numpy.float32


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (((3, -1), "i4", 2), ValueError, r"shape must be of integers of 0 or more; you gave -1"),
        (((3, 1.5), "i4", 2), TypeError, r"shape must be of integers; you gave 1.5"),
        (((3,), "O", 2), TypeError, r"dtype must be of plain elements, not of Python objects; you gave 'O'"),
        (((3,), "i4", 0), ValueError, r"chunks must be of integers of 1 or more; you gave 0"),
        (((3,), "i4", "auto"), TypeError, r"chunks must be of integers; you gave 'auto'"),
        (((3, 4), "i4", (1,)), ValueError, r"chunks must have a length for each of the 2 axes; you gave \(1,\)"),
        (((1 << 40,), "i4", 1), ValueError, r"makes 1,099,511,627,776 chunks, and 2,147,483,648 are the most"),
    ],
)
def test_wrong_arguments(given: tuple[Any, Any, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ChunkedArray(*given, numpy.zeros)


def test_wrong_fill_cache_and_name() -> None:
    with pytest.raises(TypeError, match="fill must be"):
        ChunkedArray(3, "i4", 1, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"cache must be a droppable.Cache, a Namespace, or None; you gave \{\}"):
        make(numpy.zeros, cache={})
    with pytest.raises(TypeError, match="unhashable"):
        make(numpy.zeros, name=[])
    options: dict[str, Any] = {"max_bytes": "1M"}
    with pytest.raises(TypeError, match=r"ChunkedArray\(\) has no argument max_bytes=. Give cache=droppable.Cache\("):
        make(numpy.zeros, **options)


def test_after_close_each_read_raises(fill: Fill) -> None:
    array = make(fill)
    array.close()
    array.close()
    for read in (lambda: array[0], lambda: numpy.asarray(array), lambda: next(array.blocks()), lambda: array[[0]]):
        with pytest.raises(droppable.ClosedError):
            read()


def test_a_forked_child_computes_its_own(fill: Fill) -> None:
    with make(fill) as array:
        assert numpy.array_equal(array[0], WHOLE[0])
        child = os.fork()
        if child == 0:
            os._exit(0 if numpy.array_equal(array[:], WHOLE) and array.stats().computed == 4 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert array.stats().computed == 1


def test_a_fill_may_read_other_chunks_of_the_array() -> None:
    def fill(where: tuple[slice, ...]) -> Any:
        start = where[0].start
        before = array[start - 1] if start else 0
        return numpy.arange(1, 5) + before

    with ChunkedArray(20, "i8", 4, fill) as array:
        assert array[19] == 20
        assert array[:].tolist() == list(range(1, 21))
        assert array.stats().computed == 5


def test_a_chunk_that_can_never_be_kept_is_computed_each_time(fill: Fill) -> None:
    with droppable.Cache[Any, Any](max_bytes="64K") as cache:
        array = make(fill, cache=cache)
        for _ in range(2):
            assert numpy.array_equal(array[0], WHOLE[0])
            assert not array[0:1].flags.writeable
        assert array.stats().computed_again == 3
