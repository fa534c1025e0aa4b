"""dogpile.cache: a backend, registered as "droppable" by an entry point.

    region = make_region().configure("droppable", expiration_time=300, arguments={"max_bytes": "256M"})

dogpile keeps the time at which a value was made beside it, and decides itself whether it is too old. It waits by locks
of its own, in the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dogpile.cache.api import NO_VALUE, CacheBackend

import droppable
from droppable.adapters._shared import cache_of, store, store_many


class DroppableBackend(CacheBackend):
    """A backend of dogpile.cache in memory that the kernel may take back: it grows into what is free.

    A value may be gone at any time; dogpile then has it made again. A value that finds no memory is not stored.

    Threads: any. Fork: a child begins with an empty cache, unless the arguments have "fork": "share".

    Args:
        arguments: what `droppable.Cache` takes, as {"max_bytes": "256M"}. "ttl" gives memory back that dogpile would
            keep: make it longer than the region's expiration_time. "name": backends of one name share their entries.

    Raises:
        TypeError, ValueError: the arguments have something that `droppable.Cache` does not take.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        options = dict(arguments)
        name = options.pop("name", None)
        self._cache: droppable.Cache[Any, Any] = (
            droppable.Cache(**options) if name is None else cache_of("dogpile", str(name), options)
        )

    @property
    def cache(self) -> droppable.Cache[Any, Any]:
        """The cache behind it: for `stats()`, and for tests that drop what is in it."""
        return self._cache

    def get(self, key: str) -> Any:
        return self._cache.get(key, NO_VALUE)

    def get_multi(self, keys: Iterable[str]) -> Sequence[Any]:
        keys = list(keys)
        found = self._cache.get_many(keys)
        return [found.get(key, NO_VALUE) for key in keys]

    def set(self, key: str, value: Any) -> None:
        store(self._cache, key, value, None)

    def set_multi(self, mapping: Mapping[str, Any]) -> None:
        store_many(self._cache, mapping, None)

    def delete(self, key: str) -> None:
        self._cache.discard(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        self._cache.delete_many(keys)
