"""requests-cache's tests that all of its backends and storages pass, with droppable's. Run by library_worker.py."""

from tests.integration.base_cache_test import BaseCacheTest
from tests.integration.base_storage_test import BaseStorageTest

from droppable.adapters.requests_cache import DroppableCache, DroppableStorage


class TestDroppableStorage(BaseStorageTest):
    storage_class = DroppableStorage


class TestDroppableCache(BaseCacheTest):
    backend_class = DroppableCache
