"""Flask-Caching's tests that all of its backends pass, with droppable's. Run by library_worker.py."""

import pytest
from test_backend_cache import GenericCacheTests

from droppable.adapters.flask_caching import DroppableCache


class TestDroppableCache(GenericCacheTests):
    _can_use_fast_sleep = False  # the clock of a droppable cache is not Python's time.time

    @pytest.fixture
    def make_cache(self) -> type[DroppableCache]:
        return DroppableCache

    @pytest.fixture
    def clock(self) -> None:
        """Not used, but asked for by a fixture."""
