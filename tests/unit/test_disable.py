"""DROPPABLE_DISABLE=1: every cache is empty, and everything else is as always."""

from __future__ import annotations

import asyncio

import pytest

import droppable
import droppable.testing
from droppable import Cache, ClosedError, Region
from droppable.lowlevel import page_size_bytes


@pytest.fixture(autouse=True)
def disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPPABLE_DISABLE", "1")


@pytest.mark.parametrize("value", [None, "", "0"])
def test_it_is_off_by_default(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    kept_off = Cache()
    if value is None:
        monkeypatch.delenv("DROPPABLE_DISABLE")
    else:
        monkeypatch.setenv("DROPPABLE_DISABLE", value)
    cache = Cache()
    cache["k"] = 1
    assert cache["k"] == 1
    kept_off["k"] = 1
    assert "k" not in kept_off  # made while it was on


@pytest.mark.parametrize("fork", ["wipe", "share"])
def test_gets_miss_and_sets_keep_nothing(fork: droppable._cache.Fork) -> None:
    cache = Cache(max_bytes=1 << 20, ttl=60, fork=fork)
    for value in (1, b"x" * 100_000, b"x" * (2 << 20), "text", {"a": [1]}, None):
        assert cache.set("k", value) is True
        assert cache.add("k", value, ttl=1, cost=2) is True
        cache["k"] = value
        assert cache.get("k", "missing") == "missing"
        assert "k" not in cache
        assert cache.pop("k", 5) == 5
        assert not cache.discard("k")
        with pytest.raises(KeyError):
            cache["k"]
        with pytest.raises(KeyError):
            del cache["k"]
        with pytest.raises(KeyError):
            cache.view("k")
    assert (len(cache), list(cache)) == (0, [])
    stats = cache.stats()
    assert (stats.sets, stats.evicted, stats.entries, stats.stored_bytes, stats.hits) == (18, 18, 0, 0, 0)
    assert stats.misses == 6 * 4
    cache.clear()
    droppable.testing.drop(cache)


def test_errors_are_as_always() -> None:
    cache = Cache()
    with pytest.raises(TypeError, match="unhashable"):
        cache.set([], 1)
    with pytest.raises(TypeError, match="cannot be pickled"):
        cache.set("k", lambda: 1)
    with pytest.raises(ValueError, match="ttl"):
        cache.set("k", 1, ttl=-1)
    with pytest.raises(ValueError, match="cost"):
        cache.set("k", 1, cost=-1)
    assert cache.stats().sets == 0
    cache.close()
    with pytest.raises(ClosedError):
        cache.set("k", 1)


def test_functions_compute_each_time() -> None:
    calls: list[int] = []

    @droppable.cache
    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    @droppable.cache
    async def triple(number: int) -> int:
        calls.append(number)
        return 3 * number

    assert [double(1), double(1), double(2)] == [2, 2, 4]
    assert [asyncio.run(triple(1)), asyncio.run(triple(1))] == [3, 3]
    assert calls == [1, 1, 2, 1, 1]
    assert double.cache_info().hits == 0
    assert double.cache_info().misses >= 3


def test_one_computes_for_those_who_wait() -> None:
    cache = Cache()
    calls: list[int] = []

    async def factory() -> int:
        calls.append(1)
        for _ in range(10):
            await asyncio.sleep(0)
        return 7

    async def main() -> None:
        assert await asyncio.gather(*(cache.aget_or_create("k", factory) for _ in range(5))) == [7] * 5
        assert calls == [1]
        assert await cache.aget_or_create("k", factory) == 7
        assert calls == [1, 1]

    asyncio.run(main())


def test_regions_and_random_numbers_are_as_always() -> None:
    region = Region(page_size_bytes(), on_drop="raise")
    region.write(0, b"content")
    assert region.read(0, 7) == b"content"
    assert len(droppable.random.token_bytes(16)) == 16
