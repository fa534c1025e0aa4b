"""fsspec: a cache of blocks that all open files of the process share.

    droppable.adapters.fsspec.register()
    with fsspec.open("https://...", cache_type="droppable", block_size=1 << 20) as file: ...

fsspec's own caches are one for each open file, and end with it. Here two opens of one file find each other's blocks:

    (file system, path, size, version) + block number  ->  the block, in droppable.named("fsspec:NAME")

fsspec hands a cache nothing but a function that fetches bytes. That function is a method of the open file, and the file
tells the rest. Where it is any other function, the blocks are of this cache alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from contextlib import suppress
from typing import Any, ClassVar

from fsspec.caching import BaseCache, register_cache

import droppable
from droppable.adapters._shared import cache_of, store

_VERSIONS = (
    "ETag", "etag", "Last-Modified", "LastModified", "last_modified", "Content-MD5", "Digest", "mtime", "updated",
    "created",
)  # fmt: skip
"""Where file systems say in a file's details which of its contents this is."""
_alone = itertools.count()


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
        options: what `droppable.Cache` takes, as max_bytes="1G"; into cache_options too.
    """

    name: ClassVar[str] = "droppable"

    def __init__(self, blocksize: int, fetcher: Any, size: int, name: str = "", **options: Any) -> None:
        super().__init__(blocksize, fetcher, size)
        self.nblocks = -(-size // blocksize)
        self._cache = cache_of("fsspec", name, options)
        self._file = (_identity(fetcher, size), blocksize)

    @property
    def cache(self) -> droppable.Cache[Any, bytes]:
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
        found = self._cache.get_many((self._file, number) for number in range(first, end))
        self.hit_count += len(found)
        self.miss_count += end - first - len(found)
        for is_there, numbers in itertools.groupby(range(first, end), lambda number: (self._file, number) in found):
            if is_there:
                yield from (found[self._file, number] for number in numbers)
            else:
                yield self._fetch_blocks(list(numbers))

    def _fetch_blocks(self, numbers: list[int]) -> bytes:
        start, stop = numbers[0] * self.blocksize, min((numbers[-1] + 1) * self.blocksize, self.size)
        self.total_requested_bytes += stop - start
        if len(numbers) == 1:
            block: bytes = self._cache.get_or_create((self._file, numbers[0]), lambda: self._read(start, stop))
            return block
        fetched = self._read(start, stop)
        for place, number in enumerate(numbers):
            block = fetched[place * self.blocksize : (place + 1) * self.blocksize]
            store(self._cache, (self._file, number), block, None)
        return fetched

    def _read(self, start: int, stop: int) -> bytes:
        fetched = bytes(self.fetcher(start, stop))
        if len(fetched) != stop - start:
            raise EOFError(
                f"bytes {start} to {stop} were asked for, and {len(fetched)} bytes came: did the file change?"
            )
        return fetched


def _identity(fetcher: Any, size: int) -> Hashable:
    """What the file is, for all who open it; a number that no other cache has where that is not known."""
    file = getattr(fetcher, "__self__", None)
    filesystem, path = getattr(file, "fs", None), getattr(file, "path", None)
    token = getattr(filesystem, "_fs_token", None)
    if token is None or not isinstance(path, str):
        return next(_alone)
    version = _version(getattr(file, "details", None))
    if not version:
        with suppress(Exception):  # it cannot say: as if it told no version
            version = _version(filesystem.info(path))  # type: ignore[union-attr]
    return str(token), path, size, version


def _version(details: Any) -> tuple[str, ...]:
    return tuple(str(details[name]) for name in _VERSIONS if details.get(name)) if isinstance(details, dict) else ()


def register() -> None:
    """Makes cache_type="droppable" known to fsspec. May be called again."""
    register_cache(DroppableBlockCache, clobber=True)
