"""`droppable.Cache`: a mapping whose memory the kernel may take back at any moment."""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Never, Protocol, Self, TypeVar, cast, overload

from droppable import _values
from droppable._arguments import (
    Backing,
    Fork,
    Seconds,
    Write,
    read_choice,
    read_factory,
    read_function,
    read_instance,
    read_serializer,
    read_size,
    read_wait,
    refuse_unknown,
)
from droppable._flight import MISSING, Flights, keeping_for
from droppable._live import forget, full_name, remember
from droppable._mapping import K, LiveMapping, V
from droppable._namespace import Namespace, prefix_of
from droppable._stats import CacheStats, TierStats
from droppable.lowlevel import ClosedError, CoreCache, EncodedKey, Layout, UnsupportedError

if TYPE_CHECKING:
    from droppable._tiers import TieredCore

T = TypeVar("T")

_BACKINGS: Final = {"auto": 0, "lazyfree": 0, "droppable": 1}
_FORKS: Final = {"wipe": False, "share": True}
DISABLE: Final = "DROPPABLE_DISABLE"
"""This variable of the environment, set to 1, makes every cache that is made empty for good."""


class Serializer(Protocol):
    """What `Cache(serializer=...)` takes: for values that are neither bytes-like, str, nor NumPy arrays."""

    def dumps(self, value: Any, /) -> bytes | str:
        """A value as bytes. Text is stored as UTF-8. What this raises twice in a row becomes an `UnpicklableError`."""
        ...

    def loads(self, data: bytes, /) -> Any:
        """The value of these bytes. Where it raises twice in a row, the value counts as unloadable, and is a miss."""
        ...


class Cache(CoreCache, LiveMapping[K, V]):
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
        below: a slower mapping (diskcache, a client of Redis, any other): where this cache misses, it is asked before a
            value is computed, and whatever is stored or deleted here is stored or deleted there. See the chapter on
            tiers.
        write: "through": a value is written to `below` before the call returns; "behind": by a thread, soon after.
        layout: sizes inside, for tests and small machines; see `droppable.lowlevel.Layout`.

    Raises:
        UnsupportedError: this kernel has no such backing.
        MemoryError: no address space (RLIMIT_AS).
        ValueError: an argument is out of range.
    """

    _pop_cursor = 0
    _name: str | None = None
    _tier: object = None  # of a cache with below=
    _options: Mapping[str, Any] = {}  # of a cache that was asked for by name

    def __init__(
        self,
        *without_name: Never,
        max_bytes: int | float | str | None = None,
        ttl: Seconds | None = None,
        backing: Backing = "auto",
        serializer: Serializer | None = None,
        fork: Fork = "wipe",
        wait_seconds: Seconds = 30.0,
        linger_seconds: Seconds = 1.0,
        below: MutableMapping[K, V] | None = None,
        write: Write = "through",
        layout: Layout | None = None,
        **unknown: Never,
    ) -> None:
        if without_name:
            raise TypeError(
                "Cache() takes its options by name, as Cache(max_bytes='64M', ttl=600), and no number of entries: free "
                f"memory is the bound, or max_bytes in bytes; you gave {', '.join(map(repr, without_name))}"
            )
        if unknown:
            refuse_unknown("Cache()", unknown)
        core_backing = read_choice("backing", backing, _BACKINGS)
        shares_on_fork = read_choice("fork", fork, _FORKS)
        if shares_on_fork and backing == "droppable":
            raise ValueError("fork='share' needs backing='lazyfree': the kernel wipes droppable memory on fork")
        bound_bytes = read_size("max_bytes", max_bytes)
        flights = Flights(read_wait("wait_seconds", wait_seconds), read_wait("linger_seconds", linger_seconds))
        read_instance("layout", layout, Layout)
        layout = layout or Layout()
        read_serializer(serializer)
        encode, decode = _values.coder(serializer)
        is_disabled = os.environ.get(DISABLE, "") not in ("", "0")
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
            disabled=is_disabled,
            has_below=below is not None,
        )
        self._max_bytes = bound_bytes
        self._flights = flights
        if below is not None:
            from droppable._tiers import tiered

            self.__class__ = tiered(type(self))  # so that a cache without a lower tier need not ask whether it has one
            cast("TieredCore", self)._begin_tiers(below, write, ttl, is_disabled)
        elif write != "through":
            raise ValueError(f"write={write!r} says when values reach the lower tier, and there is none: give below=")
        remember(self)

    @property
    def max_bytes(self) -> int | None:
        """The bound given at the start, or None."""
        return self._max_bytes

    @property
    def name(self) -> str | None:
        """The name that it was asked for by (`droppable.named`), or that of the decorated function; else None."""
        return self._name

    if TYPE_CHECKING:  # binding/cache.c, which knows no types

        @overload
        def get(self, key: K, default: None = None, *, copy: bool = False) -> V | None: ...
        @overload
        def get(self, key: K, default: V | T, *, copy: bool = False) -> V | T: ...
        def get(self, key: K, default: Any = None, *, copy: bool = False) -> Any: ...
        @overload
        def pop(self, key: K, /) -> V: ...
        @overload
        def pop(self, key: K, /, default: V | T) -> V | T: ...
        def pop(self, key: K, /, default: Any = ...) -> Any: ...
        def set(self, key: K, value: V, ttl: Seconds | None = None, cost: Seconds | None = None) -> bool: ...
        def add(self, key: K, value: V, ttl: Seconds | None = None, cost: Seconds | None = None) -> bool: ...
        def get_or_create(
            self, key: K, factory: Callable[[], V], ttl: Seconds | None = None, *, copy: bool = False
        ) -> V: ...
        def touch(self, key: K, ttl: Seconds | None) -> bool: ...
        def expires_in(self, key: K, /) -> float: ...
        def incr(self, key: K, delta: int = 1, initial: int | None = None) -> int: ...
        def transform(self, key: K, function: Callable[[V], V], default: V = ..., ttl: Seconds | None = None) -> V: ...
        def get_many(self, keys: Iterable[K], /) -> dict[K, V]: ...
        def set_many(self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: Seconds | None = None) -> list[K]: ...
        def delete_many(self, keys: Iterable[K], /) -> int: ...
        def discard(self, key: K, /) -> bool: ...
        def delete(self, key: K, /) -> bool: ...
        def clear(self) -> None: ...
        def __getitem__(self, key: K, /) -> V: ...
        def __setitem__(self, key: K, value: V, /) -> None: ...
        def __delitem__(self, key: K, /) -> None: ...

    def _check_open(self) -> None:
        len(self)  # raises ClosedError

    def _walk_own(self, cursor: int) -> tuple[int, list[K]] | None:
        return self._walk(cursor)

    def namespace(self, name: object) -> Namespace[K, V]:
        """The part of this cache that has this name, with keys of its own and a `clear()` of its own.

        name is any key. Everybody who asks for the same name gets a view of the same entries.
        """
        self._check_open()
        return Namespace(self, name)

    def delete_prefix(self, prefix: str | bytes) -> int:
        """Forgets the keys of str, or of bytes, that begin with prefix. All keys of the cache are looked through.

        What is stored under such a key while this runs may stay. A value that is computed at this moment is returned to
        its callers and not kept. Keys of more than 4 KB are not found, nor keys of namespaces.

        Returns:
            How many entries went.

        Raises:
            TypeError: prefix is neither str nor bytes.
            MemoryError: there is no memory to look through the keys; some may have gone by then.
        """
        return self._delete_prefix(prefix_of(prefix), None)

    def _create(self, key: EncodedKey, factory: Callable[[], T], ttl: Seconds | None, copy: bool) -> T:
        # The rest of get_or_create(), which has just seen a miss.
        read_factory(factory)
        return self._flights.do(cast("Any", self), key, factory, keeping_for(ttl, copy))

    async def aget_or_create(
        self, key: object, factory: Callable[[], Awaitable[V]], ttl: Seconds | None = None, *, copy: bool = False
    ) -> V:
        """As `get_or_create`, with a coroutine function: tasks wait without blocking their event loop.

        The computation runs in a task of its own, in a copy of the first caller's context. It goes on while anybody
        waits for it, whoever of them is cancelled, and for `linger_seconds` after the last one left.
        """
        encoded = EncodedKey(key)  # once: the factory may change what the key is made of
        value = CoreCache.get(self, encoded, MISSING, copy=copy)
        if value is not MISSING:
            return cast("V", value)
        read_function("factory", factory)
        from droppable._flight import tasks  # which imports asyncio

        return await tasks.do(self._flights, cast("Any", self), encoded, factory, keeping_for(ttl, copy))

    def stats(self) -> CacheStats:
        """Counts of this moment; each is exact, and they may be of slightly different moments."""
        self._check_open()
        counts = self._counts()
        return CacheStats(
            stored_bytes=counts.pop("bytes"),
            dropped_index_pages=counts.pop("index_lost_pages"),
            saved_seconds=counts.pop("saved_ns") / 1e9,
            lost_seconds=counts.pop("lost_ns") / 1e9,
            **counts,
        )

    def tier_stats(self) -> TierStats:
        """What the lower tier of a cache with `below=` was asked for, and how often it failed.

        Raises:
            UnsupportedError: this cache has no lower tier.
        """
        self._check_open()
        raise UnsupportedError("tier_stats: this cache has no lower tier; it is made with Cache(below=...)")

    def flush(self) -> None:
        """Writes to the lower tier what waits for that. Without one there is nothing to do."""
        self._check_open()

    def close(self) -> None:
        """As `clear()`, and for good: every later call raises ClosedError. May be called again."""
        forget(self)
        super().close()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        try:
            self._check_open()
        except ClosedError:
            return f"<{full_name(type(self))}: closed>"
        counts = self._counts()
        name = "" if self._name is None else f" {self._name!r}"
        return f"<{full_name(type(self))}{name}: {counts['entries']} entries, {counts['bytes']} bytes stored>"
