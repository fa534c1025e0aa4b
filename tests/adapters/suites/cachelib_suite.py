"""cachelib's tests that all of its caches pass, with droppable's. Run by library_worker.py."""

from typing import Any

from clear import ClearTests
from common import CommonTests
from has import HasTests

from droppable.adapters.cachelib import DroppableCache


class TestDroppableCache(CommonTests, HasTests, ClearTests):
    def cache_factory(self, *arguments: Any, **more: Any) -> DroppableCache:
        return DroppableCache(*arguments, **more)
