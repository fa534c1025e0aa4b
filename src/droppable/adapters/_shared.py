r"""What the adapters have in common: a cache by name, and stores that never keep an older value.

      django   cachelib   fsspec   ...      one module a library; none imports another
         \        |        /
              _shared
                 |
             droppable                      the public face

Libraries tell a cache's user nothing about values that were not stored. So where a value cannot be stored, its key is
absent afterwards: an older value would look like the new one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import droppable


def cache_of(library: str, name: str, options: Mapping[str, Any]) -> droppable.Cache[Any, Any]:
    """The cache that all of a library's objects in this process share that ask for this name.

    It is `droppable.named(f"{library}:{name}")`, made at the first call.

    Raises:
        TypeError: an option is none of `droppable.Cache`'s.
        ValueError: an option is out of range, or not what the cache was made with.
    """
    return droppable.named(f"{library}:{name}", **options)


_connected: Final[dict[tuple[str, str], tuple[dict[str, Any], droppable.SharedCache]]] = {}
"""By library and path: the options that it was connected with, and the cache."""


def connected(library: str, path: str | os.PathLike[str], options: Mapping[str, Any]) -> droppable.SharedCache:
    """The cache of the server at this path that all of a library's objects in this process share.

    Raises:
        TypeError: an option is none of `droppable.connect`'s, or of a wrong type.
        ValueError: an option is out of range, or not what the path was connected with before.
        PermissionError: see `droppable.connect`.
    """
    path = os.fspath(path)
    where = library, path
    if where not in _connected:
        made = droppable.connect(path, **options)
        if _connected.setdefault(where, (dict(options), made))[1] is not made:
            made.close()  # another thread was first. No lock: a child that is forked might find it locked
    given, cache = _connected[where]
    if given != options:
        raise ValueError(f"the path {path!r} was connected with {given!r} before; you gave {dict(options)!r}")
    return cache


def store(
    cache: droppable.Cache[Any, Any] | droppable.SharedCache, key: object, value: object, ttl: float | None
) -> bool:
    """Stores value, for ttl seconds. False: it was not stored, and key is absent.

    Raises:
        UnpicklableError: the value cannot be pickled; an older one stays.
    """
    try:
        return cache.set(key, value, ttl)
    except droppable.ValueTooLargeError:
        cache.discard(key)
        return False


def store_many(
    cache: droppable.Cache[Any, Any] | droppable.SharedCache, items: Mapping[Any, Any], ttl: float | None
) -> list[Any]:
    """Stores values, for ttl seconds: the keys of those that were not stored; they are absent.

    Raises:
        UnpicklableError: a value cannot be pickled. Of the others some are stored.
    """
    try:
        return cache.set_many(items, ttl)
    except droppable.ValueTooLargeError:
        return [key for key, value in items.items() if not store(cache, key, value, ttl)]
