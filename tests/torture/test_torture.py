"""Four threads use a cache of every kind and size of value while the kernel takes random pages of it all the time.

Each key has one thread that writes it, in versions that rise; every thread reads every key. What a read brings must be
the value of a version that was current at some moment of the read:

    writer   started[key] = v     set(key, value(key, v))     finished[key] = v         (or a delete, v as well)
    reader   low = finished[key]     got = get(key)     high = started[key]      got is of low..high, or a miss

Arrays that were read are held for a while and looked at once more: drops must not have touched them.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from droppable import Cache, RefusedError, UnsupportedError
from droppable.lowlevel import Layout
from droppable.testing import drop

from . import values

THREADS = 4
OPERATIONS = 1_000_000  # over all configurations
HELD_AT_MOST = 12
MISS = object()

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "lazyfree": {"backing": "lazyfree"},
    "droppable": {"backing": "droppable"},
    # little address space: segments are emptied and reused all the time
    "lazyfree-narrow": {"backing": "lazyfree", "layout": Layout(2, 1 << 16, 48 << 20)},
    "droppable-narrow": {"backing": "droppable", "layout": Layout(2, 1 << 16, 48 << 20)},
    "lazyfree-bounded": {"backing": "lazyfree", "max_bytes": 24 << 20},
    "droppable-bounded": {"backing": "droppable", "max_bytes": 24 << 20},
}
OPERATIONS_EACH = -(-OPERATIONS // len(CONFIGURATIONS))


class Torture:
    """One cache, its model, and what has been seen."""

    def __init__(self, cache: Cache, operations: int) -> None:
        self.cache = cache
        self.operations = operations // THREADS
        self.started = [0] * values.KEYS
        self.finished = [0] * values.KEYS
        self.counts: Counter[str] = Counter()
        self.dropped_pages = 0
        self.failures: list[str] = []
        self.over = threading.Event()
        self._lock = threading.Lock()

    def check(self, key: int, got: Any, low: int, high: int, what: str, raw: bool = False) -> Any:
        """Returns the expected value that got is equal to, and fails if there is none."""
        for version in range(high, max(low, 1) - 1, -1):
            expected = values.value(key, version)
            if raw:
                if values.is_viewable(expected) and values.raw_bytes(expected) == got:
                    return expected
            elif values.same(got, expected):
                return expected
        kind = f"{type(got).__name__} {getattr(got, 'dtype', '')} {getattr(got, 'shape', '')}"
        raise AssertionError(f"{what} of key {key}, versions {low} to {high}, brought a wrong {kind}")

    def work(self, me: int) -> None:
        try:
            self._work(me)
        except BaseException:
            self.failures.append(traceback.format_exc())
            self.over.set()

    def _work(self, me: int) -> None:
        chance = random.Random(me)
        held: deque[tuple[int, Any, Any]] = deque()
        counts: Counter[str] = Counter()
        cache = self.cache
        for _ in range(self.operations):
            if self.over.is_set():
                break
            pick = chance.random()
            if pick < 0.92:
                key = chance.randrange(values.SMALL_KEYS)
            elif pick < 0.985:
                key = values.SMALL_KEYS + chance.randrange(values.MIDDLE_KEYS)
            else:
                key = values.KEYS - 1 - chance.randrange(values.LARGE_KEYS)
            operation = chance.random()
            if operation < 0.45:
                self.read(key, held, counts)
            elif operation < 0.57:
                self.view(key, counts)
            elif operation < 0.61:
                counts["contains"] += 1
                _ = key in cache
            elif operation < 0.63:
                low = self.finished[key]
                got = cache.pop(key, MISS)
                counts["pop"] += 1
                if got is not MISS:
                    self.check(key, got, low, self.started[key], "pop")
            else:
                self.write(key - key % THREADS + me, operation, chance, counts)
        for key, got, expected in held:
            assert values.same(got, expected), f"the held value of key {key} changed"
        with self._lock:
            self.counts += counts

    def read(self, key: int, held: deque[tuple[int, Any, Any]], counts: Counter[str]) -> None:
        low = self.finished[key]
        got = self.cache.get(key, MISS)
        counts["get"] += 1
        if got is MISS:
            return
        counts["hit"] += 1
        expected = self.check(key, got, low, self.started[key], "get")
        if isinstance(got, numpy.ndarray | dict):
            held.append((key, got, expected))
            counts["held"] += 1
        if len(held) > HELD_AT_MOST:
            key, got, expected = held.popleft()
            assert values.same(got, expected), f"the held value of key {key} changed"

    def view(self, key: int, counts: Counter[str]) -> None:
        low = self.finished[key]
        counts["view"] += 1
        try:
            with self.cache.view(key) as memory:
                high = self.started[key]
                self.check(key, memory, low, high, "view", raw=True)
                counts["view hit"] += 1
        except KeyError:
            pass
        except TypeError:  # not a value that can be viewed: there must have been one in that time
            high = self.started[key]
            versions = range(max(low, 1), high + 1)
            assert not all(values.is_viewable(values.value(key, version)) for version in versions)

    def write(self, key: int, operation: float, chance: random.Random, counts: Counter[str]) -> None:
        """Keys are ours alone to write; a failed insert leaves the key without a value."""
        if key >= values.KEYS:
            return
        version = self.started[key] + 1
        self.started[key] = version
        if operation < 0.91:
            self.cache.set(key, values.value(key, version), None if chance.random() < 0.5 else 1000.0)
            counts["set"] += 1
        elif operation < 0.94:
            try:
                what = "add" if self.cache.add(key, values.value(key, version)) else "add to nothing"
            except RefusedError:  # its pages were dropped while it was written
                what = "add refused"
            counts[what] += 1
            if what != "add":  # what was there stays: versions below this one go on being right
                self.started[key] = version - 1
                return
        else:
            self.cache.discard(key)
            counts["delete"] += 1
            assert key not in self.cache
        self.finished[key] = version

    def drop_all_the_time(self) -> None:
        chance = random.Random(99)
        try:
            while not self.over.is_set():
                fraction = chance.choice((0.0005, 0.001, 0.005, 0.02)) if chance.random() < 0.99 else 1.0
                self.dropped_pages += drop(self.cache, fraction, chance.getrandbits(40)).dropped_pages
                self.counts["drops on order"] += 1
                if chance.random() < 0.05:
                    assert all(0 <= key < values.KEYS for key in self.cache)
        except BaseException:
            self.failures.append(traceback.format_exc())
            self.over.set()

    def run(self) -> None:
        workers = [threading.Thread(target=self.work, args=(me,)) for me in range(THREADS)]
        dropper = threading.Thread(target=self.drop_all_the_time)
        for thread in (*workers, dropper):
            thread.start()
        for thread in workers:
            thread.join()
        self.over.set()
        dropper.join()


@contextlib.contextmanager
def eager_threads() -> Iterator[None]:
    """Threads change places 50 times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_not_one_wrong_byte(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        cache = Cache(**CONFIGURATIONS[name])
        drop(cache)
    except UnsupportedError as error:
        pytest.skip(str(error))
    torture = Torture(cache, OPERATIONS_EACH)
    with eager_threads():
        torture.run()
    assert not torture.failures, "\n".join(torture.failures)
    stats = cache.stats()
    with capsys.disabled():
        print(f"\n{name}: {dict(torture.counts)}, {torture.dropped_pages} pages dropped; {stats}")
    assert torture.counts["hit"] > 0
    assert torture.dropped_pages > 0
    assert stats.misses_dropped > 0
    assert stats.pinned_bytes == 0
    cache.close()
    assert cache._counts()["mapped_bytes"] == 0  # stats() says that the cache is closed
