"""One computation for many waiters: threads, tasks, and both at once.

    key -> flight: who computes (a thread, or a task on it), and a future for everybody else

The first caller of a key computes; the others wait. An exception reaches all of them and is not kept. Somebody who
would wait for a computation that waits for him (a recursive function, two functions that call each other from two
threads) computes for himself instead. A computation that is called off (its task is cancelled, its thread interrupted)
is taken over by one of the waiters.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class _CalledOff(Exception):
    """The one who computed went away without a result or an error."""


class _Flight:
    __slots__ = ("future", "owner", "thread")

    def __init__(self, owner: object, thread: int) -> None:
        self.owner = owner
        self.thread = thread
        self.future: Future[Any] = Future()


def _current_owner(thread: int) -> object:
    try:
        return asyncio.current_task() or thread
    except RuntimeError:  # no event loop runs in this thread
        return thread


class Flights:
    """The computations that are under way, by key. Any thread and any event loop may use it at once.

    After a fork the child begins with none: those who were computing are not in it.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._flights: dict[bytes, _Flight] = {}
        self._waiting: dict[object, _Flight] = {}  # owner -> the flight it waits for

    def _board(self, key: bytes, blocking: bool) -> tuple[_Flight, bool]:
        """The flight of key, and whether the caller is the one to compute it. Else it waits and must call _leave()."""
        if os.getpid() != self._process:
            self._begin()
        thread = threading.get_ident()
        owner = _current_owner(thread)
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight(owner, thread)
                return flight, True
            ahead: _Flight | None = flight
            while ahead is not None:
                # A thread that blocks also stops every task on it, so it may wait for none of those.
                if ahead.owner == owner or (blocking and ahead.thread == thread):
                    return _Flight(owner, thread), True
                ahead = self._waiting.get(ahead.owner)
            self._waiting[owner] = flight
            return flight, False

    def _leave(self) -> None:
        with self._lock:
            self._waiting.pop(_current_owner(threading.get_ident()), None)

    def _land(self, key: bytes, flight: _Flight, result: object = None, error: BaseException | None = None) -> None:
        """The key has no flight from here on, and all who wait are told what came of it."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
        if error is None:
            flight.future.set_result(result)
            return
        if isinstance(error, StopIteration):  # a task cannot be told that one: its future refuses it
            told: Exception = RuntimeError("the computation raised StopIteration")
            told.__cause__ = error
        else:
            told = error if isinstance(error, Exception) else _CalledOff()
        flight.future.set_exception(told)

    def do(self, key: bytes, compute: Callable[[], T]) -> T:
        """Returns compute()'s result, or that of another thread or task that is computing key already."""
        while True:
            flight, is_mine = self._board(key, blocking=True)
            if is_mine:
                break
            try:
                landed: T = flight.future.result()
                return landed
            except _CalledOff:
                continue
            finally:
                self._leave()
        try:
            result = compute()
        except BaseException as error:
            self._land(key, flight, error=error)
            raise
        self._land(key, flight, result)
        return result

    async def do_async(self, key: bytes, compute: Callable[[], Awaitable[T]]) -> T:
        """As do(), for coroutines: waits without blocking the event loop."""
        while True:
            flight, is_mine = self._board(key, blocking=False)
            if is_mine:
                break
            try:
                # shielded: a waiter that is cancelled leaves the others their future
                landed: T = await asyncio.shield(asyncio.wrap_future(flight.future))
                return landed
            except _CalledOff:
                continue
            finally:
                self._leave()
        try:
            result = await compute()
        except BaseException as error:
            self._land(key, flight, error=error)
            raise
        self._land(key, flight, result)
        return result
