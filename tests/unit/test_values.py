"""Values: each kind comes back as what it was, large parts in place and read-only; bad ones are told."""

from __future__ import annotations

import array
import gc
import pickle
import struct
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest

from droppable import Cache, ClosedError
from droppable.lowlevel import page_size_bytes
from droppable.testing import drop, settle

PAGE = page_size_bytes()
SIZES = (0, 1, 15, 16, 17, 100, PAGE - 64, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 32767, 32768, 32769, 262144, 3_000_001)


@dataclass
class Point:
    x: int
    y: list[int]


class Text(str):
    pass


class Blob(bytes):
    pass


PLAIN: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    10**1000,
    1.5,
    1j,
    "",
    "text",
    "\u20ac\U0001f40d",
    "\udcff lone",
    "a\0b",
    b"",
    b"\0" * 10_000,
    (),
    (1, ("a", b"b")),
    [],
    [1, [2]],
    {},
    {"a": {1: 2}},
    {1, 2},
    frozenset("ab"),
    Point(1, [2]),
    Text("sub"),
    Blob(b"sub"),
    OrderedDict(a=1),
    range(5),
    slice(1, 2),
    array.array("d", [1.5, 2.5]),
    ...,
    int,
    len,
    "x" * 1_000_000,
    "\u20ac" * 500_000,
    list(range(100_000)),
]


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_it_comes_back(cache: Cache, number: int) -> None:
    value = PLAIN[number]
    cache["k"] = value
    settle(cache)
    for got in (cache["k"], cache.get("k"), cache.pop("k")):
        assert type(got) is type(value)
        assert got == value


@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_every_size(cache: Cache, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    for value in (data, bytearray(data), memoryview(data), memoryview(data + data)[::2], memoryview(bytearray(data))):
        cache["k"] = value
        got = cache["k"]
        assert type(got) is bytes
        assert got == bytes(value)
    cache["zeros"] = bytes(size)
    assert cache["zeros"] == bytes(size)
    cache["half"] = bytes(size) + data
    assert cache["half"] == bytes(size) + data


@pytest.mark.parametrize("size", SIZES)
def test_str_of_every_size(cache: Cache, size: int) -> None:
    for character in ("a", "\xe9", "\u20ac", "\U0001f40d", "\udc80"):
        cache["k"] = character * size
        assert cache["k"] == character * size


def test_a_memoryview_of_larger_items(cache: Cache) -> None:
    data = array.array("d", range(10_000))
    cache["k"] = memoryview(data)
    assert cache["k"] == data.tobytes()
    cache["k"] = memoryview(data)[::3]
    assert cache["k"] == data[::3].tobytes()


def test_what_changes_later_was_stored_before(cache: Cache, numpy: Any) -> None:
    for size in (10, 100_000):
        data = bytearray(b"a" * size)
        numbers = numpy.zeros(size)
        cache["bytes"], cache["array"], cache["dict"] = data, numbers, {"n": numbers}
        data[0] = 0
        numbers[:] = 5
        assert cache["bytes"] == b"a" * size
        assert not cache["array"].any()
        assert not cache["dict"]["n"].any()


DTYPES = [
    *"? i1 u1 <i2 >i2 <u4 >u8 <f2 <f4 >f8 g <c8 >c16 G S1 S7 <U3 >U3 V5 <M8[s] >M8[ns] <m8[D] S0 U0 V0".split(),  # noqa: SIM905
    [("a", "<i4"), ("b", ">f8")],
    [("a", "u1"), ("s", "S3"), ("m", "<f4", (2, 3)), ("n", [("x", "?")])],
    {"names": ["a", "b"], "formats": ["<i4", "<f8"], "offsets": [0, 16], "itemsize": 40},
]
SHAPES = [(), (0,), (1,), (7,), (3, 0, 5), (2, 3), (5, 4, 3), (1000,), (100, 50), (17, 13, 11), (3000, 4)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_of_every_dtype(cache: Cache, dtype: Any, numpy: Any) -> None:
    dtype = numpy.dtype(dtype)
    chance = numpy.random.default_rng(1)
    for shape in SHAPES:
        count = int(numpy.prod(shape))
        if dtype.itemsize:
            value = numpy.frombuffer(chance.integers(0, 2, count * dtype.itemsize, "u1"), dtype, count).reshape(shape)
        else:
            value = numpy.zeros(shape, dtype)
        for given in (value, value.T, value[::-1] if shape else value, value[..., ::2] if shape else value):
            cache["k"] = given
            got = cache["k"]
            assert type(got) is numpy.ndarray
            assert (got.dtype, got.shape) == (given.dtype, given.shape)
            if dtype.names and dtype.itemsize == 40:  # NumPy leaves what lies between the fields behind when it copies
                assert (got == given).all()
            else:
                assert got.tobytes() == given.tobytes()
            assert not got.flags.writeable
            assert got.flags.aligned


def test_the_order_of_axes_is_kept(cache: Cache, numpy: Any) -> None:
    value = numpy.arange(60_000.0).reshape(200, 300)
    cache["c"], cache["f"], cache["gaps"] = value, numpy.asfortranarray(value), value[::2, ::3]
    assert cache["c"].flags.c_contiguous
    assert cache["f"].flags.f_contiguous
    assert (cache["f"] == value).all()
    assert cache["gaps"].flags.c_contiguous
    assert (cache["gaps"] == value[::2, ::3]).all()
    cache["broadcast"] = numpy.broadcast_to(numpy.arange(10), (1000, 10))
    assert (cache["broadcast"] == numpy.arange(10)).all()


def test_arrays_that_are_more_than_plain_memory(cache: Cache, numpy: Any) -> None:
    """Objects, subclasses, masks, variable-width strings: through pickle, and right."""
    is_old = numpy.lib.NumpyVersion(numpy.__version__) < "2.0.0"  # no variable-width strings
    strings = "U2800" if is_old else numpy.dtypes.StringDType()
    values = [
        numpy.array([1, "a", None], dtype=object),
        numpy.array([("x", [1])], dtype=[("a", "U3"), ("b", object)]),
        numpy.array(["short", "a much longer text than that" * 100], dtype=strings),
        numpy.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        numpy.ma.array(numpy.arange(10_000), mask=numpy.arange(10_000) % 2),
        numpy.float32(1.5),
        numpy.datetime64("2020-01-01"),
    ]
    for value in values:
        cache["k"] = value
        drop(cache, 0.0)
        got = cache["k"]
        assert type(got) is type(value)
        assert got.dtype == value.dtype
        assert bool(numpy.all(got == value))


def test_large_arrays_lie_in_the_caches_memory(backing: str, cache: Cache, numpy: Any) -> None:
    for shape in ((PAGE // 8,), (1000, 1000)):
        cache["k"] = numpy.ones(shape)
        got = cache["k"]
        pinned = cache.stats().pinned_bytes
        assert pinned == (-(-got.nbytes // PAGE) * PAGE if backing == "lazyfree" else 0)
        if backing == "lazyfree":
            assert got.ctypes.data % PAGE == 0
            again = cache["k"]
            assert again.ctypes.data == got.ctypes.data
            del again
        del got
        assert cache.stats().pinned_bytes == 0


def test_arrays_inside_of_something(backing: str, cache: Cache, numpy: Any) -> None:
    value = {"a": numpy.arange(50_000.0), "b": [numpy.arange(77, dtype="i2"), b"x" * 10_000], "c": numpy.empty((0, 3))}
    cache["k"] = value
    got = cache["k"]
    assert (got["a"] == value["a"]).all()
    assert (got["b"][0] == value["b"][0]).all()
    assert got["b"][1] == value["b"][1]
    assert got["c"].shape == (0, 3)
    assert not got["a"].flags.writeable
    assert got["a"].ctypes.data % 64 == got["b"][0].ctypes.data % 64
    part = got["a"][10:20]
    del got
    if backing == "lazyfree":
        assert cache.stats().pinned_bytes > value["a"].nbytes
    drop(cache)
    cache.clear()
    assert (part == numpy.arange(10.0, 20.0)).all()
    del part
    gc.collect()
    assert cache.stats().pinned_bytes == 0


def test_buffers_out_of_band_by_hand(cache: Cache) -> None:
    values = [
        pickle.PickleBuffer(bytearray(b"a" * 10_000)),
        [pickle.PickleBuffer(b"b" * size) for size in (0, 1, 63, 64, 65, 5000)],
    ]
    for value in values:
        cache["k"] = value
        got = cache["k"]
        for one, expected in zip(*((x if isinstance(x, list) else [x]) for x in (got, value)), strict=True):
            assert bytes(one) == expected.raw()


def test_many_buffers(cache: Cache, numpy: Any) -> None:
    value = [numpy.full(number % 200, number) for number in range(3000)]
    cache["k"] = value
    got = cache["k"]
    assert all((a == b).all() for a, b in zip(got, value, strict=True))


def test_a_value_that_holds_itself(cache: Cache) -> None:
    value: list[Any] = [1]
    value.append(value)
    cache["k"] = value
    got = cache["k"]
    assert got[0] == 1
    assert got[1] is got


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("I am not to be copied")


UNPICKLABLE = [
    lambda: 1,
    Refuses(),
    [Refuses()],
    threading.Lock(),
    (x for x in ()),
    sys.stdout,
    {"a": array, 1: Refuses()},
]


@pytest.mark.parametrize("value", UNPICKLABLE, ids=lambda value: type(value).__name__)
def test_unpicklable(cache: Cache, value: Any) -> None:
    cache["k"] = "old"
    for call in (cache.set, cache.add, cache.__setitem__):
        with pytest.raises(
            TypeError, match=f"your value of type {type(value).__qualname__} cannot be pickled: ."
        ) as caught:
            call("k", value)
        assert caught.value.__cause__ is not None
    assert cache["k"] == "old"
    assert cache.stats().sets == 1


def test_an_object_array_that_cannot_be_pickled(cache: Cache, numpy: Any) -> None:
    with pytest.raises(TypeError, match="cannot be pickled: I am not to be copied"):
        cache["k"] = numpy.array([Refuses()])


def test_memory_that_is_missing_while_pickling_is_told_as_such(cache: Cache) -> None:
    class Large:
        def __reduce__(self) -> Any:
            raise MemoryError("no room for the pickle")

    with pytest.raises(MemoryError, match="no room for the pickle"):
        cache["k"] = Large()
    with pytest.raises(MemoryError, match="no room for the pickle"):
        cache[Large()] = 1


def test_a_buffer_that_is_released(cache: Cache) -> None:
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(ValueError, match="released"):
        cache["k"] = view
    assert "k" not in cache


def test_pickling_may_use_the_cache(cache: Cache, numpy: Any) -> None:
    """Nothing is locked while Python code runs."""

    class Inner:
        def __reduce__(self) -> Any:
            cache["inner"] = cache.get("inner", 0) + 1
            return (int, (7,))

    cache["outer"] = [Inner(), numpy.zeros(10_000), Inner()]
    assert cache["inner"] == 2
    assert cache["outer"][0] == 7


def test_pickling_may_close_the_cache(cache: Cache) -> None:
    class Closer:
        def __reduce__(self) -> Any:
            cache.close()
            return (int, (7,))

    with pytest.raises(ClosedError):
        cache["k"] = Closer()


def test_a_finalizer_may_use_the_cache(cache: Cache, numpy: Any) -> None:
    class Last:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __del__(self) -> None:
            cache["from del"] = self.array

    cache["k"] = numpy.arange(100_000)
    last = Last(cache["k"])
    cache.clear()
    del last
    assert (cache["from del"] == numpy.arange(100_000)).all()


def test_doubles_keep_every_bit(cache: Cache) -> None:
    for bits in ("010000000000f87f", "000000000000f8ff", "0000000000000080", "0100000000000000"):
        value = struct.unpack("<d", bytes.fromhex(bits))[0]
        cache["k"] = value
        assert struct.pack("<d", cache["k"]).hex() == bits
