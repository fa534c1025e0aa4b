"""zarr's tests that all of its stores pass, with droppable's. Run by library_worker.py."""

from typing import Any

import pytest
from zarr.core.buffer import Buffer, cpu
from zarr.testing.store import StoreTests

from droppable.adapters.zarr import DroppableStore


class TestDroppableStore(StoreTests[DroppableStore, cpu.Buffer]):
    store_cls = DroppableStore
    buffer_cls = cpu.Buffer

    async def set(self, store: DroppableStore, key: str, value: Buffer) -> None:
        store.cache[key] = value.as_numpy_array()

    async def get(self, store: DroppableStore, key: str) -> Buffer:
        return cpu.Buffer.from_array_like(store.cache[key])

    @pytest.fixture
    def store_kwargs(self) -> dict[str, Any]:
        return {"name": "of the tests"}

    @pytest.fixture
    async def store(self, store_kwargs: dict[str, Any]) -> DroppableStore:
        store = DroppableStore(**store_kwargs)
        store.cache.clear()
        return store

    def test_store_repr(self, store: DroppableStore) -> None:
        assert repr(store) == "DroppableStore('droppable://of the tests')"

    def test_store_supports_writes(self, store: DroppableStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: DroppableStore) -> None:
        assert store.supports_listing
