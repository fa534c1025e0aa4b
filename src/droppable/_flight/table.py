"""The flights of one cache by their keys, and the side of threads: `do()` computes, or waits for who computes.

The side of tasks is in `tasks.py`, which alone imports asyncio.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextvars import Token
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from droppable._flight.flight import Flight, Outcome, alive, failure
from droppable._flight.keeping import keep
from droppable._flight.patience import Patience, Verdict
from droppable._flight.told import MISSING, told
from droppable._flight.waiting import Seat, is_interrupting, working_for

if TYPE_CHECKING:
    import asyncio

    from droppable._arguments import Seconds
    from droppable._flight.keeping import Keeping
    from droppable.lowlevel import EncodedKey, Lease

T = TypeVar("T")

_SWEEP_LEAST: Final = 64  # flights, from which on those that are over are looked for
_PRUNE_EVERY: Final = 32  # flights that one call computes for, nested: then those that are over leave the list


class Store(Protocol):
    """What the flights ask of the cache. Keys are encoded: bytes, whose hash and comparison run no Python."""

    def __contains__(self, key: object, /) -> bool: ...
    def get(self, key: object, default: Any = None, *, copy: bool = False) -> Any: ...
    def discard(self, key: Any, /) -> bool: ...
    def _lease(self, key: object, /) -> Lease: ...
    def _keep(
        self, lease: Lease, key: object, value: Any, ttl: Seconds | None, cost_seconds: float, flags: int, /
    ) -> tuple[Any, Any, Exception | None]: ...


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

    def do(self, store: Store, key: EncodedKey, factory: Callable[[], T], keeping: Keeping, old: Any = MISSING) -> T:
        """factory()'s result, which is stored, or what another thread or task gets that computes key already.

        old: what is returned at once where somebody computes it already; else the caller waits.

        Nothing here is factored out around factory(): a recursive function pays each frame at each level.
        """
        flight: Flight | None = None
        mine: Flight | None = None
        lease: Lease | None = None
        outcome: Outcome | None = None
        patience: Patience | None = None
        try:
            while True:
                flight = None if patience is not None and patience.alone else self.table.get(key)
                if flight is None:
                    mine = Flight(key)
                    with mine.claim():
                        # The only decision about who computes. Alone: for nobody else, so under no name.
                        if patience is None or not patience.alone:
                            flight = self.table.setdefault(key, mine)
                        if flight is None or flight is mine:
                            mark = self.take_off(mine, patience)
                            try:
                                mine.lease = lease = store._lease(key)
                                copy = None
                                # Somebody may have stored it between our miss and our turn. This counts no second miss.
                                value: Any = MISSING
                                if key in store:
                                    value = store.get(key, MISSING, copy=keeping.copy)
                                if value is MISSING:
                                    start = perf_counter()
                                    value = factory()
                                    spent = perf_counter() - start
                                    others = len(mine.waiters)
                                    renews = old is not MISSING
                                    value, copy = keep(
                                        store, lease, key, factory, value, keeping, spent, others, renews
                                    )
                                mine.land(Outcome(copy))
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
                if old is not MISSING:
                    return old  # type: ignore[no-any-return]
                patience = patience or Patience(self, None)
                outcome = patience.heed(self._wait(flight, patience), flight)
                if outcome is not None:
                    value = told(outcome, store, key, keeping)
                    if value is not MISSING:
                        return value  # type: ignore[no-any-return]
        finally:
            # The frame may live on in a traceback: it must keep no flight, nor a lease open.
            flight = mine = lease = outcome = patience = None

    def take_off(self, mine: Flight, patience: Patience | None) -> Token[tuple[weakref.ref[Flight], ...]]:
        """From here on the caller computes for mine, and whatever runs in its context with it."""
        if patience is not None and patience.elder is not None:
            patience.elder.heir = mine
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

    def _wait(self, flight: Flight, patience: Patience) -> Verdict:
        if is_interrupting():
            return Verdict.ALONE
        lock = threading.Lock()
        lock.acquire()
        with Seat(flight, lock, lock.release, True, self.leave) as seat:
            task = None if flight.task is None else flight.task()  # held: an event loop does not hold its tasks
            verdict = None if flight.is_over() else patience.begin(flight)
            while verdict is None and not flight.is_over():
                if lock.acquire(timeout=patience.pause_seconds()):
                    break
                verdict = patience.look(flight, seat)
            del task
        return verdict or Verdict.LOOK

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
