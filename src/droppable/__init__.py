"""Memory that the kernel may take back at any moment, and the caches built on it."""

import typing as _typing

from droppable import _supported as _supported  # the first import: it says where droppable runs
from droppable._arguments import NEVER as NEVER
from droppable._arguments import Backing as Backing
from droppable._cache import Cache as Cache
from droppable._cache import Serializer as Serializer
from droppable._chunked import ChunkedArray as ChunkedArray
from droppable._connect import SharedCache as SharedCache
from droppable._connect import SharedCacheStats as SharedCacheStats
from droppable._connect import SharedNamespace as SharedNamespace
from droppable._connect import connect as connect
from droppable._features import Feature as Feature
from droppable._features import Features as Features
from droppable._features import features as features
from droppable._live import caches as caches
from droppable._mapping import View as View
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
from droppable._stats import ChunkedArrayStats as ChunkedArrayStats
from droppable._stats import TierStats as TierStats
from droppable.lowlevel import ClosedError as ClosedError
from droppable.lowlevel import DroppableError as DroppableError
from droppable.lowlevel import Dropped as Dropped
from droppable.lowlevel import RefusedError as RefusedError
from droppable.lowlevel import UnpicklableError as UnpicklableError
from droppable.lowlevel import UnsupportedError as UnsupportedError
from droppable.lowlevel import ValueTooLargeError as ValueTooLargeError

if _typing.TYPE_CHECKING:
    from droppable import metrics as metrics
    from droppable import model as model
    from droppable import random as random
    from droppable import replay as replay
    from droppable import testing as testing

    __version__: str
else:
    from droppable._lazy import __dir__ as __dir__
    from droppable._lazy import __getattr__ as __getattr__

__all__ = [
    "INSTANCE", "NEVER", "Backing", "Cache", "CacheInfo", "CacheStats", "ChunkedArray", "ChunkedArrayStats",
    "ClosedError", "Dropped", "DroppableError", "Feature", "Features", "Memo", "Namespace", "RefusedError", "Region",
    "RegionBlock", "RegionCensus", "Serializer", "SharedCache", "SharedCacheStats", "SharedNamespace", "TierStats",
    "UnpicklableError", "UnsupportedError", "ValueTooLargeError", "View", "cache", "caches", "connect", "features",
    "named", "register_reducer",
]  # fmt: skip
