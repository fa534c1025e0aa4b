"""Types a user may rely on, checked by mypy --strict and never run: `droppable.Cache`.

An ignore that is not needed is an error too, so each `type: ignore` proves that mypy refuses the line.
"""

import json
from typing import Any, assert_type

import droppable


class AsJson:
    """A serializer is anything with these two methods."""

    def dumps(self, value: Any, /) -> bytes:
        return json.dumps(value).encode()

    def loads(self, data: bytes, /) -> Any:
        return json.loads(data)


def it_is_made_with_known_words() -> None:
    droppable.Cache()
    droppable.Cache(1 << 30, 300.0, "lazyfree", AsJson(), fork="share")
    droppable.Cache(max_bytes=None, ttl=1, backing="droppable")
    droppable.Cache(backing="swap")  # type: ignore[arg-type]
    droppable.Cache(fork="keep")  # type: ignore[arg-type]
    droppable.Cache(serializer=json)  # type: ignore[arg-type]


def it_is_used_as_a_mapping(cache: droppable.Cache) -> None:
    cache["key"] = b"value"
    cache[("page", 1)] = {"any": ["thing"]}
    del cache["key"]
    assert_type("key" in cache, bool)
    assert_type(len(cache), int)
    assert_type(cache.set("key", b"value", ttl=5, cost=0.1), bool)
    assert_type(cache.add("key", b"value"), bool)
    for key in cache:
        cache.get(key, default=None)
    cache.set("key", b"value", ttl="soon")  # type: ignore[arg-type]


def a_view_is_for_a_block(cache: droppable.Cache) -> None:
    with cache.view("key") as memory:
        assert_type(memory, memoryview)
    with cache as same:
        assert_type(same, droppable.Cache)


async def a_factory_gives_the_type(cache: droppable.Cache) -> None:
    async def fetch() -> list[str]:
        return []

    assert_type(cache.get_or_create("key", lambda: 1.5), float)
    assert_type(await cache.aget_or_create("key", fetch, ttl=60), list[str])
    cache.get_or_create("key", 1.5)  # type: ignore[arg-type]


def statistics_are_frozen(cache: droppable.Cache) -> None:
    stats = cache.stats()
    assert_type(stats, droppable.CacheStats)
    assert_type(stats.hits, int)
    assert_type(stats.misses, int)
    stats.hits = 0  # type: ignore[misc]
