"""The caches that cache_latency.py times, each as one Peer: filled, read and decorated with in its own way."""

import functools
import mmap
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

import droppable

ARRAY_BYTES = 1_000_000
"""Values of this size are NumPy arrays."""
DROPPABLE, BACKED = "droppable", "droppable, backing=droppable"
COPY = "dict + copy out of an mmap"
START_SECONDS = 5.0


@dataclass(frozen=True)
class Peer:
    """A cache. get or set None: it has none. `key` makes what it wants for a key. `elsewhere_ns`: see measure.py."""

    name: str
    get: Callable[..., object] | None
    set: Callable[..., object] | None
    decorate: Callable[..., Any] | None = None
    key: Callable[[str], object] = str
    elsewhere_ns: Callable[[], int] | None = None


class MissingError(Exception):
    """A peer that is not here; the message says what would bring it."""


def make_value(size_bytes: int) -> Any:
    data = random.Random(size_bytes).randbytes(size_bytes)
    return numpy.frombuffer(data, dtype=numpy.float64).copy() if size_bytes == ARRAY_BYTES else data


def peers(count: int, size_bytes: int, directory: Path, stack: ExitStack) -> Iterator[Peer]:
    """The caches, empty; one that is not installed is named and left out."""
    room = 2 * count
    plain: dict[object, object] = {}
    yield Peer("dict", plain.get, plain.__setitem__)
    yield copy_peer(COPY, mmap.mmap(-1, count * size_bytes), size_bytes)
    yield Peer("functools.lru_cache", None, None, functools.lru_cache(maxsize=room))
    for make in (cachetools_peer, cachebox_peer, lru_dict_peer, moka_peer, theine_peer):
        try:
            yield make(room)
        except ImportError as error:
            print(f"SKIP a peer: {error}")
    yield from file_peers(directory, count, size_bytes, stack)
    for make_stored in (diskcache_peer, lmdb_peer, memcached_peer):
        try:
            yield make_stored(directory, size_bytes, stack)
        except (ImportError, MissingError) as error:
            print(f"SKIP a peer: {error}")
    ours = stack.enter_context(droppable.Cache())
    yield Peer(DROPPABLE, ours.get, ours.set, droppable.cache)
    try:
        backed = stack.enter_context(droppable.Cache(backing="droppable"))
    except droppable.UnsupportedError as error:
        print(f"SKIP {BACKED}: {error}")
    else:
        yield Peer(BACKED, backed.get, backed.set, droppable.cache(backing="droppable"))


def as_bytes(value: Any) -> Any:
    return value.data.cast("B") if isinstance(value, numpy.ndarray) else value


def places_of(size_bytes: int) -> tuple[Callable[[object], int | None], Callable[[object], int]]:
    """Where a key's bytes are, and where they go: a dict of places, one after the other."""
    places: dict[object, int] = {}

    def place_for(key: object) -> int:
        place = places.get(key)
        if place is None:
            place = places[key] = len(places) * size_bytes
        return place

    return places.get, place_for


def copy_peer(name: str, memory: mmap.mmap, size_bytes: int) -> Peer:
    """The least that a cache in memory of its own can do: a dict of places, and one copy."""
    place_of, place_for = places_of(size_bytes)

    def get(key: object) -> object:
        place = place_of(key)
        return None if place is None else memory[place : place + size_bytes]

    def put(key: object, value: Any) -> None:
        place = place_for(key)
        memory[place : place + size_bytes] = as_bytes(value)

    return Peer(name, get, put)


def file_peers(directory: Path, count: int, size_bytes: int, stack: ExitStack) -> Iterator[Peer]:
    """A dict of places in a file: through a mapping of it, and by pread and pwrite."""
    file = stack.enter_context((directory / f"file{size_bytes}").open("w+b"))
    file.truncate(count * size_bytes)
    yield copy_peer("dict + mmapped file", stack.enter_context(mmap.mmap(file.fileno(), 0)), size_bytes)
    other = stack.enter_context((directory / f"pread{size_bytes}").open("w+b"))
    fd = other.fileno()
    place_of, place_for = places_of(size_bytes)

    def get(key: object) -> object:
        place = place_of(key)
        return None if place is None else os.pread(fd, size_bytes, place)

    def put(key: object, value: Any) -> None:
        os.pwrite(fd, as_bytes(value), place_for(key))

    yield Peer("dict + pread of a file", get, put)


def cachetools_peer(room: int) -> Peer:
    import cachetools

    cache: Any = cachetools.LRUCache(room)
    return Peer("cachetools LRUCache", cache.get, cache.__setitem__, cachetools.cached(cachetools.LRUCache(room)))


def cachebox_peer(room: int) -> Peer:
    import cachebox

    cache: Any = cachebox.LRUCache(room)
    return Peer("cachebox LRUCache", cache.get, cache.__setitem__, cachebox.cached(cachebox.LRUCache(room)))


def lru_dict_peer(room: int) -> Peer:
    import lru

    cache: Any = lru.LRU(room)
    return Peer("lru-dict", cache.get, cache.__setitem__)


def moka_peer(room: int) -> Peer:
    import moka_py

    cache: Any = moka_py.Moka(room)
    return Peer("moka-py", cache.get, cache.set, moka_py.cached(maxsize=room))


def theine_peer(room: int) -> Peer:
    from theine import Cache, Memoize

    cache: Any = Cache(room)
    return Peer("theine", lambda key: cache.get(key)[0], cache.set, Memoize(room, None))


def diskcache_peer(directory: Path, size_bytes: int, stack: ExitStack) -> Peer:
    import diskcache  # type: ignore[import-untyped]

    cache = stack.enter_context(diskcache.Cache(str(directory / f"diskcache{size_bytes}")))
    return Peer("diskcache", cache.get, cache.set, lambda function: cache.memoize(name="f")(function))


def lmdb_peer(directory: Path, size_bytes: int, stack: ExitStack) -> Peer:
    import lmdb

    store = lmdb.open(str(directory / f"lmdb{size_bytes}"), map_size=1 << 30, sync=False, metasync=False)
    stack.callback(store.close)
    array = size_bytes == ARRAY_BYTES

    def get(key: bytes) -> object:
        with store.begin() as transaction:
            value = transaction.get(key)
        return numpy.frombuffer(value) if array and value is not None else value

    def put(key: bytes, value: Any) -> None:
        with store.begin(write=True) as transaction:
            transaction.put(key, as_bytes(value))

    return Peer("lmdb", get, put, key=lambda key: f"{key}".encode())


def memcached_peer(directory: Path, size_bytes: int, stack: ExitStack) -> Peer:
    """A server of its own on a socket in `directory`; what it computes is added to the caller's time."""
    from pymemcache.client.base import Client

    program = shutil.which("memcached")
    if not program:
        raise MissingError("memcached is not installed (Debian and Ubuntu: apt-get install memcached)")
    path = directory / f"memcached{size_bytes}"
    command = [program, "-s", str(path), "-m", "256", "-I", "2m", "-t", "1", "-u", "root"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    stack.callback(server.wait)
    stack.callback(server.kill)
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise MissingError(f"memcached does not start: {server.communicate()[1].strip()}")
        time.sleep(0.01)
    client = Client(str(path), default_noreply=False)
    stack.callback(client.close)
    clock = ~server.pid << 3 | 2  # the processor time of another process, as clock_getcpuclockid() has it
    array = size_bytes == ARRAY_BYTES

    def get(key: str) -> object:
        value = client.get(key)
        return numpy.frombuffer(value) if array and value is not None else value

    def put(key: str, value: Any) -> None:
        client.set(key, value.tobytes() if array else value)

    return Peer("memcached, unix socket", get, put, elsewhere_ns=lambda: time.clock_gettime_ns(clock))
