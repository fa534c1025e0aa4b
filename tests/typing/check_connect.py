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
