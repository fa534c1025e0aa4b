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
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from droppable._connect.attaching import NotNow, attach
from droppable._connect.wire import Refused, Wire, Word
from droppable._log import tell_once
from droppable.lowlevel import ClosedError, RefusedError, UnsupportedError, ValueTooLargeError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from droppable._cache import Cache
    from droppable.lowlevel import Reader

COUNTS: Final = ("hits_read", "hits_near", "hits_asked", "misses", "sets", "refused", "failures")
_OTHER_SERVERS: Final = ("ERR unknown", "ERR wrong number", "ERR syntax", "ERR Protocol")
"""So begin the errors of one that has not the commands of this version: Redis, or another version of droppable."""
_CLOSED: Final = "this SharedCache is closed: your code called close() before; connect again"


class Stored(Enum):
    """What became of a value that the server was given."""

    YES = auto()
    NOT_NEW = auto()
    """There is another one already, or the claim that it was computed under does not hold any more."""
    REFUSED = auto()
    """The server has no memory for it."""
    LOST = auto()
    """There is no server."""

    @property
    def is_stored(self) -> bool:
        """Whether it is there."""
        return self is Stored.YES


class Link:
    """See above. For any number of threads; a forked child goes on with it, on a connection of its own.

    Args:
        path, login, timeout_seconds, retry_seconds: see `Wire`.
        strict: what goes wrong with the server raises.
        wants_memory: the server's memory is to be read.
        decode, near: see `Reader`.
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
        near: Cache[Any, Any] | None,
    ) -> None:
        self.reader: Reader | None = None
        self.read: Callable[[Any, Any], Any] = _read_nothing
        """The value, or the default."""
        self.why_not_attached = "" if wants_memory else "connect() was called with attach=False"
        self.is_closed = False
        self._strict = strict
        self._wants_memory = wants_memory
        self._decode = decode
        self._near = near
        self._lock = threading.RLock()  # a signal handler may count, too
        self._counts = dict.fromkeys(COUNTS, 0)
        self._thread: ThreadPoolExecutor | None = None
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

    def ask_once(self, *words: Word) -> Any:
        """As `ask`, for a command that would do more if it were sent twice, as it is after a connection was lost."""
        replies = self._converse([words], once=True)
        return None if replies is None else self._checked(replies[0])

    def ask_many(self, commands: list[tuple[Word, ...]]) -> list[Any] | None:
        """The replies to several commands, as `ask`; None where there is no server."""
        replies = self._converse(commands)
        return None if replies is None else [self._checked(reply) for reply in replies]

    def store(self, *words: Word, once: bool = False) -> Stored:
        """What became of the value of a command that stores one. Raises as `ask`. once: as `ask_once`."""
        replies = self._converse([words], once)
        if replies is None:
            return Stored.LOST
        if isinstance(replies[0], Refused):
            self._checked(replies[0])  # which raises, but where there is no memory, or no server of this version
            return Stored.REFUSED
        if replies[0] is None:
            return Stored.NOT_NEW
        self.count("sets")
        return Stored.YES

    def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begins a call in a thread of this link's own: for event loops, which must not wait for the server."""
        with self._lock:
            if self.is_closed:
                raise ClosedError(_CLOSED)
            if self._thread is None:
                from concurrent.futures import ThreadPoolExecutor  # which loads logging

                # One thread: calls wait for one another anyway. Its own: the loop's threads may all wait for a value.
                self._thread = ThreadPoolExecutor(1, "droppable.connect")
            return self._thread.submit(call, *arguments)  # under the lock, for close() shuts it down

    async def wait_in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What the call returns, which is made in that thread."""
        import asyncio  # which takes long to load

        return await asyncio.wrap_future(self.in_thread(call, *arguments))

    def _converse(self, commands: list[tuple[Word, ...]], once: bool = False) -> list[Any] | None:
        if self.is_closed:
            raise ClosedError(_CLOSED)
        if self._has_ended():
            self.wire.close()  # what is left of the connection leads to nobody
        try:
            replies = self.wire.pipeline(commands, once)
        except OSError as error:
            self._lost(error)
            return None
        return replies

    def _has_ended(self) -> bool:
        reader = self.reader  # another thread may give it up at any moment
        return reader is not None and reader.is_dead

    def flush(self) -> None:
        """Tells the server now which values were found in its memory."""
        reader = self.reader
        if reader is not None:
            reader.flush()

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
        counts["hits_near"] += reader.near_hits if reader is not None else 0
        return counts

    def close(self) -> None:
        """Hangs up, and reads nothing any more. One that was interrupted can be called again."""
        self.flush()
        with self._lock:
            self.is_closed = True
            thread, self._thread = self._thread, None
            self._detach()
        self.wire.end()
        if thread is not None:
            thread.shutdown(wait=False)

    def forget_threads(self) -> None:
        """In a forked child: other threads of the parent may have held what is held here."""
        self._lock = threading.RLock()
        self._thread = None

    def take(self, connection: Any) -> bool:
        """A new connection: its server's memory takes the place of that of the one before.

        Returns:
            False: it cannot be had now, and may be later.
        """
        self._detach()
        if not self._wants_memory or self.is_closed:
            return True
        try:
            reader = attach(connection, self._decode, _reporter(self.wire), self._near)
        except Refused as error:
            self.why_not_attached = str(error)
            return not isinstance(error, NotNow)
        with self._lock:
            if not self.is_closed:  # by another thread, since the connection was begun
                self.why_not_attached = ""
                self.reader = reader
                self.read = reader.get
        return True

    def _detach(self) -> None:
        with self._lock:
            reader, self.reader = self.reader, None
            self.read = _read_closed if self.is_closed else _read_nothing
            if reader is not None:
                self.count("hits_read", reader.hits)
                self.count("hits_near", reader.near_hits)

    def _lost(self, error: Exception, raises: bool = False) -> None:
        self.count("failures")
        if self._strict or raises:
            raise error
        tell_once(f"connect:{self.wire.path}", "%s; look-ups are misses until it is there", error)

    def _checked(self, reply: Any, raises: bool = False) -> Any:
        """The reply, or what an error of the server means. raises: also where it is no server for us, or not now."""
        if not isinstance(reply, Refused):
            return reply
        text = str(reply)
        if text.startswith("OOM"):
            self.count("refused")
            if self._strict:
                raise RefusedError(f"the server: {text}")
            return None
        if "no integer" in text:
            raise TypeError("incr() counts in int, and the value of this key is none")
        if "the sum has" in text:
            raise OverflowError(f"the server: {text}")
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


def read_near(near: bool | Cache[Any, Any], attach: bool) -> tuple[Cache[Any, Any] | None, bool]:
    """What the argument near gives: the near cache, and whether it is the SharedCache's own."""
    from droppable._cache import Cache

    if near is False:
        return None, False
    if not attach:
        raise ValueError("near needs attach=True: the server's memory tells whether what is near still counts")
    if near is True:
        return Cache(), True
    given: object = near
    if not isinstance(given, Cache) or given._tier is not None:
        raise TypeError(f"near must be True, or a Cache without below= that you close yourself; you gave {near!r}")
    return near, False


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
