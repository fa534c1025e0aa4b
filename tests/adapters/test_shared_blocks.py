"""fsspec's blocks in a cache that all processes of the host share. A web server on loopback has the file."""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Iterator
from typing import Any

import pytest

import droppable
from tests.server import Server
from tests.web_file import WebFile, web_file

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: make adapters")
pytest.importorskip("aiohttp", reason="aiohttp is not installed: make adapters")

from droppable.adapters import _fsspec_file, _shared  # noqa: E402
from droppable.adapters.fsspec import DroppableBlockCache, register  # noqa: E402

BLOCK = 10_000
SIZE = 95_003
FIRST, SECOND = os.urandom(SIZE), os.urandom(SIZE)


@pytest.fixture
def site() -> Iterator[tuple[str, type[WebFile]]]:
    with web_file(FIRST) as file:
        yield file


@pytest.fixture(autouse=True)
def connections() -> Iterator[None]:
    register()
    yield
    for _, cache in _shared._connected.values():
        cache.close()
    _shared._connected.clear()


def opened(url: str, server: Server, **options: Any) -> Any:
    options = {"connect": str(server.path), "retry_seconds": 0.001, **options}
    return fsspec.filesystem("http").open(url, block_size=BLOCK, cache_type="droppable", cache_options=options)


def part(file: Any, start: int, stop: int) -> bytes:
    file.seek(start)
    read: bytes = file.read(stop - start)
    return read


def read_elsewhere(url: str, path: str) -> tuple[bytes, int]:
    """In another process: what it read, and how many blocks of it were there."""
    register()
    options = {"connect": path}
    with fsspec.filesystem("http").open(url, block_size=BLOCK, cache_type="droppable", cache_options=options) as file:
        return part(file, 0, SIZE), file.cache.hit_count


def test_processes_share_blocks(site: Any, server: Server) -> None:
    with opened(site[0], server) as file:
        assert part(file, 25_000, 25_100) == FIRST[25_000:25_100]  # one block
        assert part(file, 0, SIZE) == FIRST
    before = list(site[1].asked)
    assert before == [(20_000, 30_000), (0, 20_000), (30_000, SIZE)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for read, hits in pool.starmap(read_elsewhere, [(site[0], str(server.path))] * 2):
            assert read == FIRST
            assert hits == 10
    assert site[1].asked == before


def test_another_version_is_another_file(site: Any, server: Server) -> None:
    with opened(site[0], server) as file:
        assert part(file, 0, SIZE) == FIRST
    site[1].content, site[1].tag = SECOND, '"2"'
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_elsewhere, (site[0], str(server.path))) == (SECOND, 0)


def test_a_file_that_changes_while_it_is_open_puts_nothing_under_the_older_version(site: Any, server: Server) -> None:
    with opened(site[0], server) as file:
        site[1].content, site[1].tag = SECOND, '"2"'
        assert part(file, 0, 100) == SECOND[:100]  # one block, and several
        assert part(file, 0, SIZE) == SECOND
    site[1].content, site[1].tag = FIRST, '"1"'  # as it was: nothing of the second version may be found
    with opened(site[0], server) as file:
        assert part(file, 0, SIZE) == FIRST
        assert file.cache.hit_count == 0


@pytest.mark.parametrize("tag", [None, 'W/"1"'])
def test_what_tells_no_version_is_shared_with_nobody(tag: str | None, site: Any, server: Server) -> None:
    site[1].tag = tag
    with opened(site[0], server) as file:
        assert part(file, 0, SIZE) == part(file, 0, SIZE) == FIRST
        assert file.cache.hit_count == 10  # but an open file finds its own
    site[1].content = SECOND
    with opened(site[0], server) as file:
        assert part(file, 0, SIZE) == SECOND


def test_names_keep_programs_apart(site: Any, server: Server) -> None:
    with opened(site[0], server, name="one") as file:
        part(file, 0, SIZE)
    with opened(site[0], server, name="two") as file:
        part(file, 0, SIZE)
        assert file.cache.hit_count == 0


def test_a_server_that_dies_in_the_middle(site: Any, server: Server) -> None:
    with opened(site[0], server) as file:
        assert part(file, 0, 50_000) == FIRST[:50_000]
        server.kill()
        assert part(file, 0, SIZE) == FIRST
        assert part(file, 40_000, 40_010) == FIRST[40_000:40_010]
        server.start()
        assert part(file, 0, SIZE) == part(file, 0, SIZE) == FIRST
        assert file.cache.cache.stats().connections >= 2


def test_blocks_over_the_servers_limit_are_not_kept(site: Any, server: Server) -> None:
    server.kill()
    server.start("--max-value", "6000")
    with opened(site[0], server) as file:
        for _ in range(2):
            assert part(file, 0, SIZE) == FIRST
            assert part(file, 10_000, 10_100) == FIRST[10_000:10_100]
        assert file.cache.hit_count == 1  # the last block, which is shorter


def test_what_others_have_written_is_no_block(site: Any, server: Server) -> None:
    with opened(site[0], server) as file, droppable.connect(server.path) as stranger:
        key = file.cache._file
        for number, wrong in enumerate([b"short", "text" * 2500, 5, b"x" * (BLOCK + 1)]):
            assert stranger.set((key, number), wrong)
        assert part(file, 0, SIZE) == FIRST
        for number in range(4):
            assert stranger.set((key, number), b"short")
            assert part(file, number * BLOCK, number * BLOCK + 10) == FIRST[number * BLOCK :][:10]


def test_no_descriptors_are_left(server: Server) -> None:
    cache = DroppableBlockCache(
        BLOCK, lambda start, stop: FIRST[start:stop], SIZE, connect=server.path, retry_seconds=0.001
    )
    assert cache._fetch(0, 100) == FIRST[:100]
    server.kill()
    server.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # what is open stays open
    try:
        assert cache._fetch(0, 100) == FIRST[:100]
        assert cache._fetch(0, SIZE) == FIRST
        assert not cache.cache.stats().is_attached
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert cache._fetch(0, SIZE) == FIRST


def test_the_arguments_of_a_file_system_count_and_are_not_told() -> None:
    def part_of(**options: Any) -> Any:
        return _fsspec_file._filesystem_part(fsspec.filesystem("http", skip_instance_cache=True, **options))

    assert part_of(block_size=5) == part_of(block_size=5) != part_of(block_size=6)
    assert part_of(client_kwargs={"a": 1}) != part_of(client_kwargs={"a": "1"})
    assert part_of(client_kwargs={"a": object()}) is None
    assert _fsspec_file._filesystem_part(object()) is None


def test_functions_that_are_no_file_share_nothing(server: Server) -> None:
    path = str(server.path)
    ones = DroppableBlockCache(10, lambda start, stop: b"1" * (stop - start), 25, connect=path)
    twos = DroppableBlockCache(10, lambda start, stop: b"2" * (stop - start), 25, connect=path)
    assert (ones._fetch(0, None), twos._fetch(0, None)) == (b"1" * 25, b"2" * 25)


def test_options_that_differ(server: Server) -> None:
    path = str(server.path)
    DroppableBlockCache(10, bytes, 25, connect=path)
    with pytest.raises(ValueError, match="was connected with"):
        DroppableBlockCache(10, bytes, 25, connect=path, strict=True)
    with pytest.raises(TypeError, match="max_bytes"):
        DroppableBlockCache(10, bytes, 25, connect=f"{path}2", max_bytes=1)
