"""The caches of this process that are open: all of them, held weakly, and those with a name that was asked for.

A change of the table of names is made under a lock that the same thread may take again (a signal handler, a finaliser).
A forked child gets a lock of its own, which nobody holds. Each step is one operation of a dict, so the child finds the
tables whole whatever other threads were doing.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from droppable._cache import Cache

PUBLISH: Final = "DROPPABLE_STATS"
"""This variable of the environment, set to 1, lets `droppable top` read the counts of every process with a cache."""

_live: dict[int, weakref.ref[Cache[Any, Any]]] = {}
_named: dict[str, Cache[Any, Any]] = {}
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def remember(cache: Cache[Any, Any]) -> None:
    """Lists cache, until it is closed or gone."""
    number = id(cache)

    def gone(reference: weakref.ref[Cache[Any, Any]]) -> None:
        if _live.get(number) is reference:  # else another cache has this number by now
            _live.pop(number, None)

    _live[number] = weakref.ref(cache, gone)
    if os.environ.get(PUBLISH, "") not in ("", "0"):
        from droppable import _stats_page  # here: most programs need none of it

        _stats_page.publish_or_tell(caches)


def forget(cache: Cache[Any, Any]) -> None:
    """Takes cache from the list, and its name from the names. It may be missing there."""
    _live.pop(id(cache), None)
    if cache.name is not None:
        with _lock:
            if _named.get(cache.name) is cache:
                del _named[cache.name]


def find_or_name(name: str, make: Callable[[], Cache[Any, Any]]) -> Cache[Any, Any]:
    """The cache of this name; make() gives it, with the name, where there is none."""
    with _lock:
        found = _named.get(name)
        if found is not None:
            return found
        made = make()
        # While it was made, this thread may have come here again: in a signal handler, or in a finaliser.
        found = _named.setdefault(name, made)
    if found is not made:
        made.close()
    return found


def caches() -> list[Cache[Any, Any]]:
    """All caches of this process that are open: named ones, those of decorated functions, and all others; oldest first.

    For monitoring: `for cache in droppable.caches(): print(cache.name, cache.stats())`. The list holds its caches
    alive. Any thread may ask for it. A forked child lists those that it has from its parent.
    """
    return [cache for reference in list(_live.values()) if (cache := reference()) is not None]


def full_name(kind: type) -> str:
    """A class's name for a repr: of this package's own with the package's."""
    return f"droppable.{kind.__name__}" if kind.__module__.startswith("droppable.") else kind.__qualname__
