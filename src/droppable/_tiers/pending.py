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

if TYPE_CHECKING:
    from droppable.lowlevel import EncodedKey

VALUES_MOST: Final = 256
BYTES_MOST: Final = 16 << 20
_IMMUTABLE: Final = frozenset({bytes, str, int, float, bool, type(None)})


class Waiting(NamedTuple):
    """A value on its way. pickled: it is one that its owner could change."""

    key: Any
    value: Any
    pickled: bool
    expires_at: float | None
    size_bytes: int

    def load(self) -> Any:
        """The value."""
        return pickle.loads(self.value) if self.pickled else self.value


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

    def put(self, encoded: EncodedKey, key: Any, value: Any, expires_at: float | None) -> bool:
        """In the place of an older one. False: there is no room, or it cannot be copied; the older one still waits."""
        pickled = type(value) not in _IMMUTABLE
        if pickled:
            try:
                value = pickle.dumps(value, 5)
            except Exception:
                return False
        size_bytes = len(value) if isinstance(value, (bytes, str)) else 0
        with self._lock:
            others_bytes = sum(waiting.size_bytes for other, waiting in self._waiting.items() if other != encoded)
            is_full = len(self._waiting) >= VALUES_MOST and encoded not in self._waiting
            if is_full or others_bytes + size_bytes > BYTES_MOST or not self._has_thread():
                return False
            self._waiting[encoded] = Waiting(key, value, pickled, expires_at, size_bytes)
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
        return self._waiting.get(encoded)

    def take(self, encoded: EncodedKey) -> bool:
        """Out: nothing older is to be written. Whether there was one."""
        with self._lock:
            return self._waiting.pop(encoded, None) is not None

    def done(self, encoded: EncodedKey, written: Waiting) -> None:
        """Out, unless a newer one came meanwhile."""
        with self._lock:
            if self._waiting.get(encoded) is written:
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
