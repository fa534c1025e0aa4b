# Added to aiocache's own tests/acceptance/conftest.py: its tests run with this cache alone.


import asyncio

import pytest
from tests.utils import KEY_LOCK, Keys


@pytest.fixture
async def droppable_cache():
    from droppable.adapters.aiocache import DroppableCache

    async with DroppableCache(namespace="test") as cache:
        yield cache
        await asyncio.gather(*(cache.delete(k) for k in (*Keys, KEY_LOCK)))


@pytest.fixture
def cache(droppable_cache):
    return droppable_cache
