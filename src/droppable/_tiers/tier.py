"""The lower tier as the cache sees it: the slower mapping, what waits to be written to it, and the locks.

Each change of a key is made under the lock of the key's stripe, in both tiers. User code that runs inside (pickling a
value, or the slower mapping itself) may change another key of the same cache. It takes no second lock then, because two
threads could wait for each other for ever: it changes the cache alone, and what the slower mapping has of that key is
distrusted. A call of the slower mapping holds up changes of the other keys of its stripe; look-ups take no lock.

Nothing here knows the cache, so what waits can be written after the cache is gone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from droppable._flight import MISSING
from droppable._tiers.below import Below
from droppable._tiers.pending import Pending

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from droppable._stats import TierStats
    from droppable.lowlevel import EncodedKey

WRITES: Final = {"through": False, "behind": True}
_STRIPES: Final = 64


class _Stripe:
    """The lock of some keys. version: another object after each change of one of them."""

    __slots__ = ("lock", "version")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.version = object()


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
        self._begin_process()

    def _begin_process(self) -> None:
        self._process = os.getpid()
        self._stripes = [_Stripe() for _ in range(_STRIPES)]
        self._held = threading.local()  # .stripe: the one that this thread is changing a key of
        self._pending = Pending(self.write_waiting)

    def _look_for_fork(self) -> None:
        if self._process != os.getpid():  # other threads of the parent may have held locks
            self._below.in_child()
            self._begin_process()

    def stripe(self, encoded: EncodedKey) -> _Stripe:
        """That of this key."""
        self._look_for_fork()
        return self._stripes[hash(encoded) % _STRIPES]

    @contextmanager
    def changing(self, encoded: EncodedKey, key: Any, is_change: bool = True) -> Iterator[None]:
        """For the change of a key. Where this thread is changing another one, the mapping is left alone."""
        stripe = self.stripe(encoded)
        held = getattr(self._held, "stripe", None)
        if held is not None and held is not stripe:
            self._below.distrust(encoded, key)
            self._pending.take(encoded)
            try:
                yield
            finally:
                stripe.version = object()
            return
        with stripe.lock:
            self._held.stripe = stripe
            try:
                yield
            finally:
                self._held.stripe = held
                if is_change:  # at the end: who saw the version before may have seen the value before
                    stripe.version = object()

    def _may_change(self, encoded: EncodedKey) -> bool:
        return getattr(self._held, "stripe", None) is self.stripe(encoded)

    def write(self, encoded: EncodedKey, key: Any, value: Any, expires_at: float | None, later: bool = False) -> bool:
        """Within `changing()`. Whether the mapping has it, or will. later: the caller must not wait for the mapping."""
        if not self._may_change(encoded):
            return False
        if (self._is_behind or later) and self._pending.put(encoded, key, value, expires_at):
            return True
        worked = self._below.write(encoded, key, lambda: value, expires_at)  # else it is distrusted now
        self._pending.take(encoded)
        return worked

    def delete(self, encoded: EncodedKey, key: Any) -> bool:
        """Within `changing()`. Whether there was something."""
        if not self._may_change(encoded):
            return False
        was_below = self._below.delete(encoded, key)
        return self._pending.take(encoded) or was_below

    def fetch(self, encoded: EncodedKey, key: Any) -> tuple[Any, float | None]:
        """What the mapping has, or will have, and the seconds until that expires (None: never); MISSING for nothing."""
        self._look_for_fork()
        if not self._is_read:
            return MISSING, None
        if self._below.is_distrusted(encoded) and getattr(self._held, "stripe", None) is None:
            with self.changing(encoded, key, is_change=False):
                if self._pending.find(encoded) is None:
                    self._below.delete(encoded, key)
        waiting = self._pending.find(encoded)
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
            return
        with self.changing(encoded, waiting.key, is_change=False):
            waiting = self._pending.find(encoded)
            if waiting is not None:
                self._below.write(encoded, waiting.key, waiting.load, waiting.expires_at)
                self._pending.done(encoded, waiting)

    def is_late(self, encoded: EncodedKey) -> bool:
        """Whether a value waits that its caller should find written."""
        return not self._is_behind and self._pending.find(encoded) is not None

    def flush(self) -> None:
        """Writes what waits."""
        self._look_for_fork()
        self._pending.flush()

    def clear(self, then: Callable[[], None]) -> None:
        """Empties it, and calls then(), while nobody changes anything."""
        self._look_for_fork()
        if getattr(self._held, "stripe", None) is None:
            self._clear(self._stripes, then)
            return
        self._below.distrust_all()
        self._pending.clear()
        then()

    def _clear(self, stripes: list[_Stripe], then: Callable[[], None]) -> None:
        # One lock after the other: nobody who holds one waits for another.
        if stripes:
            with stripes[0].lock:
                self._clear(stripes[1:], then)
                stripes[0].version = object()
            return
        self._below.clear()
        self._pending.clear()
        then()

    def all_keys(self) -> list[Any]:
        """Those of the mapping, as far as it lists them, and of what waits."""
        return list(dict.fromkeys((*self._pending.keys(), *self._below.keys())))

    def stats(self) -> TierStats:
        """What was counted."""
        return self._below.stats(len(self._pending))
