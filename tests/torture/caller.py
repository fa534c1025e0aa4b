"""One thread's calls of the cache that a Life is about: a seed chooses them, and each answer is looked at.

    thread `me` writes the keys of which key % THREADS == me, reads all of them, holds arrays for a while, and forks

What is held was right when it was read. It must be so when it is let go, whatever was dropped, stored or closed since.
"""

from __future__ import annotations

import os
import random
import signal
import traceback
from collections import Counter, deque
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import numpy

from droppable import ClosedError, RefusedError

from . import values

if TYPE_CHECKING:
    from .life import Life

THREADS: Final = 4
MISS: Final = object()
FORK_SHARE: Final = 3000
"""One in so many calls is a fork."""
CHILD_CALLS: Final = 150
CHILD_SECONDS: Final = 120
"""A child that takes longer hangs."""
RING_SHARE: Final = 0.2
"""Of what is held is held by a ring that only the collector frees, where it has to work."""
TTLS: Final = (None, None, 1000.0, 200.0)
WEIGHTS: Final = {
    "read": 36, "view": 9, "read_many": 4, "contains": 3, "pop": 2, "write": 26, "write_many": 3, "add": 3, "create": 4,
    "transform": 2, "touch": 2, "delete": 5, "delete_many": 1,
}  # fmt: skip


class Caller:
    """One of the threads; `me` is its number.

    Attributes:
        counts: what it did.
        held: key, array and expected value of what it holds.
    """

    def __init__(self, life: Life, me: int, seed: int) -> None:
        self.life = life
        self.me = me
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.held: deque[tuple[int, Any, Any]] = deque()
        self._expiries: dict[
            int, tuple[int, float, float]
        ] = {}  # of own keys: version, ttl, the clock as it was stored
        self._calls = [getattr(self, name) for name in WEIGHTS]
        self._weights = list(accumulate(WEIGHTS.values()))

    def work(self, operations: int) -> None:
        """So many calls, or until the life is over."""
        forks = self.life.plan.forks
        for _ in range(operations):
            if self.life.over.is_set():
                break
            self.life.note_progress(self.me)
            self.call()
            if forks and self.chance.randrange(FORK_SHARE) == 0:
                self.fork()
        self.look_at_held()

    def call(self) -> None:
        """One call of a key, both chosen by chance."""
        self.chance.choices(self._calls, cum_weights=self._weights)[0](self.pick())

    def pick(self) -> int:
        """A key: mostly one of those with small values."""
        pick = self.chance.random()
        if pick < 0.92:
            return self.chance.randrange(values.SMALL_KEYS)
        if pick < 0.985:
            return values.SMALL_KEYS + self.chance.randrange(values.MIDDLE_KEYS)
        return values.KEYS - 1 - self.chance.randrange(values.LARGE_KEYS)

    def own(self, key: int) -> int:
        """A key near this one that is ours alone to write."""
        return min(key - key % THREADS, values.KEYS - THREADS) + self.me

    def look_at_held(self) -> None:
        """All that is held is what it was when it was read."""
        for key, got, expected in tuple(self.held):
            assert values.same(got, expected), f"the held value of key {key} changed"

    # Reading

    def read(self, key: int) -> None:
        life, low, clock = self.life, self.life.finished[key], self.life.clock_finished
        self.counts["get"] += 1
        got = life.part(key).get(life.names[key], MISS)
        if got is MISS:
            return
        self.counts["hit"] += 1
        expected = life.check(key, got, low, "get")
        version, ttl, stored_at = self._expiries.get(key, (0, 0.0, 0.0))
        if ttl and low == version == life.started[key]:
            assert clock - stored_at < ttl, f"key {key} was served {clock - stored_at - ttl} seconds after its end"
        if isinstance(got, numpy.ndarray | dict):
            self._hold(key, got, expected)

    def _hold(self, key: int, got: Any, expected: Any) -> None:
        self.held.append((key, got, expected))
        self.counts["held"] += 1
        if self.life.plan.collector and self.chance.random() < RING_SHARE:
            ring: list[Any] = [got]
            ring.append(ring)
        if len(self.held) > self.life.plan.held_at_most:
            key, got, expected = self.held.popleft()
            assert values.same(got, expected), f"the held value of key {key} changed"

    def read_many(self, key: int) -> None:
        life = self.life
        keys = [key for key in {self.pick() for _ in range(8)} if not life.is_in_part(key)]
        lows = [life.finished[key] for key in keys]
        got = life.cache.get_many([life.names[key] for key in keys])
        self.counts["get_many"] += 1
        for key, low in zip(keys, lows, strict=True):
            if (value := got.get(life.names[key], MISS)) is not MISS:
                self.counts["hit"] += 1
                life.check(key, value, low, "get_many")

    def view(self, key: int) -> None:
        life, low = self.life, self.life.finished[key]
        self.counts["view"] += 1
        try:
            with life.part(key).view(life.names[key]) as memory:
                life.check(key, memory, low, "view", raw=True)
                self.counts["view hit"] += 1
        except KeyError:
            pass
        except TypeError:  # not a value that can be viewed: there must have been one in that time
            versions = range(max(low, 1), life.started[key] + 1)
            assert not all(values.is_viewable(values.value(key, version)) for version in versions)

    def contains(self, key: int) -> None:
        self.counts["contains"] += 1
        _ = self.life.names[key] in self.life.part(key)

    def pop(self, key: int) -> None:
        life, low = self.life, self.life.finished[key]
        got = life.part(key).pop(life.names[key], MISS)
        self.counts["pop"] += 1
        if got is not MISS:
            life.check(key, got, low, "pop")

    # Writing, of own keys. A failed insert leaves the key without a value.

    def _begin(self, key: int) -> int:
        """The version that is stored next."""
        self.life.started[key] += 1
        self._expiries.pop(key, None)
        return self.life.started[key]

    def _begin_some(self) -> dict[int, int]:
        """Some own keys that lie in no namespace, and the version of each that is stored next."""
        keys = sorted({self.own(self.pick()) for _ in range(4)})
        return {key: self._begin(key) for key in keys if not self.life.is_in_part(key)}

    def _finish(self, versions: dict[int, int]) -> None:
        for key, version in versions.items():
            self.life.finished[key] = version

    def _note_expiry(self, key: int, version: int, ttl: float | None) -> None:
        if ttl is not None:
            self._expiries[key] = (version, ttl, self.life.clock_started)

    def write(self, key: int) -> None:
        key = self.own(key)
        version, ttl = self._begin(key), self.chance.choice(TTLS)
        self.life.part(key).set(self.life.names[key], values.value(key, version), ttl)
        self._note_expiry(key, version, ttl)
        self.life.finished[key] = version
        self.counts["set"] += 1

    def write_many(self, key: int) -> None:
        versions = self._begin_some()
        items = {self.life.names[key]: values.value(key, version) for key, version in versions.items()}
        self.life.cache.set_many(items, self.chance.choice(TTLS))
        self._finish(versions)
        self.counts["set_many"] += 1

    def add(self, key: int) -> None:
        key = self.own(key)
        version = self._begin(key)
        try:
            added = self.life.part(key).add(self.life.names[key], values.value(key, version))
            what = "add" if added else "add to nothing"
        except RefusedError:  # its pages were dropped while it was written
            what = "add refused"
        self.counts[what] += 1
        if what == "add":
            self.life.finished[key] = version  # else what was there stays: the versions before go on being right

    def create(self, key: int) -> None:
        key = self.own(key)
        low, version = self.life.finished[key], self._begin(key)
        made: list[Any] = []

        def factory() -> Any:
            made.append(values.value(key, version))
            return made[-1]

        got = self.life.part(key).get_or_create(self.life.names[key], factory)
        self.counts["get_or_create"] += 1
        if not made or got is not made[-1]:  # what cannot be kept is returned as it is
            self.life.check(key, got, version if made else low, "get_or_create")
        if made:
            self.life.finished[key] = version

    def transform(self, key: int) -> None:
        key = self.own(key)
        low, version, seen = self.life.finished[key], self._begin(key), []

        def function(old: Any) -> Any:
            seen.append(old)
            return values.value(key, version)

        self.counts["transform"] += 1
        try:
            self.life.part(key).transform(self.life.names[key], function)
        except (KeyError, RefusedError):
            return  # nothing changed
        self.life.check(key, seen[-1], low, "transform")
        self.life.finished[key] = version

    def touch(self, key: int) -> None:
        key, ttl = self.own(key), self.chance.choice(TTLS)
        self.counts["touch"] += 1
        self._expiries.pop(key, None)
        try:
            if self.life.part(key).touch(self.life.names[key], ttl):
                self._note_expiry(key, self.life.started[key], ttl)
        except RefusedError:
            pass

    def delete(self, key: int) -> None:
        key = self.own(key)
        version = self._begin(key)
        self.life.part(key).discard(self.life.names[key])
        self.counts["delete"] += 1
        assert self.life.names[key] not in self.life.part(key)
        self.life.finished[key] = version

    def delete_many(self, key: int) -> None:
        versions = self._begin_some()
        self.life.cache.delete_many([self.life.names[key] for key in versions])
        self._finish(versions)
        self.counts["delete_many"] += 1

    # Forking

    def fork(self) -> None:
        """A child looks at all that it has of its parent, and ends in one of three ways."""
        ending, seed = self.chance.choice(("exit", "close", "kill")), self.chance.getrandbits(40)
        self.counts["fork"] += 1
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self._live_in_child(ending, seed)
                status = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        expected = -signal.SIGKILL if ending == "kill" else 0
        assert status == expected, f"a forked child that should end by {ending} ended with {status}"

    def _live_in_child(self, ending: str, seed: int) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_SECONDS)
        life = self.life
        for caller in life.everyone():
            caller.look_at_held()
        self.chance = random.Random(seed)
        for number in range(CHILD_CALLS):
            self.me = number % THREADS  # all keys are its own: the other threads are not here
            try:
                self.call()
            except ClosedError:  # the parent's cache was closed before
                break
        if ending == "close":
            life.cache.close()
        for caller in life.everyone():
            caller.look_at_held()
        if ending == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
