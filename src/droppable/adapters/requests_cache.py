"""requests-cache: a backend in the process.

    session = CachedSession(backend=DroppableCache())

requests-cache keeps responses and redirects as two mappings:

    responses   key -> the response, in droppable.named("requests_cache:NAME:responses")
    redirects   key of a redirected request -> key of the response
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from requests_cache.backends.base import BaseCache, BaseStorage
from requests_cache.policy import DEFAULT_CACHE_NAME

import droppable
from droppable.adapters._shared import cache_of, store


class DroppableStorage(BaseStorage[str, Any]):
    """A mapping in memory that the kernel may take back. Iteration leaves out what is gone.

    Args:
        cache_name, table_name: storages of the same names share their entries.
        serializer: as for each storage of requests-cache's; None: droppable's own forms, pickle among them.
        options: what `droppable.Cache` takes, as {"max_bytes": "256M"}.
        settings: as for each storage of requests-cache's.
    """

    def __init__(
        self,
        cache_name: str = DEFAULT_CACHE_NAME,
        table_name: str = "responses",
        serializer: Any = None,
        options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(serializer=serializer, **settings)
        self._cache = cache_of("requests_cache", f"{cache_name}:{table_name}", options or {})

    @property
    def cache(self) -> droppable.Cache[str, Any]:
        """The cache behind it: for `stats()`, and for tests that drop what is in it."""
        return self._cache

    def __getitem__(self, key: str) -> Any:
        value = self._cache[key]
        if self.serializer is not None:
            return self.deserialize(key, value)
        if hasattr(value, "cache_key"):
            value.cache_key = key
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        store(self._cache, key, self.serialize(value), None)

    def __delitem__(self, key: str) -> None:
        del self._cache[key]

    def __contains__(self, key: object) -> bool:
        return key in self._cache

    def __iter__(self) -> Iterator[str]:
        return iter(self._cache)

    def __len__(self) -> int:
        return len(self._cache)

    def clear(self) -> None:
        self._cache.clear()

    def bulk_delete(self, keys: Iterable[str]) -> None:
        self._cache.delete_many(keys)


class DroppableCache(BaseCache):
    """A backend of requests-cache's in memory that the kernel may take back: it grows into what is free.

    A response may be gone at any time, and is requested again then. Responses that expired stay until their memory is
    needed, because requests-cache may revalidate them or serve them stale.

    Threads: any. Fork: a child begins with an empty cache, unless options has "fork": "share".

    Args:
        cache_name: backends of one name share their responses.
        serializer: None: responses are pickled. Others as for each backend of requests-cache's.
        options: what `droppable.Cache` takes, as {"max_bytes": "256M"}; of the responses.
        settings: as for each backend of requests-cache's.
    """

    def __init__(
        self,
        cache_name: str = DEFAULT_CACHE_NAME,
        serializer: Any = None,
        options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(cache_name=cache_name, **settings)
        self.responses = DroppableStorage(cache_name, "responses", serializer, options=options, **settings)
        self.redirects = DroppableStorage(cache_name, "redirects")
