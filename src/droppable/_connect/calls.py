"""The calls of a shared cache and of its namespaces that are made of other calls."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from droppable._connect.lacking import Lacking
from droppable._flight import MISSING
from droppable.lowlevel import EncodedKey

if TYPE_CHECKING:
    from droppable._arguments import Seconds

_SETDEFAULT_TRIES = 100


class Calls(Lacking):
    """See above. What derives from it has `get`, `set`, `add` and `delete`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def get(self, key: Hashable, default: Any = None, *, copy: bool = False) -> Any: ...
        def set(self, key: Hashable, value: Any, ttl: Seconds | None = None) -> bool: ...
        def add(self, key: Hashable, value: Any, ttl: Seconds | None = None) -> bool: ...
        def delete(self, key: Hashable) -> bool: ...

    def __getitem__(self, key: Hashable) -> Any:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Hashable, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: Hashable) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def discard(self, key: Hashable) -> bool:
        """As `delete`."""
        return self.delete(key)

    def setdefault(self, key: Hashable, default: Any = None) -> Any:
        """The value of key; if it is not there, default is stored first. One of several processes stores.

        Returns:
            What is there, as `get` gives it; default itself where it could not be stored.

        Raises:
            As `set`.
        """
        encoded = EncodedKey(key)  # for several calls: what the key is made of may change
        for _ in range(_SETDEFAULT_TRIES):
            value = self.get(encoded, MISSING)
            if value is not MISSING:
                return value
            if self.add(encoded, default):
                return self.get(encoded, default)
            if encoded not in cast("Any", self):
                break  # it could not be stored, or is gone again
        return default

    def update(self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), /, **more: Any) -> None:
        """Stores the entries of other (a mapping, or pairs of key and value), then those given by name."""
        for key, value in other.items() if isinstance(other, Mapping) else other:
            self.set(key, value)
        for name, value in more.items():
            self.set(name, value)

    def set_many(self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]], ttl: Seconds | None = None) -> list[Any]:
        """Stores several values. Returns the keys of those that are not stored. Raises as `set`."""
        pairs = items.items() if isinstance(items, Mapping) else items
        return [key for key, value in pairs if not self.set(key, value, ttl)]

    def delete_many(self, keys: Iterable[Hashable]) -> int:
        """Forgets several values. Returns how many were there. Raises as `get`."""
        return sum(map(self.delete, keys))
