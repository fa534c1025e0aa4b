"""`droppable.connect`: the cache of a server, in every process of a host, with reads from the server's memory.

get(key) --Reader: the server's memory--> the value                        some microseconds, no message
              '--- not found, or in doubt: the server is asked --> the value, or a miss
set, delete, ... --> the server
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

from droppable._arguments import Seconds, read_factory, read_function, read_seconds, read_serializer, read_wait
from droppable._cache import Cache, Serializer
from droppable._connect import values
from droppable._connect.updating import Updating, ms_of
from droppable._flight import MISSING, keeping_for
from droppable._log import tell_once
from droppable.lowlevel import EncodedKey, shared_key

if TYPE_CHECKING:
    from droppable._connect.computing import Patience
    from droppable._connect.namespace import SharedNamespace
    from droppable._connect.wire import Word

T = TypeVar("T")
_AT_ONCE: Final = 32
"""Commands that are sent before their replies are read."""


@dataclass(frozen=True, slots=True)
class SharedCacheStats:
    """What one `SharedCache` has counted since it was made; a forked child goes on from there.

    What all clients have done: `SharedCache.server_stats`.

    Attributes:
        hits_read: values that were read from the server's memory.
        hits_near: those of them that the near cache had.
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
    hits_near: int
    hits_asked: int
    misses: int
    sets: int
    refused: int
    failures: int
    connections: int
    is_attached: bool
    why_not_attached: str


class SharedCache(Updating):
    """A cache that all processes of this host share: made by `droppable.connect`.

    Keys are what the keys of `Cache` are, up to 4 KB. Values are bytes, text, ints of 64 bits and NumPy arrays; others
    need a serializer. An array comes back read-only, on memory of this process. Values lie apart from those of
    memcached's and Redis' clients.

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
        near: bool | Cache[Any, Any] = False,
    ) -> None:
        # They load socket and more: not before somebody connects.
        from droppable._connect.computing import Computing
        from droppable._connect.link import Link, read_near

        read_serializer(serializer)
        if user is not None and password is None:
            raise ValueError(f"user needs a password; you gave user={user!r} alone")
        login = () if password is None else (password,) if user is None else (user, password)
        self._near, self._owns_near = read_near(near, attach)
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
            self._near,
        )
        self._computing = Computing(self, self._link)
        self._link.begin()

    @property
    def near(self) -> Cache[Any, Any] | None:
        """The near cache, for its `stats()`; None where there is none."""
        return self._near

    # Look-ups

    def get(self, key: Hashable, default: Any = None, *, copy: bool = False) -> Any:
        """The value, or default.

        Takes a few microseconds where the value can be read from the server's memory, and many times as long
        where the server has to be asked. Raises nothing for a server that cannot be reached, unless strict.

        Args:
            key: see `SharedCache`.
            default: what is returned where nothing is found.
            copy: whether an array can be written to.

        Raises:
            TypeError: key is not hashable, or cannot be pickled. ValueError: it is longer than 4 KB. ClosedError.
            OSError: only with strict=True.
        """
        value = self._link.read(key, MISSING)
        if value is MISSING:
            value = self._ask(key, MISSING)
            if value is MISSING:
                return default
        return values.own_value(value, copy) if copy else value

    async def aget(self, key: Hashable, default: Any = None, *, copy: bool = False) -> Any:
        """As `get`, for coroutines: where the server has to be asked, a thread waits for it."""
        value = self._link.read(key, MISSING)
        if value is MISSING:
            value = await self._link.wait_in_thread(self._ask, EncodedKey(key), MISSING)
        return default if value is MISSING else values.own_value(value, copy)

    def get_many(self, keys: Iterable[Hashable]) -> dict[Any, Any]:
        """The values of those keys that are found, in one call. Raises as `get`."""
        wanted = list(keys)
        reader = self._link.reader
        found, missing = reader.get_many(wanted) if reader is not None else ({}, wanted)
        for first in range(0, len(missing), _AT_ONCE):
            some = missing[first : first + _AT_ONCE]
            replies = self._link.ask_many([(b"DROPPABLE.GET", shared_key(key)) for key in some])
            for key, reply in zip(some, replies or (), strict=False):
                value = self._value_of(key, reply, MISSING)
                if value is not MISSING:
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

    async def aset(self, key: Hashable, value: Any, ttl: Seconds | None = None) -> bool:
        """As `set`, for coroutines: a thread waits for the server. An array must not be changed meanwhile."""
        encoded = values.encode(value, self._serializer)
        stored: bool = await self._link.wait_in_thread(self._send, EncodedKey(key), encoded, ttl, ())
        return stored

    def add(self, key: Hashable, value: Any, ttl: Seconds | None = None) -> bool:
        """Stores a value where there is none. Raises as `set`.

        Returns:
            Whether this call has stored it. If the connection is lost while the server answers, the command is sent
            again, and the answer is False although the first one stored it: no lock can be built on this.
        """
        return self._send(key, values.encode(value, self._serializer), ttl, (b"NX",))

    def delete(self, key: Hashable) -> bool:
        """Forgets a value, in all processes.

        Returns:
            Whether it was there. False too where there is no server, and where the connection was lost while the server
            answered: the command is sent again, and finds nothing.

        Raises:
            As `get`.
        """
        return bool(self._link.ask(b"DROPPABLE.DEL", shared_key(key)))

    async def adelete(self, key: Hashable) -> bool:
        """As `delete`, for coroutines: a thread waits for the server."""
        was_there: bool = await self._link.wait_in_thread(self.delete, EncodedKey(key))
        return was_there

    def clear(self) -> bool:
        """Forgets all values that clients of `droppable.connect` have stored, and no others.

        Returns:
            False where the server cannot be reached.

        Raises:
            UnsupportedError: the server was started with --no-flush. ClosedError. OSError: only with strict=True.
        """
        return self._link.ask(b"DROPPABLE.CLEAR") is not None

    def get_or_create(
        self,
        key: Hashable,
        factory: Callable[[], T],
        ttl: Seconds | None = None,
        *,
        copy: bool = False,
        wait_seconds: Seconds = 30.0,
    ) -> T:
        """The value; where there is none, what factory() returns, which is stored.

        One thread of one process of the host computes it, and the others wait. If that process dies, another one
        computes it. What was set, deleted or cleared during a computation stays so: its result is returned and not
        stored. The first call gives what later ones give: an array is a read-only copy. Without a server each process
        computes.

        Args:
            key: see `SharedCache`.
            factory: computes the value. What it raises reaches all who wait in this process.
            ttl: how long it lives; None: until it is deleted, or memory is short.
            copy: whether an array can be written to.
            wait_seconds: after so long a caller computes the value itself, whatever others do. What the other one
                computes is not stored then.

        Raises:
            As `get` and `set`, but for a value that is too large: it is returned and not stored. What factory raises.
        """
        read_factory(factory)
        if ttl is not None:
            read_seconds("ttl", ttl)
        patience = self._read_patience(wait_seconds)
        encoded = EncodedKey(key)  # once: the factory may change what the key is made of
        found: Any = self._look(encoded, copy)
        if found is not MISSING:
            return cast("T", found)
        return self._computing.do(encoded, factory, keeping_for(ttl, copy), patience)

    async def aget_or_create(
        self,
        key: Hashable,
        factory: Callable[[], Awaitable[T]],
        ttl: Seconds | None = None,
        *,
        copy: bool = False,
        wait_seconds: Seconds = 30.0,
    ) -> T:
        """As `get_or_create`, with a coroutine function: the event loop waits for nobody.

        The computation runs in a task of its own, in a copy of the first caller's context. It goes on while anybody
        waits for it, whoever of them is cancelled, and for a second after the last one left.
        """
        read_function("factory", factory)
        if ttl is not None:
            read_seconds("ttl", ttl)
        patience = self._read_patience(wait_seconds)
        encoded = EncodedKey(key)
        found: Any = self._look(encoded, copy)
        if found is not MISSING:
            return cast("T", found)
        return await self._computing.ado(encoded, factory, keeping_for(ttl, copy), patience)

    def namespace(self, name: Hashable) -> SharedNamespace:
        """The part of this cache that has this name, with keys of its own and a `clear()` of its own.

        name is any key. All processes that ask for the same name see the same entries.
        """
        from droppable._connect.namespace import SharedNamespace

        return SharedNamespace(self, name)

    # Life

    def stats(self) -> SharedCacheStats:
        """What this object has counted. Asks nobody."""
        link = self._link
        reader = link.reader
        return SharedCacheStats(
            connections=link.wire.connections,
            is_attached=reader is not None and not reader.is_dead,
            why_not_attached=link.why_not_attached,
            **link.counts(),
        )

    def server_stats(self) -> dict[str, int]:
        """What the server counts of the values of all clients; {} where it cannot be reached. Raises as `clear`.

        Its direct_hits are told by the clients in batches, about once a second.
        """
        self._link.flush()
        words = self._link.ask(b"DROPPABLE.STATS") or []
        return {words[i].decode(): words[i + 1] for i in range(0, len(words), 2)}

    def close(self) -> None:
        """Hangs up. Every later call but `stats` raises ClosedError. The values stay with the server.

        A near cache is closed as well, unless it was given to `connect`.
        """
        self._link.close()
        if self._near is not None and self._owns_near:
            self._near.close()

    def __enter__(self) -> SharedCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
                tell_once(
                    f"shared:{self._link.wire.path}:{type(error).__name__}",
                    "a shared value cannot be read, and counts as a miss: %r",
                    error,
                )
            else:
                self._link.count("hits_asked")
                return value
        self._link.count("misses")
        return default

    def _look(self, key: EncodedKey, copy: bool) -> Any:
        """What is in the server's memory, or MISSING. Waits for nobody."""
        shared_key(key)
        return values.own_value(self._link.read(key, MISSING), copy)

    def _forget(self, key: EncodedKey) -> bool:
        """As `delete`; False: there is no server."""
        return self._link.ask(b"DROPPABLE.DEL", key) is not None

    def _read_patience(self, wait_seconds: Seconds) -> Patience:
        from droppable._connect.computing import Patience

        return Patience(read_wait("wait_seconds", wait_seconds))

    def _words(
        self, key: Hashable, encoded: values.Encoded, ttl: Seconds | None, how: tuple[bytes, ...]
    ) -> tuple[Word, ...]:
        """The command that stores a value."""
        kind, meta, data = encoded
        return b"DROPPABLE.SET", shared_key(key), b"%d" % kind, meta, data, b"%d" % ms_of(ttl), *how

    def _send(self, key: Hashable, encoded: values.Encoded, ttl: Seconds | None, how: tuple[bytes, ...]) -> bool:
        return self._link.store(*self._words(key, encoded, ttl, how)).is_stored
