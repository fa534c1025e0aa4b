"""Keys: compared by type and value, and by nothing else. A false hit never, a false miss rarely."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import textwrap
import typing
import uuid
import zoneinfo
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

import droppable
from droppable import Cache, _keys
from droppable.lowlevel import EncodedKey, encode_key
from droppable.testing import settle


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    pass


class Name(str):
    __slots__ = ("origin",)


class Pair(typing.NamedTuple):
    a: Any
    b: Any


class Options(enum.Flag):
    BOLD = 1
    WIDE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any

    @functools.cached_property
    def size(self) -> float:
        return 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: Any
    y: Any


@dataclasses.dataclass(unsafe_hash=True)
class Loose:
    x: Any
    y: Any
    extra: Any = dataclasses.field(default=None, hash=False)


class Numbers(frozenset[int]):
    pass


class Table(dict[str, int]):
    """A dict that can be hashed: nobody changes it."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 1


class Plain:
    """Hashed by identity, a key by value."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return 1


def fresh(text: str) -> str:
    """An equal str that is another object."""
    return "".join(list(text))


def zone(hours: int) -> datetime.timezone:
    return datetime.timezone(datetime.timedelta(hours=hours))


WHEN = datetime.datetime(2020, 1, 1, 12)
SHARED = fresh("user-17")


def swapped(**attributes: Any) -> Plain:
    return Plain(**dict(reversed(attributes.items())))


def looked_at(point: Point) -> Point:
    assert point.size == 1.0
    return point


# Each made twice, the second time by another way or of other objects: one key.
EQUAL: dict[str, Callable[[], Any]] = {
    "named tuple of one str": lambda: Pair(SHARED, SHARED),
    "frozenset": lambda: frozenset([0, 8, 16, 32]),
    "frozenset of frozensets": lambda: frozenset([frozenset([0, 8]), frozenset(["a", SHARED]), 1]),
    "tuple with a frozenset": lambda: (1, frozenset([0, 8]), "x"),
    "dataclass": lambda: Point(SHARED, Pair(SHARED, 1)),
    "dataclass with slots": lambda: Slotted(SHARED, SHARED),
    "dataclass that is not frozen": lambda: Loose(SHARED, (SHARED,), [SHARED, {1: SHARED}]),
    "plain object": lambda: Plain(a=SHARED, b={"x": 1, "y": {1, 9}}, c=bytearray(b"z")),
    "dates of one zone": lambda: (WHEN.replace(tzinfo=zone(1)), WHEN.replace(tzinfo=zone(1))),
    "date, delta, time": lambda: (WHEN.date(), datetime.timedelta(3, 4), WHEN.time()),
    "zone by name": lambda: WHEN.replace(tzinfo=zoneinfo.ZoneInfo("UTC")),
    "path": lambda: pathlib.Path("a", "b/c"),
    "pure paths": lambda: (pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:/x/y")),
    "uuid": lambda: uuid.UUID(int=17),
    "decimal": lambda: (decimal.Decimal("1.50"), decimal.Decimal("NaN")),
    "fraction": lambda: fractions.Fraction(6, 4),
    "enums": lambda: (Colour.RED, Level.LOW, Options.BOLD | Options.WIDE),
    "subclass of str": lambda: Name(SHARED),
    "range and slice-like": lambda: (range(3), 2j),
    "functions and classes": lambda: (len, Pair, str.upper, datetime.datetime.now, type(None), type(...)),
    "partial": lambda: functools.partial(int, base=int("2")),
    "address": lambda: ipaddress.ip_network("10.0.0.0/8"),
    "nested in each other": lambda: Point(frozenset([Pair(Colour.RED, SHARED), zone(2)]), Plain(k=[pathlib.Path("p")])),
    "long": lambda: (Point("x" * 5000, SHARED), 1),
    "subclass of frozenset": lambda: Numbers([0, 8, 16, 32]),
    "subclass of dict": lambda: Table(a=1, b=2),
}
OTHER_WAY: dict[str, Callable[[], Any]] = {
    "subclass of frozenset": lambda: Numbers([32, 16, 8, 0]),
    "subclass of dict": lambda: Table(b=2, a=1),
    "named tuple of one str": lambda: Pair(SHARED, fresh(SHARED)),
    "frozenset": lambda: frozenset([32, 16, 8, 0]),
    "frozenset of frozensets": lambda: frozenset([1, frozenset([fresh(SHARED), "a"]), frozenset([8, 0])]),
    "tuple with a frozenset": lambda: (1, frozenset([8, 0]), fresh("x")),
    "dataclass": lambda: looked_at(Point(fresh(SHARED), Pair(SHARED, 1))),
    "dataclass with slots": lambda: Slotted(fresh(SHARED), SHARED),
    "dataclass that is not frozen": lambda: Loose(SHARED, (fresh(SHARED),), [fresh(SHARED), {1: SHARED}]),
    "plain object": lambda: swapped(a=fresh(SHARED), b={"y": {9, 1}, "x": 1}, c=bytearray(b"z")),
    "dates of one zone": lambda: (WHEN.replace(tzinfo=(one := zone(1))), WHEN.replace(tzinfo=one)),
    "zone by name": lambda: WHEN.replace(tzinfo=zoneinfo.ZoneInfo(fresh("UTC"))),
    "path": lambda: pathlib.Path("a/./b") / fresh("c"),
    "pure paths": lambda: (pathlib.PurePosixPath("/a") / "b", pathlib.PureWindowsPath("c:/", "x", "y")),
    "uuid": lambda: uuid.UUID(int=17, is_safe=uuid.SafeUUID.safe),
    "fraction": lambda: fractions.Fraction(3, 2),
    "subclass of str": lambda: Name(fresh(SHARED)),
    "long": lambda: (Point(fresh("x" * 5000), fresh(SHARED)), 1),
}

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


@pytest.mark.parametrize("name", EQUAL)
def test_equal_keys_of_one_type_are_one(cache: Cache, name: str) -> None:
    one, two = EQUAL[name](), OTHER_WAY.get(name, EQUAL[name])()
    assert encode_key(one) == encode_key(two)
    assert encode_key((1, one)) == encode_key((1, two))
    assert encode_key(frozenset([one])) == encode_key(frozenset([two]))
    assert encode_key(Point(one, two)) == encode_key(Point(two, one))
    cache[one] = 1
    cache[two] = 2
    assert (cache[one], len(cache)) == (2, 1)


def test_what_differs_is_told_apart() -> None:
    keys = [
        Point(1, 2), Point(2, 1), Point(1, 2.0), Point(True, 2), Slotted(1, 2), Pair(1, 2), Loose(1, 2), Loose(1, 2, 3),
        Plain(x=1, y=2), Plain(x=2, y=1), Plain(x=[1, 2]), Plain(x=(1, 2)), Plain(x={1, 2}), Plain(x={1: 2}),
        Plain(x=b"1"), Plain(x=bytearray(b"1")), Plain(x="1"), Plain(x=1), Plain(x=[1, [2]]), Plain(x=[[1], 2]),
        Plain(x=[1], y=[2]), Plain(x=[1, 2], y=[]), Plain(x=OrderedDict(a=1, b=2)), Plain(x=OrderedDict(b=2, a=1)),
        Plain(x=bytearray(b"1" * 5000)), Plain(x=b"1" * 5000), Plain(x=b"1" * 5001), Plain(x="1" * 5000),
        (Plain(x=b"1" * 5000),), (Plain(x=b"1" * 5000), 1), (Plain(x=b"1" * 5000), Plain(x=b"1" * 5000)),
        frozenset([1, 2]), frozenset([1.0, 2]), frozenset([True, 2]), frozenset(["1", 2]), frozenset([(1, 2)]),
        frozenset([frozenset([1]), 2]), frozenset([frozenset([1, 2])]), frozenset(), frozenset([frozenset()]),
        decimal.Decimal("1.5"), decimal.Decimal("1.50"), decimal.Decimal("-0"), decimal.Decimal("0"),
        WHEN, WHEN.replace(fold=1), WHEN.replace(tzinfo=zone(0)), WHEN.replace(tzinfo=zone(1), hour=13),
        pathlib.Path("a/b"), pathlib.PurePosixPath("a/b"), pathlib.Path("a/B"), str(pathlib.Path("a/b")),
        Colour.RED, Level.LOW, Options.BOLD, Text("1"), Name("1"), Pair, Point, (Pair,), Pair(1, (2,)),
    ]  # fmt: skip
    assert len({encode_key(key) for key in keys}) == len(keys)


def test_arrays_inside_of_objects_are_told_by_their_elements() -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    small, large = numpy.arange(6), numpy.arange(10_000)
    equal = [
        (numpy.float64(1.5), numpy.float64(1.5)),
        (numpy.datetime64("2020-01-01"), numpy.datetime64(fresh("2020-01-01"))),
        (Plain(x=small), Plain(x=small.copy())),
        (Plain(x=large[::2]), Plain(x=large[::2].copy())),
        (Plain(x=small[::-1]), Plain(x=small[::-1].copy())),
        (Plain(x=small), Plain(x=numpy.frombuffer(small.tobytes(), small.dtype))),  # not writable
        (numpy.dtype("i4"), numpy.dtype(numpy.int32)),
    ]
    for one, two in equal:
        assert encode_key(one) == encode_key(two)
    different = [
        numpy.int64(1), numpy.int32(1), numpy.float64(1), numpy.bool_(True), 1, 1.0, True, numpy.str_("1"), "1",
        Plain(x=small), Plain(x=small[::-1]), Plain(x=small.reshape(2, 3)), Plain(x=small.reshape(3, 2)),
        Plain(x=numpy.asfortranarray(small.reshape(2, 3))), Plain(x=small.astype("i4")), Plain(x=large),
        Plain(x=large + 1),
    ]  # fmt: skip
    assert len({encode_key(key) for key in different}) == len(different)


def test_an_object_that_contains_itself() -> None:
    def ring(size: int, name: str) -> Plain:
        nodes = [Plain(name=name) for _ in range(size)]
        for node, following in zip(nodes, nodes[1:] + nodes[:1], strict=True):
            node.next = [following]  # type: ignore[attr-defined]
        return nodes[0]

    assert encode_key(ring(1, "a")) == encode_key(ring(1, "a"))
    assert encode_key((1, ring(3, "a"))) == encode_key((1, ring(3, "a")))
    assert len({encode_key(ring(size, name)) for size in (1, 2, 3) for name in "ab"}) == 6
    with pytest.raises(TypeError, match="unhashable"):
        encode_key((ring(2, "a"), []))


def test_objects_that_share_objects_take_no_longer_than_they_are_many(cache: Cache) -> None:
    """Each level names the one below twice: 2^200 leaves, 200 objects."""

    def ladder(leaf: int) -> Plain:
        key = Plain(leaf=leaf)
        for _ in range(200):
            key = Plain(left=key, right=[key])
        return key

    cache[ladder(1)] = 1
    assert cache[ladder(1)] == 1
    assert ladder(2) not in cache
    assert list(cache) == []


def ordinal(levels: int) -> frozenset[Any]:
    """Each level holds all those below it."""
    number: frozenset[Any] = frozenset()
    for _ in range(levels):
        number |= {number}
    return number


def twice(leaf: Any, levels: int = 200) -> tuple[Any, ...]:
    key: tuple[Any, ...] = (leaf,)
    for _ in range(levels):
        key = (key, key)
    return key


def quietly(key: Any) -> Plain:
    """Key where nobody asks for its hash, which Python itself would reckon for each of 2^200 leaves."""
    return Plain(key=key)


SHARING: dict[str, Callable[[Any], Any]] = {
    "tuples of native values": lambda leaf: twice((leaf, "x" * 70)),
    "tuples in an object": lambda leaf: quietly(twice(leaf)),
    "tuples of objects": lambda leaf: twice(Point(leaf, 2)),
    "tuples and lists in turn": lambda leaf: quietly(functools.reduce(lambda key, _: ([key], [key]), range(200), leaf)),
    "frozensets": lambda leaf: ordinal(200 + leaf),
    "frozensets and tuples": lambda leaf: quietly((ordinal(100 + leaf), twice(ordinal(100 + leaf)))),
    "wide tuples": lambda leaf: functools.reduce(lambda key, _: (key,) * 50, range(20), (leaf,)),
}


@pytest.mark.parametrize("name", SHARING)
def test_tuples_and_sets_in_many_places_are_written_once(cache: Cache, name: str) -> None:
    make = SHARING[name]
    cache[make(1)] = 1
    assert cache[make(1)] == 1
    assert make(2) not in cache
    assert list(cache) == []


@pytest.mark.parametrize("levels", range(14))
def test_what_is_shared_is_the_same_key_as_what_is_not(levels: int) -> None:
    """On both sides of each length at which the encoding goes another way."""

    def apart(make_leaf: Callable[[], Any], levels: int) -> Any:
        if levels == 0:
            return (make_leaf(),)
        return apart(make_leaf, levels - 1), apart(make_leaf, levels - 1)

    for make_leaf in (lambda: fresh("user-17"), lambda: Point(1, "x" * 60), lambda: frozenset([fresh("a"), 1])):
        one, two = twice(make_leaf(), levels), apart(make_leaf, levels)
        assert encode_key(one) == encode_key(two)
        assert encode_key(quietly(one)) == encode_key(quietly(two))
        assert encode_key((one, 1)) != encode_key((one, 2))


def test_an_unhashable_part_is_refused_wherever_it_was_seen_before() -> None:
    """A list is fine in what an object is made of, and not in a tuple that is a key."""
    part = ([1], "x" * 100)
    with pytest.raises(TypeError, match="unhashable"):
        encode_key((Plain(part=part), part))


def test_the_arguments_of_a_long_call_are_one_key_as_a_tuple_too() -> None:
    @droppable.cache
    def total(*numbers: object, **more: object) -> int:
        return len(numbers) + len(more)

    for numbers in (tuple(range(5000)), ("x" * 70_000, 1, 2), ((1, "y" * 70_000), 3)):
        expected = total(*numbers, more=numbers)
        assert total.cache[total.cache_key(*numbers, more=numbers)] == expected


def test_a_long_key_is_found_after_the_module_of_digests_was_loaded_again() -> None:
    code = """
        import importlib, sys
        from droppable import Cache, _keys

        cache = Cache()
        long = "x" * 5000
        cache[long] = 1
        for module in (_keys, sys.modules["droppable"], sys.modules["droppable.lowlevel"]):
            importlib.reload(module)
            assert cache[long] == 1, module
        assert long in cache and cache.pop(long) == 1
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


class Flickers:
    """Another key at each encoding."""

    turn = 0

    def __reduce__(self) -> Any:
        type(self).turn += 1
        return int, (self.turn % 2,)


def test_pop_encodes_its_key_once(cache: Cache) -> None:
    key = Flickers()
    cache[key] = "odd"
    cache[key] = "even"
    assert {cache.pop(key), cache.pop(key)} == {"odd", "even"}
    with pytest.raises(KeyError):
        cache.pop(key)


def test_a_digest_is_not_a_key_that_can_be_given(cache: Cache) -> None:
    digest = encode_key("x" * 5000)
    assert (digest[:1], len(digest)) == (b"D", 33)
    cache["x" * 5000] = 1
    for forged in (digest, digest[1:], digest.decode("latin-1"), encode_key(digest)):
        assert forged not in cache


def test_digests_differ_between_processes_but_not_in_a_forked_child() -> None:
    code = "from droppable.lowlevel import EncodedKey, encode_key; print(encode_key('x' * 5000).hex())"
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 2
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, encode_key("x" * 5000) + encode_key(Plain(x="y" * 9000)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == encode_key("x" * 5000) + encode_key(Plain(x="y" * 9000))
    assert os.waitpid(pid, 0)[1] == 0


class Changes:
    """Changes the container that is being written down."""

    def __init__(self, container: Any) -> None:
        self.container = container

    def __hash__(self) -> int:
        return 1

    def __reduce__(self) -> Any:
        self.container.clear()
        return Changes, (1,)


def test_containers_that_change_meanwhile() -> None:
    for make in (
        lambda one: [one, *range(1000)],
        lambda one: {1: one, **dict.fromkeys(range(2, 1000))},
        lambda one: {one, *range(1000)},
    ):
        holder: list[Any] = []
        container = make(Changes(holder))
        holder.append(container)
        inner = next(iter(item for item in (container.values() if isinstance(container, dict) else container)
                          if isinstance(item, Changes)))  # fmt: skip
        inner.container = container
        assert encode_key(Plain(x=container))[:1] in (b"o", b"D")
        assert len(container) == 0


class Alarm(Exception):
    pass


class Interrupted:
    """The first time it is taken apart a signal handler raises, say."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error

    def __hash__(self) -> int:
        return 1

    def __reduce__(self) -> Any:
        if self.error:
            error, self.error = self.error, None
            raise error
        return Interrupted, (None,)


@pytest.mark.parametrize("error", [Alarm("time is up"), KeyboardInterrupt(), MemoryError(), TimeoutError()], ids=repr)
def test_an_exception_from_outside_keeps_its_type(error: BaseException) -> None:
    for key in (Interrupted(error), (1, Interrupted(error)), frozenset([Interrupted(error)])):
        with pytest.raises(type(error)) as caught:
            encode_key(key)
        assert caught.value is error
        assert caught.value.__cause__ is None


def test_deep_objects_and_a_raised_limit() -> None:
    """RecursionError, also where the program raised the interpreter's limit above what the stack holds."""
    code = """
    import sys
    from droppable.lowlevel import EncodedKey, encode_key
    class Node:
        def __init__(self, inner): self.inner = inner
    def deep(make, levels):
        node = ()
        for _ in range(levels): node = make(node)
        return node
    sys.setrecursionlimit(1_000_000)
    for make in (Node, lambda inner: Node([inner]), lambda inner: frozenset([inner]), lambda inner: (inner, 1j)):
        encode_key(deep(make, 200))
        try:
            encode_key(deep(make, 5000))
        except RecursionError:
            print("deep")
        import gc; gc.disable()
    sys.stdout.flush()
    import os; os._exit(0)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.split()) == (0, ["deep"] * 4), run.stderr


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
    keys = [*KEYS, *(make() for make in EQUAL.values())]
    for key in keys:
        cache[key] = None
    seen = list(cache)
    short = [key for key in keys if not encode_key(key).startswith(b"D")]
    assert len(keys) - len(short) == 4  # the long ones: there is no way back from a digest
    assert len(seen) == len(short)
    assert {encode_key(key) for key in seen} == {encode_key(key) for key in short}
    assert {type(key) for key in seen} == {type(key) for key in short}
    for key in seen:
        del cache[key]  # each is found under the key that came back
    assert list(cache) == []


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
    assert "k" * 4001 not in cache
    assert sorted(map(len, cache)) == [255, 255, 256, 256, 4000, 4000]  # the others are digests
    assert len(cache) == 16
    for size in (255, 4096, 300_000):
        assert cache.pop("k" * size) == size
        assert cache.discard(b"k" * size)
    assert len(cache) == 10


def test_wide_tuples(cache: Cache) -> None:
    key = tuple(range(10_000))
    cache[key] = 1
    assert cache[tuple(range(10_000))] == 1
    assert cache.get((*range(9_999), -1)) is None
    assert list(cache) == []
    del cache[key]
    assert len(cache) == 0


# Keys that are encoded already


def test_an_encoded_key_stands_for_the_key(cache: Cache) -> None:
    for key in ("a", (1, "b"), frozenset({1, 2}), WHEN, "x" * 5000, b"", Plain(x=[1])):
        encoded = EncodedKey(key)
        assert (encoded, bytes(encoded)) == (encode_key(key), encode_key(key))
        assert EncodedKey(encoded) is encoded
        assert encode_key(encoded) == encode_key(key)
        assert encode_key(bytes(encoded)) != encode_key(key)
        cache[encoded] = 1
        assert key in cache
        assert cache.get(key) == cache[encoded] == cache.get(encoded) == 1
        cache[key] = 2
        assert cache.pop(encoded) == 2
        assert not cache.discard(encoded)
        assert key not in cache
        with pytest.raises(TypeError, match="cannot be pickled"):
            copy.copy(encoded)
    with pytest.raises(TypeError, match="unhashable"):
        EncodedKey([])


@pytest.mark.parametrize("wrap", [lambda plain: plain, lambda plain: (1, plain), lambda plain: frozenset([plain])])
def test_a_factory_that_changes_its_key(cache: Cache, wrap: Callable[[Plain], Any]) -> None:
    plain = Plain(x=[1])
    key = wrap(plain)
    before = encode_key(key)

    def factory() -> str:
        plain.x = [1, 2]  # type: ignore[attr-defined]
        return "of one"

    async def afactory() -> str:
        return factory()

    assert cache.get_or_create(key, factory) == "of one"
    assert encode_key(key) != before
    assert key not in cache
    plain.x = [1]  # type: ignore[attr-defined]
    assert cache.pop(key) == "of one"
    assert asyncio.run(cache.aget_or_create(key, afactory)) == "of one"
    assert key not in cache
    plain.x = [1]  # type: ignore[attr-defined]
    assert cache.pop(key) == "of one"


class Sheet:
    """Hands pickle its memory, and keeps what it handed out."""

    def __init__(self, cells: bytearray) -> None:
        self.cells = cells
        self.handed_out = pickle.PickleBuffer(cells)

    def __reduce__(self) -> Any:
        return Sheet, (self.handed_out,)


def test_memory_that_a_key_is_made_of_stays_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may run then, for a digest of much memory gives up the GIL: here it is the digest itself."""
    sheet = Sheet(bytearray(b"x" * 100_000))
    tries: list[int] = []
    digest = _keys.digest

    def digest_and_take_away(tag: bytes, data: Any) -> bytes:
        if not tries:
            sheet.handed_out.release()
            with pytest.raises(BufferError):
                sheet.cells.clear()
            tries.append(len(sheet.cells))
        return digest(tag, data)

    monkeypatch.setattr(_keys, "digest", digest_and_take_away)
    encode_key(sheet)
    assert tries == [100_000]
    sheet.cells.clear()  # and no longer than that
