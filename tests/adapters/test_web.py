"""Adapters of libraries for the web: what their own suites do not see: drops, expiry, threads, what cannot be kept."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

import droppable
from droppable import testing

TOO_LARGE = bytes(200_000)


class Upper:
    """A serializer that can be told from droppable's own forms."""

    def dumps(self, value: Any) -> bytes:
        return repr(value).upper().encode()

    def loads(self, data: bytes) -> Any:
        return data.decode()


class TestCachelib:
    @pytest.fixture(params=["cachelib", "flask_caching"])
    def kind(self, request: pytest.FixtureRequest) -> Any:
        pytest.importorskip(request.param, reason=f"{request.param} is not installed: make adapters")
        if request.param == "cachelib":
            from droppable.adapters.cachelib import DroppableCache
        else:
            from droppable.adapters.flask_caching import DroppableCache  # type: ignore[assignment]
        return DroppableCache

    def test_threads_lose_no_count_and_the_expiry_stays(self, kind: Any) -> None:
        cache = kind(default_timeout=0)
        cache.set("count", 0, timeout=100)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: [cache.inc("count") for _ in range(250)], range(4)))
        assert cache.get("count") == 1000
        assert 0 < cache.cache.expires_in("count") <= 100
        assert cache.dec("new", 3) == -3

    def test_what_cannot_be_kept_is_absent(self, kind: Any) -> None:
        cache = kind(max_bytes="128K")
        assert cache.set("key", "old")
        assert cache.set("key", TOO_LARGE) is False
        assert cache.get("key") is None
        assert cache.set_many({"small": 1, "large": TOO_LARGE}) == ["small"]
        assert cache.add("large", TOO_LARGE) is False
        with pytest.raises(pickle.PicklingError):
            cache.set("function", lambda: None)

    def test_times_to_live(self, kind: Any) -> None:
        cache = kind(default_timeout=10)
        cache.set("default", 1)
        cache.set("never", 1, timeout=0)
        assert cache.set("gone", 1, timeout=-1)
        assert cache.get("gone") is None
        assert cache.inc("counted") == 1
        testing.advance_clock(cache.cache, 11)
        assert cache.get_dict("default", "never", "counted") == {"default": None, "never": 1, "counted": None}

    def test_drops_are_misses(self, kind: Any) -> None:
        cache = kind()
        cache.set_many({str(number): bytes(5000) for number in range(100)})
        testing.drop(cache.cache)
        assert cache.get_many(*map(str, range(100))) == [None] * 100
        assert not cache.has("7")

    def test_a_serializer_of_the_users(self, kind: Any) -> None:
        cache = kind()
        cache.serializer = Upper()
        cache.set("key", "text")
        assert cache.get("key") == "'TEXT'"
        assert cache.get("absent") is None

    def test_one_name_is_one_cache(self, kind: Any) -> None:
        first, second, other = kind(name=f"shared {kind}"), kind(name=f"shared {kind}"), kind()
        first.set("key", 1)
        assert (second.get("key"), other.get("key")) == (1, None)
        with pytest.raises(TypeError, match="takes no ttl: use default_timeout"):
            kind(ttl=5)

    def test_a_forked_child_begins_empty(self, kind: Any) -> None:
        cache = kind()
        cache.set("key", 1)
        child = os.fork()
        if child == 0:
            os._exit(0 if cache.get("key") is None and cache.set("key", 2) and cache.get("key") == 2 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert cache.get("key") == 1


def test_an_application_of_flask() -> None:
    flask = pytest.importorskip("flask", reason="Flask is not installed: make adapters")
    flask_caching = pytest.importorskip("flask_caching", reason="Flask-Caching is not installed: make adapters")
    app = flask.Flask(__name__)
    app.config["CACHE_TYPE"] = "droppable.adapters.flask_caching.DroppableCache"
    app.config["CACHE_OPTIONS"] = {"max_bytes": "64M"}
    cache = flask_caching.Cache(app)
    worked = []

    @app.route("/<name>")
    @cache.cached(timeout=50)
    def page(name: str) -> str:
        worked.append(name)
        return f"<h1>{name}</h1>"

    @cache.memoize()
    def square(number: int) -> int:
        worked.append(str(number))
        return number * number

    with app.test_client() as client:
        assert client.get("/a").text == client.get("/a").text == "<h1>a</h1>"
        testing.drop(cache.cache.cache)
        assert client.get("/a").text == "<h1>a</h1>"
    with app.app_context():
        assert square(3) == square(3) == 9
        cache.delete_memoized(square)
        assert square(3) == 9
    assert worked == ["a", "a", "3", "3"]


def test_a_region_of_dogpile() -> None:
    dogpile = pytest.importorskip("dogpile.cache", reason="dogpile.cache is not installed: make adapters")
    region = dogpile.make_region().configure("droppable", expiration_time=60, arguments={"max_bytes": "64M"})
    worked = []

    @region.cache_on_arguments()
    def load(name: str) -> list[str]:
        worked.append(name)
        return [name] * 1000

    assert load("a") == load("a") == ["a"] * 1000
    assert load.get("b") is dogpile.api.NO_VALUE
    testing.drop(region.backend.cache)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(load, ["a"] * 8)) == [["a"] * 1000] * 8
    assert worked == ["a", "a"]
    region.set("large", "old")
    region.set("large", bytes(100 << 20))
    assert region.get("large") is dogpile.api.NO_VALUE
    region.set_multi({"x": 1, "y": None})
    assert region.get_multi(["x", "y", "z"]) == [1, None, dogpile.api.NO_VALUE]
    region.delete_multi(["x", "y"])
    assert region.get("y") is dogpile.api.NO_VALUE
    with pytest.raises(TypeError, match="maxsize"):
        dogpile.make_region().configure("droppable", arguments={"maxsize": 5})


class Pages(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        is_redirect = self.path == "/moved"
        self.send_response(302 if is_redirect else 200)
        body = b"" if is_redirect else b"page of " + self.path.encode()
        if is_redirect:
            self.send_header("Location", "/new")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (Pages,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_a_session_of_requests_cache(site: tuple[str, list[str]]) -> None:
    requests_cache = pytest.importorskip("requests_cache", reason="requests-cache is not installed: make adapters")
    from droppable.adapters.requests_cache import DroppableCache

    url, asked = site
    backend = DroppableCache("of the test", options={"max_bytes": "64M"})
    with requests_cache.CachedSession(backend=backend, expire_after=3600) as session:
        assert session.get(f"{url}/a").content == b"page of /a"
        again = session.get(f"{url}/a")
        assert (again.content, again.from_cache) == (b"page of /a", True)
        assert session.get(f"{url}/moved").content == b"page of /new"
        assert session.get(f"{url}/moved").from_cache
        assert asked == ["/a", "/moved", "/new"]
        testing.drop(backend.responses.cache)
        lost = session.get(f"{url}/a")
        assert (lost.content, lost.from_cache) == (b"page of /a", False)
        assert session.get(f"{url}/moved").content == b"page of /new"
        assert asked == ["/a", "/moved", "/new", "/a", "/moved", "/new"]
        assert len(backend.responses) == len(list(backend.responses)) == 3  # redirects are responses too
        backend.clear()
        assert not backend.contains(url=f"{url}/a")


class TestAiocache:
    @pytest.fixture
    def kind(self) -> Any:
        pytest.importorskip("aiocache", reason="aiocache is not installed: make adapters")
        from droppable.adapters.aiocache import DroppableCache

        return DroppableCache

    def test_drops_are_misses_and_locks_are_held(self, kind: Any) -> None:
        from aiocache.lock import RedLock

        async def body() -> None:
            cache = kind(namespace="n:")
            await cache.multi_set([(str(number), bytes(5000)) for number in range(50)])
            async with RedLock(cache, "work", lease=30):
                testing.drop(cache.cache)
                assert await cache.multi_get([str(number) for number in range(50)]) == [None] * 50
                with pytest.raises(ValueError, match="already exists"):
                    await cache._add(cache.build_key("work-lock"), "other", ttl=1)
            assert await cache._add(cache.build_key("work-lock"), "other", ttl=1)

        asyncio.run(body())

    def test_counts_and_times_to_live(self, kind: Any) -> None:
        async def body() -> None:
            cache = kind(ttl=10)
            assert await cache.set("default", 1)
            await cache.set("longer", 1, ttl=100)
            assert await cache.increment("longer", 5) == 6
            assert await cache.increment("new") == 1
            await cache.set("text", "no number")
            with pytest.raises(TypeError, match="not an integer"):
                await cache.increment("text")
            testing.advance_clock(cache.cache, 11)
            assert await cache.get("default") is None
            assert await cache.get("longer") == 6
            assert await cache.expire("longer", 5)
            assert not await cache.expire("absent", 5)
            testing.advance_clock(cache.cache, 6)
            assert not await cache.exists("longer")

        asyncio.run(body())

    def test_one_computation_for_many_tasks(self, kind: Any) -> None:
        from aiocache import cached_stampede

        worked = []

        @cached_stampede(cache=kind, lease=10, ttl=60)
        async def slow(name: str) -> str:
            worked.append(name)
            await asyncio.sleep(0)
            return name * 2

        async def body() -> list[str]:
            return await asyncio.gather(*(slow("a") for _ in range(10)))

        assert asyncio.run(body()) == ["aa"] * 10
        assert worked == ["a"]

    def test_what_cannot_be_kept_is_absent(self, kind: Any) -> None:
        async def body() -> None:
            cache = kind(options={"max_bytes": "128K"})
            await cache.set("key", "old")
            assert not await cache.set("key", TOO_LARGE)
            assert await cache.get("key") is None
            await cache.clear()
            await cache.set("a:1", 1)
            await cache.clear(namespace="a:")
            assert len(cache.cache) == 0

        asyncio.run(body())

    def test_an_option_that_is_none(self, kind: Any) -> None:
        with pytest.raises(TypeError, match="give ttl= itself"):
            kind(options={"ttl": 5})
        assert kind(name="one name").cache is kind(name="one name").cache is droppable.named("aiocache:one name")
