"""A flight: one computation that is under way, and what came of it.

                          table.setdefault(key, flight) gave it back: its maker computes
                                                    |
                                                  FLYING
            +----------------+----------------+-----+----------+-------------------+
            |                |                |                |                   |
         LANDED         CALLED OFF          DEAD            OVERDUE              STALE
    value or error   interrupted or      nobody is left   somebody waited    its key was set, deleted
                     cancelled           to land it       wait_seconds       or cleared meanwhile
            |                |                |                |                   |
    waiters take it   waiters start     the same, when   he computes as      who waits goes on;
                      again             they look        its heir            newcomers start anew

LANDED, CALLED OFF: `outcome` is set, once, by whoever computes. DEAD is said by nobody: everybody can see it, because
the flight lives exactly as long as a token that only its computing frame holds, or as its task. OVERDUE and STALE take
the flight out of the table and change nothing else.

What an exception, a signal handler or a finaliser may do between any two bytecodes: the outcome comes first, then the
waiters are woken, then the flight leaves the table. Each step may be missing. Newcomers judge by `is_over()`, and
waiters look again after a while.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from types import TracebackType

    from droppable.lowlevel import EncodedKey, Lease


class Outcome:
    """What came of a flight: a value, or an error with its traceback and notes as they were, or neither (called off).

    copy makes a value for each who waited; None: it is in the cache, if anywhere.
    """

    __slots__ = ("copy", "error", "notes", "traceback")

    def __init__(self, copy: Any = None, error: Exception | None = None) -> None:
        self.copy = copy
        self.error = error
        self.traceback: TracebackType | None = None if error is None else error.__traceback__
        self.notes: tuple[str, ...] = () if error is None else tuple(getattr(error, "__notes__", ()))

    @property
    def is_called_off(self) -> bool:
        """Whether there is neither a value nor an error: waiters start again."""
        return self is CALLED_OFF


CALLED_OFF: Final = Outcome()


def failure(error: BaseException) -> Outcome:
    """An Exception is for all who wait. What is none (an interrupt, a cancellation) is for the one who computes."""
    return Outcome(error=error) if isinstance(error, Exception) else CALLED_OFF


class Flight:
    """One computation of key. Its maker is its thread; where a task computes, `task` and `loop` say which."""

    __slots__ = (
        "__weakref__",
        "departures",
        "heir",
        "key",
        "lease",
        "loop",
        "needs",
        "outcome",
        "process",
        "task",
        "thread",
        "token",
        "waiters",
    )

    def __init__(self, key: EncodedKey, loop: AbstractEventLoop | None = None) -> None:
        self.key = key
        self.thread = get_ident()
        self.process = os.getpid()
        self.loop = None if loop is None else weakref.ref(loop)
        self.task: weakref.ref[Task[Any]] | None = None
        self.token: weakref.ref[Any] | None = None
        self.lease: Lease | None = None
        self.outcome: Outcome | None = None
        self.waiters: dict[object, Callable[[], object]] = {}  # a waiter's handle -> what wakes him
        self.needs: list[weakref.ref[Flight]] = []  # what its computation waits for
        self.heir: Flight | None = None  # the flight of whoever did not want to wait any longer
        self.departures = 0  # of waiters, of whom each was the last

    def claim(self) -> Any:
        """For `with flight.claim():` and nothing else: the token, which the frame's evaluation stack alone holds.

        When that frame ends, for whatever reason, its stack is emptied, also where a traceback keeps the frame. A local
        variable or an attribute would keep the token with the traceback, and the flight flying for ever. It is a lock
        only because entering and leaving one runs no bytecode, and because it can be referenced weakly.
        """
        token = Lock()
        self.token = weakref.ref(token)
        return token

    def is_over(self) -> bool:
        """Whether it landed or was called off, or nobody is left who could land it. The only judge of that."""
        if self.outcome is not None or self.process != os.getpid():
            return True
        if self.task is None:
            return self.token is None or self.token() is None
        task, loop = self.task(), None if self.loop is None else self.loop()
        return task is None or task.done() or loop is None or loop.is_closed() or not loop.is_running()

    def is_stale(self) -> bool:
        """Whether its key was invalidated since its computation began: then nobody joins it any more."""
        return self.lease is not None and self.lease.stale

    def land(self, outcome: Outcome) -> None:
        """Sets the outcome; the first counts. Wakes all who wait. A value is for the heir's waiters too."""
        flight: Flight | None = self
        while flight is not None:
            if flight.outcome is None:
                flight.outcome = outcome
            while flight.waiters:
                try:
                    flight.waiters.popitem()[1]()
                except (KeyError, RuntimeError):
                    pass  # somebody else woke the last one; the loop of this one is closed
            flight = None if outcome is CALLED_OFF or outcome.error is not None else flight.heir


def alive(references: Iterable[weakref.ref[Flight]]) -> list[Flight]:
    """Those that are there and not over."""
    flights = [reference() for reference in tuple(references)]
    return [flight for flight in flights if flight is not None and not flight.is_over()]
