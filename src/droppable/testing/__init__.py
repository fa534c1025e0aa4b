"""For tests of what stands on droppable memory: real drops by the kernel on order, and clocks that move on order.

    _drop     drop, settle, advance_clock: for caches, memoised functions, regions, mappings
    plugin    pytest loads it by itself: the fixture `droppable_drop`
    contract  `CacheContract`: tests that any cache on droppable memory should pass; import it for yourself

Nothing here imports pytest or NumPy but `plugin` and `contract`.
"""

from droppable.testing._drop import DropReport as DropReport
from droppable.testing._drop import advance_clock as advance_clock
from droppable.testing._drop import drop as drop
from droppable.testing._drop import settle as settle

__all__ = ["DropReport", "advance_clock", "drop", "settle"]
