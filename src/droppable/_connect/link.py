"""What stands between a `SharedCache` and its server: the wire, the reader of its memory, and what was counted.

    read(key, default) --Reader.get(), or nothing where the memory cannot be read
    ask(words)         --Wire: the reply; None where there is no server, or no memory there

Each connection brings the descriptors of its server's memory, which take the place of those before: so a server that
was started anew is read as soon as it was asked.
"""

from __future__ import annotations

import logging  # noqa: F401  # not when it is needed: whoever interrupts an import leaves its lock locked
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from droppable._connect.turns import Turns
from droppable._connect.wire import NoDescriptors, Refused, Wire, Word, attach
from droppable._log import tell_once
from droppable.lowlevel import ClosedError, Reader, RefusedError, UnsupportedError, ValueTooLargeError

COUNTS: Final = ("hits_read", "hits_asked", "misses", "sets", "refused", "failures")
_OTHER_SERVERS: Final = ("ERR unknown", "ERR wrong number", "ERR syntax", "ERR Protocol")
"""So begin the errors of one that has not the commands of this version: Redis, or another version of droppable."""
_CLOSED: Final = "this SharedCache is closed: your code called close() before; connect again"


class Link:
    """See above. For any number of threads; a forked child goes on with it, on a connection of its own.

    Args:
        path, login, timeout_seconds, retry_seconds: see `Wire`.
        strict: what goes wrong with the server raises.
        wants_memory: the server's memory is to be read.
        decode: see `Reader`.
    """

    def __init__(
        self,
        path: str,
        login: tuple[str, ...],
        timeout_seconds: float,
        retry_seconds: float,
        strict: bool,
        wants_memory: bool,
        decode: Callable[[int, bytes, Any], Any],
    ) -> None:
        self.reader: Reader | None = None
        self.read: Callable[[Any, Any], Any] = _read_nothing
        """The value, or the default."""
        self.why_not_attached = "" if wants_memory else "connect() was called with attach=False"
        self.is_closed = False
        self._strict = strict
        self._wants_memory = wants_memory
        self._decode = decode
        self._lock = threading.RLock()  # a signal handler may count, too
        self._counts = dict.fromkeys(COUNTS, 0)
        self.turns = Turns()
        """Of threads that compute a value."""
        ours = weakref.ref(self)
        self.wire = wire = Wire(path, login, timeout_seconds, retry_seconds, lambda new: _greet(ours(), new))
        self._finalizer = weakref.finalize(self, wire.end)
        _links.add(self)

    def begin(self) -> None:
        """Connects. A server that is not there is no error unless strict; one that wants another password is."""
        try:
            self.wire.call(b"DROPPABLE.HAS", b"?")
        except PermissionError:
            raise
        except Refused as error:
            self._checked(error, raises=True)
        except OSError as error:
            self._lost(error)

    def ask(self, *words: Word) -> Any:
        """The reply; None where there is no server, or no memory there.

        Raises:
            ClosedError; ValueTooLargeError, UnsupportedError: the server says so. Where strict: OSError, RefusedError.
        """
        replies = self.ask_many([words])
        return None if replies is None else replies[0]

    def ask_many(self, commands: list[tuple[Word, ...]]) -> list[Any] | None:
        """The replies to several commands, as `ask`; None where there is no server."""
        if self.is_closed:
            raise ClosedError(_CLOSED)
        if self.reader is not None and self.reader.is_dead:
            self.wire.close()  # what is left of the connection leads to nobody
        try:
            replies = self.wire.pipeline(commands)
        except OSError as error:
            self._lost(error)
            return None
        return [self._checked(reply) for reply in replies]

    def count(self, name: str, many: int = 1) -> None:
        """Adds to one of `COUNTS`."""
        with self._lock:
            self._counts[name] += many

    def counts(self) -> dict[str, int]:
        """All of them."""
        with self._lock:
            counts = dict(self._counts)
        reader = self.reader
        counts["hits_read"] += reader.hits if reader is not None else 0
        return counts

    def close(self) -> None:
        """Hangs up, and reads nothing any more."""
        if self.is_closed:
            return
        if self.reader is not None:
            self.reader.flush()
        self.is_closed = True
        self._detach()
        self.read = _read_closed
        self.wire.end()

    def forget_threads(self) -> None:
        """In a forked child: other threads of the parent may have held what is held here."""
        self._lock = threading.RLock()
        self.turns = Turns()

    def take(self, connection: Any) -> bool:
        """A new connection: its server's memory takes the place of that of the one before.

        Returns:
            False: it cannot be had now, and may be later.
        """
        self._detach()
        if not self._wants_memory or self.is_closed:
            return True
        try:
            board_bytes, memory, board = attach(connection)
        except Refused as error:
            self.why_not_attached = str(error)
            return not isinstance(error, NoDescriptors)
        try:
            reader = Reader(memory, board, board_bytes, self._decode, _reporter(self.wire))
        except (ValueError, OSError, MemoryError) as error:
            self.why_not_attached = f"the server's memory cannot be read by this version: {error}"
            return not isinstance(error, MemoryError)
        self.why_not_attached = ""
        self.reader = reader
        self.read = reader.get
        return True

    def _detach(self) -> None:
        reader, self.reader, self.read = self.reader, None, _read_nothing
        if reader is not None:
            self.count("hits_read", reader.hits)

    def _lost(self, error: Exception, raises: bool = False) -> None:
        self.count("failures")
        if self._strict or raises:
            raise error
        tell_once(f"connect:{self.wire.path}", "%s; look-ups are misses until it is there", error)

    def _checked(self, reply: Any, raises: bool = False) -> Any:
        """The reply, or what an error means. raises: also where it is no server for us, or not any more."""
        if not isinstance(reply, Refused):
            return reply
        text = str(reply)
        if text.startswith("OOM"):
            self.count("refused")
            if self._strict:
                raise RefusedError(f"the server: {text}")
            return None
        if "larger than" in text:
            raise ValueTooLargeError(f"the server: {text}")
        if text.startswith("NOAUTH"):
            needs = "asks for a password: give connect(password=...)"
            self._lost(PermissionError(f"the server at {self.wire.path} {needs}"), raises)
        elif text.startswith(_OTHER_SERVERS):
            is_other = f"at {self.wire.path} is no server of droppable of this version: {text}"
            self._lost(UnsupportedError(is_other), raises)
        else:
            raise UnsupportedError(f"the server at {self.wire.path}: {text}")
        return None


def _reporter(wire: Wire) -> Callable[[int, list[bytes]], None]:
    def report(hits: int, keys: list[bytes]) -> None:
        wire.notify(b"DROPPABLE.HITS", b"%d" % hits, *keys)

    return report


def _greet(link: Link | None, connection: Any) -> bool:
    return link is None or link.take(connection)


def _read_nothing(key: Any, default: Any) -> Any:
    return default


def _read_closed(key: Any, default: Any) -> Any:
    raise ClosedError(_CLOSED)


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _forget_all() -> None:
    for link in list(_links):
        link.forget_threads()


os.register_at_fork(after_in_child=_forget_all)
