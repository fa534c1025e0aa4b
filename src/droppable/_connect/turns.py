"""Turns: which thread of this process computes the value of a key, so that its other threads need not.

    take(key, until)   nobody has it --> it is this thread's
                       another thread has it --> this one waits, until then at most
    give(key)          the next one's

An exception of a signal handler may arrive between any two steps here. So whose turn it is stands in one place, which
is written under the lock, and a turn is given back by whoever may have taken it.
"""

from __future__ import annotations

import threading
import time


class Turns:
    """See above. A thread that has a turn gets it again, and then has to give it back as often."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may compute a value, too
        self._ended = threading.Condition(self._lock)
        self._holders: dict[bytes, list[object]] = {}
        """By key, for each take() that has it: what the caller calls it. All of one thread."""
        self._threads: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def take(self, key: bytes, token: object, until: float) -> bool:
        """Waits for the turn. False: that time of `time.monotonic` has come, and it is another thread's.

        Args:
            key: whose value is to be computed.
            token: an object of the caller's own, for `give`.
            until: see above.
        """
        me = threading.get_ident()
        with self._lock:
            while self._threads.get(key, me) != me:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._ended.wait(min(left, threading.TIMEOUT_MAX))
            self._threads[key] = me
            self._holders.setdefault(key, []).append(token)
        return True

    def give(self, key: bytes, token: object) -> None:
        """Ends a turn. Nothing happens where `take` did not get it."""
        with self._lock:
            holders = self._holders.get(key)
            if holders is None or token not in holders:
                return
            holders.remove(token)
            if not holders:
                del self._holders[key], self._threads[key]
                self._ended.notify_all()
