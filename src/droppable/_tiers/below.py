"""The slower mapping of a cache, as the cache uses it.

Whatever it raises is counted, told once on the logger, and taken for "it is not there". A write or a delete that
failed may have left an older value behind:

    trusted <-- a write or a delete that worked -- distrusted     keys, up to _DISTRUSTED_MOST of them
    trusted <-- clear() that worked --------------- distrusted whole: where clear() failed, or too many keys

What is distrusted is not read. A look-up of such a key tries to delete it.

A mapping may keep the very objects that it is given, as a dict does. Their owners may change them later, so such a
mapping gets copies. Which mappings do so is found out: the first object that was written is read again.
"""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from droppable._flight import MISSING
from droppable._log import tell_once
from droppable._stats import TierStats

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from droppable.lowlevel import EncodedKey

_DISTRUSTED_MOST: Final = 10_000
IMMUTABLE: Final = frozenset({bytes, str, int, float, bool, type(None)})
"""Types of values that nobody can change, so that they need no copy."""


class Expiring(NamedTuple):
    """What lies below for a value that expires: with the time in seconds since 1970 at which it does."""

    value: Any
    expires_at: float


class Below:
    """Any threads. Writes and deletes of one key come one after the other: the caller has a lock for that."""

    __slots__ = (
        "_counts",
        "_distrusted",
        "_is_distrusted_whole",
        "_keeps_objects",
        "_lock",
        "_makes_entries",
        "_mapping",
    )

    def __init__(self, mapping: MutableMapping[Any, Any]) -> None:
        for name in ("__getitem__", "__setitem__", "__delitem__"):
            if not callable(getattr(mapping, name, None)):
                raise TypeError(
                    f"below must be a mapping that can be changed: {type(mapping).__name__} has no {name}; "
                    f"you gave {mapping!r}"
                )
        self._mapping = mapping
        # A look-up must not make an entry, as [] of a defaultdict does.
        self._makes_entries = hasattr(mapping, "__missing__") and type(mapping).__getitem__ is dict.__getitem__
        self._keeps_objects: bool | None = True if isinstance(mapping, dict) else None  # None: not known yet
        self._lock = threading.RLock()  # of the counts
        self._distrusted: dict[EncodedKey, Any] = {}
        self._is_distrusted_whole = False
        self._counts = {"fetched": 0, "absent": 0, "written": 0, "deleted": 0, "failures": 0}

    def stats(self, pending: int) -> TierStats:
        """What was counted, and how many values wait."""
        return TierStats(**self._counts, pending=pending, distrusted=len(self._distrusted))

    def in_child(self) -> None:
        """In a forked child: another thread may have held the lock."""
        self._lock = threading.RLock()

    def distrust(self, encoded: EncodedKey, key: Any) -> None:
        """What it has of this key may be old."""
        if len(self._distrusted) < _DISTRUSTED_MOST or encoded in self._distrusted:
            self._distrusted[encoded] = key
            return
        self._is_distrusted_whole = True
        tell_once(
            f"tier {type(self._mapping).__name__} whole",
            "%s, a lower tier, failed to write or delete %d keys; it is not read any more until clear() works",
            type(self._mapping).__name__,
            _DISTRUSTED_MOST,
        )

    def distrust_all(self) -> None:
        """Whatever it has may be old."""
        self._is_distrusted_whole = True

    def is_distrusted(self, encoded: EncodedKey) -> bool:
        """Whether it is known what of this key is old."""
        return encoded in self._distrusted

    def fetch(self, encoded: EncodedKey, key: Any) -> tuple[Any, float | None]:
        """The value and the seconds until it expires (None: it does not); MISSING where there is none to be read."""
        if self._is_distrusted_whole or encoded in self._distrusted:
            self.count("absent")
            return MISSING, None
        _, found = self._call("read", lambda: self._load(key))
        value, left_seconds = (MISSING, None) if found is MISSING else found
        self.count("absent" if value is MISSING else "fetched")
        return value, left_seconds

    def _read(self, key: Any) -> Any:
        value = self._mapping.get(key, MISSING) if self._makes_entries else self._mapping[key]
        if value is MISSING:
            raise KeyError(key)
        return value

    def _load(self, key: Any) -> tuple[Any, float | None]:
        value = self._read(key)
        if not isinstance(value, Expiring):
            return value, None
        left_seconds = float(value.expires_at) - time.time()  # whoever wrote it: what is no time is a failure
        if math.isnan(left_seconds):
            raise ValueError(f"expires_at must be a time in seconds; {value.expires_at!r} lies there")
        # What expired stays until it is written again: a delete could meet a newer value.
        return (value.value, left_seconds) if left_seconds > 0 else (MISSING, None)

    def _store(self, key: Any, value: Any, expires_at: float | None) -> None:
        if self._keeps_objects and type(value) not in IMMUTABLE:
            value = pickle.loads(pickle.dumps(value, 5))
        stored = value if expires_at is None else Expiring(value, expires_at)
        self._mapping[key] = stored
        if self._keeps_objects is None and type(value) not in IMMUTABLE:
            try:
                self._keeps_objects = self._read(key) is stored
            except KeyError:
                return  # it is gone already: the next one tells
            if self._keeps_objects:
                self._store(key, value, expires_at)

    def write(self, encoded: EncodedKey, key: Any, load: Callable[[], Any], expires_at: float | None) -> bool:
        """Whether it took the value that load() gives."""
        worked, answer = self._call("write", lambda: self._store(key, load(), expires_at))
        worked = worked and answer is not MISSING  # a KeyError is no answer here
        self._trust(encoded, key, worked)
        if worked:
            self.count("written")
        return worked

    def delete(self, encoded: EncodedKey, key: Any) -> bool:
        """Whether there was something to delete."""
        worked, found = self._call("delete", lambda: self._mapping.__delitem__(key))
        self._trust(encoded, key, worked)
        was_there = worked and found is not MISSING
        if was_there:
            self.count("deleted")
        return was_there

    def clear(self) -> None:
        """All out. Where that fails nothing in it is read any more, until it works at a later time."""
        clear = getattr(self._mapping, "clear", None)
        worked, answer = self._call("clear", clear if callable(clear) else self._clear_by_key)
        worked = worked and answer is not MISSING  # a KeyError is no answer here
        self._is_distrusted_whole = not worked
        if worked:
            self._distrusted.clear()

    def keys(self) -> list[Any] | None:
        """Its keys; None where it cannot list them."""
        worked, keys = self._call("list the keys of", self._list)
        return keys if worked and keys is not MISSING else None

    def _list(self) -> list[Any]:
        if not hasattr(self._mapping, "__iter__"):  # else iter() would ask for the keys 0, 1, 2...
            raise TypeError(f"{type(self._mapping).__name__} has no __iter__")
        return list(self._mapping)

    def _clear_by_key(self) -> None:
        for key in self._list():
            del self._mapping[key]

    def _trust(self, encoded: EncodedKey, key: Any, worked: bool) -> None:
        if worked:
            self._distrusted.pop(encoded, None)
        else:
            self.distrust(encoded, key)

    def count(self, name: str) -> None:
        """One more, under a name of `TierStats`."""
        with self._lock:  # and no call inside, at which a signal handler could count too
            self._counts[name] += 1

    def _call(self, what: str, call: Callable[[], Any]) -> tuple[bool, Any]:
        """Whether it worked, and its result; MISSING for a KeyError, which is an answer."""
        try:
            return True, call()
        except KeyError:
            return True, MISSING
        except Exception as error:
            self.count("failures")
            kind = type(self._mapping).__name__
            tell_once(
                f"tier {kind} {what}",
                "the cache goes on without its lower tier, which could not %s a value: %s: %s: %s",
                what,
                kind,
                type(error).__name__,
                error,
            )
            return False, MISSING
