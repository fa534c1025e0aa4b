"""`droppable.Cache`: a mapping whose memory the kernel may take back at any moment."""

import os
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

from droppable import _values
from droppable._arguments import Backing, Fork, Seconds, read_choice, read_size, read_wait
from droppable._flight import MISSING, Flights, keeping_for
from droppable._stats import CacheStats
from droppable.lowlevel import CoreCache, EncodedKey, Layout

T = TypeVar("T")

_BACKINGS: Final = {"auto": 0, "lazyfree": 0, "droppable": 1}
_FORKS: Final = {"wipe": False, "share": True}
DISABLE: Final = "DROPPABLE_DISABLE"
"""This variable of the environment, set to 1, makes every cache that is made empty for good."""
_VIEWABLE: Final = frozenset({_values.KIND_BYTES, _values.KIND_ARRAY})


class Serializer(Protocol):
    """What `Cache(serializer=...)` takes: for values that are neither bytes-like, str, nor NumPy arrays."""

    def dumps(self, value: Any, /) -> bytes: ...
    def loads(self, data: bytes, /) -> Any: ...


class View:
    """A value's bytes in place, for one `with` block: see `Cache.view`."""

    __slots__ = ("_buffer", "_memory")

    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer
        self._memory: memoryview | None = None

    def __enter__(self) -> memoryview:
        self._memory = memoryview(self._buffer)
        return self._memory

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        memory, self._memory, self._buffer = self._memory, None, None
        if memory is not None:
            try:
                memory.release()
            except BufferError:
                pass  # something made from it is still alive, and keeps the pin for as long


class Cache(CoreCache):
    """A cache in memory that the kernel may take back page by page, least recently used first.

    It needs no size: it grows into the memory that is free, inside the cgroup's limit, and shrinks inside the
    allocation that needs the memory. A value that was dropped is a miss, never an exception and never wrong bytes.

    Keys are compared by type and value: str, bytes, int, float, bool, None, tuples and frozensets, and whatever else is
    hashable and can be pickled, by what it is made of. For keys of more than 4 KB a digest is stored: iteration skips
    them. Values: bytes-like objects come back as equal bytes; str as str; NumPy arrays
    come back read-only, from one page upwards on the cache's own memory, pinned while anything made from them lives and
    droppable again after; everything else goes through pickle 5, with large buffers (the columns of a DataFrame, say)
    out of band and in place. Only what this process wrote itself is ever unpickled.

    Threads: every method may be called from any thread. Fork: the child finds the cache empty, unless fork="share".
    Arrays that are held stay valid in both processes, after `close()`, and until the interpreter ends.

    With DROPPABLE_DISABLE=1 in the environment a new cache keeps nothing, to find out whether a fault has to do with
    caching: each `get` misses, each `set` is accepted (True), counted, and evicted at once.

    Args:
        max_bytes: bound on the memory that the cache takes, in bytes or as text ("64M", "1.5G": powers of 1024), with
            dead values whose memory was not given back or written again yet; None: free memory alone is the bound. Up
            to 3/16 more (at least 96 KiB) may be resident: memory that is just being emptied or written again, and the
            index. Arrays that are held after their entries are gone are not counted. For fairness between caches;
            safety does not need it.
        ttl: seconds or a timedelta until an entry expires, unless `set()` says otherwise; None or `NEVER`: never.
        backing: "lazyfree" (what "auto" chooses): private memory marked with MADV_FREE; can be pinned, works on every
            kernel since 4.12. "droppable": MAP_DROPPABLE, Linux 6.11 and newer: never in swap or a core dump; nothing
            can be pinned, so arrays are copies.
        serializer: used instead of pickle for values that have no native form.
        fork: "share": the child keeps reading what was cached before the fork, copy-on-write ("lazyfree" only).
        wait_seconds: how long a caller waits, at most, while another caller computes the same key; then it computes the
            value itself. A backstop: most waits that could never end are noticed much earlier.
        linger_seconds: how long a coroutine's computation goes on after the last caller who waited for it was
            cancelled; 0: it is cancelled with that caller.
        layout: sizes inside, for tests and small machines; see `droppable.lowlevel.Layout`.

    Raises:
        UnsupportedError: this kernel has no such backing.
        MemoryError: no address space (RLIMIT_AS).
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        max_bytes: int | float | str | None = None,
        ttl: Seconds | None = None,
        backing: Backing = "auto",
        serializer: Serializer | None = None,
        *,
        fork: Fork = "wipe",
        wait_seconds: Seconds = 30.0,
        linger_seconds: Seconds = 1.0,
        layout: Layout | None = None,
    ) -> None:
        core_backing = read_choice("backing", backing, _BACKINGS)
        shares_on_fork = read_choice("fork", fork, _FORKS)
        if shares_on_fork and backing == "droppable":
            raise ValueError("fork='share' needs backing='lazyfree': the kernel wipes droppable memory on fork")
        bound_bytes = read_size("max_bytes", max_bytes)
        flights = Flights(read_wait("wait_seconds", wait_seconds), read_wait("linger_seconds", linger_seconds))
        layout = layout or Layout()
        encode, decode = _values.coder(serializer)
        super().__init__(
            backing=core_backing,
            share_on_fork=shares_on_fork,
            max_bytes=bound_bytes or 0,
            ttl=ttl,
            shards=layout.shards,
            segment_bytes=layout.segment_bytes,
            span_bytes=layout.span_bytes,
            encode=encode,
            decode=decode,
            unloadable=_values.unloadable,
            disabled=os.environ.get(DISABLE, "") not in ("", "0"),
        )
        self._max_bytes = bound_bytes
        self._flights = flights

    @property
    def max_bytes(self) -> int | None:
        """The bound given at the start, or None."""
        return self._max_bytes

    def view(self, key: object) -> View:
        """The bytes of a value in place, for a `with` block: `with cache.view(key) as memory: ...`.

        memory is a read-only memoryview of bytes (of an array: its elements in memory order). Values of 32 KiB or more,
        and arrays of a page or more, are pinned and not copied; smaller ones are copied, which is cheaper than a pin.

        Raises:
            KeyError: there is no such value now.
            TypeError: the value is neither bytes nor an array, so its bytes would mean nothing.
        """
        raw = self._raw(key)
        if raw is None:
            raise KeyError(key)
        kind, buffer = raw
        if kind not in _VIEWABLE:
            raise TypeError(f"the value of {key!r} is neither bytes nor an array; use get()")
        return View(buffer)

    def _create(self, key: EncodedKey, factory: Callable[[], T], ttl: Seconds | None) -> T:
        # The rest of get_or_create(), which has just seen a miss.
        return self._flights.do(self, key, factory, keeping_for(ttl))

    async def aget_or_create(self, key: object, factory: Callable[[], Awaitable[T]], ttl: Seconds | None = None) -> T:
        """As `get_or_create`, with a coroutine function: tasks wait without blocking their event loop.

        The computation runs in a task of its own, in a copy of the first caller's context. It goes on while anybody
        waits for it, whoever of them is cancelled, and for `linger_seconds` after the last one left.
        """
        encoded = EncodedKey(key)  # once: the factory may change what the key is made of
        value = self.get(encoded, MISSING)
        if value is not MISSING:
            return value  # type: ignore[no-any-return]
        from droppable._flight import tasks  # which imports asyncio

        return await tasks.do(self._flights, self, encoded, factory, keeping_for(ttl))

    def stats(self) -> CacheStats:
        """Counts of this moment; each is exact, and they may be of slightly different moments."""
        counts = self._counts()
        return CacheStats(
            stored_bytes=counts.pop("bytes"),
            dropped_index_pages=counts.pop("index_lost_pages"),
            **counts,
        )

    def __iter__(self) -> Iterator[Any]:
        """The keys, in no order. Keys that come or go meanwhile may be missed; a value may be gone when asked for."""
        cursor = 0
        while (batch := self._walk(cursor)) is not None:
            cursor, keys = batch
            yield from keys

    def __enter__(self) -> "Cache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = self._counts()
        return f"<droppable.Cache: {counts['entries']} entries, {counts['bytes']} bytes stored>"
