"""The side of tasks: as `Flights.do()`, for coroutine functions, without blocking an event loop.

    first caller ---- future <----- woken ------ the computation: a task of its own, in a copy of his context
    other tasks  ---- future <-----/
    threads      ---- lock   <----/

The computation has a task of its own because the first caller may be cancelled while others wait. Whoever wakes a task
sets its future to None and no more: the outcome is read from the flight, so that no future holds an exception that
nobody retrieves.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio import AbstractEventLoop, Future
from collections.abc import Awaitable, Callable
from functools import partial
from threading import get_ident
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from droppable._flight.flight import Flight, Outcome, failure
from droppable._flight.keeping import keep
from droppable._flight.patience import Patience, Verdict
from droppable._flight.table import Flights, Store
from droppable._flight.told import MISSING, told
from droppable._flight.waiting import Seat, is_interrupting

if TYPE_CHECKING:
    from droppable._flight.keeping import Keeping
    from droppable.lowlevel import EncodedKey, Lease

T = TypeVar("T")


def _set(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _wake(loop: AbstractEventLoop, thread: int, future: Future[None]) -> None:
    # Within the loop's own thread without the system call that interrupts its select(). A handler that runs within that
    # call makes the waiter sleep until his next look.
    if get_ident() == thread:
        _set(future)
    else:
        loop.call_soon_threadsafe(_set, future)


def _ended(future: Future[None], task: asyncio.Task[None]) -> None:
    # Whatever became of the computation: its first caller goes on, and no exception of it counts as never retrieved.
    _set(future)
    if not task.cancelled():
        task.exception()


async def do(
    flights: Flights,
    store: Store,
    key: EncodedKey,
    factory: Callable[[], Awaitable[T]],
    keeping: Keeping,
    old: Any = MISSING,
) -> T:
    """As `Flights.do()`; factory() gives a coroutine."""
    loop = asyncio.get_running_loop()
    thread = get_ident()
    flight: Flight | None = None
    mine: Flight | None = None
    task: asyncio.Task[None] | None = None
    outcome: Outcome | None = None
    renews = old is not MISSING
    patience: Patience | None = Patience(flights, loop)
    try:
        while True:
            assert patience is not None
            flight = None if patience.alone else flights.table.get(key)
            future: Future[None] = loop.create_future()
            result: list[T] = []
            task = None
            if flight is None:
                mine = Flight(key, loop)
                # His seat comes first: who joins and leaves at once must not find that nobody waits.
                mine.waiters[future] = partial(_wake, loop, thread, future)
                with mine.claim():
                    flight = mine if patience.alone else flights.table.setdefault(key, mine)
                    if flight is mine:
                        task = loop.create_task(_fly(flights, mine, patience, store, factory, keeping, result, renews))
                        task.add_done_callback(partial(_ended, future))
                        mine.task = weakref.ref(task)
            if task is None and (flight.is_over() or flight.is_stale()):
                flights.remove(flight)
                continue
            if task is None and old is not MISSING:
                return old  # type: ignore[no-any-return]
            outcome = patience.heed(await _wait(flights, flight, patience, loop, future, task), flight)
            if outcome is not None:
                if task is not None and outcome.error is not None:
                    raise outcome.error
                value = result[0] if result else told(outcome, store, key, keeping)
                if value is not MISSING:
                    return value
            elif task is not None and task.done():
                task.result()  # cancelled or interrupted from within: that is the first caller's alone
    finally:
        # The frame may live on in a traceback.
        flight = mine = task = outcome = patience = None


async def _fly(
    flights: Flights,
    flight: Flight,
    patience: Patience | None,
    store: Store,
    factory: Callable[[], Awaitable[T]],
    keeping: Keeping,
    result: list[T],
    renews: bool,
) -> None:
    """The computation. result: where the first caller finds the value itself. renews: an older value may be there."""
    lease: Lease | None = None
    try:
        flights.take_off(flight, patience)  # in a context of its own: nothing to reset
        flight.lease = lease = store._lease(flight.key)
        copy = None
        value: Any = MISSING
        if flight.key in store:
            value = store.get(flight.key, MISSING, copy=keeping.copy)
        if value is MISSING:
            start = perf_counter()
            value = await awaitable(factory)
            spent = perf_counter() - start
            others = len(flight.waiters) - 1
            value, copy = keep(store, lease, flight.key, factory, value, keeping, spent, others, renews)
        result.append(value)
        flight.land(Outcome(copy))
    except BaseException as error:
        flight.land(failure(error))
        if not isinstance(error, Exception):
            raise
    finally:
        flights.remove(flight)
        flight = patience = lease = None  # type: ignore[assignment]


def awaitable(factory: Callable[[], Awaitable[T]]) -> Awaitable[T]:
    """What factory() gives; TypeError if nobody can await it."""
    made = factory()
    if not hasattr(made, "__await__"):
        raise TypeError(f"factory must be a coroutine function, or use get_or_create(); yours gave {made!r}")
    return made


async def _wait(
    flights: Flights,
    flight: Flight,
    patience: Patience,
    loop: AbstractEventLoop,
    future: Future[None],
    own: asyncio.Task[None] | None,
) -> Verdict:
    """Until flight is over, or something else is to be done. own: the computation's task, for the one who began it.

    He has no patience with it, and needs no looks: its end wakes him whatever happens in it.
    """
    if own is None and is_interrupting():
        return Verdict.ALONE
    thread = get_ident()
    task = own if flight.task is None else flight.task()  # held: an event loop does not hold its tasks
    try:
        with Seat(flight, future, partial(_wake, loop, thread, future), False, flights.leave) as seat:
            if own is not None:
                if not flight.is_over():
                    await future
                return Verdict.LOOK
            verdict = None if flight.is_over() else patience.begin(flight)
            while verdict is None and not flight.is_over():
                timer = loop.call_later(patience.pause_seconds(), _set, future)
                try:
                    await future
                finally:
                    timer.cancel()
                if flight.is_over():
                    break
                verdict = patience.look(flight, seat)
                future = loop.create_future()
                place = seat()
                if place is not None:
                    place.sit_on(future, partial(_wake, loop, thread, future))
                place = None
        return verdict or Verdict.LOOK
    except asyncio.CancelledError:
        is_here = flight.loop is not None and flight.loop() is loop
        if task is not None and is_here and not flight.waiters and flights.linger_seconds == 0:
            await asyncio.wait((task,))  # as if it had run in the caller's own task: it cleans up before he goes on
        raise
    finally:
        flight = task = own = None  # type: ignore[assignment]
