"""Keys: compared by type and value; what has no native form by its pickle. A false hit never, a false miss rarely."""

from __future__ import annotations

import datetime
import enum
import fractions
import struct
import uuid
from typing import Any

import pytest

from droppable import Cache
from droppable.lowlevel import encode_key
from droppable.testing import settle


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    pass


NAN = struct.unpack("<d", bytes.fromhex("010000000000f87f"))[0]

# No two of these may be taken for one another, however alike they are.
KEYS: list[Any] = [
    "",
    "a",
    "ab",
    "a\0",
    "\u20ac",
    "\udc80",
    "\U0001f40d" * 1000,
    "1",
    "x" * 5000,
    b"",
    b"a",
    b"1",
    b"\x00",
    b"\x00\x00",
    b"x" * 5000,
    0,
    1,
    -1,
    255,
    256,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64,
    -(2**64),
    10**500,
    0.0,
    -0.0,
    1.0,
    float("inf"),
    float("-inf"),
    float("nan"),
    NAN,
    5e-324,
    None,
    True,
    False,
    (),
    (1,),
    ((1,),),
    (1, 2),
    (1, (2,)),
    ((1, 2),),
    (1.0, 2),
    (True, 2),
    ("a", "b"),
    ("ab", ""),
    ("", "ab"),
    ("ab",),
    (b"a", "b"),
    (None,),
    (None, None),
    ("a" * 5000, 5),
    1j,
    Colour.RED,
    Level.LOW,
    Text("a"),
    (Text("a"),),
    fractions.Fraction(1, 2),
    datetime.date(2020, 1, 1),
    datetime.datetime(2020, 1, 1),
    uuid.UUID(int=1),
    frozenset({1}),
    (1, frozenset({1})),
    int,
    len,
    ...,
]


def test_each_is_found_and_none_for_another(cache: Cache) -> None:
    for number, key in enumerate(KEYS):
        assert key not in cache, key
        cache[key] = number
    assert [cache[key] for key in KEYS] == list(range(len(KEYS)))
    assert len(cache) == len(KEYS)
    settle(cache)
    for key in KEYS:
        del cache[key]
    assert len(cache) == 0


def test_encodings_differ() -> None:
    encodings = {encode_key(key) for key in KEYS}
    assert len(encodings) == len(KEYS)


def test_keys_come_back_as_they_were(cache: Cache) -> None:
    for key in KEYS:
        cache[key] = None
    seen = list(cache)
    assert len(seen) == len(KEYS)
    assert {encode_key(key) for key in seen} == {encode_key(key) for key in KEYS}
    assert {type(key) for key in seen} == {type(key) for key in KEYS}


def test_equal_keys_made_apart_are_one(cache: Cache) -> None:
    cache["".join(["a", "b"])] = 1
    cache["ab"] = 2
    cache[(10**30, "x", ("y",))] = 3
    cache[(10**30 + 0, "".join("x"), tuple("y"))] = 4
    assert len(cache) == 2
    assert cache["ab"] == 2
    assert cache[(10**30, "x", ("y",))] == 4


@pytest.mark.parametrize("key", [[], {}, set(), bytearray(b"a"), ([],), (1, {"a": 1}), (1, ([2],))], ids=repr)
def test_unhashable(cache: Cache, key: Any) -> None:
    calls = (
        lambda: cache.get(key),
        lambda: cache.set(key, 1),
        lambda: key in cache,
        lambda: cache.discard(key),
        lambda: cache.pop(key, None),
        lambda: cache.view(key),
        lambda: cache.get_or_create(key, lambda: 1),
        lambda: cache[key],
    )
    for call in calls:
        with pytest.raises(TypeError, match="unhashable type"):
            call()
    assert len(cache) == 0


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("I am not to be copied")


class Unhashable:
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("key", [lambda: 1, Refuses(), (1, Refuses()), memoryview(b"a"), (x for x in ())], ids=str)
def test_unpicklable(cache: Cache, key: Any) -> None:
    for call in (lambda: cache.get(key), lambda: cache.set(key, 1), lambda: key in cache):
        with pytest.raises(TypeError, match=r"your key of type .* cannot be pickled: ."):
            call()
    assert len(cache) == 0


def test_the_cause_is_told() -> None:
    with pytest.raises(TypeError, match="I am not to be copied") as caught:
        encode_key(Refuses())
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_error_in_hash_is_the_callers() -> None:
    class Bad:
        def __hash__(self) -> int:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        encode_key(Bad())
    with pytest.raises(TypeError, match="unhashable type: 'Unhashable'"):
        encode_key(Unhashable())


def test_nested_too_deep(cache: Cache) -> None:
    key: Any = ()
    for _ in range(100_000):
        key = (key,)
    with pytest.raises(RecursionError):
        cache.get(key)
    with pytest.raises(RecursionError):
        cache[key] = 1
    while key:  # taken apart by hand: not every interpreter does it without recursion
        (key,) = key


def test_large_keys(cache: Cache) -> None:
    for size in (255, 256, 4000, 4096, 8192, 65535, 65536, 300_000):
        cache["k" * size] = size
        cache[b"k" * size] = -size
    for size in (255, 256, 4000, 4096, 8192, 65535, 65536, 300_000):
        assert cache["k" * size] == size
        assert cache[b"k" * size] == -size
    assert "k" * 4095 not in cache
    assert len(list(cache)) == 16


def test_wide_tuples(cache: Cache) -> None:
    key = tuple(range(10_000))
    cache[key] = 1
    assert cache[tuple(range(10_000))] == 1
    assert cache.get((*range(9_999), -1)) is None
    assert list(cache) == [key]
