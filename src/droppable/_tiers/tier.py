"""The lower tier as the cache sees it: the slower mapping, what waits to be written to it, and the locks.

Each change of a key is made under the lock of the key's stripe, in both tiers. User code that runs inside (pickling a
value, or the slower mapping itself) may change another key of the same cache. It takes no second lock then, because two
threads could wait for each other for ever: it changes the cache alone, and what the slower mapping has of that key is
distrusted. A call of the slower mapping holds up changes of the other keys of its stripe; look-ups take no lock.

    with tier.locking(encoded, key), tier.changing(encoded, key):      one change
         |                           |
         C alone: an exception that  tells `transform` that there is a change; where an interrupt comes between the two
         comes at any moment leaves  tiers, what the slower mapping has is distrusted
         no lock behind

Event loops take no lock, which somebody may hold for as long as the mapping takes. What a coroutine computed waits with
a lease of its key instead, and is written later unless the lease is stale by then.

Nothing here knows the cache, so what waits can be written after the cache is gone.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from droppable._flight import MISSING
from droppable._tiers.below import Below
from droppable._tiers.pending import Pending, Waiting, waiting_for
from droppable.lowlevel import DroppableError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from droppable._stats import TierStats
    from droppable.lowlevel import EncodedKey, Lease

WRITES: Final = {"through": False, "behind": True}
_STRIPES: Final = 64
_ANSWERS: Final = (DroppableError, KeyError, TypeError, ValueError, OverflowError, MemoryError)
"""What calls of a cache raise by themselves, before they change anything. All else is an interrupt."""
_INHERITED_SECONDS: Final = 60.0
"""For so long a forked child reads what waited in its parent: the parent has written it by then."""

_tiers: Final[weakref.WeakSet[Tier]] = weakref.WeakSet()


class _Stripe:
    """The lock of some keys. version: another object after each change of one of them; None during one."""

    __slots__ = ("lock", "version")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.version: object | None = object()


class _Change:
    """A change of a key, or of all (None), for a `with` block."""

    __slots__ = ("_below", "_keys", "_stripe")

    def __init__(self, stripe: _Stripe, below: Below, keys: tuple[EncodedKey, Any] | None) -> None:
        self._stripe = stripe
        self._below = below
        self._keys = keys

    def __enter__(self) -> None:
        self._stripe.version = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and self._keys is not None and not issubclass(kind, _ANSWERS):
            self._below.distrust(*self._keys)
        self._stripe.version = object()  # at the end: who saw the version before may have seen the value before


class Tier:
    """Any threads; a forked child goes on with the same mapping, and with nothing that waits.

    Args:
        mapping: the slower one.
        is_behind: values wait to be written.
        is_read: whether look-ups are to ask it. Changes reach it in any case, so that it never has an older value.
    """

    def __init__(self, mapping: MutableMapping[Any, Any], is_behind: bool, is_read: bool) -> None:
        self._below = Below(mapping)
        self._is_behind = is_behind
        self._is_read = is_read
        self._stripes = [_Stripe() for _ in range(_STRIPES)]
        self._pending = Pending(self.write_waiting)
        self._inherited: dict[EncodedKey, Waiting] = {}
        self._inherited_until = 0.0
        _tiers.add(self)

    def in_child(self) -> None:
        """In a forked child, before anything else: other threads of the parent may have held locks."""
        self._below.in_child()
        self._stripes = [stripe if _is_mine(stripe) else _Stripe() for stripe in self._stripes]
        # The parent writes what waits there. Until then the mapping has older values of those keys.
        now = time.monotonic()
        older = self._inherited if now < self._inherited_until else {}
        self._inherited = {**older, **self._pending.all()}
        self._inherited_until = now + _INHERITED_SECONDS
        self._pending = Pending(self.write_waiting)

    def stripe(self, encoded: EncodedKey) -> _Stripe:
        """That of this key."""
        return self._stripes[self.stripe_number(encoded)]

    def stripe_number(self, encoded: EncodedKey) -> int:
        """Its number: changes of keys that have the same one overtake each other."""
        return hash(encoded) % _STRIPES

    def _is_changing(self) -> bool:
        """Whether this thread is changing some key."""
        return any([stripe.lock._is_owned() for stripe in self._stripes])  # type: ignore[attr-defined]

    def _may_change(self, encoded: EncodedKey) -> bool:
        return _is_mine(self.stripe(encoded))

    def locking(self, encoded: EncodedKey, key: Any) -> AbstractContextManager[object]:
        """For the change of a key. Where this thread is changing another one, the mapping is left alone."""
        stripe = self.stripe(encoded)
        if _is_mine(stripe) or not self._is_changing():
            return stripe.lock
        self._below.distrust(encoded, key)
        self._forget(encoded)
        return nullcontext()

    def changing(self, encoded: EncodedKey, key: Any) -> AbstractContextManager[None]:
        """Within `locking()`: who looks at `version()` sees that there was a change."""
        return _Change(self.stripe(encoded), self._below, (encoded, key))

    def version(self, encoded: EncodedKey) -> object:
        """Another object after each change of this key. It waits for one that is under way, as `locking()` does."""
        stripe = self.stripe(encoded)
        while (version := stripe.version) is None and not self._is_changing():
            with stripe.lock:
                stripe.version = object()  # also where an exception came before the end of a change was told
        return version

    def is_of(self, version: object, encoded: EncodedKey) -> bool:
        """Within `locking()`: whether nothing was changed since."""
        return self.stripe(encoded).version is version

    def _forget(self, encoded: EncodedKey) -> bool:
        """What waits to be written is not to be read nor written. Whether there was something."""
        was_inherited = self._inherited.pop(encoded, None) is not None
        return self._pending.take(encoded) or was_inherited

    def _find(self, encoded: EncodedKey) -> Waiting | None:
        waiting = self._pending.find(encoded)
        if waiting is None and self._inherited:
            if time.monotonic() >= self._inherited_until:
                self._inherited = {}
            waiting = self._inherited.get(encoded)
            if waiting is not None and waiting.is_stale:
                waiting = None
        return waiting

    def write(self, encoded: EncodedKey, key: Any, value: Any, expires_at: float | None) -> bool:
        """Within `locking()`. Whether the mapping has it, or will."""
        if not self._may_change(encoded):
            return False
        value = _as_kept(value)
        if self._is_behind:
            waiting = waiting_for(key, value, expires_at)
            if waiting is not None and self._pending.put(encoded, waiting):
                self._inherited.pop(encoded, None)
                return True
        worked = self._below.write(encoded, key, lambda: value, expires_at)  # else it is distrusted now
        self._forget(encoded)
        return worked

    def write_later(
        self, encoded: EncodedKey, key: Any, value: Any, expires_at: float | None, lease: Lease
    ) -> Waiting | None:
        """Without a lock and without the mapping, for event loops. None: it waits now; else `write_late()` takes it."""
        value = _as_kept(value)
        waiting = waiting_for(key, value, expires_at, lease) or Waiting(key, value, False, expires_at, 0, lease)
        is_copied = waiting.pickled or waiting.value is value
        return None if is_copied and self._pending.put(encoded, waiting) else waiting

    def write_late(self, encoded: EncodedKey, waiting: Waiting) -> None:
        """Writes what `write_later()` gave back, unless something newer is there."""
        with self.locking(encoded, waiting.key), self.changing(encoded, waiting.key):
            if self._may_change(encoded) and not waiting.is_stale and self._pending.find(encoded) is None:
                self._below.write(encoded, waiting.key, waiting.load, waiting.expires_at)

    def delete(self, encoded: EncodedKey, key: Any) -> bool:
        """Within `locking()`. Whether there was something."""
        if not self._may_change(encoded):
            return False
        was_below = self._below.delete(encoded, key)
        return self._forget(encoded) or was_below

    def distrust_all(self) -> None:
        """Nothing that the mapping has is to be read."""
        self._below.distrust_all()

    def fetch(self, encoded: EncodedKey, key: Any) -> tuple[Any, float | None]:
        """What the mapping has, or will have, and the seconds until that expires (None: never); MISSING for nothing."""
        if not self._is_read:
            return MISSING, None
        if self._below.is_distrusted(encoded) and not self._is_changing():
            with self.stripe(encoded).lock:
                if self._pending.find(encoded) is None:
                    self._below.delete(encoded, key)
        waiting = self._find(encoded)
        if waiting is not None:
            left_seconds = None if waiting.expires_at is None else waiting.expires_at - time.time()
            try:
                value = MISSING if left_seconds is not None and left_seconds <= 0 else waiting.load()
            except Exception:  # it cannot be loaded, which is told when it is to be written
                value = MISSING
            self._below.count("absent" if value is MISSING else "fetched")
            return value, left_seconds
        return self._below.fetch(encoded, key)

    def write_waiting(self, encoded: EncodedKey) -> None:
        """Writes what waits for this key."""
        waiting = self._pending.find(encoded)
        if waiting is None:
            self._pending.done(encoded, None)
            return
        with self.locking(encoded, waiting.key):
            waiting = self._pending.find(encoded)
            if waiting is not None and self._may_change(encoded):
                self._below.write(encoded, waiting.key, waiting.load, waiting.expires_at)
            self._pending.done(encoded, waiting)

    def is_late(self, encoded: EncodedKey) -> bool:
        """Whether a value waits that its caller should find written."""
        return not self._is_behind and self._pending.find(encoded) is not None

    def flush(self) -> None:
        """Writes what waits."""
        self._pending.flush()

    def clear(self, then: Callable[[], None]) -> None:
        """Empties it, and calls then(), while nobody changes anything."""
        if not self._is_changing():
            self._clear(self._stripes, then)
            return
        self._below.distrust_all()
        self._pending.clear()
        self._inherited = {}
        then()

    def _clear(self, stripes: list[_Stripe], then: Callable[[], None]) -> None:
        # One lock after the other: nobody who holds one waits for another.
        if stripes:
            with stripes[0].lock, _Change(stripes[0], self._below, None):
                self._clear(stripes[1:], then)
            return
        self._below.clear()
        self._pending.clear()
        self._inherited = {}
        then()

    def all_keys(self) -> list[Any] | None:
        """Those of the mapping and of what waits; None where the mapping cannot list its own."""
        # What waits comes first: a key that is written meanwhile leaves it after it has come to the mapping.
        waiting = (*self._pending.keys(), *(waiting.key for waiting in self._inherited.copy().values()))
        keys = self._below.keys()
        return None if keys is None else list(dict.fromkeys((*waiting, *keys)))

    def stats(self) -> TierStats:
        """What was counted."""
        return self._below.stats(len(self._pending))


def _is_mine(stripe: _Stripe) -> bool:
    return stripe.lock._is_owned()  # type: ignore[attr-defined, no-any-return]


def _as_kept(value: Any) -> Any:
    """The value in a form that mappings take: bytes-like objects come back from the cache as bytes in any case."""
    return bytes(value) if type(value) in (memoryview, bytearray) else value


def _in_child() -> None:
    for tier in tuple(_tiers):
        tier.in_child()


os.register_at_fork(after_in_child=_in_child)
