"""The flights of one cache by their keys, and the side of threads: `do()` computes, or waits for who computes.

The side of tasks is in `tasks.py`, which alone imports asyncio.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import Token
from enum import Enum, auto
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from droppable._flight.flight import Flight, Outcome, alive, failure
from droppable._flight.told import MISSING, told_error, told_value
from droppable._flight.waiting import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Seat,
    is_interrupting,
    leads_back,
    working_for,
)

if TYPE_CHECKING:
    import asyncio
    from asyncio import AbstractEventLoop

    from droppable._arguments import Seconds
    from droppable._flight.keeping import Keeping
    from droppable.lowlevel import EncodedKey, Lease

T = TypeVar("T")

_SWEEP_LEAST: Final = 64  # flights, from which on those that are over are looked for
_PRUNE_EVERY: Final = 32  # flights that one call computes for, nested: then those that are over leave the list


class Store(Protocol):
    """What the flights ask of the cache. Keys are encoded: bytes, whose hash and comparison run no Python."""

    def __contains__(self, key: object, /) -> bool: ...
    def get(self, key: object, default: Any = None) -> Any: ...
    def _lease(self, key: object, /) -> Lease: ...
    def _keep(
        self, lease: Lease, key: object, value: Any, ttl: Seconds | None, cost_seconds: float, copies: bool, /
    ) -> Any: ...


class Verdict(Enum):
    """What a waiter does next."""

    LOOK = auto()
    """At the flight: it is over."""
    ALONE = auto()
    """Compute for himself, and tell nobody: to wait could never end."""
    TAKE_OVER = auto()
    """Compute as the flight's heir: nobody has patience for it any more."""


class Flights:
    """The computations under way of one cache. Any thread and any event loop may use it; there is no lock in it.

    Whoever is interrupted anywhere, by an exception, a signal handler, a finaliser or a fork, leaves at worst a flight
    behind that everybody sees to be over. A forked child sees those of its parent so.

    Args:
        wait_seconds: after so long a waiter computes for himself, as a backstop: see `Cache`.
        linger_seconds: for so long a task's computation goes on when nobody waits for it.
    """

    def __init__(self, wait_seconds: float, linger_seconds: float) -> None:
        self.wait_seconds = wait_seconds
        self.linger_seconds = linger_seconds
        self.table: dict[EncodedKey, Flight] = {}
        self._sweep_at = _SWEEP_LEAST

    def do(self, store: Store, key: EncodedKey, factory: Callable[[], T], keeping: Keeping) -> T:
        """factory()'s result, which is stored, or what another thread or task gets that computes key already.

        Nothing here is factored out around factory(): a recursive function pays each frame at each level.
        """
        flight: Flight | None = None
        elder: Flight | None = None
        mine: Flight | None = None
        lease: Lease | None = None
        outcome: Outcome | None = None
        alone = False
        try:
            while True:
                flight = None if alone else self.table.get(key)
                if flight is None:
                    mine = Flight(key)
                    with mine.claim():
                        # The only decision about who computes. Alone: for nobody else, so under no name.
                        flight = mine if alone else self.table.setdefault(key, mine)
                        if flight is mine:
                            mark = self.take_off(mine, elder)
                            try:
                                mine.lease = lease = store._lease(key)
                                copy = None
                                # Somebody may have stored it between our miss and our turn. This counts no second miss.
                                value: Any = store.get(key, MISSING) if key in store else MISSING
                                if value is MISSING:
                                    start = perf_counter()
                                    value = factory()
                                    spent = perf_counter() - start
                                    if keeping.keeps(value):
                                        ttl = keeping.ttl_of(value)
                                        copy = store._keep(lease, key, value, ttl, spent, bool(mine.waiters))
                                mine.land(Outcome(value, copy))
                                return value  # type: ignore[no-any-return]
                            except BaseException as error:
                                mine.land(failure(error))
                                raise
                            finally:
                                self.remove(mine)
                                working_for.reset(mark)
                if flight.is_over() or flight.is_stale():
                    self.remove(flight)
                    continue
                verdict = self._wait(flight)
                if verdict is Verdict.ALONE:
                    alone = True
                elif verdict is Verdict.TAKE_OVER:
                    elder = flight
                elif (outcome := flight.outcome) is not None and not outcome.is_called_off:
                    if outcome.error is not None:
                        raise told_error(outcome)
                    return told_value(outcome, store, key)  # type: ignore[no-any-return]
        finally:
            # The frame may live on in a traceback: it must keep no flight, nor a lease open.
            flight = elder = mine = lease = outcome = None

    def take_off(self, mine: Flight, elder: Flight | None) -> Token[tuple[weakref.ref[Flight], ...]]:
        """From here on the caller computes for mine, and whatever runs in its context with it."""
        if elder is not None:
            elder.heir = mine
        if len(self.table) > self._sweep_at:
            self._sweep()
        working = working_for.get()
        if len(working) % _PRUNE_EVERY == _PRUNE_EVERY - 1:
            # Those that are over too, not only what is gone: kept tracebacks would make the list grow.
            working = tuple(map(weakref.ref, alive(working)))
        return working_for.set((*working, weakref.ref(mine)))

    def remove(self, flight: Flight) -> None:
        """Takes flight out. Two who do so and a newcomer may take out one that flies, at worst: computed twice."""
        if self.table.get(flight.key) is flight:
            self.table.pop(flight.key, None)

    def _sweep(self) -> None:
        # What interrupts and closed loops left behind, of keys that nobody asks for again.
        for flight in self.table.copy().values():
            if flight.is_over():
                self.remove(flight)
        self._sweep_at = max(_SWEEP_LEAST, 2 * len(self.table))

    def _wait(self, flight: Flight) -> Verdict:
        if is_interrupting():
            return Verdict.ALONE
        lock = threading.Lock()
        lock.acquire()
        with Seat(flight, lock, lock.release, True, self.leave) as seat:
            task = None if flight.task is None else flight.task()  # held: an event loop does not hold its tasks
            pause = FIRST_PAUSE_SECONDS
            deadline = time.monotonic() + self.wait_seconds
            while not flight.is_over():
                if pause == FIRST_PAUSE_SECONDS and leads_back(flight, None):
                    return Verdict.ALONE
                if lock.acquire(timeout=max(0.0, min(pause, deadline - time.monotonic()))):
                    break
                verdict = self.look_again(flight, None, seat, pause == FIRST_PAUSE_SECONDS, deadline)
                if verdict is not None:
                    return verdict
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            del task
        return Verdict.LOOK

    def look_again(
        self, flight: Flight, loop: AbstractEventLoop | None, seat: weakref.ref[Seat], is_first: bool, deadline: float
    ) -> Verdict | None:
        """What a waiter does after a pause: None, to go on waiting, or what instead."""
        if flight.outcome is not None:
            return None
        if time.monotonic() >= deadline or flight.thread not in sys._current_frames():
            self.remove(flight)
            return Verdict.TAKE_OVER
        place = seat()
        if is_first and place is not None:
            place.park()
        return Verdict.ALONE if leads_back(flight, loop, place) else None

    def leave(self, flight: Flight) -> None:
        """Nobody waits for flight's task any more: it goes on for a while, for latecomers, and is cancelled."""
        flight.departures += 1
        loop = None if flight.loop is None else flight.loop()
        task = None if flight.task is None else flight.task()
        if loop is None or task is None:
            return
        try:
            if self.linger_seconds > 0:
                loop.call_soon_threadsafe(
                    loop.call_later,
                    self.linger_seconds,
                    self._cancel,
                    flight,
                    flight.departures,
                    task,  # held for so long
                )
            else:
                self.remove(flight)
                loop.call_soon_threadsafe(
                    task.cancel
                )  # no bytecode, at which it could be interrupted: the last one waits
        except RuntimeError:
            pass  # the loop is closed, and its task with it

    def _cancel(self, flight: Flight, departures: int, task: asyncio.Task[Any]) -> None:
        if flight.waiters or flight.departures != departures or flight.is_over():
            return
        self.remove(flight)
        task.cancel()
