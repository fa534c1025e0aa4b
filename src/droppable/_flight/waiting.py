"""Seats of those who wait for a flight, and who must not wait.

    working_for   context variable: the flights that this logical call computes; child tasks and to_thread inherit it
    flight.needs  the flights for which a flight's computation waits
    _blocked      thread -> the flights for which it stands still
    _parked       the seats of those who have waited for a while: who waits for a pool's job shows only then

All of them hold weak references. What an interrupt leaves behind keeps no value alive and makes nobody wait.

Edges first, then the look: whoever waits puts his edge in before he looks for a cycle. Of those who close one, at least
the last one sees it, and computes for himself.
"""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from threading import get_ident
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from droppable._flight.flight import Flight, alive

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

working_for: ContextVar[tuple[weakref.ref[Flight], ...]] = ContextVar("droppable_working_for", default=())

_blocked: dict[int, list[weakref.ref[Flight]]] = {}
_parked: dict[weakref.ref[Seat], weakref.ref[Seat]] = {}

_HAS_GIL: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()
_LEFT_BEHIND: Final = 8  # edges of one thread, from which on those that interrupts left behind are looked for
_LONGEST_CHAIN: Final = 100  # of tasks that wait for one another, as far as it is followed
# The innermost frames of a thread that waits for a job's result or for another thread
_PARKING: Final[frozenset[CodeType]] = frozenset(
    {
        threading.Condition.wait.__code__,
        threading.Thread.join.__code__,
        getattr(threading.Thread, "_wait_for_tstate_lock", threading.Thread.join).__code__,  # until Python 3.12
    }
)


class Seat:
    """A waiter's place, for a `with` block: among those to wake, and in the edges of the flights that he works for.

    Args:
        flight: what is waited for.
        handle: what this waiter is known by to the flight.
        wake: wakes him; it must not hold the seat.
        blocks: his thread stands still meanwhile.
        leave: is called with the flight when nobody waits any more for a task that computes.
    """

    __slots__ = ("__weakref__", "_edges", "_flight", "_handle", "_jobs", "_leave", "_thread")

    def __init__(
        self,
        flight: Flight,
        handle: object,
        wake: Callable[[], object],
        blocks: bool,
        leave: Callable[[Flight], None],
    ) -> None:
        self._flight = flight
        self._handle = handle
        self._thread = get_ident()
        self._jobs: tuple[Any, ...] = ()
        self._leave = leave
        self._edges = [mine.needs for mine in alive(working_for.get())]
        if blocks:
            stack = _blocked.setdefault(self._thread, [])
            if len(stack) > _LEFT_BEHIND:
                stack[:] = [edge for edge in stack if edge() is not None]
            self._edges.append(stack)
        flight.waiters[handle] = wake

    def __enter__(self) -> weakref.ref[Seat]:
        for edges in self._edges:
            edges.append(weakref.ref(self._flight))
        return weakref.ref(self)  # the evaluation stack alone holds the seat, as it holds a flight's token

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        edge = weakref.ref(self._flight)
        for edges in self._edges:
            if edge in edges:
                edges.remove(edge)
        if not _blocked.get(self._thread, True):
            _blocked.pop(self._thread, None)
        self._flight.waiters.pop(self._handle, None)
        if self._flight.task is not None and not self._flight.waiters and not self._flight.is_over():
            self._leave(self._flight)

    def sit_on(self, handle: object, wake: Callable[[], object]) -> None:
        """Waits on under another handle."""
        self._flight.waiters[handle] = wake
        self._flight.waiters.pop(self._handle, None)
        self._handle = handle

    @property
    def flight(self) -> Flight:
        """What is waited for."""
        return self._flight

    def park(self) -> None:
        """It takes longer: from here on others may see which jobs of pools this waiter is in."""
        work_item: Any = getattr(sys.modules.get("concurrent.futures.thread"), "_WorkItem", None)
        jobs = []
        frame: FrameType | None = None if work_item is None else sys._getframe()
        while frame is not None:
            if frame.f_code is work_item.run.__code__:
                jobs.append(frame.f_locals["self"].future)
            frame = frame.f_back
        self._jobs = tuple(jobs)
        reference = weakref.ref(self, _parked.pop)  # C alone: a callback in Python would swallow an interrupt
        _parked[reference] = reference

    def is_awaited_by(self, flight: Flight) -> bool:
        """Whether flight's computation waits for the thread, or the job of a pool, that this waiter is in."""
        task = None if flight.task is None else flight.task()
        if task is not None and any(_awaits(task, job) for job in self._jobs):
            return True
        if flight.thread == get_ident() or not _HAS_GIL:
            return False
        # The innermost frame alone, and its code first: to go on to f_back of a thread that runs can crash.
        frame = sys._current_frames().get(flight.thread)
        if frame is None or frame.f_code not in _PARKING:
            return False
        awaited = frame.f_locals.get("self")
        if awaited is None:
            return False
        if awaited is getattr(threading, "_active", {}).get(self._thread):
            return True
        conditions = [job._condition for job in self._jobs]
        for job in self._jobs:
            conditions += [waiter.event._cond for waiter in tuple(job._waiters) if hasattr(waiter, "event")]
        return any(condition is awaited for condition in conditions)


def _awaits(task: Any, job: Any) -> bool:
    """Whether the end of a pool's job wakes what task waits for, also through child tasks and gather()."""
    awaited: list[Any] = []
    todo = [task]
    while todo and len(awaited) < _LONGEST_CHAIN:
        one = todo.pop()
        awaited.append(one)
        todo += [
            other for other in (getattr(one, "_fut_waiter", None), *getattr(one, "_children", ())) if other is not None
        ]
    cells = [cell for call in tuple(job._done_callbacks) for cell in getattr(call, "__closure__", None) or ()]
    return any(_content(cell) is one for cell in cells for one in awaited)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return cell


def leads_back(flight: Flight, loop: AbstractEventLoop | None, seat: Seat | None = None) -> bool:
    """Whether flight, or one that it needs, can only go on when the caller does: then he must not wait for it.

    Args:
        flight: what he would wait for.
        loop: the event loop whose task he is; None: he is a thread that stands still meanwhile.
        seat: his, from the second look on, at which jobs of pools are looked at as well.
    """
    mine = set(alive(working_for.get()))
    thread = get_ident()
    seen: set[Flight] = set()
    todo = [flight]
    while todo:
        other = todo.pop()
        if other in seen:
            continue
        seen.add(other)
        if other in mine:
            return True
        is_of_my_loop = loop is not None and other.loop is not None and other.loop() is loop
        if other.thread == thread and not is_of_my_loop:
            return True  # its frame is below mine, or its event loop stands still while I wait
        todo += alive(other.needs)
        todo += alive(_blocked.get(other.thread, ()))
        if seat is None:
            continue
        for reference in _parked.copy():
            parked = reference()
            if parked is None or not parked.is_awaited_by(other):
                continue
            if parked is seat:
                return True
            todo.append(parked.flight)
    return False


def is_interrupting() -> bool:
    """Whether the caller is a finaliser or a signal handler: what it interrupted may hold any lock: it never waits."""
    handlers: set[CodeType] = set()
    if get_ident() == threading.main_thread().ident:
        found = (getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals())
        handlers = {code for code in found if code is not None}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code in handlers:
            return True
        frame = frame.f_back
    return False
