"""What a shared cache does to a value where it lies: adds to it, gives it a new time to live, tells how long it lives.

    incr() --DROPPABLE.INCR--> the server adds, while nobody else stores or deletes the key
             null: add() the first count. Whoever is second adds to it

A command that was sent when the connection was lost is sent again as a rule. INCR is not: it might count twice.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

from droppable._arguments import NEVER, Seconds, read_int64, read_seconds
from droppable._connect import values
from droppable._connect.calls import Calls
from droppable.lowlevel import EncodedKey, shared_key

if TYPE_CHECKING:
    from droppable._connect.link import Link
    from droppable._connect.wire import Word

_ABSENT: Final = -2
_MOST_MS: Final = 1 << 43
"""279 years."""
_TRIES: Final = 100


class Updating(Calls):
    """See above: the part of `SharedCache` that has these calls."""

    if TYPE_CHECKING:
        _link: Link

        def _words(
            self, key: Hashable, encoded: values.Encoded, ttl: Seconds | None, how: tuple[bytes, ...]
        ) -> tuple[Word, ...]: ...

    def expires_in(self, key: Hashable) -> float:
        """Seconds until the entry expires; NEVER, if it does not: the server is asked.

        Raises:
            KeyError: there is no such value now, or no server. Else as `get`.
        """
        milliseconds = self._link.ask(b"DROPPABLE.TTL", shared_key(key))
        if milliseconds is None or milliseconds == _ABSENT:
            raise KeyError(key)
        return NEVER if milliseconds < 0 else milliseconds / 1000

    def incr(self, key: Hashable, delta: int = 1, initial: int | None = None) -> int:
        """Adds delta to an int and returns the sum. The entry expires when it would have.

        The server adds, so that no count of any process is lost or counted twice. A count is a cached value: it can be
        dropped, and starts again.

        Args:
            key: see `SharedCache`.
            delta: an int of 64 bits, also a negative one.
            initial: what to begin with where there is no such value: initial + delta is stored, and never expires.

        Raises:
            KeyError: there is no such value now, and no initial; or the server cannot be reached or has no memory for
            it. TypeError: the value is no int, or delta or initial is none. ValueError: one of them has more than
            64 bits. OverflowError: the sum has. ClosedError. OSError, RefusedError: only with strict=True.
        """
        from droppable._connect.link import Stored  # which loads socket

        encoded = EncodedKey(key)  # for several calls: what the key is made of may change
        added = read_int64("delta", delta)
        first = None if initial is None else read_int64("initial", initial) + added
        for _ in range(_TRIES):
            words = (b"DROPPABLE.INCR", shared_key(encoded), b"%d" % values.INTEGER, b"%d" % added)
            total = self._link.ask_once(*words)
            if total is not None:
                return int(total)
            if first is None:
                break
            if first not in values.INTEGERS:
                raise OverflowError(f"initial + delta has more than 64 bits: {first}")
            stored = self._link.store(*self._words(encoded, values.encode(first, None), None, (b"NX",)), once=True)
            if stored.is_stored:
                return first
            if stored is not Stored.NOT_NEW:
                break
        raise KeyError(key)

    def touch(self, key: Hashable, ttl: Seconds | None = None) -> bool:
        """Gives an entry a new time to live, from now on, in all processes.

        Args:
            key: see `SharedCache`.
            ttl: how long it lives; None: until it is deleted, or memory is short.

        Returns:
            Whether it was there. False too where the server cannot be reached, or has no memory to note it: it stays as
            it was then.

        Raises:
            ValueError, TypeError: ttl is no time. Else as `get`. RefusedError: only with strict=True.
        """
        return bool(self._link.ask(b"DROPPABLE.TOUCH", shared_key(key), b"%d" % ms_of(ttl)))


def ms_of(ttl: Seconds | None) -> int:
    """A time to live as the server takes it; 0: for ever."""
    seconds = NEVER if ttl is None else read_seconds("ttl", ttl)
    return 0 if seconds == NEVER else max(1, min(int(seconds * 1000), _MOST_MS))
