"""Django's backend over a cache that all processes share: processes, forks, and servers that come and go."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

import pytest

import droppable

pytest.importorskip("django", reason="Django is not installed: `make adapters` installs it")

from django.conf import settings
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured

from droppable.adapters.django import SharedDroppableCache
from tests.adapters.test_django import check_what_has_expired_already
from tests.server import Server
from tests.unit.test_connect import WAIT_SECONDS

TIMES = 300


@pytest.fixture(autouse=True, scope="module")
def django() -> None:
    if not settings.configured:
        settings.configure()


def backend_at(server: Server, **params: Any) -> SharedDroppableCache:
    params["OPTIONS"] = {"retry_seconds": 0.001, **params.get("OPTIONS", {})}
    return SharedDroppableCache(str(server.path), params)


@pytest.fixture
def backend(server: Server) -> Iterator[SharedDroppableCache]:
    made = backend_at(server)
    yield made
    made.cache.close()


def count(path: str) -> None:
    """In another process."""
    settings.configure()
    backend = SharedDroppableCache(path, {})
    for _ in range(TIMES):
        backend.incr("count")
    backend.cache.close()


def test_values(backend: SharedDroppableCache) -> None:
    assert backend.set_many({"text": "t\u00e9xt", "bytes": b"b", "count": 5}) == []
    assert backend.get_many(["text", "bytes", "count", "absent"]) == {"text": "t\u00e9xt", "bytes": b"b", "count": 5}
    assert backend.get("absent", "default") == "default"
    assert "text" in backend
    assert backend.delete("text") is True
    assert backend.delete("text") is False
    backend.delete_many(["bytes", "absent"])
    assert backend.get_many(["text", "bytes", "count"]) == {"count": 5}
    backend.clear()
    assert not backend.has_key("count")


def test_add_and_get_or_set(backend: SharedDroppableCache) -> None:
    assert backend.add("k", "first") is True
    assert backend.add("k", "second") is False
    assert backend.get_or_set("k", "third") == "first"
    assert backend.get_or_set("plain", "value") == "value"
    assert backend.get_or_set("computed", lambda: "once") == "once"
    assert backend.get_or_set("computed", lambda: "twice") == "once"


def test_timeouts(backend: SharedDroppableCache) -> None:
    def left(key: str) -> float:
        return backend.cache.expires_in(backend.make_key(key))

    backend.set("default", "v")
    backend.set("own", "v", timeout=20)
    backend.set("never", "v", timeout=None)
    assert 200 < left("default") <= 300
    assert 10 < left("own") <= 20
    assert left("never") == droppable.NEVER
    assert backend.touch("own", timeout=None) is True
    assert left("own") == droppable.NEVER
    assert backend.touch("absent") is False


@pytest.mark.parametrize("timeout", [0, -1])
def test_what_has_expired_already_is_deleted(backend: SharedDroppableCache, timeout: int) -> None:
    check_what_has_expired_already(backend, timeout)


def test_prefixes_and_versions_are_apart(server: Server, backend: SharedDroppableCache) -> None:
    other = backend_at(server, KEY_PREFIX="other")
    assert other.cache is backend.cache
    backend.set("k", "mine")
    other.set("k", "theirs")
    backend.set("k", "second", version=2)
    assert (backend.get("k"), other.get("k"), backend.get("k", version=2)) == ("mine", "theirs", "second")
    assert backend.incr_version("k") == 2
    assert backend.get("k", version=2) == "mine"


def test_four_processes_count(server: Server, backend: SharedDroppableCache) -> None:
    backend.set("count", 0)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count, args=(str(server.path),)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(4 * WAIT_SECONDS)
        assert process.exitcode == 0
    assert backend.get("count") == 4 * TIMES
    assert backend.decr("count", 4 * TIMES) == 0


def test_incr_of_what_cannot_be_counted(backend: SharedDroppableCache) -> None:
    with pytest.raises(ValueError, match="Key 'absent' not found"):
        backend.incr("absent")
    backend.set("text", "1")
    with pytest.raises(TypeError, match=r"incr\(\) counts in int"):
        backend.incr("text")


def test_a_forked_child_shares_the_entries(backend: SharedDroppableCache) -> None:
    backend.set("k", "of the parent")
    child = os.fork()
    if child == 0:
        try:
            assert backend.get("k") == "of the parent"
            backend.set("k", "of the child")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert backend.get("k") == "of the child"


def test_a_server_that_dies_and_comes_back(server: Server, backend: SharedDroppableCache) -> None:
    backend.set("k", "v")
    server.kill()
    assert backend.get("k") is None
    backend.set("k", "lost")
    assert backend.set_many({"k": "lost"}) == ["k"]
    assert backend.add("k", "lost") is False
    assert backend.touch("k") is False
    assert backend.get_or_set("k", lambda: "computed") == "computed"
    assert backend.get_or_set("k", "plain") == "plain"
    with pytest.raises(ValueError, match="not found"):
        backend.incr("k")
    server.path.unlink()
    server.start()
    backend.set("k", "again")
    assert backend.get("k") == "again"


@pytest.mark.parametrize("value", [None, True, 1.5, {"a": 1}, [1]])
def test_other_objects_need_a_serializer(server: Server, backend: SharedDroppableCache, value: Any) -> None:
    backend.set("k", "old")
    with pytest.raises(TypeError, match=r"For other objects give connect\(serializer=\.\.\.\)"):
        backend.set("k", value)
    assert backend.get("k") == "old"
    backend.cache.close()


def test_with_a_serializer(server: Server) -> None:
    backend = backend_at(server, OPTIONS={"serializer": json})
    values = {"dict": {"a": [1, None, 1.5, True]}, "none": None, "count": 7}
    backend.set_many(values)
    assert backend.get_many(values) == values
    assert backend.get("none", "default") is None
    assert backend.incr("count") == 8
    backend.cache.close()


def test_coroutines(backend: SharedDroppableCache) -> None:
    async def compute() -> str:
        await asyncio.sleep(0)
        return "computed"

    async def main() -> None:
        await backend.aset("k", "v")
        assert await backend.aget("k") == "v"
        assert await backend.aget("absent", 5) == 5
        assert await backend.aget_or_set("computed", compute) == "computed"
        assert await backend.aget("computed") == "computed"
        await backend.aset("count", 1)
        assert await backend.aincr("count") == 2
        assert await backend.adelete("k")

    asyncio.run(main())


def test_no_call_of_coroutines_is_made_in_the_loop() -> None:
    """Those that are not here are Django's, which move the call to a thread."""
    ours = {name for name in vars(SharedDroppableCache) if name.startswith("a")}
    assert ours == {"aget"}
    assert SharedDroppableCache.aset is BaseCache.aset


def test_wrong_settings(server: Server, backend: SharedDroppableCache) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"LOCATION .* must be the path"):
        SharedDroppableCache("", {})
    with pytest.raises(ImproperlyConfigured, match="max_bytes"):
        backend_at(server, OPTIONS={"max_bytes": 5})
    with pytest.raises(ImproperlyConfigured, match=r"go into OPTIONS.*serializer"):
        backend_at(server, serializer=json)
    with pytest.raises(ImproperlyConfigured, match="was connected with"):
        backend_at(server, OPTIONS={"serializer": json})
    with pytest.raises(ImproperlyConfigured, match="There is no TCP here"):
        SharedDroppableCache("127.0.0.1:11211", {})
