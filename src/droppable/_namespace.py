"""`Namespace`: a part of a cache, which is emptied at once.

    name -- cell --> scope (8 bytes) -- in front of each key --> the entries
              |
              an entry of the cache itself: it may be dropped or evicted like any other

`clear()` deletes the cell. Whoever comes next makes another one, with a scope that was never used in this process
(csrc/cache/scope.h), and of the old entries nobody knows the scope any more. The same happens where the cell was lost.
The cell of a namespace within a namespace has the outer one's scope in front of its key, so it goes with the outer one.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast, overload

from droppable._arguments import Seconds
from droppable._flight import MISSING
from droppable._live import full_name
from droppable._mapping import K, LiveMapping, V
from droppable.lowlevel import EncodedKey, RefusedError, new_scope

if TYPE_CHECKING:
    from typing import TypeVar

    from droppable._cache import Cache

    T = TypeVar("T")

# What to do where there is no cell: binding/part.c
_LOOK: Final = 0
_PEEK: Final = 1
_MAKE: Final = 2

_CELLS: Final = (1).to_bytes(8, sys.byteorder)
"""The scope of the cells of a cache's own namespaces; smaller than any that new_scope() gives."""


def prefix_of(prefix: str | bytes) -> str | bytes:
    """prefix, where it is one.

    Raises:
        TypeError: it is neither str nor bytes.
    """
    if type(prefix) not in (str, bytes):
        raise TypeError(f"prefix must be str or bytes, as the keys are; you gave {prefix!r}")
    return prefix


class Namespace(LiveMapping[K, V]):
    """A part of a cache with keys of its own: `cache.namespace("user:17")`. It has the methods of a cache.

    Everybody who asks the same cache for the same name sees the same entries; there is nothing to close. The entries
    are stored in the cache, within its `max_bytes`, and counted in its `stats()`. A namespace takes one small entry
    more, which says where its entries are found. The kernel may take that one as well: the namespace is empty then.

    `clear()` takes the same short time for any number of entries. Their memory goes later, like that of entries that
    nobody reads.

    Threads and forks: as `Cache`. With fork="share" parent and child share what was there before the fork; what one of
    them stores or clears after it, the other does not see.
    """

    __slots__ = ("__weakref__", "_cache", "_cell", "_name", "_outer", "_pop_cursor")

    def __init__(self, cache: Cache[K, V], name: object, outer: Namespace[Any, Any] | None = None) -> None:
        self._cache: Cache[Any, V] = cache
        self._name = name
        self._outer = outer
        self._pop_cursor = 0
        self._cell = EncodedKey(name, _CELLS)

    @property
    def cache(self) -> Cache[K, V]:
        """The cache that holds the entries."""
        return cast("Cache[K, V]", self._cache)

    @property
    def name(self) -> Any:
        """The name that it was asked for by; within the outer namespace, if there is one."""
        return self._name

    def namespace(self, name: object) -> Namespace[K, V]:
        """A namespace within this one: it has entries of its own, and is cleared with this one."""
        self._check_open()
        return Namespace(self._cache, name, self)

    def _check_open(self) -> None:
        self._cache._check_open()

    def _cell_key(self, mode: int) -> EncodedKey | None:
        """Where the cell is now, or None where the outer namespace has none."""
        if self._outer is None:
            return self._cell
        outer = self._outer._scope(mode)
        return None if outer is None else EncodedKey(self._cell, outer)

    def _scope(self, mode: int) -> bytes | None:
        cell = self._cell_key(mode)
        return None if cell is None else self._cache._scope(cell, mode)

    def _made_scope(self) -> bytes:
        """The scope of its keys at this moment. Raises RefusedError where there is no memory for a cell."""
        scope = self._scope(_MAKE)
        assert scope is not None
        return scope

    def _found(self, key: object, mode: int) -> EncodedKey | None:
        """The key as the cache knows it, or None where the namespace has no entries."""
        scope = self._scope(mode)
        if scope is None:
            EncodedKey(key)  # which raises for what can be no key
            return None
        return EncodedKey(key, scope)

    def _made(self, key: object) -> EncodedKey:
        """The same, to store something under it. Raises RefusedError where there is no memory for a cell."""
        return EncodedKey(key, self._made_scope())

    def __getitem__(self, key: K) -> V:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return cast("V", value)

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def __delitem__(self, key: K) -> None:
        if not self.discard(key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        encoded = self._found(key, _PEEK)
        return encoded is not None and encoded in self._cache

    def __len__(self) -> int:
        """How many entries there are, as far as is known. All keys of the cache are looked through."""
        scope = self._scope(_PEEK)
        return 0 if scope is None else self._cache._count(scope)

    def _walk_own(self, cursor: int) -> tuple[int, list[K]] | None:
        scope = self._scope(_PEEK)
        return None if scope is None else self._cache._walk(cursor, scope)

    def _raw(self, key: object, /) -> tuple[int, Any] | None:
        encoded = self._found(key, _LOOK)
        return None if encoded is None else self._cache._raw(encoded)

    @overload
    def get(self, key: K, default: None = None, *, copy: bool = False) -> V | None: ...
    @overload
    def get(self, key: K, default: V | T, *, copy: bool = False) -> V | T: ...
    def get(self, key: K, default: Any = None, *, copy: bool = False) -> Any:
        """As `Cache.get`."""
        cell = self._cell if self._outer is None else self._cell_key(_LOOK)
        if cell is None:
            EncodedKey(key)  # which raises for what can be no key
            return default
        return self._cache._get_in(cell, key, default, copy)

    def set(self, key: K, value: V, ttl: Seconds | None = None, cost: Seconds | None = None) -> bool:
        """As `Cache.set`."""
        try:
            encoded = self._made(key)
        except RefusedError:
            return False
        return self._cache.set(encoded, value, ttl, cost)

    def add(self, key: K, value: V, ttl: Seconds | None = None, cost: Seconds | None = None) -> bool:
        """As `Cache.add`."""
        return self._cache.add(self._made(key), value, ttl, cost)

    def get_or_create(self, key: K, factory: Callable[[], V], ttl: Seconds | None = None, *, copy: bool = False) -> V:
        """As `Cache.get_or_create`."""
        return self._cache.get_or_create(self._made_anyway(key), factory, ttl, copy=copy)

    async def aget_or_create(
        self, key: K, factory: Callable[[], Awaitable[V]], ttl: Seconds | None = None, *, copy: bool = False
    ) -> V:
        """As `Cache.aget_or_create`."""
        return await self._cache.aget_or_create(self._made_anyway(key), factory, ttl, copy=copy)

    def _made_anyway(self, key: object) -> EncodedKey:
        """As `_made`; where there is no memory, a key that nobody will find again: the value is wanted all the same."""
        try:
            return self._made(key)
        except RefusedError:
            return EncodedKey(key, new_scope())

    @overload
    def pop(self, key: K, /) -> V: ...
    @overload
    def pop(self, key: K, /, default: V | T) -> V | T: ...
    def pop(self, key: K, /, default: Any = MISSING) -> Any:
        """As `Cache.pop`."""
        encoded = self._found(key, _LOOK)
        value = MISSING if encoded is None else self._cache.pop(encoded, MISSING)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def discard(self, key: K, /) -> bool:
        """As `Cache.discard`."""
        encoded = self._found(key, _PEEK)
        return encoded is not None and self._cache.discard(encoded)

    delete = discard

    def touch(self, key: K, ttl: Seconds | None) -> bool:
        """As `Cache.touch`."""
        encoded = self._found(key, _PEEK)
        return encoded is not None and self._cache.touch(encoded, ttl)

    def expires_in(self, key: K, /) -> float:
        """As `Cache.expires_in`."""
        encoded = self._found(key, _PEEK)
        try:
            if encoded is not None:
                return self._cache.expires_in(encoded)
        except KeyError:
            pass
        raise KeyError(key)

    def _find(self, key: object, /) -> tuple[Any, float] | None:
        encoded = self._found(key, _LOOK)
        return None if encoded is None else self._cache._find(encoded)

    def incr(self, key: K, delta: int = 1, initial: int | None = None) -> int:
        """As `Cache.incr`."""
        encoded = self._found(key, _LOOK) if initial is None else self._made(key)
        if encoded is None:
            raise KeyError(key)
        try:
            return self._cache.incr(encoded, delta, initial)
        except KeyError:
            raise KeyError(key) from None

    def transform(self, key: K, function: Callable[[V], V], default: Any = MISSING, ttl: Seconds | None = None) -> V:
        """As `Cache.transform`."""
        if default is not MISSING:
            return self._cache.transform(self._made(key), function, default, ttl)
        encoded = self._found(key, _LOOK)
        if encoded is None:
            raise KeyError(key)
        try:
            return self._cache.transform(encoded, function, ttl=ttl)
        except KeyError as error:
            if error.args and error.args[0] is encoded:
                raise KeyError(key) from None
            raise  # of function

    def get_many(self, keys: Iterable[K], /) -> dict[K, V]:
        """As `Cache.get_many`."""
        return self._cache._get_many(keys, self._scope(_LOOK) or new_scope())

    def set_many(self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: Seconds | None = None) -> list[K]:
        """As `Cache.set_many`."""
        try:
            scope = self._scope(_MAKE)
        except RefusedError:
            pairs = items.items() if isinstance(items, Mapping) else items
            return [key for key, _ in pairs]
        return self._cache._set_many(items, ttl, scope)

    def delete_many(self, keys: Iterable[K], /) -> int:
        """As `Cache.delete_many`."""
        return self._cache._delete_many(keys, self._scope(_PEEK) or new_scope())

    def clear(self) -> None:
        """Forgets all entries, those of namespaces within this one too, in the same short time for any number.

        Values that are computed at this moment are returned to their callers and not kept. The entries' memory is given
        back when it is needed; until then they count in the cache's `stats()` and `len()`.
        """
        cell = self._cell_key(_PEEK)
        scope = None if cell is None else self._cache._scope(cell, _PEEK)
        if cell is None or scope is None:
            return
        self._cache.discard(cell)
        self._cache._revoke(scope)

    def delete_prefix(self, prefix: str | bytes) -> int:
        """As `Cache.delete_prefix`, for the keys of this namespace; those of namespaces within it stay."""
        prefix_of(prefix)
        scope = self._scope(_PEEK)
        return 0 if scope is None else self._cache._delete_prefix(prefix, scope)

    def __repr__(self) -> str:
        outer = self._cache if self._outer is None else self._outer
        return f"<{full_name(type(self))} {self._name!r} of {outer!r}>"
