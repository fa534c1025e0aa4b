r"""redis-py: a cache in the process above Redis, Valkey, or `droppable serve`, which never stays out of date.

The server tells each change of a key (`CLIENT TRACKING ON BCAST`) to a connection that a thread listens at. What it
names is forgotten. The state of such a connection:

                 connected, TRACKING answered; all is forgotten
        +-----------------------------------------------------------> TRACKING
     LOST  reads go to the server, and nothing is kept                   |  reads may be kept
        <-----------------------------------------------------------------+
                 closed, an error, or silent for two heartbeats; all is forgotten

Two races decide whether an old value can stay, and both are settled by the cache, which keeps no result of a
computation if its key was deleted or the cache was cleared meanwhile:

    read sent ... the key changes, is told, is forgotten ... old answer comes     not kept: deleted meanwhile
    read sent while LOST ... TRACKING begins, all is forgotten ... answer comes   not kept: cleared meanwhile
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Self

import redis

import droppable
from droppable.adapters._redis_listener import Listener

_ONLY: Final = ""
"""The name of the one server that there is without a cluster."""


@dataclass(frozen=True, slots=True)
class NearCacheStats:
    """Counts since the near cache was made.

    Attributes:
        hits: reads that asked no server.
        misses: reads that asked the server.
        invalidated: keys that a server named as changed.
        flushes: how often all was forgotten: at each begin and end of tracking, and when a server was flushed.
        tracking: connections that listen at this moment. 0: nothing is kept.
    """

    hits: int
    misses: int
    invalidated: int
    flushes: int
    tracking: int


class NearCache:
    """Reads of Redis that are kept in the process, in memory that the kernel may take back, and never stay out of date.

    A read that comes after a change was told by the server never gives an older value. Between a change and the moment
    at which the server's word arrives here (some tenths of a millisecond on one host) an older value may be given, as
    between a reply on its way and its reader. Writes by this object's own `set` and `delete` are seen at once.

    Where the server cannot be listened to, reads go to it and nothing is kept. Errors of reads and writes are
    redis-py's own, and what it retries it retries.

    Threads: any. Fork: a child reads past the cache, because the connection that listens is its parent's: make another
    object there.

    Args:
        client: a `redis.Redis`, or a `redis.RedisCluster`, each of whose primaries is listened to. Its options count
            for the connections that listen too (password, TLS, a unix socket). Values are what its `get` gives.
        prefixes: only keys that begin with one of these are kept, and only their changes are told; none: all keys.
        aclient: a `redis.asyncio.Redis` of the same server, for `aget`, `aset` and `adelete`.
        heartbeat_seconds: after so much silence the server is asked whether it is there, and after as much again it
            counts as lost. So an older value is given for no more than twice that, if the network just stops.
        options: what `droppable.Cache` takes, as max_bytes="256M".
    """

    def __init__(
        self,
        client: Any,
        prefixes: Iterable[str | bytes] = (),
        *,
        aclient: Any = None,
        heartbeat_seconds: float = 1.0,
        **options: Any,
    ) -> None:
        if isinstance(prefixes, (str, bytes)):
            raise TypeError(f"prefixes must be several, in a tuple or a list; you gave {prefixes!r}")
        if not heartbeat_seconds > 0:
            raise ValueError(f"heartbeat_seconds must be more than 0; you gave {heartbeat_seconds!r}")
        self.client = client
        self.aclient = aclient
        self.heartbeat_seconds = heartbeat_seconds
        self._encode = client.get_encoder().encode
        self.prefixes: tuple[bytes, ...] = tuple(self._encode(prefix) for prefix in prefixes)
        self._cache: droppable.Cache[bytes, Any] = droppable.Cache(**options)
        self._pid = os.getpid()
        self._lock = threading.Lock()  # of the counts
        self._hits = self._misses = self._invalidated = self._flushes = 0
        self._told = 0  # how often anything was forgotten; under the lock
        self._is_cluster = isinstance(client, redis.RedisCluster)
        self._listeners: dict[str, Listener] = {}
        if self._is_cluster:
            for node in client.get_primaries():
                self._listen_to(node)
        else:
            self._listeners[_ONLY] = Listener(self, _ONLY, client)

    @property
    def cache(self) -> droppable.Cache[bytes, Any]:
        """The cache behind it: for `stats()`, and for tests that drop what is in it."""
        return self._cache

    def get(self, name: str | bytes) -> Any:
        """As the client's: the value, or None where there is none."""
        key = self._encode(name)
        if not self._may_keep(key):
            self._count(misses=1)
            return self.client.get(name)
        value = _value_of(self._cache.get(key, _OVER))
        if value is not _OVER:
            self._count(hits=1)
            return value
        asked = False

        def ask() -> Any:
            nonlocal asked
            asked = True
            answer = self.client.pipeline(transaction=False).get(name).pttl(name).execute()
            return self._kept(key, *answer)

        while (value := _value_of(found := self._cache.get_or_create(key, ask))) is _OVER and not asked:
            self._cache.discard(key)
        self._count(misses=1) if asked else self._count(hits=1)
        return found.value if value is _OVER else value

    def mget(self, names: Iterable[str | bytes]) -> list[Any]:
        """As the client's: a value or None for each name. What is not here is asked for by one request.

        What that request brings is kept if no change of any key was told meanwhile.
        """
        names = list(names)
        keys = [self._encode(name) for name in names]
        known = {key: _value_of(kept) for key, kept in self._cache.get_many(filter(self._may_keep, keys)).items()}
        missing = [at for at, key in enumerate(keys) if known.get(key, _OVER) is _OVER]
        with self._guard():
            told = self._told
        pipeline = self.client.pipeline(transaction=False)
        for at in missing:
            pipeline.get(names[at]).pttl(names[at])
        answers = pipeline.execute() if missing else []
        asked = {keys[at]: (answers[2 * place], answers[2 * place + 1]) for place, at in enumerate(missing)}
        kept = {key: self._kept(key, *answer) for key, answer in asked.items() if self._may_keep(key)}
        with self._guard():
            if told == self._told:
                self._cache.set_many(kept)
        self._count(hits=len(keys) - len(missing), misses=len(missing))
        return [asked[key][0] if key in asked else known[key] for key in keys]

    def set(self, name: str | bytes, value: Any, **options: Any) -> Any:
        """As the client's. The next read of this process gives what was set, or what came after it."""
        try:
            return self.client.set(name, value, **options)
        finally:
            self._forget([self._encode(name)], are_told=False)

    def delete(self, *names: str | bytes) -> Any:
        """As the client's. The next read of this process sees it."""
        try:
            return self.client.delete(*names)
        finally:
            self._forget([self._encode(name) for name in names], are_told=False)

    async def aget(self, name: str | bytes) -> Any:
        """As `get`, by the asynchronous client."""
        key = self._encode(name)
        if not self._may_keep(key):
            self._count(misses=1)
            return await self.aclient.get(name)
        value = _value_of(self._cache.get(key, _OVER))
        if value is not _OVER:
            self._count(hits=1)
            return value
        asked = False

        async def ask() -> Any:
            nonlocal asked
            asked = True
            answer = await self.aclient.pipeline(transaction=False).get(name).pttl(name).execute()
            return self._kept(key, *answer)

        while (value := _value_of(found := await self._cache.aget_or_create(key, ask))) is _OVER and not asked:
            self._cache.discard(key)
        self._count(misses=1) if asked else self._count(hits=1)
        return found.value if value is _OVER else value

    async def aset(self, name: str | bytes, value: Any, **options: Any) -> Any:
        """As `set`, by the asynchronous client."""
        try:
            return await self.aclient.set(name, value, **options)
        finally:
            self._forget([self._encode(name)], are_told=False)

    async def adelete(self, *names: str | bytes) -> Any:
        """As `delete`, by the asynchronous client."""
        try:
            return await self.aclient.delete(*names)
        finally:
            self._forget([self._encode(name) for name in names], are_told=False)

    def stats(self) -> NearCacheStats:
        """What was counted, and how many connections listen."""
        with self._guard():
            tracking = sum(listener.is_tracking for listener in self._listeners.values())
            return NearCacheStats(self._hits, self._misses, self._invalidated, self._flushes, tracking)

    def close(self) -> None:
        """Ends the threads that listen and gives the memory back. The clients stay open. May be called again."""
        if self._pid == os.getpid():
            for listener in self._listeners.values():
                listener.stop()
        self._listeners = {}
        self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # What is forgotten

    def _guard(self) -> AbstractContextManager[Any]:
        # In a forked child a thread of the parent may have held the lock. Nothing is kept there, so nothing is guarded.
        return self._lock if self._pid == os.getpid() else nullcontext()

    def _forget(self, keys: list[bytes], are_told: bool = True) -> None:
        with self._guard():
            self._told += 1
        self._cache.delete_many(keys)
        if are_told:
            self._count(invalidated=len(keys))

    def _forget_all(self) -> None:
        with self._lock:
            self._told += 1
        self._cache.clear()
        self._count(flushes=1)

    # Which keys are kept

    def _may_keep(self, key: bytes) -> bool:
        if self._pid != os.getpid() or (self.prefixes and not key.startswith(self.prefixes)):
            return False
        name = _ONLY
        if self._is_cluster:
            node = self.client.get_node_from_key(key)
            if node is None:
                return False
            name = node.name
            if name not in self._listeners:  # a primary that the cluster got meanwhile
                self._listen_to(node)
        listener = self._listeners.get(name)
        return listener is not None and listener.is_tracking

    def _kept(self, key: bytes, value: Any, left_ms: int) -> Any:
        """What is kept of an answer. left_ms: what PTTL said; -1: no expiry; -2: gone since the read.

        In a cluster another node than the expected one may have answered, at which nobody listens.
        """
        if not self._may_keep(key):
            left_ms = 0
        elif left_ms == -1 or value is None:
            return value
        return _Expiring(value, time.monotonic() + max(0, left_ms) / 1000)

    def _listen_to(self, node: Any) -> None:
        with self._lock:
            if node.name not in self._listeners:
                self._listeners[node.name] = Listener(self, node.name, self.client.get_redis_connection(node))

    def _count(self, hits: int = 0, misses: int = 0, invalidated: int = 0, flushes: int = 0) -> None:
        with self._guard():
            self._hits += hits
            self._misses += misses
            self._invalidated += invalidated
            self._flushes += flushes


class _Expiring:
    """What is kept of a value with an expiry: a server may tell late that it expired, or not at all."""

    __slots__ = ("ends", "value")

    def __init__(self, value: Any, ends: float) -> None:
        self.value = value
        self.ends = ends

    def __reduce__(self) -> Any:
        return _Expiring, (self.value, self.ends)


_OVER: Final = object()


def _value_of(kept: Any) -> Any:
    if type(kept) is not _Expiring:
        return kept
    return kept.value if kept.ends > time.monotonic() else _OVER
