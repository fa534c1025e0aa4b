"""Adapters of libraries for data: what the libraries' own suites do not see. A web server on loopback has the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from droppable import testing
from tests.web_file import WebFile, web_file

CONTENT = os.urandom(1_000_003)
BLOCK = 100_000


@pytest.fixture
def server() -> Iterator[tuple[str, type[WebFile]]]:
    with web_file(CONTENT) as file:
        yield file


class TestFsspec:
    @pytest.fixture
    def opened(self, server: tuple[str, type[WebFile]]) -> Any:
        fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: make adapters")
        pytest.importorskip("aiohttp", reason="aiohttp is not installed: make adapters")
        from droppable.adapters.fsspec import register

        register()
        register()
        options = {"name": server[0]}  # a cache of its own for each test
        return lambda: fsspec.filesystem("http").open(
            server[0], block_size=BLOCK, cache_type="droppable", cache_options=options
        )

    def test_two_opens_of_one_file_share_blocks(self, opened: Any, server: Any) -> None:
        asked = server[1].asked
        with opened() as first:
            first.seek(250_000)
            assert first.read(100) == CONTENT[250_000:250_100]
        with opened() as second:
            second.seek(299_950)
            assert second.read(100) == CONTENT[299_950:300_050]
            assert second.cache.hit_count == 1
        assert asked == [(200_000, 300_000), (300_000, 400_000)]

    def test_neighbours_that_are_missing_are_fetched_at_once(self, opened: Any, server: Any) -> None:
        with opened() as file:
            file.seek(450_000)
            file.read(1)
            file.seek(0)
            assert file.read(len(CONTENT)) == CONTENT
        assert server[1].asked == [(400_000, 500_000), (0, 400_000), (500_000, len(CONTENT))]

    def test_what_was_dropped_is_fetched_again(self, opened: Any, server: Any) -> None:
        with opened() as file:
            for _ in range(2):
                file.seek(0)
                assert file.read(len(CONTENT)) == CONTENT
                testing.drop(file.cache.cache)
        assert server[1].asked == [(0, len(CONTENT))] * 2

    def test_another_version_of_the_file_is_another_file(self, opened: Any, server: Any) -> None:
        with opened() as file:
            file.read(1)
        server[1].tag = '"2"'
        with opened() as file:
            file.read(1)
        assert server[1].asked == [(0, BLOCK)] * 2

    def test_functions_that_are_no_file_share_nothing(self) -> None:
        pytest.importorskip("fsspec", reason="fsspec is not installed: make adapters")
        from droppable.adapters.fsspec import DroppableBlockCache

        ones = DroppableBlockCache(10, lambda start, stop: b"1" * (stop - start), 25)
        twos = DroppableBlockCache(10, lambda start, stop: b"2" * (stop - start), 25)
        assert (ones._fetch(0, None), twos._fetch(None, 25)) == (b"1" * 25, b"2" * 25)
        assert ones._fetch(20, 90) == b"1" * 5
        assert ones._fetch(25, 30) == ones._fetch(7, 7) == b""
        short = DroppableBlockCache(10, lambda start, stop: b"", 25)
        with pytest.raises(EOFError, match="bytes 0 to 10 were asked for, and 0 bytes came"):
            short._fetch(0, 5)


class TestZarr:
    @pytest.fixture
    def store(self) -> Any:
        pytest.importorskip("zarr", reason="zarr is not installed: make adapters")
        from droppable.adapters.zarr import DroppableStore

        return DroppableStore(max_bytes="64M")

    def test_an_array_above_a_slow_store(self, store: Any) -> None:
        import numpy
        import zarr
        from zarr.experimental.cache_store import CacheStore

        slow = zarr.storage.MemoryStore()
        cached = CacheStore(slow, cache_store=store)
        values = numpy.arange(100_000, dtype="i4").reshape(100, 1000)
        array = zarr.create_array(cached, shape=values.shape, chunks=(10, 1000), dtype="i4")
        array[:] = values
        assert numpy.array_equal(array[:], values)
        hits = store.cache.stats().hits
        assert numpy.array_equal(array[20:30], values[20:30])
        assert store.cache.stats().hits > hits
        testing.drop(store.cache)
        assert numpy.array_equal(array[:], values)

    def test_what_it_holds_is_read_only_and_in_place(self, store: Any) -> None:
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        buffer = default_buffer_prototype().buffer
        sync(store.set("key", buffer.from_bytes(bytes(range(256)) * 100)))
        found = sync(store.get("key"))
        array = found.as_numpy_array()
        assert not array.flags.writeable
        testing.drop(store.cache)
        assert array.tobytes() == bytes(range(256)) * 100
        sync(store.set("large", buffer.from_bytes(bytes(100))))
        sync(store.set("large", buffer.from_bytes(bytes(70 << 20))))
        assert sync(store.get("large")) is None  # and not the old one

    def test_a_store_without_a_name_stays_in_its_process(self, store: Any) -> None:
        import pickle

        from droppable.adapters.zarr import DroppableStore

        with pytest.raises(TypeError, match="without a name cannot be pickled"):
            pickle.dumps(store)
        named = DroppableStore("pickled")
        assert pickle.loads(pickle.dumps(named)) == named
        assert named != store
        assert hash(named) == hash(DroppableStore("pickled"))
