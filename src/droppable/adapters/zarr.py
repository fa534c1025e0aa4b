"""zarr 3: a store in the process, to be put above a slow one.

    store = CacheStore(slow_store, cache_store=DroppableStore())

Values are arrays of bytes. What comes back lies on the cache's own memory, read-only, and is held while anything made
from it lives.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import numpy
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.buffer.core import default_buffer_prototype
from zarr.storage._utils import _normalize_byte_range_index

import droppable
from droppable.adapters._shared import cache_of, store


class DroppableStore(Store):
    """A store of zarr's in memory that the kernel may take back: it grows into what is free.

    A value may be gone at any time, and one that finds no memory is not stored. So it is no place for an array's only
    copy: use it as the `cache_store` of zarr's CacheStore, or for arrays that can be computed again.

    Threads: any. Fork: a child begins with an empty store, unless it is made with fork="share".

    Args:
        name: stores of one name share their entries; None: one of its own.
        read_only: as for each store of zarr's.
        options: what `droppable.Cache` takes, as max_bytes="1G".
    """

    supports_writes: bool = True
    supports_deletes: bool = True
    supports_listing: bool = True

    def __init__(self, name: str | None = None, *, read_only: bool = False, **options: Any) -> None:
        super().__init__(read_only=read_only)
        self._name = name
        self._cache: droppable.Cache[str, Any] = (
            droppable.Cache(**options) if name is None else cache_of("zarr", name, options)
        )

    @property
    def cache(self) -> droppable.Cache[str, Any]:
        """The cache behind it: for `stats()`, and for tests that drop what is in it."""
        return self._cache

    def with_read_only(self, read_only: bool = False) -> DroppableStore:
        other = type(self).__new__(type(self))
        Store.__init__(other, read_only=read_only)
        other._name, other._cache = self._name, self._cache
        return other

    def __str__(self) -> str:
        return f"droppable://{self._name or id(self._cache)}"

    def __repr__(self) -> str:
        return f"DroppableStore('{self}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DroppableStore) and self._cache is other._cache and self.read_only == other.read_only

    def __hash__(self) -> int:
        return hash((self._cache, self.read_only))

    def __reduce__(self) -> Any:
        if self._name is None:
            raise TypeError("a DroppableStore without a name cannot be pickled: another process could not find it")
        return _reopen, (self._name, self.read_only)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        self._is_open = True
        value = self._cache.get(key)
        if value is None:
            return None
        buffer = (prototype or default_buffer_prototype()).buffer.from_array_like(value)
        start, stop = _normalize_byte_range_index(buffer, byte_range)
        return buffer[start:stop]

    def set_sync(self, key: str, value: Buffer) -> None:
        self._check_writable()
        self._is_open = True
        store(self._cache, key, _elements(value), None)

    def delete_sync(self, key: str) -> None:
        self._check_writable()
        self._is_open = True
        self._cache.discard(key)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        return self.get_sync(key, prototype=prototype, byte_range=byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [self.get_sync(key, prototype=prototype, byte_range=byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return key in self._cache

    async def set(self, key: str, value: Buffer) -> None:
        self.set_sync(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        self._check_writable()
        self._is_open = True
        try:
            self._cache.add(key, _elements(value))
        except (droppable.RefusedError, droppable.ValueTooLargeError):
            pass  # as if it had been dropped at once

    async def delete(self, key: str) -> None:
        self.delete_sync(key)

    async def clear(self) -> None:
        self._check_writable()
        self._cache.clear()

    async def list(self) -> AsyncIterator[str]:
        for key in self._cache:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in self._below(prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        folder = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        for name in {key.removeprefix(folder).split("/")[0] for key in self._below(folder)}:
            yield name

    def _below(self, prefix: str) -> Iterator[str]:
        return (key for key in list(self._cache) if key.startswith(prefix))


def _elements(value: Buffer) -> Any:
    if not isinstance(value, Buffer):
        raise TypeError(f"value must be a zarr Buffer; you gave {value!r:.100}")
    return numpy.ascontiguousarray(value.as_numpy_array()).view(numpy.uint8)


def _reopen(name: str, read_only: bool) -> DroppableStore:
    return DroppableStore(name, read_only=read_only)
