"""What one caller does who waits: when he looks again, how long he waits in all, and what he does then.

    Seat taken, is_over()? -- begin() -- pause -- look() -- pause, twice as long -- look() -- ... -- heed(verdict)

Threads and tasks pause in ways of their own (`table.py`, `tasks.py`); the rest is here for both.
"""

from __future__ import annotations

import sys
import time
import weakref
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from droppable._flight.waiting import Seat, leads_back

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from droppable._flight.flight import Flight, Outcome
    from droppable._flight.table import Flights

FIRST_PAUSE_SECONDS: Final = 0.02
"""Between a waiter's first two looks; it doubles each time."""
LONGEST_PAUSE_SECONDS: Final = 1.0


class Verdict(Enum):
    """What a waiter does next."""

    LOOK = auto()
    """At the flight: it is over."""
    ALONE = auto()
    """Compute for himself, and tell nobody: to wait could never end."""
    TAKE_OVER = auto()
    """Compute as the flight's heir: nobody has patience for it any more."""


class Patience:
    """Of one call, for all flights that it waits for, one after the other: they share its deadline.

    Args:
        flights: of the cache.
        loop: the event loop whose task the caller is; None: he is a thread that stands still meanwhile.
    """

    __slots__ = ("_deadline", "_flights", "_loop", "_pause", "alone", "elder")

    def __init__(self, flights: Flights, loop: AbstractEventLoop | None) -> None:
        self._flights = flights
        self._loop = loop
        self._deadline = time.monotonic() + flights.wait_seconds
        self._pause = FIRST_PAUSE_SECONDS
        self.alone = False
        self.elder: Flight | None = None  # whose heir the caller is, if he computes

    def begin(self, flight: Flight) -> Verdict | None:
        """Before the first pause: None, to wait, or what instead."""
        self._pause = FIRST_PAUSE_SECONDS
        return Verdict.ALONE if leads_back(flight, self._loop) else None

    def pause_seconds(self) -> float:
        """How long to wait until the next look, unless somebody wakes the caller."""
        return max(0.0, min(self._pause, self._deadline - time.monotonic()))

    def look(self, flight: Flight, seat: weakref.ref[Seat]) -> Verdict | None:
        """After a pause: None, to go on waiting, or what instead."""
        if flight.outcome is not None:
            return None
        if time.monotonic() >= self._deadline or flight.thread not in sys._current_frames():
            self._flights.remove(flight)
            return Verdict.TAKE_OVER
        place = seat()
        if self._pause == FIRST_PAUSE_SECONDS and place is not None:
            place.park()
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        return Verdict.ALONE if leads_back(flight, self._loop, place) else None

    def heed(self, verdict: Verdict, flight: Flight) -> Outcome | None:
        """What came of the flight, if the caller is to take that. Else he starts again, as `alone` and `elder` say."""
        if verdict is Verdict.ALONE:
            self.alone = True
        elif verdict is Verdict.TAKE_OVER:
            self.elder = flight
        elif (outcome := flight.outcome) is not None and not outcome.is_called_off:
            return outcome
        return None
