"""One cache, from its beginning to its end, while threads use it and the kernel takes random pages of it all the time.

Each key has one thread that writes it, in versions that rise; every thread reads every key. What a read brings must be
the value of a version that was current at some moment of the read:

    writer   started[key] = v     set(key, value(key, v))     finished[key] = v         (or a delete, v as well)
    reader   low = finished[key]     got = get(key)     high = started[key]      got is of low..high, or a miss

A miss is always right: memory may be taken at any moment.
"""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from droppable import Cache, ClosedError, Namespace, UnsupportedError
from droppable.lowlevel import Layout
from droppable.testing import drop

from . import values
from .caller import THREADS, Caller

NARROW: Final = Layout(2, 1 << 16, 48 << 20)
"""Little address space: segments are emptied and reused all the time."""
PART: Final = 7
"""One in so many keys lies in a namespace."""


@dataclass(frozen=True)
class Plan:
    """What a life is put through.

    Attributes:
        seed: what the threads do follows from it; when they do it does not.
        options: of the cache.
        operations: of all threads together.
        forks: threads fork now and then.
        collector: the collector runs much more often than usual, and has arrays to free.
        clocks: the cache's clock jumps.
        clears: all values, or those of a namespace or a prefix, are deleted now and then.
        closes: close() comes while the threads use it.
        held_at_most: so many arrays are held by each thread.
    """

    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    operations: int = 100_000
    forks: bool = False
    collector: bool = False
    clocks: bool = False
    clears: bool = False
    closes: bool = False
    held_at_most: int = 12


def make_plan(seed: int, operations: int, backings: tuple[str, ...]) -> Plan:
    """A plan that follows from a seed."""
    chance = random.Random(seed)

    def happens(share: float) -> bool:
        return chance.random() < share

    backing, shape = chance.choice(backings), chance.choice(("plain", "narrow", "bounded"))
    options: dict[str, Any] = {"backing": backing}
    if shape == "narrow":
        options["layout"] = NARROW
    elif shape == "bounded":
        options["max_bytes"] = chance.choice((12, 24)) << 20
    if happens(0.3) and backing == "lazyfree":
        options["fork"] = "share"
    return Plan(
        seed,
        options,
        operations,
        forks=happens(0.5),
        collector=happens(0.5),
        clocks=happens(0.5),
        clears=happens(0.5),
        closes=happens(0.3),
        held_at_most=chance.choice((0, 3, 6)),
    )


def name_of(key: int) -> Any:
    """Keys of several types."""
    return (key, f"key {key}", b"key %d" % key, (key, "key"))[key % 4]


class Life:
    """One cache, its model, and what has been seen.

    Attributes:
        counts: what was done.
        failures: what went wrong, as text.
        over: set when the threads have to end.
        guests: who calls from within a signal's handler.
    """

    names: Final = [name_of(key) for key in range(values.KEYS)]

    def __init__(self, plan: Plan, note_progress: Callable[[int], object] = lambda me: None) -> None:
        self.plan = plan
        self.note_progress = note_progress
        self.cache: Cache[Any, Any] = Cache(**plan.options)
        self.started = [0] * values.KEYS
        self.finished = [0] * values.KEYS
        self.clock_started = self.clock_finished = 0.0  # seconds by which the cache's clock was moved
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.over = threading.Event()
        self.callers = [Caller(self, me, plan.seed * 31 + me) for me in range(THREADS)]
        self.guests: list[Caller] = []
        self._part: Namespace[Any, Any] = self.cache.namespace("part")
        self._known = set(self.names)

    def everyone(self) -> list[Caller]:
        """All who may hold something."""
        return [*self.callers, *self.guests]

    @staticmethod
    def is_in_part(key: int) -> bool:
        """Whether the key's value lies in the namespace."""
        return key % PART == 3

    def part(self, key: int) -> Any:
        """The cache or its namespace: where the key's value lies."""
        return self._part if self.is_in_part(key) else self.cache

    def check(self, key: int, got: Any, low: int, what: str, raw: bool = False) -> Any:
        """Returns the expected value that got is equal to, and fails if there is none.

        low: the version that was current when the read began. raw: got is a view.
        """
        for version in range(self.started[key], max(low, 1) - 1, -1):
            expected = values.value(key, version)
            if raw:
                if values.is_viewable(expected) and values.raw_bytes(expected) == got:
                    return expected
            elif values.same(got, expected):
                return expected
        kind = f"{type(got).__name__} {getattr(got, 'dtype', '')} {getattr(got, 'shape', '')}"
        raise AssertionError(f"{what} of key {key}, versions {low} to {self.started[key]}, brought a wrong {kind}")

    def guarded(self, function: Callable[[], object]) -> None:
        """Calls it; what it raises ends the life, as a failure."""
        try:
            function()
        except ClosedError:
            if not self.plan.closes:
                self._fail()
        except BaseException:
            self._fail()

    def _fail(self) -> None:
        self.failures.append(traceback.format_exc())
        self.over.set()

    def disturb(self) -> None:
        """Drops all the time, until the life is over; and what else the plan has."""
        chance = random.Random(self.plan.seed + 99)
        clears = (self.cache.clear, self._part.clear, lambda: self.cache.delete_prefix("key 1"))
        while not self.over.is_set():
            fraction = chance.choice((0.0005, 0.001, 0.005, 0.02)) if chance.random() < 0.99 else 1.0
            self.counts["dropped pages"] += drop(self.cache, fraction, chance.getrandbits(40)).dropped_pages
            self.counts["drops on order"] += 1
            if chance.random() < 0.05:
                assert self._known.issuperset(self.cache)
            if self.plan.clocks and chance.random() < 0.05:
                self._move_clock(chance.uniform(0, 400))
            if self.plan.clears and chance.random() < 0.02:
                chance.choice(clears)()
                self.counts["clears"] += 1

    def _move_clock(self, seconds: float) -> None:
        self.clock_started += seconds
        self.cache._advance_clock(seconds)
        self.clock_finished += seconds
        self.counts["clock jumps"] += 1

    def _close_in_the_middle(self) -> None:
        self.callers[0].work(self.plan.operations // THREADS // 2)
        self.cache.close()
        self.counts["closed in the middle"] += 1

    def run(self) -> None:
        """Until each thread has made its calls. The calling thread is one of them."""
        share = self.plan.operations // THREADS

        def work(caller: Caller) -> None:
            if self.plan.closes and caller.me == 0:
                self.guarded(self._close_in_the_middle)
            else:
                self.guarded(lambda: caller.work(share))

        workers = [threading.Thread(target=work, args=(caller,), daemon=True) for caller in self.callers[1:]]
        disturber = threading.Thread(target=self.guarded, args=(self.disturb,), daemon=True)
        with eager_threads(self.plan.collector):
            for thread in (*workers, disturber):
                thread.start()
            work(self.callers[0])
            for thread in workers:
                thread.join()
            self.over.set()
            disturber.join()
        for caller in self.callers:
            self.counts += caller.counts
        if not self.failures:
            self.guarded(self._look_at_rest)

    def _look_at_rest(self) -> None:
        """Nothing is under way: nothing may be held, and the counts add up to the last one."""
        for caller in self.everyone():
            caller.look_at_held()
            caller.held.clear()
        gc.collect()
        if not self.plan.closes:
            self._look_at_counts()
            self.cache.clear()
            stats = self.cache.stats()
            assert (stats.entries, stats.stored_bytes, len(self.cache)) == (0, 0, 0), stats
        self.cache.close()
        mapped_bytes = self.cache._counts()["mapped_bytes"]  # stats() says that the cache is closed
        assert mapped_bytes == 0, f"{mapped_bytes} bytes are mapped after the end"

    def _look_at_counts(self) -> None:
        stats = self.cache.stats()
        left = stats.dropped + stats.evicted + stats.expired + stats.deletes + stats.replaced + stats.cleared
        assert stats.sets == stats.entries + left, stats
        assert stats.pinned_bytes == 0, stats
        self.counts["misses dropped"] += stats.misses_dropped
        self.counts["refused"] += stats.refused


@contextlib.contextmanager
def eager_threads(collector: bool = False) -> Iterator[None]:
    """Threads change places 50 times as often as usual; the collector may run much more often, too."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-4)
    if collector:
        gc.set_threshold(30, 5, 5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*threshold)


def backings() -> tuple[str, ...]:
    """Those that this kernel has, and on which it drops pages on order."""
    found = []
    for backing in ("lazyfree", "droppable"):
        try:
            with Cache[Any, Any](backing=backing) as cache:  # type: ignore[arg-type]
                drop(cache)
        except UnsupportedError:
            continue
        found.append(backing)
    return tuple(found)
