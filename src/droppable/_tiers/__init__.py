"""A slower mapping below a cache: what the cache lost is fetched instead of computed.

    below      the slower mapping, whose failures are counted and never fatal; what cannot be trusted there
    pending    values that wait to be written to it, and the thread that writes them
    tier       both, with the locks under which a key is changed
    tiered     the calls of a cache that reach it

    get(key):   cache -- miss --> pending -- not there --> below -- not there --> the factory
    set(key):   below, or pending  --> cache
    delete:     pending, below     --> cache

The cache is told last, so that whoever fetched an older value meanwhile, under a lease, does not keep it.
"""

from droppable._tiers.tiered import TieredCore as TieredCore
from droppable._tiers.tiered import tiered as tiered
