"""The decorator, and a cache above a slower mapping, against a dict each, whatever the kernel takes.

A function gives what it would compute now, if it is told of each change. Of a cache with a lower tier nothing is ever
lost: what the kernel took lies below.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import droppable
from droppable import Cache
from droppable.lowlevel import probe
from droppable.testing import drop, settle

MISS = object()
numbers = st.integers(0, 6)
letters = st.sampled_from(["a", "b", ""])
sizes = st.sampled_from([0, 1, 100, 3000, 4096, 20_000, 40_000])


class DecoratedFunction(RuleBasedStateMachine):
    """A function of a world that changes; of each change the decorator is told."""

    backing: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.world: dict[tuple[int, str], bytes] = {}
        self.version = 0
        self.computed = 0

        @droppable.cache(cache=Cache(backing=self.backing))
        def function(number: int, *, letter: str = "a") -> bytes:
            self.computed += 1
            return self.world.get((number, letter), b"")

        self.function: Any = function

    @rule(number=numbers, letter=letters)
    def call(self, number: int, letter: str) -> None:
        assert self.function(number, letter=letter) == self.world.get((number, letter), b"")

    @rule(number=numbers, letter=letters, size=sizes)
    def change(self, number: int, letter: str, size: int) -> None:
        self.version += 1
        self.world[number, letter] = bytes([self.version % 251]) * size
        self.function.invalidate(number, letter=letter)

    @rule(number=numbers, letter=letters, size=sizes)
    def refresh(self, number: int, letter: str, size: int) -> None:
        self.version += 1
        self.world[number, letter] = bytes([self.version % 251]) * size
        assert self.function.refresh(number, letter=letter) == self.world[number, letter]

    @rule()
    def clear(self) -> None:
        self.world.clear()
        self.function.cache_clear()

    @rule(fraction=st.sampled_from((0.1, 1.0)), seed=st.integers(0, 1000))
    def lose(self, fraction: float, seed: int) -> None:
        drop(self.function.cache, fraction, seed)

    @invariant()
    def calls_are_counted(self) -> None:
        assert self.function.cache_info().misses <= self.computed


class CacheAbove(RuleBasedStateMachine):
    """A cache above a dict."""

    backing: ClassVar[Any]
    write: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.below: dict[Any, Any] = {}
        self.cache: Any = self.begin()
        self.model: dict[int, bytes] = {}

    def begin(self) -> Any:
        return Cache(backing=self.backing, below=self.below, write=self.write, max_bytes=1 << 20)

    @rule(key=numbers, size=sizes, fill=st.integers(0, 250))
    def set(self, key: int, size: int, fill: int) -> None:
        self.cache[key] = self.model[key] = bytes([fill]) * size

    @rule(key=numbers)
    def get(self, key: int) -> None:
        assert self.cache.get(key, MISS) == self.model.get(key, MISS)

    @rule(key=numbers)
    def delete(self, key: int) -> None:
        assert self.cache.discard(key) == (self.model.pop(key, MISS) is not MISS)

    @rule(key=numbers)
    def pop(self, key: int) -> None:
        assert self.cache.pop(key, MISS) == self.model.pop(key, MISS)

    @rule(key=numbers, size=sizes)
    def add(self, key: int, size: int) -> None:
        assert self.cache.add(key, b"+" * size) == (key not in self.model)
        self.model.setdefault(key, b"+" * size)

    @rule(key=numbers, size=sizes)
    def create(self, key: int, size: int) -> None:
        assert self.cache.get_or_create(key, lambda: b"c" * size) == self.model.setdefault(key, b"c" * size)

    @rule(key=numbers)
    def transform(self, key: int) -> None:
        self.model[key] = self.model.get(key, b"")[:50_000] + b"t"
        assert self.cache.transform(key, lambda old: old[:50_000] + b"t", b"") == self.model[key]

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @rule(fraction=st.sampled_from((0.1, 1.0)), seed=st.integers(0, 1000))
    def lose(self, fraction: float, seed: int) -> None:
        settle(self.cache)
        drop(self.cache, fraction, seed)

    @rule()
    def begin_again(self) -> None:
        """Another process would find this below."""
        self.cache.close()
        assert self.below.keys() == self.model.keys()
        self.cache = self.begin()

    def teardown(self) -> None:
        for key in range(7):
            self.get(key)
        self.cache.close()


CASES = {
    f"{machine.__name__}-{backing}-{write}": (machine, backing, write)
    for backing in ("lazyfree", "droppable")
    for machine, write in ((DecoratedFunction, ""), (CacheAbove, "through"), (CacheAbove, "behind"))
}


@pytest.mark.parametrize("name", CASES)
def test_it_keeps_to_its_model(name: str) -> None:
    machine, backing, write = CASES[name]
    for needed in (backing, "page_out"):
        there, reason, _ = probe(needed)  # type: ignore[arg-type]
        if not there:
            pytest.skip(f"this kernel has no {needed}: {reason}")
    made: Any = type(name, (machine,), {"backing": backing, "write": write})
    made.TestCase.settings = settings(
        max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    made.TestCase().runTest()
