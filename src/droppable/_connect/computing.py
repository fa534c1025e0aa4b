"""One computation of a key for all who ask for it at once, in all processes of a host.

    who asks in this process   one flight (`droppable._flight`): one of them computes, the others wait for him
    who computes               a claim of the server: one process computes, the others look again and again

        read --found--> the value
          '-- CLAIM --> a number      compute, SET ... CLAIMED number: stored, unless it was set, deleted or cleared
                                      meanwhile, or somebody else has taken the claim over
                    --> another's     look again after a while; when that has been too long: CLAIM ... ANYWAY
                    --> a value       somebody has computed it since we looked

Coroutines do the same, and ask the server in the link's thread.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from droppable._connect import values
from droppable._connect.link import Link, Stored
from droppable._flight import MISSING, Flights, Keeping
from droppable._flight.keeping import name_of, refuse_coroutine
from droppable._log import tell_once
from droppable.lowlevel import ClosedError, ValueTooLargeError

if TYPE_CHECKING:
    from droppable._arguments import Seconds
    from droppable._connect.shared import SharedCache
    from droppable.lowlevel import EncodedKey, Lease

T = TypeVar("T")

_AGAIN: Final = None
_ANY_CLAIM: Final = 0
"""To be given up: whichever this client has."""
_NO_CLAIM: Final = -1
_NO_SERVER: Final = -2
_PAUSE_SECONDS: Final = 0.001
_PAUSE_MOST_SECONDS: Final = 0.05
"""Between two looks whether another process has computed a value; the first one, and the longest."""


class Patience(NamedTuple):
    """For how long callers wait: see `Cache`."""

    wait_seconds: float = 30.0
    linger_seconds: float = 1.0


class _Made(NamedTuple):
    """What a computation gives: the caller's own value, and what makes one for each who waited.

    No copy: the value is in the server, if anywhere, and they look there.
    """

    own: Any
    copy: _Copy | None

    def for_caller(self, keeping: Keeping) -> _Made:
        """With a value that may be written to, if the caller wants that."""
        return self._replace(own=values.own_value(self.own, keeping.copy))


class _Copy:
    """As the copies of `droppable._flight`."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def load(self, copy: bool, default: Any) -> Any:
        """A value of one's own."""
        return values.own_value(self._make(), copy)


class _NeverStale:
    """A lease for the flights: what became of a computation's key meanwhile is the server's to say, by its claim."""

    stale: Final = False


_LEASE: Final = cast("Lease", _NeverStale())


class _Store:
    """What the flights ask of a cache: here only the server's memory, for which nobody waits."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def __contains__(self, key: object, /) -> bool:
        return True  # get() will tell

    def get(self, key: object, default: Any = None, *, copy: bool = False) -> Any:
        return values.own_value(self._link.read(key, default), copy)

    def discard(self, key: Any, /) -> bool:
        return False

    def _lease(self, key: object, /) -> Lease:
        return _LEASE

    def _keep(
        self, lease: Lease, key: object, value: Any, ttl: Seconds | None, cost_seconds: float, flags: int, /
    ) -> tuple[Any, Any, Exception | None]:
        return value.own, value.copy, None  # it was stored by whoever made it


class Computing:
    """The computations of one SharedCache."""

    def __init__(self, cache: SharedCache, link: Link) -> None:
        self._cache = cache
        self._link = link
        self._store = _Store(link)
        self._table = Flights(*Patience()).table

    def do(self, key: EncodedKey, factory: Callable[[], T], keeping: Keeping, patience: Patience) -> T:
        """factory()'s result, or what somebody else computes. What is in the server's memory was looked for before."""
        make = partial(self._make, key, factory, keeping, time.monotonic() + patience.wait_seconds)
        flights = self._flights(patience)
        return cast("T", flights.do(self._store, key, make, Keeping(copy=keeping.copy, name=keeping.name)))

    async def ado(
        self, key: EncodedKey, factory: Callable[[], Awaitable[T]], keeping: Keeping, patience: Patience
    ) -> T:
        """As `do`, with a coroutine function."""
        from droppable._flight import tasks

        make = partial(self._amake, key, factory, keeping, time.monotonic() + patience.wait_seconds)
        flights = self._flights(patience)
        return cast("T", await tasks.do(flights, self._store, key, make, Keeping(copy=keeping.copy, name=keeping.name)))

    def _flights(self, patience: Patience) -> Flights:
        flights = Flights(*patience)
        flights.table = self._table
        return flights

    # What a flight computes. An exception of a signal handler may come between any two steps.

    def _make(self, key: EncodedKey, factory: Callable[[], Any], keeping: Keeping, until: float) -> _Made:
        claim = _ANY_CLAIM  # until it is known
        pause = _PAUSE_SECONDS
        try:
            while (found := self._look(key, until)) is _AGAIN:
                time.sleep(_next(pause, until))
                pause *= 2
            if isinstance(found, _Made):
                claim = _NO_CLAIM
                return found.for_caller(keeping)
            claim = found
            value = factory()
            made, claim = self._keep(key, factory, value, keeping, claim), _NO_CLAIM
            return made
        finally:
            self._release(key, claim)

    async def _amake(
        self, key: EncodedKey, factory: Callable[[], Awaitable[Any]], keeping: Keeping, until: float
    ) -> _Made:
        import asyncio

        from droppable._flight.tasks import awaitable

        claim = _ANY_CLAIM
        pause = _PAUSE_SECONDS
        try:
            while (found := await self._link.wait_in_thread(self._look, key, until)) is _AGAIN:
                await asyncio.sleep(_next(pause, until))
                pause *= 2
            if isinstance(found, _Made):
                claim = _NO_CLAIM
                return found.for_caller(keeping)
            claim = found
            value = await awaitable(factory)
            made, claim = await self._link.wait_in_thread(self._keep, key, factory, value, keeping, claim), _NO_CLAIM
            return cast("_Made", made)
        finally:
            if claim >= 0:
                with suppress(ClosedError, RuntimeError):  # by another thread; the interpreter ends
                    self._link.in_thread(self._release, key, claim)  # behind what may be under way

    def _look(self, key: EncodedKey, until: float) -> int | _Made | None:
        """The number of a claim, the value that another process has computed, or _AGAIN.

        _NO_CLAIM: there is no room for one. _NO_SERVER. What is computed then is not stored: nobody could tell whether
        the key was set or deleted meanwhile.
        """
        how: tuple[bytes, ...] = ()
        while True:
            reply = self._link.ask(b"DROPPABLE.CLAIM", key, *how)
            if isinstance(reply, list):
                value = self._cache._value_of(key, reply, MISSING)
                if value is not MISSING:
                    return _Made(value, None)
            elif reply != 0:
                self._link.count("misses")
                return _NO_SERVER if reply is None else int(reply)
            elif time.monotonic() < until:
                return _AGAIN
            how = (b"ANYWAY",)  # what is there cannot be read; or the other one takes too long

    def _keep(self, key: EncodedKey, factory: Callable[..., Any], value: Any, keeping: Keeping, claim: int) -> _Made:
        """Stores the value, if it is to be kept."""
        refuse_coroutine(value, factory, keeping)
        if not keeping.keeps(value):
            self._release(key, claim)
            return _Made(value, _Copy(lambda: value))
        cache = self._cache
        try:
            encoded = values.encode(value, cache._serializer)
        except TypeError as error:
            if keeping.name:
                error.add_note(f"It is what {keeping.name} has returned")
            raise
        stored = Stored.LOST if claim == _NO_SERVER else Stored.NOT_NEW
        try:
            if claim >= 0:
                how = (b"CLAIMED", b"%d" % claim)
                stored = self._link.store(*cache._words(key, encoded, keeping.ttl_of(value), how))
        except ValueTooLargeError as error:
            stored = Stored.REFUSED
            self._release(key, claim)
            name = name_of(factory, keeping)
            tell_once(f"shared:{name}", "a result of %s is returned and not shared: %s", name, error)
        kind, meta, data = encoded
        load = partial(values.decode_reply, kind, meta, bytes(data), cache._decode)
        own = values.own_value(load(), keeping.copy)
        # What was stored or revoked is looked for: it may have changed since. What cannot be stored is handed over.
        return _Made(own, _Copy(load) if stored in (Stored.REFUSED, Stored.LOST) else None)

    def _release(self, key: EncodedKey, claim: int) -> None:
        """After a computation that failed, whose exception is the one to be raised. A claim ends with its client."""
        if claim >= 0:
            with suppress(OSError, ValueError, MemoryError, ClosedError):
                self._link.ask(b"DROPPABLE.RELEASE", key, b"%d" % claim)


def _next(pause: float, until: float) -> float:
    return max(0.0, min(pause, _PAUSE_MOST_SECONDS, until - time.monotonic()))
