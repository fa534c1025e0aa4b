"""One computation of a key for all who ask for it at once: threads, tasks of any event loop, and both together.

    table      key -> flight; who computes, who waits, and what each gets (tasks: the side of asyncio)
    flight     one computation: its states, drawn there
    waiting    seats of those who wait, and who must not wait because it could never end
    keeping    for how long a computed value is kept, and whether
    patience   what a waiter does: when he looks again, and how long he waits in all
    told       a waiter's own value, and his own exception

No lock is held anywhere. A second computation is always allowed as the way out; a wait that cannot end never is.
"""

from droppable._flight.keeping import Keeping as Keeping
from droppable._flight.keeping import keep as keep
from droppable._flight.keeping import keeping_for as keeping_for
from droppable._flight.table import Flights as Flights
from droppable._flight.table import Store as Store
from droppable._flight.told import MISSING as MISSING
