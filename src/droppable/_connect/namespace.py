"""`SharedNamespace`: a part of a shared cache, which is emptied at once in all processes.

    name -- cell --> scope (8 bytes) -- in front of each key --> the entries
              |
              an entry of the shared cache: it may be dropped like any other

It is what `droppable.Namespace` is, and its keys have the same form. Each call reads the cell, so that a `clear()` of
another process counts from the moment at which it returned. A scope never comes twice: csrc/cache/scope.h.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from droppable._connect import values
from droppable._connect.calls import Calls
from droppable._flight import MISSING
from droppable._live import full_name
from droppable.lowlevel import EncodedKey, new_scope, shared_key

if TYPE_CHECKING:
    from droppable._arguments import Seconds
    from droppable._connect.shared import SharedCache, SharedCacheStats

T = TypeVar("T")

_CELLS: Final = (1).to_bytes(8, sys.byteorder)
"""The scope of the cells of a cache's own namespaces; smaller than any that new_scope() gives."""
_SCOPE_BYTES: Final = 8
_TRIES: Final = 10


class SharedNamespace(Calls):
    """A part of a `SharedCache` with keys of its own: `cache.namespace("users")`. It has the methods of the cache.

    All processes that ask the same server for the same name see the same entries; there is nothing to close.
    `clear()` takes the same short time for any number of entries. Their memory goes later, like that of entries that
    nobody reads. The small entry that says where a namespace's entries are may be dropped as well: it is empty then.

    A look-up reads two values, and counts as two in `stats()`. Threads and forks: as `SharedCache`.
    """

    __slots__ = ("__weakref__", "_cache", "_cell", "_name", "_outer")

    def __init__(self, cache: SharedCache, name: Hashable, outer: SharedNamespace | None = None) -> None:
        shared_key(name)  # which raises for what can be no key of all processes
        self._cache = cache
        self._name = name
        self._outer = outer
        self._cell = EncodedKey(name, _CELLS)

    @property
    def cache(self) -> SharedCache:
        """The cache that holds the entries."""
        return self._cache

    @property
    def name(self) -> Any:
        """The name that it was asked for by; within the outer namespace, if there is one."""
        return self._name

    def namespace(self, name: Hashable) -> SharedNamespace:
        """A namespace within this one: it has entries of its own, and is cleared with this one."""
        return SharedNamespace(self._cache, name, self)

    # Where the entries are

    def _found_scope(self) -> bytes | None:
        """The scope of its keys at this moment; None: there are none."""
        cell = self._cell_key(None if self._outer is None else self._outer._found_scope())
        return None if cell is None else _scope_of(self._cache.get(cell))

    def _made_scope(self) -> bytes | None:
        """The same; where there is none yet, a new one. None: it could not be stored."""
        cell = self._cell_key(None if self._outer is None else self._outer._made_scope())
        for _ in range(_TRIES if cell is not None else 0):
            scope = _scope_of(self._cache.get(cell))
            if scope is not None:
                return scope
            scope = new_scope()
            if self._cache.add(cell, scope):
                return scope
            if cell not in self._cache:
                break
        return None

    def _read_scope(self) -> bytes | None:
        """As `_found_scope`, where it can be read from the server's memory: nobody is waited for."""
        cell = self._cell_key(None if self._outer is None else self._outer._read_scope())
        return None if cell is None else _scope_of(self._cache._link.read(cell, None))

    def _cell_key(self, outer: bytes | None) -> EncodedKey | None:
        if self._outer is None:
            return self._cell
        return None if outer is None else EncodedKey(self._cell, outer)

    def _found(self, key: Hashable) -> EncodedKey | None:
        scope = self._found_scope()
        if scope is None:
            shared_key(key)
            return None
        return EncodedKey(key, scope)

    def _made(self, key: Hashable) -> EncodedKey | None:
        shared_key(key)
        scope = self._made_scope()
        return None if scope is None else EncodedKey(key, scope)

    def _made_anyway(self, key: Hashable) -> EncodedKey:
        """Where it could not be stored, a key that nobody finds again: the value is wanted all the same."""
        return self._made(key) or EncodedKey(key, new_scope())

    async def _amade_anyway(self, key: Hashable) -> EncodedKey:
        shared_key(key)
        scope = self._read_scope()
        if scope is not None:
            return EncodedKey(key, scope)
        encoded = EncodedKey(key)
        made: EncodedKey = await self._cache._link.wait_in_thread(self._made_anyway, encoded)
        return made

    # The calls

    def get(self, key: Hashable, default: Any = None, *, copy: bool = False) -> Any:
        """As `SharedCache.get`."""
        encoded = self._found(key)
        return default if encoded is None else self._cache.get(encoded, default, copy=copy)

    async def aget(self, key: Hashable, default: Any = None, *, copy: bool = False) -> Any:
        """As `SharedCache.aget`."""
        shared_key(key)
        scope = self._read_scope()
        if scope is not None:
            return await self._cache.aget(EncodedKey(key, scope), default, copy=copy)
        encoded = EncodedKey(key)
        value = await self._cache._link.wait_in_thread(self.get, encoded, MISSING)
        return default if value is MISSING else values.own_value(value, copy)

    def get_many(self, keys: Iterable[Hashable]) -> dict[Any, Any]:
        """As `SharedCache.get_many`."""
        wanted = list(keys)
        scope = self._found_scope()
        encoded = {EncodedKey(key, scope): key for key in wanted}
        if scope is None:
            return {}
        return {encoded[key]: value for key, value in self._cache.get_many(encoded).items()}

    def __contains__(self, key: Hashable) -> bool:
        encoded = self._found(key)
        return encoded is not None and encoded in self._cache

    def set(self, key: Hashable, value: Any, ttl: Seconds | None = None) -> bool:
        """As `SharedCache.set`."""
        encoded = self._made(key)
        return encoded is not None and self._cache.set(encoded, value, ttl)

    async def aset(self, key: Hashable, value: Any, ttl: Seconds | None = None) -> bool:
        """As `SharedCache.aset`."""
        return await self._cache.aset(await self._amade_anyway(key), value, ttl)

    def add(self, key: Hashable, value: Any, ttl: Seconds | None = None) -> bool:
        """As `SharedCache.add`."""
        encoded = self._made(key)
        return encoded is not None and self._cache.add(encoded, value, ttl)

    def incr(self, key: Hashable, delta: int = 1, initial: int | None = None) -> int:
        """As `SharedCache.incr`."""
        encoded = self._found(key) if initial is None else self._made(key)
        try:
            return self._cache.incr(
                encoded or EncodedKey(key, new_scope()), delta, None if encoded is None else initial
            )
        except KeyError:
            raise KeyError(key) from None

    def touch(self, key: Hashable, ttl: Seconds | None = None) -> bool:
        """As `SharedCache.touch`."""
        return self._cache.touch(self._found(key) or EncodedKey(key, new_scope()), ttl)

    def expires_in(self, key: Hashable) -> float:
        """As `SharedCache.expires_in`."""
        encoded = self._found(key)
        if encoded is not None:
            with suppress(KeyError):
                return self._cache.expires_in(encoded)
        raise KeyError(key)

    def set_many(self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]], ttl: Seconds | None = None) -> list[Any]:
        """As `SharedCache.set_many`."""
        pairs = dict(items.items() if isinstance(items, Mapping) else items)
        scope = self._made_scope()
        if scope is None:
            return list(pairs)
        return [key for key, value in pairs.items() if not self._cache.set(EncodedKey(key, scope), value, ttl)]

    def delete(self, key: Hashable) -> bool:
        """As `SharedCache.delete`."""
        encoded = self._found(key)
        return encoded is not None and self._cache.delete(encoded)

    async def adelete(self, key: Hashable) -> bool:
        """As `SharedCache.adelete`."""
        was_there: bool = await self._cache._link.wait_in_thread(self.delete, EncodedKey(key))
        return was_there

    def get_or_create(
        self,
        key: Hashable,
        factory: Callable[[], T],
        ttl: Seconds | None = None,
        *,
        copy: bool = False,
        wait_seconds: Seconds = 30.0,
    ) -> T:
        """As `SharedCache.get_or_create`."""
        encoded = self._made_anyway(key)
        return self._cache.get_or_create(encoded, factory, ttl, copy=copy, wait_seconds=wait_seconds)

    async def aget_or_create(
        self,
        key: Hashable,
        factory: Callable[[], Awaitable[T]],
        ttl: Seconds | None = None,
        *,
        copy: bool = False,
        wait_seconds: Seconds = 30.0,
    ) -> T:
        """As `SharedCache.aget_or_create`."""
        encoded = await self._amade_anyway(key)
        return await self._cache.aget_or_create(encoded, factory, ttl, copy=copy, wait_seconds=wait_seconds)

    def clear(self) -> bool:
        """Forgets all entries, those of namespaces within this one too, in the same short time for any number.

        Values that are computed at this moment are returned to their callers and not found again. The server's other
        values stay, and so this is allowed where it was started with --no-flush.

        Returns:
            False where the server cannot be reached.

        Raises:
            ClosedError. OSError: only with strict=True.
        """
        if self._outer is None:
            return self._cache._forget(self._cell)
        outer = self._outer._found_scope()
        return self._cache._forget(EncodedKey(self._cell, outer or new_scope()))

    def stats(self) -> SharedCacheStats:
        """Those of the whole cache."""
        return self._cache.stats()

    def __repr__(self) -> str:
        outer = self._cache if self._outer is None else self._outer
        return f"<{full_name(type(self))} {self._name!r} of {outer!r}>"


def _scope_of(cell: Any) -> bytes | None:
    """Whoever can connect may have written something else there."""
    return cell if type(cell) is bytes and len(cell) == _SCOPE_BYTES and any(cell) else None
