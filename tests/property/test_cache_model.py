"""A cache against a dict: whatever is done to it and whatever the kernel takes, a get brings the last value or misses.

The model knows for each key what was stored last, and whether it must still be there: nothing was dropped, evicted or
near its expiry since. A key that was missed once stays missing until it is stored again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from droppable import Cache, ValueTooLargeError
from droppable.lowlevel import Layout, probe
from droppable.testing import advance_clock, drop, settle

numpy: Any
try:
    import numpy
except ImportError:  # then no arrays are among the values
    numpy = None

MISS = object()
# A clock that moves in steps of hundreds of seconds: how long the test itself takes does not matter then.
UNSURE_SECONDS = 100
TTLS = (None, 1000, 10_000)
STEPS = (400, 3000)
SIZES = (0, 1, 17, 200, 2000, 4000, 4096, 5000, 9000, 20_000, 32_768, 50_000, 100_000)


def blob(size: int, fill: int) -> bytes:
    return bytes((fill + at) % 251 + (at % 7 > 0) for at in range(min(size, 1000))) * (size // 1000 + 1)


def numbers(size: int, fill: int) -> Any:
    return numpy.arange(fill, fill + size // 4, dtype="<i4").reshape((2, -1) if size % 8 == 0 else (-1,))


sized = st.tuples(st.sampled_from(SIZES), st.integers(0, 250))
arrays = [
    sized.map(lambda pair: numbers(*pair)),
    sized.map(lambda pair: {"n": numbers(*pair), "b": blob(*pair)}),
]
values = st.one_of(
    st.none(),
    st.integers(),
    st.binary(max_size=100),
    st.text(max_size=50),
    sized.map(lambda pair: blob(*pair)[: pair[0]]),
    sized.map(lambda pair: bytes(pair[0])),
    st.lists(st.integers(), max_size=5),
    *(arrays if numpy else ()),
)
keys = st.one_of(st.integers(0, 12), st.sampled_from(["a", "b", b"a", ("a", 1), (1,), None, True, 1.0, "k" * 300]))


def same(a: Any, b: Any) -> bool:
    if numpy and isinstance(b, numpy.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in b)
    return type(a) is type(b) and bool(a == b)


@dataclass
class Stored:
    value: Any
    expires: float | None
    certain: bool


class CacheModel(RuleBasedStateMachine):
    """One cache and its dict. Subclasses say how the cache is made, and whether it may evict."""

    options: ClassVar[dict[str, Any]]
    evicts: ClassVar[bool]
    inside: ClassVar[tuple[Any, ...]]
    """Names of namespaces, each within the one before; none: the cache itself."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = Cache(**self.options)
        self.cache: Any = self.whole
        for name in self.inside:
            self.cache = self.cache.namespace(name)
        self.model: dict[Any, Stored] = {}
        self.now = 0.0
        self.held: list[tuple[Any, Any]] = []

    def slot(self, key: Any) -> tuple[type, Any]:
        return type(key), key

    def state(self, key: Any) -> tuple[Stored | None, bool]:
        """What a get may bring, and whether it must."""
        stored = self.model.get(self.slot(key))
        if stored is None:
            return None, False
        if stored.expires is None:
            return stored, stored.certain
        left = stored.expires - self.now
        if left < -UNSURE_SECONDS:
            return None, False
        return stored, stored.certain and left > UNSURE_SECONDS

    def saw(self, key: Any, there: bool) -> None:
        """Checks whether key could be there, or missing; a miss is remembered."""
        stored, certain = self.state(key)
        if there:
            assert stored is not None, f"{key!r} is there, and should not be"
        else:
            assert not certain, f"{key!r} is missing, and nothing took it"
            self.model.pop(self.slot(key), None)

    def put(self, key: Any, value: Any, ttl: int | None) -> None:
        expires = None if ttl is None else self.now + ttl
        self.model[self.slot(key)] = Stored(value, expires, not self.evicts)

    @rule(key=keys, value=values, ttl=st.sampled_from(TTLS))
    def set(self, key: Any, value: Any, ttl: int | None) -> None:
        try:
            stored = self.cache.set(key, value, ttl)
        except ValueTooLargeError:
            assert "max_bytes" in self.options
            return
        assert stored
        self.put(key, value, ttl)

    @rule(key=keys, value=values, ttl=st.sampled_from(TTLS))
    def add(self, key: Any, value: Any, ttl: int | None) -> None:
        try:
            added = self.cache.add(key, value, ttl)
        except ValueTooLargeError:
            assert "max_bytes" in self.options
            return
        self.saw(key, not added)
        if added:
            self.put(key, value, ttl)

    @rule(key=keys, hold=st.booleans())
    def get(self, key: Any, hold: bool) -> None:
        stored, _ = self.state(key)
        got = self.cache.get(key, MISS)
        self.saw(key, got is not MISS)
        if got is not MISS:
            assert stored is not None
            assert same(got, stored.value)
            if hold:
                self.held.append((got, stored.value))

    @rule(key=keys)
    def view(self, key: Any) -> None:
        stored, _ = self.state(key)
        try:
            with self.cache.view(key) as memory:
                self.saw(key, True)
                assert stored is not None
                expected = stored.value
                assert memory == (expected if isinstance(expected, bytes) else expected.tobytes())
        except KeyError:
            self.saw(key, False)
        except TypeError:
            self.saw(key, True)
            assert stored is not None
            assert not isinstance(stored.value, (bytes, numpy.ndarray) if numpy else bytes)

    @rule(key=keys)
    def contains(self, key: Any) -> None:
        self.saw(key, key in self.cache)

    @rule(key=keys)
    def discard(self, key: Any) -> None:
        self.saw(key, self.cache.discard(key))
        self.model.pop(self.slot(key), None)

    @rule(key=keys)
    def pop(self, key: Any) -> None:
        stored, _ = self.state(key)
        got = self.cache.pop(key, MISS)
        self.saw(key, got is not MISS)
        if got is not MISS:
            assert stored is not None
            assert same(got, stored.value)
        self.model.pop(self.slot(key), None)

    @rule()
    def iterate(self) -> None:
        seen = [self.slot(key) for key in self.cache]
        assert len(seen) == len(set(seen))
        for slot in seen:
            assert self.state(slot[1])[0] is not None, f"{slot} is there, and should not be"
        missing = set(self.model) - set(seen)
        assert not [slot for slot in missing if self.state(slot[1])[1]]

    @rule(key=keys, value=values)
    def setdefault(self, key: Any, value: Any) -> None:
        stored, certain = self.state(key)
        try:
            got = self.cache.setdefault(key, value)
        except ValueTooLargeError:
            assert "max_bytes" in self.options
            return
        if stored is not None and same(got, stored.value) and (certain or not same(value, stored.value)):
            return  # it was there
        assert not certain
        assert same(got, value)
        self.put(key, value, None)
        if stored is not None and same(value, stored.value):  # it was there, or not
            self.model[self.slot(key)] = Stored(value, stored.expires, False)

    @rule()
    def popitem(self) -> None:
        try:
            key, value = self.cache.popitem()
        except KeyError:
            assert not [key for _, key in self.model if self.state(key)[1]]
            return
        stored, _ = self.state(key)
        assert stored is not None
        assert same(value, stored.value)
        self.model.pop(self.slot(key))

    @rule()
    def items(self) -> None:
        seen = set()
        for key, value in self.cache.items():
            stored, _ = self.state(key)
            assert stored is not None
            assert same(value, stored.value)
            seen.add(self.slot(key))
        assert not [slot for slot in set(self.model) - seen if self.state(slot[1])[1]]

    @rule(prefix=st.sampled_from(["a", "", "kk", b"a", b"", "nobody"]))
    def delete_prefix(self, prefix: Any) -> None:
        gone = [slot for slot in self.model if slot[0] is type(prefix) and slot[1].startswith(prefix)]
        certain = sum(self.state(slot[1])[1] for slot in gone)
        assert certain <= self.cache.delete_prefix(prefix) <= len(gone)
        for slot in gone:
            del self.model[slot]

    # What stands beside it in the same cache, under the same keys, is never seen in it. It may make it evict.
    @rule(key=keys, value=values, cleared=st.booleans())
    def another_part(self, key: Any, value: Any, cleared: bool) -> None:
        part = self.whole.namespace("another")
        try:
            stored = part.set(key, value)
        except ValueTooLargeError:
            assert "max_bytes" in self.options
            return
        assert stored
        got = part.get(key, MISS)
        assert same(got, value) or (got is MISS and self.evicts)
        if cleared:
            part.clear()
            assert part.get(key, MISS) is MISS

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()
        assert len(self.cache) == 0

    @rule(seconds=st.sampled_from(STEPS))
    def time_goes_by(self, seconds: int) -> None:
        advance_clock(self.cache, seconds)
        self.now += seconds

    @rule(fraction=st.sampled_from((0.05, 0.3, 1.0)), seed=st.integers(0, 1000))
    def the_kernel_takes_pages(self, fraction: float, seed: int) -> None:
        if drop(self.cache, fraction, seed).dropped_pages:
            for stored in self.model.values():
                stored.certain = False

    @rule()
    def settle(self) -> None:
        settle(self.cache)

    # What is held depends on the kernel, and nothing that is drawn may: so no precondition here, and no bundle.
    @rule(which=st.integers(0, 1000))
    def let_go(self, which: int) -> None:
        if self.held:
            del self.held[which % len(self.held)]

    @invariant()
    def what_is_held_stays(self) -> None:
        assert all(same(got, expected) for got, expected in self.held)

    @invariant()
    def counts_fit(self) -> None:
        stats = self.whole.stats()
        assert stats.entries >= sum(self.state(key)[1] for _, key in self.model)
        assert stats.refused == 0
        assert stats.mapped_bytes >= stats.pinned_bytes
        if not self.held:
            assert stats.pinned_bytes == 0

    def teardown(self) -> None:
        self.whole.close()
        assert all(same(got, expected) for got, expected in self.held)
        self.held.clear()
        counts = self.whole._counts()  # stats() says that the cache is closed
        assert (counts["pinned_bytes"], counts["mapped_bytes"], counts["entries"]) == (0, 0, 0)


SHAPES: dict[str, tuple[bool, dict[str, Any]]] = {
    "chosen": (False, {}),
    "narrow": (True, {"layout": Layout(1, 32_768, 262_144)}),
    "bounded": (True, {"max_bytes": 65_536}),
}


def case(backing: str, shape: str, *inside: Any) -> Any:
    evicts, options = SHAPES[shape]
    attributes = {"options": {"backing": backing, **options}, "evicts": evicts, "inside": inside}
    name = f"{backing.capitalize()}{shape.capitalize()}{'In' * len(inside)}"
    machine = type(name, (CacheModel,), attributes)
    test = machine.TestCase  # type: ignore[attr-defined]
    test.settings = settings(
        max_examples=40, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
    )
    there, reason, _ = probe(backing)  # type: ignore[arg-type]
    return pytest.mark.skipif(not there, reason=f"this kernel has no {backing} memory: {reason}")(test)


TestLazyfreeChosen = case("lazyfree", "chosen")
TestLazyfreeNarrow = case("lazyfree", "narrow")
TestLazyfreeBounded = case("lazyfree", "bounded")
TestDroppableChosen = case("droppable", "chosen")
TestDroppableNarrow = case("droppable", "narrow")
TestDroppableBounded = case("droppable", "bounded")
TestNamespaceChosen = case("lazyfree", "chosen", "part")
TestNamespaceWithinBounded = case("lazyfree", "bounded", "outer", ("part", 1))
