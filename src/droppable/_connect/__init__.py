"""The same cache in every process of a host: `droppable.connect`."""

from droppable._connect.connecting import connect as connect
from droppable._connect.namespace import SharedNamespace as SharedNamespace
from droppable._connect.shared import SharedCache as SharedCache
from droppable._connect.shared import SharedCacheStats as SharedCacheStats
