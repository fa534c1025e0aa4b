r"""redis-py: a cache in the process above Redis, Valkey, or `droppable serve`, out of date for a moment at most.

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
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import redis
from redis.exceptions import ResponseError

import droppable
from droppable.adapters._redis_expiring import OVER, Expiring, value_of
from droppable.adapters._redis_listener import Listener
from droppable.adapters._shared import store_many

_GONE: Final = -2
"""What PTTL says of a key that is not there."""
_OF_ANOTHER_TYPE: Final = "WRONGTYPE"
_LONGEST_HEARTBEAT_SECONDS: Final = 3600.0
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
        self._is_cluster = isinstance(client, redis.RedisCluster)
        if not self._is_cluster and not isinstance(client, redis.Redis):
            raise TypeError(
                "client must be a redis.Redis or a redis.RedisCluster (an asynchronous one is given as aclient=); "
                f"you gave {client!r}"
            )
        if isinstance(prefixes, (str, bytes)):
            raise TypeError(f"prefixes must be several, in a tuple or a list; you gave {prefixes!r}")
        if not isinstance(heartbeat_seconds, (int, float)):
            raise TypeError(f"heartbeat_seconds must be a number of seconds; you gave {heartbeat_seconds!r}")
        if not 0 < heartbeat_seconds <= _LONGEST_HEARTBEAT_SECONDS:
            raise ValueError(
                f"heartbeat_seconds must be more than 0, and an hour at most; you gave {heartbeat_seconds!r}"
            )
        if aclient is not None and not isinstance(aclient, (redis.asyncio.Redis, redis.asyncio.RedisCluster)):
            raise TypeError(
                f"aclient must be a redis.asyncio.Redis or a redis.asyncio.RedisCluster, or None; you gave {aclient!r}"
            )
        if aclient is not None and _codec(aclient) != _codec(client):
            raise ValueError(
                "aclient must decode as client does (decode_responses, encoding): what one reads, both give"
            )
        self.client = client
        self.aclient = aclient
        self.heartbeat_seconds = heartbeat_seconds
        self._encoder = client.get_encoder()
        self.prefixes = _shortest(self._encode(prefix) for prefix in prefixes)
        try:
            self._cache: droppable.Cache[bytes, Any] = droppable.Cache(**options)
        except TypeError as error:
            error.add_note("NearCache() takes prefixes=, aclient=, heartbeat_seconds=, and what droppable.Cache takes")
            raise
        self._is_closed = False
        self._pid = os.getpid()
        self._lock = threading.RLock()  # of the counts; a signal handler may come here again
        self._hits = self._misses = self._invalidated = self._flushes = 0
        self._told = 0  # how often anything was forgotten; under the lock
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

    def _encode(self, name: Any) -> bytes:
        return bytes(self._encoder.encode(name))  # of one type: the server tells bytes, whatever a caller has

    def get(self, name: str | bytes) -> Any:
        """As the client's: the value, or None where there is none."""
        try:
            return self._get(name)
        except droppable.ClosedError:  # by another thread, meanwhile
            return self.client.get(name)

    def _get(self, name: Any) -> Any:
        key = self._encode(name)
        if not self._may_keep(key):
            self._count(misses=1)
            return self.client.get(name)
        value = value_of(self._cache.get(key, OVER))
        if value is not OVER:
            self._count(hits=1)
            return value
        asked = False

        def ask() -> Any:
            nonlocal asked
            asked, asked_at = True, time.monotonic()
            pipeline = self.client.pipeline(transaction=False)
            value, left_ms = pipeline.get(name).pttl(name).execute(raise_on_error=False)
            return self._kept(key, value, left_ms, asked_at)

        while (value := value_of(found := self._cache.get_or_create(key, ask))) is OVER and not asked:
            self._cache.discard(key)
        self._count(misses=1) if asked else self._count(hits=1)
        return found.value if value is OVER else value

    def mget(self, keys: str | bytes | Iterable[str | bytes], *args: str | bytes) -> list[Any]:
        """As the client's: a value or None for each name. What is not here is asked for by one request.

        What that request brings is kept if no change of any key was told meanwhile.
        """
        names: list[Any] = [keys] if isinstance(keys, (str, bytes)) else list(keys)
        names += args
        try:
            return self._mget(names)
        except droppable.ClosedError:  # by another thread, meanwhile
            return list(self.client.mget(names))

    def _mget(self, names: list[Any]) -> list[Any]:
        keys = [self._encode(name) for name in names]
        known = {key: value_of(kept) for key, kept in self._cache.get_many(filter(self._may_keep, keys)).items()}
        missing = [at for at, key in enumerate(keys) if known.get(key, OVER) is OVER]
        with self._guard():
            told = self._told
        pipeline = self.client.pipeline(transaction=False)
        for at in missing:
            pipeline.get(names[at]).pttl(names[at])
        asked_at = time.monotonic()
        answers = pipeline.execute(raise_on_error=False) if missing else []
        asked, kept = dict[bytes, Any](), dict[bytes, Any]()
        for place, at in enumerate(missing):
            value, left_ms = answers[2 * place : 2 * place + 2]
            if isinstance(value, ResponseError) and str(value).startswith(_OF_ANOTHER_TYPE):
                asked[keys[at]] = None  # as the server's MGET says
                continue
            asked[keys[at]] = value
            if self._may_keep(keys[at]) or isinstance(value, Exception):
                kept[keys[at]] = self._kept(keys[at], value, left_ms, asked_at)
        with self._guard():
            if told == self._told and not self._is_closed:
                store_many(self._cache, kept, None)
        self._count(hits=len(keys) - len(missing), misses=len(missing))
        return [asked[key] if key in asked else known[key] for key in keys]

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
            return await self._asynchronous("aget").get(name)
        value = value_of(self._cache.get(key, OVER))
        if value is not OVER:
            self._count(hits=1)
            return value
        asked = False

        async def ask() -> Any:
            nonlocal asked
            asked, asked_at = True, time.monotonic()
            pipeline = self._asynchronous("aget").pipeline(transaction=False)
            value, left_ms = await pipeline.get(name).pttl(name).execute(raise_on_error=False)
            return self._kept(key, value, left_ms, asked_at)

        while (value := value_of(found := await self._cache.aget_or_create(key, ask))) is OVER and not asked:
            self._cache.discard(key)
        self._count(misses=1) if asked else self._count(hits=1)
        return found.value if value is OVER else value

    async def aset(self, name: str | bytes, value: Any, **options: Any) -> Any:
        """As `set`, by the asynchronous client."""
        try:
            return await self._asynchronous("aset").set(name, value, **options)
        finally:
            self._forget([self._encode(name)], are_told=False)

    async def adelete(self, *names: str | bytes) -> Any:
        """As `delete`, by the asynchronous client."""
        try:
            return await self._asynchronous("adelete").delete(*names)
        finally:
            self._forget([self._encode(name) for name in names], are_told=False)

    def _asynchronous(self, method: str) -> Any:
        if self.aclient is None:
            raise TypeError(
                f"{method}() needs an asynchronous client: NearCache(client, aclient=redis.asyncio.Redis(...))"
            )
        return self.aclient

    def stats(self) -> NearCacheStats:
        """What was counted, and how many connections listen."""
        with self._guard():
            is_own = self._pid == os.getpid()  # in a forked child nobody listens
            tracking = sum(is_own and listener.is_tracking for listener in self._listeners.values())
            return NearCacheStats(self._hits, self._misses, self._invalidated, self._flushes, tracking)

    def close(self) -> None:
        """Ends the threads that listen and gives the memory back. May be called again.

        The clients stay open, and later calls go to them. A thread that is just connecting is waited for, for about
        `heartbeat_seconds` at the most.
        """
        with self._guard():
            self._is_closed = True  # from here on nobody listens to another primary
            listeners, self._listeners = self._listeners, {}
        if self._pid == os.getpid():
            for listener in listeners.values():
                listener.stop()
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
        with suppress(droppable.ClosedError):  # nothing is kept then
            self._cache.delete_many(keys)
        if are_told:
            self._count(invalidated=len(keys))

    def _forget_all(self, lost: Listener | None = None) -> None:
        with self._lock:  # of `stats()` too: whoever sees there that nobody listens finds nothing that was kept
            if lost is not None:
                lost.is_tracking = False
            self._told += 1
            with suppress(droppable.ClosedError):
                self._cache.clear()
            self._flushes += 1

    # Which keys are kept

    def _may_keep(self, key: bytes) -> bool:
        if self._is_closed or self._pid != os.getpid() or (self.prefixes and not key.startswith(self.prefixes)):
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

    def _kept(self, key: bytes, value: Any, left_ms: Any, asked_at: float) -> Any:
        """What is kept of an answer. left_ms: what PTTL said; -1: no expiry; -2: gone since the read.

        It expires no later than at the server, however long the answer took: what is left counts from `asked_at`.

        In a cluster another node than the expected one may have answered, at which nobody listens. Raises what was
        answered, where that is an error.
        """
        if isinstance(value, Exception):
            raise value
        if isinstance(left_ms, Exception):  # a user who may not ask for it
            left_ms = _GONE
        if not self._may_keep(key):
            left_ms = 0
        elif left_ms == -1 or value is None:
            return value
        return Expiring.of(value, left_ms, asked_at)

    def _listen_to(self, node: Any) -> None:
        with self._lock:
            if node.name not in self._listeners and not self._is_closed:
                self._listeners[node.name] = Listener(self, node.name, self.client.get_redis_connection(node))

    def _count(self, hits: int = 0, misses: int = 0, invalidated: int = 0) -> None:
        with self._guard():
            self._hits += hits
            self._misses += misses
            self._invalidated += invalidated


def _codec(client: Any) -> tuple[Any, ...]:
    """What a client makes of a value that it reads."""
    encoder = client.get_encoder()
    return encoder.decode_responses, encoder.encoding, encoder.encoding_errors


def _shortest(prefixes: Iterable[bytes]) -> tuple[bytes, ...]:
    """Without those that begin with another one: a server refuses both. None where one of them is empty: all keys."""
    kept: list[bytes] = []
    for prefix in sorted(prefixes):
        if not any(prefix.startswith(other) for other in kept):
            kept.append(prefix)
    return () if kept == [b""] else tuple(kept)
