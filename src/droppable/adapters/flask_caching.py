"""Flask-Caching: a backend in the process.

app.config["CACHE_TYPE"] = "droppable.adapters.flask_caching.DroppableCache"
"""

from __future__ import annotations

from typing import Any

from flask_caching.backends.base import BaseCache

from droppable.adapters._cachelib import CachelibMethods


class DroppableCache(CachelibMethods, BaseCache):
    """A backend of Flask-Caching's in memory that the kernel may take back: it grows into what is free.

    Settings:
        CACHE_DEFAULT_TIMEOUT, CACHE_KEY_PREFIX, CACHE_IGNORE_ERRORS, CACHE_SERIALIZER: as always.
        CACHE_OPTIONS: what `droppable.Cache` takes except ttl, as {"max_bytes": "256M"}; and "name": applications of
            one name share their entries.
        CACHE_THRESHOLD is ignored: nothing here is bounded in entries.

    A value may be gone at any time, as with memcached. Values are copies. Threads: any. Fork: a child begins with an
    empty cache, unless CACHE_OPTIONS has "fork": "share".
    """

    def __init__(
        self,
        default_timeout: int = 300,
        ignore_delete_many_errors: bool = False,
        *,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors)
        self._open("flask_caching", name, options)

    @classmethod
    def factory(cls, app: Any, config: Any, args: list[Any], kwargs: dict[str, Any]) -> DroppableCache:
        """Called by Flask-Caching."""
        return cls(*args, **kwargs)
