"""Values that wait to be written to the lower tier, and the thread that writes them.

    put ----> waits, and can be read ----> is written by the thread, or by who asks for that ----> done: out
                 |
                 a later put takes its place; a delete takes it out

An exception may come between any two steps (an interrupt, a time limit). So a value leaves only when what is newer than
it lies in its place, here or in the lower tier, or when the lower tier is not trusted with the key any more.

They lie in ordinary memory, so they are few: where there is no room for one more, its writer writes by itself. A value
that could be changed by its owner is copied when it is put.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from droppable._tiers.below import IMMUTABLE

if TYPE_CHECKING:
    from droppable.lowlevel import EncodedKey, Lease

VALUES_MOST: Final = 256
BYTES_MOST: Final = 16 << 20


class Waiting(NamedTuple):
    """A value on its way.

    pickled: it is one that its owner could change. lease: of who put it without the lock of the key's stripe. Once that
    is stale, something newer was stored or the key was deleted, and this must neither be read nor written.
    """

    key: Any
    value: Any
    pickled: bool
    expires_at: float | None
    size_bytes: int
    lease: Lease | None

    @property
    def is_stale(self) -> bool:
        """Whether it is as good as not there."""
        return self.lease is not None and self.lease.stale

    def load(self) -> Any:
        """The value."""
        return pickle.loads(self.value) if self.pickled else self.value


def waiting_for(key: Any, value: Any, expires_at: float | None, lease: Lease | None = None) -> Waiting | None:
    """A copy of a value, to be written later. None: it cannot be copied."""
    pickled = type(value) not in IMMUTABLE
    if pickled:
        try:
            value = pickle.dumps(value, 5)
        except Exception:
            return None
    return Waiting(key, value, pickled, expires_at, len(value) if isinstance(value, (bytes, str)) else 0, lease)


class Pending:
    """Any threads. write(encoded) is called by the thread, without a lock, for each key that waits. It must not raise.

    The thread starts with the first value and ends with the last one. A forked child makes a new object: what waits is
    its parent's to write. The sum of the sizes is not kept but added up, so that it cannot drift.
    """

    __slots__ = ("_lock", "_thread", "_waiting", "_write")

    def __init__(self, write: Callable[[EncodedKey], object]) -> None:
        self._waiting: dict[EncodedKey, Waiting] = {}
        self._lock = threading.RLock()  # a signal handler may come here while its thread is here
        self._thread: threading.Thread | None = None
        self._write = write

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, encoded: EncodedKey, waiting: Waiting) -> bool:
        """In the place of an older one. False: there is no room; the older one still waits.

        One with a lease takes nobody's place: without the lock of the stripe it may be the older one.
        """
        with self._lock:
            present = self._waiting.get(encoded)
            if present is not None and waiting.lease is not None and not present.is_stale:
                return False
            others_bytes = sum(other.size_bytes for other in self._waiting.values() if other is not present)
            is_full = len(self._waiting) >= VALUES_MOST and present is None
            if is_full or others_bytes + waiting.size_bytes > BYTES_MOST or not self._has_thread():
                return False
            self._waiting[encoded] = waiting
        return True

    def _has_thread(self) -> bool:
        if self._thread is not None and self._thread.is_alive():
            return True
        self._thread = threading.Thread(target=self._run, name="droppable-tier", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads, or the interpreter ends
            self._thread = None
            return False
        return True

    def find(self, encoded: EncodedKey) -> Waiting | None:
        """What waits for this key."""
        waiting = self._waiting.get(encoded)
        return None if waiting is None or waiting.is_stale else waiting

    def all(self) -> dict[EncodedKey, Waiting]:
        """What waits at this moment."""
        return self._waiting.copy()

    def take(self, encoded: EncodedKey) -> bool:
        """Out: nothing older is to be written. Whether there was one."""
        with self._lock:
            waiting = self._waiting.pop(encoded, None)
        return waiting is not None and not waiting.is_stale

    def done(self, encoded: EncodedKey, written: Waiting | None) -> None:
        """Out, unless a newer one came meanwhile. None: what is stale goes out."""
        with self._lock:
            waiting = self._waiting.get(encoded)
            if waiting is not None and (waiting is written or waiting.is_stale):
                del self._waiting[encoded]

    def clear(self) -> None:
        """All out."""
        with self._lock:
            self._waiting.clear()

    def keys(self) -> list[Any]:
        """Those of what waits."""
        with self._lock:
            return [waiting.key for waiting in self._waiting.values()]

    def flush(self) -> None:
        """Writes what waits at this moment."""
        with self._lock:
            waiting = list(self._waiting)
        for encoded in waiting:
            self._write(encoded)

    def _run(self) -> None:
        while True:
            self.flush()
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
