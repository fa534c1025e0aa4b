"""aiocache: a backend in the process.

    cache = DroppableCache(namespace="main")
    @cached(cache=DroppableCache, ttl=10)

aiocache's locks (`RedLock`, `@cached_stampede`) are entries whose keys end in "-lock". An entry may be gone at any
moment, and a lock that vanishes is none. So these entries lie in a dict, with the time at which each of them ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

import droppable
from droppable.adapters._shared import cache_of, store

_LOCK: Final = "-lock"
_TRIES: Final = 100


class DroppableCache(BaseCache):  # type: ignore[misc, unused-ignore]
    """A cache of aiocache's in memory that the kernel may take back: it grows into what is free.

    A value may be gone at any time, as with memcached. A value that finds no memory is not stored, and `set` returns
    False. No method leaves the event loop: each is short. `increment` keeps the time at which the entry expires.

    Threads: any; but aiocache's locks belong to one event loop. Fork: a child begins with an empty cache, unless it is
    made with options={"fork": "share"}.

    Args:
        serializer, plugins, namespace, timeout, ttl: as for each cache of aiocache's. Without a serializer values have
            droppable's own forms.
        name: caches of one name share their entries; None: one of its own.
        options: what `droppable.Cache` takes except ttl, as {"max_bytes": "256M"}.
    """

    NAME = "droppable"

    def __init__(
        self, serializer: Any = None, *, name: str | None = None, options: Mapping[str, Any] | None = None, **more: Any
    ) -> None:
        super().__init__(serializer=serializer or NullSerializer(), **more)
        given = dict(options or {})
        if "ttl" in given:
            raise TypeError("options of a droppable cache has no ttl: give ttl= itself")
        self._cache: droppable.Cache[Any, Any] = (
            droppable.Cache(**given) if name is None else cache_of("aiocache", name, given)
        )
        self._locks: dict[str, tuple[Any, float]] = {}

    @property
    def cache(self) -> droppable.Cache[Any, Any]:
        """The cache behind it: for `stats()`, and for tests that drop what is in it."""
        return self._cache

    @classmethod
    def parse_uri_path(cls, path: str) -> dict[str, Any]:
        return {}

    def _lock_of(self, key: str) -> Any:
        """What holds this lock; None where nobody does, or too long."""
        value, ends = self._locks.get(key, (None, 0.0))
        if ends <= time.monotonic():
            self._locks.pop(key, None)
            return None
        return value

    async def _get(self, key: str, encoding: str | None = "utf-8", _conn: Any = None) -> Any:
        held = self._lock_of(key) if key.endswith(_LOCK) else None
        return self._cache.get(key) if held is None else held

    async def _gets(self, key: str, encoding: str | None = "utf-8", _conn: Any = None) -> Any:
        return await self._get(key)

    async def _multi_get(self, keys: Iterable[str], encoding: str | None = "utf-8", _conn: Any = None) -> list[Any]:
        keys = list(keys)
        found = self._cache.get_many(keys)
        return [found.get(key) for key in keys]

    async def _set(
        self, key: str, value: Any, ttl: float | None = None, _cas_token: Any = None, _conn: Any = None
    ) -> Any:
        if _cas_token is None:
            return store(self._cache, key, value, ttl or None)
        for _ in range(_TRIES):  # OptimisticLock
            try:
                self._cache.transform(key, lambda old: _swap(old, _cas_token, value), ttl=ttl or None)
            except (_OtherValueError, KeyError):
                return 0
            except droppable.RefusedError:
                return 0
            return True
        return 0

    async def _multi_set(self, pairs: Iterable[tuple[str, Any]], ttl: float | None = None, _conn: Any = None) -> bool:
        for key, value in pairs:
            store(self._cache, key, value, ttl or None)
        return True

    async def _add(self, key: str, value: Any, ttl: float | None = None, _conn: Any = None) -> bool:
        if key.endswith(_LOCK):
            if self._lock_of(key) is None and key not in self._cache:
                self._locks[key] = value, time.monotonic() + (ttl or droppable.NEVER)
                return True
        else:
            try:
                if self._cache.add(key, value, ttl or None):
                    return True
            except (droppable.RefusedError, droppable.ValueTooLargeError):
                return False
        raise ValueError(f"Key {key} already exists, use .set to update the value")

    async def _exists(self, key: str, _conn: Any = None) -> bool:
        return key in self._cache or (key.endswith(_LOCK) and self._lock_of(key) is not None)

    async def _increment(self, key: str, delta: int, _conn: Any = None) -> int:
        def more(value: Any) -> int:
            try:
                return int(value) + delta
            except ValueError:
                raise TypeError("Value is not an integer") from None

        total: int = self._cache.transform(key, more, default=0)
        return total

    async def _expire(self, key: str, ttl: float, _conn: Any = None) -> bool:
        return self._cache.touch(key, ttl or droppable.NEVER)

    async def _delete(self, key: str, _conn: Any = None) -> int:
        held = self._locks.pop(key, None)
        return int(self._cache.discard(key) or held is not None)

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        for key in [key for key in self._locks if key.startswith(namespace or "")]:
            del self._locks[key]
        if namespace:
            self._cache.delete_prefix(namespace)
        else:
            self._cache.clear()
        return True

    async def _raw(
        self, command: str, *arguments: Any, encoding: str | None = "utf-8", _conn: Any = None, **more: Any
    ) -> Any:
        return getattr(self._cache, command)(*arguments, **more)

    async def _redlock_release(self, key: str, value: Any) -> int:
        if self._lock_of(key) != value:
            return 0
        del self._locks[key]
        return 1


class _OtherValueError(Exception):
    """What is stored is not what a lock saw."""


def _swap(old: Any, seen: Any, new: Any) -> Any:
    if old != seen:
        raise _OtherValueError
    return new
