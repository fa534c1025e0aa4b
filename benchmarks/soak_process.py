"""The process of soak.py that has a cache of its own: two threads use it at full speed.

    python benchmarks/soak_process.py SECONDS [TRACE ...]

For each line that it reads it prints its counts as JSON; after SECONDS, the sums of the whole run, and ends. Then
each entry that was ever stored has to be in one count, and nothing may be there, pinned or mapped.
"""

import json
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy
from soak import VALUE_MOST_BYTES, requests_of

from droppable import Cache

THREADS = 2
HELD_AT_ONCE = 16
STRIDE = 7919


class User:
    """One thread, and what it has seen. Every second key has an array; those that were brought are held for a while."""

    def __init__(self, cache: Cache[int, Any], requests: tuple[list[int], list[int]], seed: int) -> None:
        self._cache = cache
        self._keys, self._sizes = requests
        self._chance = random.Random(seed)
        self._filler = bytes(range(1, 251)) * (VALUE_MOST_BYTES // 250 + 2)
        self._held: deque[tuple[Any, bytes]] = deque()
        self._seed = seed
        self.requests = self.hits = self.wrong = 0

    def _value(self, key: int, size: int) -> bytes:
        start = key % 250
        return self._filler[start : start + size]

    def work(self, deadline: float) -> None:
        at = self._seed * STRIDE % len(self._keys)
        while time.monotonic() < deadline:
            for _ in range(100):
                self._ask(self._keys[at], self._sizes[at])
                at = (at + 1) % len(self._keys)
        while self._held:
            self._let_go()

    def _ask(self, key: int, size: int) -> None:
        expected = self._value(key, size)
        self.requests += 1
        got = self._cache.get(key)
        if got is None:
            value = numpy.frombuffer(expected, dtype=numpy.uint8) if key % 2 else expected
            seconds = self._chance.randrange(1, 20) if self._chance.random() < 0.125 else None
            self._cache.set(key, value, ttl=seconds)
        else:
            self.hits += 1
            self.wrong += bytes(got) != expected
            if key % 2:
                self._held.append((got, expected))
                if len(self._held) > HELD_AT_ONCE:
                    self._let_go()
        if self._chance.random() < 0.001:
            self._cache.discard(self._chance.choice(self._keys))

    def _let_go(self) -> None:
        array, expected = self._held.popleft()
        self.wrong += bytes(array) != expected


def counts(cache: Cache[int, Any], users: Sequence[User]) -> dict[str, int]:
    stats = cache.stats()
    return {
        "requests": sum(user.requests for user in users),
        "hits": sum(user.hits for user in users),
        "entries": stats.entries,
        "connections": 0,
        "pinned_bytes": stats.pinned_bytes + stats.window_bytes,
    }


def entries_adrift(cache: Cache[int, Any]) -> int:
    """Entries of which nobody knows where they went, and what is left when there is nothing."""
    cache.clear()
    stats = cache.stats()
    left = stats.dropped + stats.evicted + stats.expired + stats.deletes + stats.replaced + stats.cleared
    cache.close()
    at_the_end = stats.entries + stats.stored_bytes + stats.pinned_bytes + cache._counts()["mapped_bytes"]
    return abs(stats.sets - left) + at_the_end


def main() -> None:
    seconds, requests = float(sys.argv[1]), requests_of(sys.argv[2:])
    cache: Cache[int, Any] = Cache()
    users = [User(cache, requests, seed) for seed in range(THREADS)]
    deadline = time.monotonic() + seconds
    threads = [threading.Thread(target=user.work, args=(deadline,)) for user in users]
    for thread in threads:
        thread.start()
    for _ in sys.stdin:
        if time.monotonic() >= deadline:
            break
        print(json.dumps(counts(cache, users)), flush=True)
    for thread in threads:
        thread.join()
    sums = {kind: sum(getattr(user, kind) for user in users) for kind in ("requests", "hits", "wrong")}
    print(json.dumps(sums | {"failed": 0, "adrift": entries_adrift(cache)}), flush=True)


if __name__ == "__main__":
    main()
