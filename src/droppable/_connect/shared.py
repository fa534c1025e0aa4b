"""`droppable.connect`: the cache of a server, in every process of a host, with reads from the server's memory.

get(key) --Reader: the server's memory--> the value                        a microsecond or two, no message
              '--- not found, or in doubt: the server is asked --> the value, or a miss
set, delete, ... --> the server
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from droppable._arguments import NEVER, Seconds, read_factory, read_seconds, read_serializer, read_wait
from droppable._cache import Serializer
from droppable._connect import values
from droppable._log import tell_once
from droppable.lowlevel import UnsupportedError, ValueTooLargeError, shared_key

T = TypeVar("T")
_MISS: Final = object()
_AT_ONCE: Final = 32
"""Commands that are sent before their replies are read."""
_PAUSE_SECONDS: Final = 0.001
_PAUSE_MOST_SECONDS: Final = 0.05
"""Between two looks whether another process has computed a value; the first one, and the longest."""
_ANY_CLAIM: Final = 0
_NO_CLAIM: Final = -1
"""Numbers of claims that are none: whichever this client has, and that there is none."""
_MOST_MS: Final = 1 << 43
"""279 years."""


@dataclass(frozen=True, slots=True)
class SharedCacheStats:
    """What one `SharedCache` has counted since it was made; a forked child goes on from there.

    What all clients have done: `SharedCache.server_stats`.

    Attributes:
        hits_read: values that were read from the server's memory.
        hits_asked: values that the server was asked for.
        misses: look-ups that found nothing, also because there was no server.
        sets: values that the server has stored.
        refused: values that it did not store, for want of memory.
        failures: calls that did not reach the server.
        connections: that were made. More than one: the server was lost, and found again.
        is_attached: whether reads go to the server's memory now.
        why_not_attached: why they do not, or "".
    """

    hits_read: int
    hits_asked: int
    misses: int
    sets: int
    refused: int
    failures: int
    connections: int
    is_attached: bool
    why_not_attached: str


class SharedCache:
    """A cache that all processes of this host share: made by `droppable.connect`.

    Keys are what the keys of `Cache` are, up to 4 KB. Values are bytes, text and NumPy arrays; others need a
    serializer. An array comes back read-only, on memory of this process. Values lie apart from those of memcached's and
    Redis' clients.

    A server that is gone, stopped or started anew makes misses: `get` raises nothing for it, unless the cache was made
    with strict=True. A value that was stored is found by every process from then on, or is a miss; an older one is
    never found.

    Threads may share it. Look-ups of several threads run side by side; calls that ask the server wait for one another.
    A forked child may go on with it: it makes a connection of its own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        password: str | None = None,
        user: str | None = None,
        serializer: Serializer | None = None,
        timeout_seconds: Seconds = 1.0,
        retry_seconds: Seconds = 1.0,
        strict: bool = False,
        attach: bool = True,
    ) -> None:
        from droppable._connect.link import Link  # which loads socket: not before somebody connects

        read_serializer(serializer)
        if user is not None and password is None:
            raise ValueError(f"user needs a password; you gave user={user!r} alone")
        login = () if password is None else (password,) if user is None else (user, password)
        self._serializer = serializer
        self._decode = values.decoder(serializer)
        self._link = Link(
            os.fspath(path),
            login,
            read_seconds("timeout_seconds", timeout_seconds),
            read_seconds("retry_seconds", retry_seconds),
            strict,
            attach,
            self._decode,
        )
        self._link.begin()

    # Look-ups

    def get(self, key: Hashable, default: Any = None) -> Any:
        """The value, or default.

        Takes one or two microseconds where the value can be read from the server's memory, and a message to the server
        where not: about 50. Raises nothing for a server that cannot be reached, unless strict.

        Raises:
            TypeError: key is not hashable, or cannot be pickled. ValueError: it is longer than 4 KB. ClosedError.
            OSError: only with strict=True.
        """
        value = self._link.read(key, _MISS)
        return value if value is not _MISS else self._ask(key, default)

    def __getitem__(self, key: Hashable) -> Any:
        value = self.get(key, _MISS)
        if value is _MISS:
            raise KeyError(key)
        return value

    def get_many(self, keys: Iterable[Hashable]) -> dict[Any, Any]:
        """The values of those keys that are found, in one call. Raises as `get`."""
        wanted = list(keys)
        reader = self._link.reader
        found, missing = reader.get_many(wanted) if reader is not None else ({}, wanted)
        for first in range(0, len(missing), _AT_ONCE):
            some = missing[first : first + _AT_ONCE]
            replies = self._link.ask_many([(b"DROPPABLE.GET", shared_key(key)) for key in some])
            for key, reply in zip(some, replies or (), strict=False):
                value = self._value_of(key, reply, _MISS)
                if value is not _MISS:
                    found[key] = value
            if replies is None:
                self._link.count("misses", len(some))
        return found

    def __contains__(self, key: Hashable) -> bool:
        """Whether a get would find it now: the server is asked. False where it cannot be reached. Raises as `get`."""
        return bool(self._link.ask(b"DROPPABLE.HAS", shared_key(key)))

    # Changes

    def set(self, key: Hashable, value: Any, ttl: Seconds | None = None) -> bool:
        """Stores a value for all processes.

        Args:
            key: see `SharedCache`.
            value: see `SharedCache`.
            ttl: how long it lives; None: until it is deleted, or memory is short.

        Returns:
            Whether it is stored. False: the server has no memory for it, or cannot be reached.

        Raises:
            TypeError: no key or value of a type that can be shared: see `SharedCache`. ValueError: the key is longer
            than 4 KB. ValueTooLargeError: the value is larger than the server's --max-value. ClosedError.
            RefusedError, OSError: only with strict=True.
        """
        return self._send(key, values.encode(value, self._serializer), ttl, ())

    def add(self, key: Hashable, value: Any, ttl: Seconds | None = None) -> bool:
        """Stores a value where there is none. Returns whether it is stored. Raises as `set`."""
        return self._send(key, values.encode(value, self._serializer), ttl, (b"NX",))

    def set_many(self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]], ttl: Seconds | None = None) -> list[Any]:
        """Stores several values. Returns the keys of those that are not stored. Raises as `set`."""
        pairs = items.items() if isinstance(items, Mapping) else items
        return [key for key, value in pairs if not self.set(key, value, ttl)]

    def __setitem__(self, key: Hashable, value: Any) -> None:
        self.set(key, value)

    def delete(self, key: Hashable) -> bool:
        """Forgets a value, in all processes. Returns whether it was there: False too where there is no server.

        Raises:
            As `get`.
        """
        return bool(self._link.ask(b"DROPPABLE.DEL", shared_key(key)))

    discard = delete

    def __delitem__(self, key: Hashable) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def delete_many(self, keys: Iterable[Hashable]) -> int:
        """Forgets several values. Returns how many were there. Raises as `get`."""
        return sum(map(self.delete, keys))

    def clear(self) -> bool:
        """Forgets all values that clients of `droppable.connect` have stored, and no others.

        Returns:
            False where the server cannot be reached.

        Raises:
            UnsupportedError: the server was started with --no-flush. ClosedError. OSError: only with strict=True.
        """
        return self._link.ask(b"DROPPABLE.CLEAR") is not None

    def get_or_create(
        self, key: Hashable, factory: Callable[[], T], ttl: Seconds | None = None, *, wait_seconds: Seconds = 30.0
    ) -> T:
        """The value; where there is none, what factory() returns, which is stored.

        One thread of one process of the host computes it, and the others wait. If that process dies, another one
        computes it. What was set, deleted or cleared during a computation stays so: its result is returned and not
        stored. The first call gives what later ones give: an array is a read-only copy. Without a server each process
        computes.

        Args:
            key: see `SharedCache`.
            factory: computes the value.
            ttl: how long it lives; None: until it is deleted, or memory is short.
            wait_seconds: after so long a caller computes the value itself, whatever others do. What the other one
                computes is not stored then.

        Raises:
            As `get` and `set`, but for a value that is too large: it is returned and not stored. What factory raises.
        """
        read_factory(factory)
        if ttl is not None:
            read_seconds("ttl", ttl)
        until = time.monotonic() + read_wait("wait_seconds", wait_seconds)
        found: Any = self.get(key, _MISS)
        if found is not _MISS:
            return found  # type: ignore[no-any-return]
        shared = shared_key(key)
        token = object()
        try:
            self._link.turns.take(shared, token, until)
            return self._create(key, shared, factory, ttl, until)  # type: ignore[no-any-return]
        finally:
            self._link.turns.give(shared, token)

    # Life

    def stats(self) -> SharedCacheStats:
        """What this object has counted. Asks nobody."""
        link = self._link
        return SharedCacheStats(
            connections=link.wire.connections,
            is_attached=link.reader is not None and not link.reader.is_dead,
            why_not_attached=link.why_not_attached,
            **link.counts(),
        )

    def server_stats(self) -> dict[str, int]:
        """What the server counts of the values of all clients; {} where it cannot be reached. Raises as `clear`.

        Its direct_hits are told by the clients in batches, about once a second.
        """
        if self._link.reader is not None:
            self._link.reader.flush()
        words = self._link.ask(b"DROPPABLE.STATS") or []
        return {words[i].decode(): words[i + 1] for i in range(0, len(words), 2)}

    def close(self) -> None:
        """Hangs up. Every later call but `stats` raises ClosedError. The values stay with the server."""
        self._link.close()

    def __enter__(self) -> SharedCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def view(self, *_: object) -> NoReturn:
        """Is not there: the memory is the server's. Raises UnsupportedError."""
        _refuse("view(): the value lies in the server's memory, so get() copies it once, and what it returns is yours")

    def pin(self, *_: object) -> NoReturn:
        """Is not there, as `view` is not. Raises UnsupportedError."""
        _refuse("pin(): the value lies in the server's memory, and a client may not hold memory there")

    def __iter__(self) -> Iterator[Any]:
        _refuse("iteration: the server lists no keys")

    def __len__(self) -> int:
        _refuse("len(): the server's other clients store and delete meanwhile; server_stats()['entries'] has a number")

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        link = self._link
        state = "closed" if link.is_closed else "attached" if link.reader is not None else "not attached"
        return f"<droppable.SharedCache at {link.wire.path!r}, {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SharedCache cannot be pickled: connect in the other process, with the same path")

    def _ask(self, key: Hashable, default: Any) -> Any:
        return self._value_of(key, self._link.ask(b"DROPPABLE.GET", shared_key(key)), default)

    def _value_of(self, key: Hashable, reply: Any, default: Any) -> Any:
        if isinstance(reply, list) and len(reply) == 3:
            kind, meta, data = reply
            try:
                value = values.decode_reply(kind, meta, data, self._decode)
            except MemoryError:
                raise
            except Exception as error:  # somebody else has stored it: it is a miss, and will be computed anew
                tell_once(f"shared:{type(key)}", "a shared value cannot be read, and counts as a miss: %r", error)
            else:
                self._link.count("hits_asked")
                return value
        self._link.count("misses")
        return default

    def _create(self, key: Hashable, shared: bytes, factory: Callable[[], T], ttl: Seconds | None, until: float) -> Any:
        claim = _ANY_CLAIM  # until it is known: an exception of a signal handler may come before that
        is_settled = False
        try:
            claim, found = self._claim(key, shared, until)
            if found is not _MISS:
                is_settled = True
                return found
            encoded = values.encode(factory(), self._serializer)
            try:
                if claim != _NO_CLAIM:
                    self._send(key, encoded, ttl, (b"CLAIMED", b"%d" % claim))
                is_settled = True
            except ValueTooLargeError as error:
                whose = getattr(factory, "__qualname__", type(factory).__qualname__)
                tell_once(f"shared:{whose}", "a result is returned and not shared: %s", error)
        finally:
            if not is_settled and claim != _NO_CLAIM:
                self._release(shared, claim)
        kind, meta, data = encoded
        return values.decode_reply(kind, meta, bytes(data), self._decode)

    def _claim(self, key: Hashable, shared: bytes, until: float) -> tuple[int, Any]:
        """The number of a claim, or the value that another process has computed meanwhile.

        `_NO_CLAIM`: no server, no memory or no room for a claim. What is computed then is not stored. Nobody could tell
        whether the key was set or deleted meanwhile.
        """
        pause = _PAUSE_SECONDS
        how: tuple[bytes, ...] = ()
        while True:
            reply = self._link.ask(b"DROPPABLE.CLAIM", shared, *how)
            if isinstance(reply, list):
                found = self._value_of(key, reply, _MISS)
                if found is not _MISS:
                    return _NO_CLAIM, found
                how = (b"ANYWAY",)  # it cannot be read, and is computed anew
                continue
            if reply != 0:
                return (_NO_CLAIM if reply is None else reply), _MISS
            left = until - time.monotonic()
            if left <= 0:
                how = (b"ANYWAY",)
                continue
            time.sleep(min(pause, left))
            pause = min(2 * pause, _PAUSE_MOST_SECONDS)

    def _release(self, shared: bytes, claim: int) -> None:
        """After a computation that has failed, whose exception is the one to be raised."""
        with suppress(OSError, ValueError, MemoryError):
            self._link.ask(b"DROPPABLE.RELEASE", shared, b"%d" % claim)

    def _send(self, key: Hashable, encoded: values.Encoded, ttl: Seconds | None, how: tuple[bytes, ...]) -> bool:
        kind, meta, data = encoded
        seconds = NEVER if ttl is None else read_seconds("ttl", ttl)
        ms = 0 if seconds == NEVER else max(1, min(int(seconds * 1000), _MOST_MS))
        words = (b"DROPPABLE.SET", shared_key(key), b"%d" % kind, meta, data, b"%d" % ms, *how)
        stored = self._link.ask(*words) is not None
        if stored:
            self._link.count("sets")
        return stored


def _refuse(what: str) -> NoReturn:
    raise UnsupportedError(f"a SharedCache has no {what}")
