"""Memory that the kernel may take back at any moment, and the caches built on it."""

from droppable import _supported as _supported  # the first import: it says where droppable runs
from droppable import random as random
from droppable._arguments import NEVER as NEVER
from droppable._cache import Cache as Cache
from droppable._features import Feature as Feature
from droppable._features import Features as Features
from droppable._features import features as features
from droppable._live import caches as caches
from droppable._memo import cache as cache
from droppable._memo_self import INSTANCE as INSTANCE
from droppable._memo_types import CacheInfo as CacheInfo
from droppable._memo_types import Memo as Memo
from droppable._memory import Region as Region
from droppable._memory import RegionBlock as RegionBlock
from droppable._memory import RegionCensus as RegionCensus
from droppable._named import named as named
from droppable._namespace import Namespace as Namespace
from droppable._reducers import register_reducer as register_reducer
from droppable._stats import CacheStats as CacheStats
from droppable.lowlevel import ClosedError as ClosedError
from droppable.lowlevel import DroppableError as DroppableError
from droppable.lowlevel import Dropped as Dropped
from droppable.lowlevel import RefusedError as RefusedError
from droppable.lowlevel import UnsupportedError as UnsupportedError
from droppable.lowlevel import ValueTooLargeError as ValueTooLargeError
