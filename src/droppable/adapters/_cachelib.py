r"""What the backends for cachelib and for Flask-Caching have in common, beside the base class of each library.

cachelib.DroppableCache        flask_caching.DroppableCache
                  \              /
                   CachelibMethods          the calls of cachelib's BaseCache
                         |
                      _shared
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import droppable
from droppable.adapters._shared import cache_of, store, store_many

_TRIES: Final = 100


class CachelibMethods:
    """The calls that cachelib's documentation describes. Derive from it first, then from the library's base class."""

    serializer: Any = None
    """None: droppable's own forms. An object with dumps(value) and loads(data): what cachelib's other backends take."""
    default_timeout: int

    def _open(self, library: str, name: str | None, options: Mapping[str, Any]) -> None:
        if "ttl" in options:
            raise TypeError("a droppable cache of this library takes no ttl: use default_timeout")
        self._cache: droppable.Cache[Any, Any] = (
            droppable.Cache(**options) if name is None else cache_of(library, name, options)
        )

    @property
    def cache(self) -> droppable.Cache[Any, Any]:
        """The cache behind it: for `stats()`, and for tests that drop what is in it."""
        return self._cache

    def _ttl(self, timeout: float | timedelta | None) -> float:
        """Seconds; 0 or less: it has expired already."""
        if timeout is None:
            timeout = self.default_timeout
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        return math.ceil(seconds) if seconds else droppable.NEVER

    def _dumps(self, value: Any) -> Any:
        return value if self.serializer is None else self.serializer.dumps(value)

    def _loads(self, value: Any) -> Any:
        return value if self.serializer is None or value is None else self.serializer.loads(value)

    def get(self, key: str) -> Any:
        return self._loads(self._cache.get(key))

    def get_many(self, *keys: str) -> list[Any]:
        found = self._cache.get_many(keys)
        return [self._loads(found.get(key)) for key in keys]

    def set(self, key: str, value: Any, timeout: float | timedelta | None = None) -> bool:
        ttl = self._ttl(timeout)
        if ttl <= 0:
            self._cache.discard(key)
            return True
        return store(self._cache, key, self._dumps(value), ttl)

    def set_many(self, mapping: Mapping[str, Any], timeout: float | timedelta | None = None) -> list[Any]:
        """The keys that were stored."""
        ttl = self._ttl(timeout)
        if ttl <= 0:
            self._cache.delete_many(mapping)
            return list(mapping)
        failed = store_many(self._cache, {key: self._dumps(value) for key, value in mapping.items()}, ttl)
        return [key for key in mapping if key not in failed]

    def add(self, key: str, value: Any, timeout: float | timedelta | None = None) -> bool:
        ttl = self._ttl(timeout)
        if ttl <= 0:
            return key not in self._cache
        try:
            return self._cache.add(key, self._dumps(value), ttl)
        except (droppable.RefusedError, droppable.ValueTooLargeError):
            return False

    def delete(self, key: str) -> bool:
        return self._cache.discard(key)

    def has(self, key: str) -> bool:
        return key in self._cache

    def clear(self) -> bool:
        self._cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        """The new value, or None where no memory is left. The entry expires when it would have."""

        def more(value: Any) -> Any:
            return self._dumps((self._loads(value) or 0) + delta)

        try:
            for _ in range(_TRIES):
                try:
                    total: int = self._loads(self._cache.transform(key, more))
                except KeyError:
                    if self._cache.add(key, self._dumps(delta), self._ttl(None)):
                        return delta
                else:
                    return total
        except droppable.RefusedError:
            pass
        return None

    def dec(self, key: str, delta: int = 1) -> int | None:
        return self.inc(key, -delta)
