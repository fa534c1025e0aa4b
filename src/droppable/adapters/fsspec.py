"""fsspec: a cache of blocks that all open files of the process share.

    droppable.adapters.fsspec.register()
    with fsspec.open("https://...", cache_type="droppable", block_size=1 << 20) as file: ...

fsspec's own caches are one for each open file, and end with it. Here two opens of one file find each other's blocks:

    (file system, path, size, version) + block number  ->  the block, in droppable.named("fsspec:NAME")

fsspec hands a cache nothing but a function that fetches bytes. That function is a method of the open file, and the file
tells the rest. Where it is any other function, the blocks are of this cache alone.

With `connect` the blocks lie in a cache that all processes of the host share. `_fsspec_file.py` says what a file is.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable, Iterator
from typing import Any, ClassVar, Final

from fsspec.caching import BaseCache, register_cache

import droppable
from droppable.adapters._fsspec_file import Origin
from droppable.adapters._shared import cache_of, connected, store

_LIBRARY: Final = "fsspec"


class DroppableBlockCache(BaseCache):
    """Blocks of files in memory that the kernel may take back: they grow into what is free.

    A block that was taken is fetched again. Where an open file does not say which version it is, its file system is
    asked once more when it is opened (`info()`: with HTTP a HEAD request). A file system that tells no version at all
    (HTTP without ETag and Last-Modified) cannot tell a file that was replaced by one of the same size: call
    `cache.clear()` then.

    Threads: any; neighbouring blocks that are missing are fetched by one call. Fork: a child fetches its own.

    Args:
        blocksize, fetcher, size: given by fsspec.
        name: files opened with one name share one cache; it goes into cache_options.
        connect: the path of a server's unix socket: all processes of the host share the blocks then. A block is
            shared only if the file's version is known, when it is opened and after the block was fetched. Blocks that
            are larger than the server's --max-value are not kept.
        options: what `droppable.Cache` takes, as max_bytes="1G"; with connect, what `droppable.connect` takes. Into
            cache_options too.

    Raises:
        TypeError, ValueError: an option is none of those, is out of range, or differs from those that the cache of this
            name, or of this path, was made with. PermissionError: see `droppable.connect`.
    """

    name: ClassVar[str] = "droppable"

    def __init__(
        self,
        blocksize: int,
        fetcher: Any,
        size: int,
        name: str = "",
        connect: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(blocksize, fetcher, size)
        self.nblocks = -(-size // blocksize)
        self._origin = Origin(fetcher, size)
        self._is_shared = connect is not None
        self._cache: droppable.Cache[Any, bytes] | droppable.SharedCache
        if connect is None:
            self._cache = cache_of(_LIBRARY, name, options)
            self._file: Hashable = self._origin.in_process(), blocksize
        else:
            self._cache = connected(_LIBRARY, connect, options)
            self._file = _LIBRARY, name, self._origin.on_host(), blocksize

    @property
    def cache(self) -> droppable.Cache[Any, bytes] | droppable.SharedCache:
        """The cache behind it: for `stats()`, and for tests that drop what is in it."""
        return self._cache

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = 0 if start is None else start
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        first, last = start // self.blocksize, (stop - 1) // self.blocksize
        blocks = b"".join(self._blocks(first, last + 1))
        return blocks[start - first * self.blocksize : stop - first * self.blocksize]

    def _blocks(self, first: int, end: int) -> Iterator[bytes]:
        got = self._cache.get_many([(self._file, number) for number in range(first, end)])
        found = {key[1]: block for key, block in got.items() if self._is_block(block, key[1])}
        self.hit_count += len(found)
        self.miss_count += end - first - len(found)
        for is_there, numbers in itertools.groupby(range(first, end), found.__contains__):
            if is_there:
                yield from (found[number] for number in numbers)
            else:
                yield self._fetch_blocks(list(numbers))

    def _is_block(self, block: Any, number: int) -> bool:
        """Whoever can connect to a server can write something else there."""
        return type(block) is bytes and len(block) == min(self.blocksize, self.size - number * self.blocksize)

    def _fetch_blocks(self, numbers: list[int]) -> bytes:
        start, stop = numbers[0] * self.blocksize, min((numbers[-1] + 1) * self.blocksize, self.size)
        self.total_requested_bytes += stop - start
        if len(numbers) == 1:
            return self._fetch_block(numbers[0], start, stop)
        fetched = self._read(start, stop)
        if self._may_keep():
            for place, number in enumerate(numbers):
                block = fetched[place * self.blocksize : (place + 1) * self.blocksize]
                store(self._cache, (self._file, number), block, None)
        return fetched

    def _fetch_block(self, number: int, start: int, stop: int) -> bytes:
        def make() -> bytes:
            block = self._read(start, stop)
            if not self._may_keep():
                raise _NotKept(block)
            return block

        try:
            block: bytes = self._cache.get_or_create((self._file, number), make)
        except _NotKept as changed:
            return changed.block
        return block if self._is_block(block, number) else self._read(start, stop)

    def _may_keep(self) -> bool:
        """Whether what was fetched just now is of the version that the blocks' keys name."""
        return not self._is_shared or self._origin.is_same()

    def _read(self, start: int, stop: int) -> bytes:
        fetched = bytes(self.fetcher(start, stop))
        if len(fetched) != stop - start:
            raise EOFError(
                f"bytes {start} to {stop} were asked for, and {len(fetched)} bytes came: did the file change?"
            )
        return fetched


class _NotKept(Exception):
    def __init__(self, block: bytes) -> None:
        super().__init__("no error: it takes a block past the cache, to all who wait for it")
        self.block = block


def register() -> None:
    """Makes cache_type="droppable" known to fsspec. May be called again."""
    register_cache(DroppableBlockCache, clobber=True)
