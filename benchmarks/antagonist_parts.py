"""The two processes of cache_antagonist.py, in one cgroup.

    antagonist BYTES                 at each line on stdin: writes all its pages, answers with seconds; at the next
                                     line: gives them back
    worker WAY GROUP ROOM KEYS       serves requests until SIGTERM, then prints what it saw, as JSON

The antagonist writes as a program does that loads its data: each page for the first time, one after the other.
"""

import json
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

from stalls import Stalls, run_delay_reader, usage_bytes

VALUE_BYTES = 64 << 10
SKEW = 0.9
DRAWS = 1 << 16
"""Requests that are drawn beforehand, and then asked for in a circle."""
AT_ONCE_BYTES = 1 << 20


def antagonist(wanted_bytes: int) -> None:
    memory = mmap.mmap(-1, wanted_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    chunk = b"\1" * AT_ONCE_BYTES
    run_delay_ns = run_delay_reader()
    print("ready", flush=True)
    while sys.stdin.readline():
        waited_ns, start = run_delay_ns(), time.perf_counter()
        for place in range(0, wanted_bytes, AT_ONCE_BYTES):
            memory[place : place + AT_ONCE_BYTES] = chunk
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, seconds - (run_delay_ns() - waited_ns) / 1e9]), flush=True)
        sys.stdin.readline()
        memory.madvise(mmap.MADV_DONTNEED)
        print("given back", flush=True)


class Bounded:
    """An LRU in a dict. `poll_seconds`: how often it looks at the cgroup's memory, and makes room where it is short."""

    def __init__(self, group: Path, room_bytes: int, max_bytes: int, poll_seconds: float | None) -> None:
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._most = max_bytes // VALUE_BYTES
        self._group, self._poll_seconds, self._next = group, poll_seconds, 0.0
        self._high_bytes, self._low_bytes = int(0.9 * room_bytes), int(0.8 * room_bytes)

    def get(self, key: int) -> bytes | None:
        if self._poll_seconds and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._poll_seconds
            over_bytes = usage_bytes(self._group) - self._low_bytes
            if over_bytes > self._high_bytes - self._low_bytes:
                for _ in range(min(len(self._held), -(-over_bytes // VALUE_BYTES))):
                    self._held.popitem(last=False)
        value = self._held.get(key)
        if value is not None:
            self._held.move_to_end(key)
        return value

    def set(self, key: int, value: bytes) -> None:
        self._held[key] = value
        if len(self._held) > self._most:
            self._held.popitem(last=False)


def file_reader(keys: int) -> Callable[[int], bytes]:
    """Reads values from a file of holes: what is kept is the kernel's own page cache, and no disk is waited for."""
    build = Path(__file__).parents[1] / "build"  # not /tmp, which may be a file system that lives in memory
    build.mkdir(exist_ok=True)
    fd, name = tempfile.mkstemp(dir=build)
    os.unlink(name)
    os.truncate(fd, keys * VALUE_BYTES)
    return lambda key: os.pread(fd, VALUE_BYTES, key * VALUE_BYTES)


def make(
    way: str, group: Path, room_bytes: int, keys: int
) -> tuple[Callable[[int], Any], Callable[[int, bytes], Any], Any]:
    """get, set, and the cache where it has stats. `way`: none, file, droppable, poll SECONDS or fixed SHARE."""
    kind, _, number = way.partition(" ")
    if kind == "none":
        return (lambda key: None), (lambda key, value: None), None
    if kind == "file":
        return file_reader(keys), (lambda key, value: None), None
    if kind == "droppable":
        import droppable

        cache = droppable.Cache()
        return cache.get, cache.set, cache
    share, poll_seconds = (1.0, float(number)) if kind == "poll" else (float(number), None)
    bounded = Bounded(group, room_bytes, int(share * room_bytes), poll_seconds)
    return bounded.get, bounded.set, None


def worker(way: str, group: Path, room_bytes: int, keys: int) -> dict[str, Any]:
    """Asks for keys by Zipf's law, and sets what is missing."""
    shares = list(accumulate((rank + 1) ** -SKEW for rank in range(keys)))
    drawn = random.Random(keys)
    names = list(range(keys))
    drawn.shuffle(names)
    requests = [names[bisect(shares, drawn.random() * shares[-1])] for _ in range(DRAWS)]
    del shares, names
    stalls = {name: Stalls() for name in ("get_wall", "get_own", "set_wall", "set_own")}
    get_wall, get_own, set_wall, set_own = (one.add for one in stalls.values())
    get, put, cache = make(way, group, room_bytes, keys)
    running = True

    def stop(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    wall, run_delay_ns = time.perf_counter_ns, run_delay_reader()
    padding = os.urandom(VALUE_BYTES - 8)
    print("ready", flush=True)
    sys.stdin.readline()
    hits = wrong = number = 0
    waited = run_delay_ns()
    while running:
        key = requests[number % DRAWS]
        number += 1
        start = wall()
        value = get(key)
        took = wall() - start
        before, waited = waited, run_delay_ns()
        get_wall(took)
        get_own(max(0, took + before - waited))
        if value is not None:
            hits += 1
            if way != "file":
                wrong += value[:8] != key.to_bytes(8, "big") or value[-8:] != padding[-8:]
            continue
        value = key.to_bytes(8, "big") + padding
        waited = run_delay_ns()
        start = wall()
        put(key, value)
        took = wall() - start
        before, waited = waited, run_delay_ns()
        set_wall(took)
        set_own(max(0, took + before - waited))
    return {
        "requests": number, "hits": hits, "wrong": wrong, "refused": cache.stats().refused if cache else 0,
        "stalls": {name: one.report() for name, one in stalls.items()},
    }  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "antagonist":
        antagonist(int(sys.argv[2]))
    else:
        print(json.dumps(worker(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))))
