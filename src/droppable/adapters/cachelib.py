"""cachelib: a cache in the process.

cache = DroppableCache(default_timeout=300)
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from cachelib.base import BaseCache

from droppable.adapters._cachelib import CachelibMethods


class DroppableCache(CachelibMethods, BaseCache):
    """A cache of cachelib's in memory that the kernel may take back: it grows into what is free.

    A value may be gone at any time, as with memcached. A value that finds no memory is not stored: `set` returns False.
    Values are copies; a bytearray comes back as bytes, a NumPy array read-only. `inc` and `dec` keep the time at which
    the entry expires, and lose no count.

    Threads: any. Fork: a child begins with an empty cache, unless it is made with fork="share".

    Args:
        default_timeout: seconds, or a timedelta; 0: never.
        ignore_delete_many_errors: as for each cache of cachelib's.
        name: caches of one name share their entries; None: one of its own.
        options: what `droppable.Cache` takes except ttl, as max_bytes="256M".
    """

    def __init__(
        self,
        default_timeout: int | timedelta = 300,
        ignore_delete_many_errors: bool = True,
        *,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors)
        self._open("cachelib", name, options)
