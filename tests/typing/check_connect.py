"""Types a user may rely on, checked by mypy --strict and never run: the cache that processes share."""

import pickle
from typing import Any, assert_type

import droppable


def a_shared_cache(path: str) -> None:
    with droppable.connect(path, serializer=pickle, timeout_seconds=0.5, strict=True) as cache:
        assert_type(cache, droppable.SharedCache)
        assert_type(cache.get("k"), Any)
        assert_type(cache.set("k", b"v", ttl=5), bool)
        assert_type(cache.add("k", b"v"), bool)
        assert_type(cache.get_or_create("k", lambda: b"v"), bytes)
        assert_type(cache.get_many(["k"]), dict[Any, Any])
        assert_type(cache.set_many({"k": b"v"}), list[Any])
        assert_type(cache.delete("k"), bool)
        assert_type("k" in cache, bool)
        assert_type(cache.stats(), droppable.SharedCacheStats)
        assert_type(cache.stats().hits_read, int)
        assert_type(cache.server_stats(), dict[str, int])


async def namespaces_and_functions(path: str) -> None:
    cache = droppable.connect(path, near=droppable.Cache(max_bytes="64M"))
    part = cache.namespace("users").namespace(17)
    assert_type(part, droppable.SharedNamespace)
    assert_type(part.clear(), bool)
    assert_type(part.get_or_create("k", lambda: b"v"), bytes)
    assert_type(cache.near, droppable.Cache[Any, Any] | None)
    assert_type(cache.stats().hits_near, int)
    assert_type(await cache.aset("k", b"v"), bool)
    assert_type(await part.aget("k"), Any)

    async def compute() -> bytes:
        return b"v"

    assert_type(await cache.aget_or_create("k", compute), bytes)

    @droppable.cache(cache=cache, name="square", ttl=5)
    def square(number: int) -> str:
        return str(number * number)

    assert_type(square(7), str)
    square("7")  # type: ignore[arg-type]

    @droppable.cache(cache=part, name="cube")
    def cube(number: int) -> str:
        return str(number**3)

    assert_type(cube(7), str)
