"""What `Cache` and `Namespace` have of a mapping: live views, and calls that hold where entries vanish at any moment.

The mixins of `collections.abc` ask for a key and then for its value, and count before they look. Here an entry may be
gone in between, so each look-up is one call, and comparisons of views are made with what was seen.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, Set, ValuesView
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

from droppable import _values
from droppable._flight import MISSING
from droppable.lowlevel import EncodedKey, RefusedError

if TYPE_CHECKING:
    from _typeshed import SupportsKeysAndGetItem
    from typing_extensions import TypeVar

    K = TypeVar("K", default=Any)
    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    K = TypeVar("K")
    V = TypeVar("V")

_SETDEFAULT_TRIES: Final = 100
_VIEWABLE: Final = frozenset({_values.KIND_BYTES, _values.KIND_ARRAY})


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


class _Compared:
    """Comparisons of a view with a set: by what one iteration gave. `len()` may count entries that are gone."""

    __slots__ = ()

    def _seen(self, other: object) -> tuple[list[Any], Any] | None:
        if not isinstance(other, Set):
            return None
        return list(cast("Iterable[Any]", self)), list(other) if isinstance(other, _Compared) else other

    def __eq__(self, other: object) -> bool:
        if (seen := self._seen(other)) is None:
            return NotImplemented
        mine, theirs = seen
        return len(mine) == len(theirs) and all(item in theirs for item in mine)

    def __le__(self, other: object) -> bool:
        if (seen := self._seen(other)) is None:
            return NotImplemented
        mine, theirs = seen
        return all(item in theirs for item in mine)

    def __lt__(self, other: object) -> bool:
        if (seen := self._seen(other)) is None:
            return NotImplemented
        mine, theirs = seen
        return len(mine) < len(theirs) and all(item in theirs for item in mine)

    def __ge__(self, other: object) -> bool:
        if (seen := self._seen(other)) is None:
            return NotImplemented
        mine, theirs = seen
        return all(item in mine for item in theirs)

    def __gt__(self, other: object) -> bool:
        if (seen := self._seen(other)) is None:
            return NotImplemented
        mine, theirs = seen
        return len(mine) > len(theirs) and all(item in mine for item in theirs)

    __hash__ = None  # type: ignore[assignment]


class LiveKeys(_Compared, KeysView[K]):
    """The keys of a cache, as they are at each moment."""

    __slots__ = ()


class LiveItems(_Compared, ItemsView[K, V]):
    """Keys and values of a cache, as they are at each moment. An entry that vanishes meanwhile is left out."""

    __slots__ = ()
    _mapping: LiveMapping[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        for key in self._mapping:
            value = self._mapping.get(key, MISSING)
            if value is not MISSING:
                yield key, cast("V", value)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        value = self._mapping.get(item[0], MISSING)
        return value is not MISSING and bool(value is item[1] or value == item[1])


class LiveValues(ValuesView[V]):
    """The values of a cache, as they are at each moment. One that vanishes meanwhile is left out."""

    __slots__ = ()
    _mapping: LiveMapping[Any, V]

    def __iter__(self) -> Iterator[V]:
        for _, value in LiveItems(self._mapping):
            yield value

    def __contains__(self, value: object) -> bool:
        return any(mine is value or mine == value for mine in self)


_GONE: Final = object()
"""For pop(): an entry that an iteration gave went meanwhile. MISSING would be taken for no default at all."""


class LiveMapping(MutableMapping[K, V]):
    """A mutable mapping whose entries may vanish between two calls.

    Two of them are equal only if they are the same object, and so they can be keys of a dict: contents may change while
    they are compared.
    """

    __slots__ = ()

    if TYPE_CHECKING:  # the derived classes have them; `Cache` in C
        _pop_cursor: int  # where popitem() found something last; any number is right

        def add(self, key: K, value: V) -> bool: ...

    def _check_open(self) -> None:
        """Raises ClosedError if the cache was closed."""
        raise NotImplementedError

    def _raw(self, key: Any, /) -> tuple[int, Any] | None:
        raise NotImplementedError

    def _walk_own(self, cursor: int) -> tuple[int, list[K]] | None:
        """The next cursor and some keys, or None at the end."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[K]:
        """The keys, in no order. Keys that come or go meanwhile may be missed; a value may be gone when asked for."""
        self._check_open()  # now, not at the first key
        return self._keys()

    def _keys(self) -> Iterator[K]:
        cursor = 0
        while (batch := self._walk_own(cursor)) is not None:
            cursor, keys = batch
            yield from keys

    def keys(self) -> LiveKeys[K]:
        """The keys: a view. An iteration sees what comes and goes meanwhile, or not."""
        self._check_open()
        return LiveKeys(self)

    def items(self) -> LiveItems[K, V]:
        """Pairs of key and value: a view. An iteration leaves out what vanished; each value that it gives is a hit."""
        self._check_open()
        return LiveItems(self)

    def values(self) -> LiveValues[V]:
        """The values: a view. An iteration leaves out what vanished; each value that it gives is a hit."""
        self._check_open()
        return LiveValues(self)

    def view(self, key: K) -> View:
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

    def _once(self, key: K) -> K:
        """A key for several calls: what it is made of may change."""
        return cast("K", EncodedKey(key))

    def setdefault(self, key: K, default: V = None) -> V:  # type: ignore[assignment]
        """The value of key; if it is not there, default is stored first. One of several threads stores.

        Returns:
            What is there, as `get` gives it; default itself where it could not be kept (no memory, or gone already).
        """
        encoded = self._once(key)
        for _ in range(_SETDEFAULT_TRIES):
            value = self.get(encoded, MISSING)
            if value is not MISSING:
                return cast("V", value)
            try:
                stored = self.add(encoded, default)
            except RefusedError:
                return default
            if stored:
                value = self.get(encoded, MISSING)
                return default if value is MISSING else cast("V", value)
            # Somebody stored it after our miss.
        return default  # and it was deleted before our next look, each time

    def popitem(self) -> tuple[K, V]:
        """Takes some entry out and returns its key and value. Which one, nobody knows. One of several threads gets it.

        Raises:
            KeyError: nothing is left that an iteration would give.
        """
        for start in (self._pop_cursor, 0):
            cursor = start
            while (batch := self._walk_own(cursor)) is not None:
                for key in batch[1]:
                    value = self.pop(key, _GONE)
                    if value is not _GONE:
                        self._pop_cursor = cursor
                        return key, cast("V", value)
                cursor = batch[0]
        raise KeyError(f"popitem(): this {type(self).__name__} is empty") from None

    def update(self, other: SupportsKeysAndGetItem[K, V] | Iterable[tuple[K, V]] = (), /, **more: V) -> None:
        """Stores the entries of other (a mapping, or pairs of key and value), then those given by name."""
        self._check_open()
        if isinstance(other, LiveMapping):
            other = other.items()  # of what vanishes between key and value there is nothing to store
        if isinstance(other, Mapping):
            pairs: Iterable[tuple[Any, V]] = other.items()
        elif hasattr(other, "keys"):
            source = cast("SupportsKeysAndGetItem[K, V]", other)
            pairs = ((key, source[key]) for key in source.keys())  # noqa: SIM118
        else:
            pairs = cast("Iterable[tuple[K, V]]", other)
        for key, value in pairs:
            self[key] = value
        for name, value in more.items():
            self[cast("K", name)] = value

    __reversed__ = None  # there is no order

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)
