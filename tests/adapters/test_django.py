"""The backend for Django: what Django's own tests do not ask for. Those run with `make adapters`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import droppable
from droppable import testing

pytest.importorskip("django", reason="Django is not installed: `make adapters` installs it")

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.safestring import SafeString, mark_safe

from droppable.adapters.django import DroppableCache, SharedDroppableCache


@pytest.fixture(autouse=True, scope="module")
def django() -> None:
    if not settings.configured:
        settings.configure()


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[DroppableCache]:
    made = DroppableCache(request.node.name, {})
    yield made
    made.cache.close()


def seconds_left(backend: DroppableCache, key: str) -> float:
    return backend.cache.expires_in(backend.make_key(key))


def test_threads_have_their_own_objects_and_share_their_entries() -> None:
    from django.core.cache import CacheHandler

    handler = CacheHandler({"default": {"BACKEND": "droppable.adapters.django.DroppableCache", "LOCATION": "threads"}})
    handler["default"].set("key", "value")
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.extend([handler["default"], handler["default"].get("key")]))
    thread.start()
    thread.join()
    assert seen[0] is not handler["default"]
    assert seen[1] == "value"
    assert droppable.named("django:threads") is handler["default"].cache
    handler["default"].cache.close()


def test_locations_are_apart_and_clear_reaches_one(backend: DroppableCache) -> None:
    other = DroppableCache("elsewhere", {})
    backend.set("key", 1)
    other.set("key", 2)
    backend.clear()
    assert (backend.get("key"), other.get("key")) == (None, 2)
    other.cache.close()


def test_the_end_of_a_request_closes_nothing(backend: DroppableCache) -> None:
    backend.set("key", 1)
    backend.close()
    assert backend.get("key") == 1


def test_incr_keeps_the_expiry(backend: DroppableCache) -> None:
    backend.set("count", 1, timeout=60)
    testing.advance_clock(backend.cache, 40)
    assert backend.incr("count", 5) == 6
    assert backend.decr("count") == 5
    assert seconds_left(backend, "count") <= 20
    testing.advance_clock(backend.cache, 21)
    with pytest.raises(ValueError, match="Key 'count' not found"):
        backend.incr("count")


def check_what_has_expired_already(backend: DroppableCache | SharedDroppableCache, timeout: int) -> None:
    """Such a value is deleted: for the tests of both backends."""
    backend.set_many({"set": 1, "touched": 1, "of_many": 1})
    backend.set("set", 2, timeout=timeout)
    assert backend.touch("touched", timeout=timeout) is True
    assert backend.touch("touched", timeout=timeout) is False
    assert backend.set_many({"of_many": 2}, timeout=timeout) == []
    assert backend.add("added", 1, timeout=timeout) is True
    assert backend.get_or_set("computed", lambda: 1, timeout=timeout) == 1
    assert asyncio.run(backend.aget_or_set("computed", lambda: 1, timeout=timeout)) == 1
    assert backend.get_many(["set", "touched", "of_many", "added", "computed"]) == {}


@pytest.mark.parametrize("timeout", [0, -1])
def test_what_has_expired_already_is_deleted(backend: DroppableCache, timeout: int) -> None:
    check_what_has_expired_already(backend, timeout)


def test_timeouts(backend: DroppableCache) -> None:
    backend.set("default", 1)
    backend.set("own", 1, timeout=20)
    backend.set("never", 1, timeout=None)
    assert 290 < seconds_left(backend, "default") <= 300
    assert 10 < seconds_left(backend, "own") <= 20
    assert seconds_left(backend, "never") == droppable.NEVER
    assert backend.touch("own", timeout=None) is True
    assert seconds_left(backend, "own") == droppable.NEVER


def test_one_thread_computes(backend: DroppableCache) -> None:
    computed, together = [], threading.Barrier(4)

    def compute() -> str:
        computed.append(1)
        return "page"

    results: list[str] = []

    def ask() -> None:
        together.wait()
        results.append(backend.get_or_set("page", compute))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["page"] * 4
    assert len(computed) == 1


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_one_task_computes(backend: DroppableCache, kind: str) -> None:
    computed = []

    def compute() -> str:
        computed.append(threading.get_ident())
        return "page"

    async def compute_slowly() -> str:
        await asyncio.sleep(0)
        return compute()

    async def main() -> list[str]:
        default = compute if kind == "function" else compute_slowly
        return await asyncio.gather(*(backend.aget_or_set("page", default) for _ in range(5)))

    assert asyncio.run(main()) == ["page"] * 5
    assert computed == [threading.get_ident()]


class WhereItIsPickled:
    """Tells in which threads its objects are pickled and unpickled."""

    threads: ClassVar[set[int]] = set()

    def __reduce__(self) -> Any:
        self.threads.add(threading.get_ident())
        return (WhereItIsPickled.load, ())

    @classmethod
    def load(cls) -> WhereItIsPickled:
        cls.threads.add(threading.get_ident())
        return cls()


def test_async_methods_stay_in_their_thread(backend: DroppableCache) -> None:
    async def main() -> None:
        await backend.aset("a", WhereItIsPickled())
        assert isinstance(await backend.aget("a"), WhereItIsPickled)
        assert await backend.aadd("b", WhereItIsPickled()) is True
        assert await backend.aset_many({"c": WhereItIsPickled()}) == []
        assert set(await backend.aget_many(["a", "b", "c", "d"])) == {"a", "b", "c"}
        assert await backend.ahas_key("a") is True
        assert await backend.atouch("a", 10) is True
        assert await backend.adelete("a") is True
        await backend.aset("n", 1)
        assert await backend.aincr("n", 2) == 3
        assert await backend.adecr("n") == 2
        assert await backend.aincr_version("n") == 2
        await backend.adelete_many(["b", "c"])
        assert await backend.aget_many(["b", "c", "n"]) == {}
        assert await backend.aget_or_set("e", 7) == 7
        await backend.aclear()
        assert await backend.aget("e") is None

    asyncio.run(main())
    assert WhereItIsPickled.threads == {threading.get_ident()}


def test_a_drop_is_a_miss(backend: DroppableCache) -> None:
    backend.set("page", "x" * 1000)
    testing.drop(backend.cache, fraction=1.0)
    assert backend.get("page", "default") == "default"
    assert backend.get_or_set("page", lambda: "again") == "again"


def test_what_cannot_be_stored_is_absent_and_raises_nothing() -> None:
    backend = DroppableCache("small", {"OPTIONS": {"max_bytes": "1M"}})
    too_large = bytes(10_000_000)
    backend.set_many({"set": 1, "many": 1})
    backend.set("set", too_large)
    assert backend.set_many({"many": too_large, "fits": 1}) == ["many"]
    assert backend.add("added", too_large) is False
    assert backend.get_or_set("returned", lambda: too_large) == too_large
    assert backend.get_many(["set", "many", "added", "fits", "returned"]) == {"fits": 1}
    backend.cache.close()


def test_a_count_that_finds_no_memory_is_lost(backend: DroppableCache, monkeypatch: pytest.MonkeyPatch) -> None:
    backend.set("count", 1)

    def refuse(*_: object) -> int:
        raise droppable.RefusedError

    monkeypatch.setattr(droppable.Cache, "incr", refuse)
    with pytest.raises(ValueError, match="not found"):
        backend.incr("count")
    assert backend.get("count") is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_byte": 1}, "has no argument max_byte="),
        ({"max_bytes": 0}, "max_bytes must be"),
        ({"ttl": 5}, "use TIMEOUT"),
        ({"name": "shop"}, "LOCATION is the name"),
        ({"max_bytes": "1G"}, "exists with max_bytes=None"),
    ],
)
def test_wrong_options(backend: DroppableCache, options: dict[str, Any], said: str) -> None:
    name = backend.cache.name
    assert name is not None
    with pytest.raises(ImproperlyConfigured, match=said):
        DroppableCache(name.removeprefix("django:"), {"OPTIONS": options})


def test_options_beside_options() -> None:
    for option, value in (("max_bytes", "64M"), ("ttl", 5), ("fork", "share")):
        with pytest.raises(ImproperlyConfigured, match=rf'go into OPTIONS, .*: give "OPTIONS": {{\'{option}\': '):
            DroppableCache("", {"TIMEOUT": 300, option: value})


def test_bounds_in_entries_are_ignored(backend: DroppableCache) -> None:
    location = str(backend.cache.name).removeprefix("django:")
    same = DroppableCache(location, {"OPTIONS": {"MAX_ENTRIES": 1, "CULL_FREQUENCY": 2}})
    same.set_many({"a": 1, "b": 2})
    assert backend.get_many(["a", "b"]) == {"a": 1, "b": 2}


def test_marked_text_stays_marked(backend: DroppableCache) -> None:
    backend.set("html", mark_safe("<b>"))
    assert type(backend.get("html")) is SafeString


PROJECT = {
    "site_settings.py": """
        ROOT_URLCONF = "site_urls"
        ALLOWED_HOSTS = ["testserver"]
        SECRET_KEY = "of a test"
        USE_TZ = True
        INSTALLED_APPS = ["django.contrib.sessions"]
        MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
        SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": ["."]}]
        CACHES = {"default": {"BACKEND": "BACKEND OF THE TEST"}}
    """,
    "site_urls.py": """
        from django.http import HttpResponse
        from django.shortcuts import render
        from django.urls import path
        from django.views.decorators.cache import cache_page

        calls = {"page": 0, "part": 0}

        @cache_page(60)
        def page(request):
            calls["page"] += 1
            return HttpResponse(f"page {calls['page']}", headers={"X-Own": "kept"})

        def part():
            calls["part"] += 1
            return f"<b>part {calls['part']}</b>"

        def fragment(request):
            return render(request, "fragment.html", {"part": part})

        def visits(request):
            request.session["visits"] = request.session.get("visits", 0) + 1
            return HttpResponse(str(request.session["visits"]))

        urlpatterns = [path("page", page), path("fragment", fragment), path("visits", visits)]
    """,
    "fragment.html": "{% load cache %}{% cache 60 name %}{{ part|safe }}{% endcache %}",
    "visit.py": """
        import django
        django.setup()
        from django.core.cache import cache
        from django.core.management import call_command
        from django.test import Client
        call_command("migrate", verbosity=0)
        client = Client()
        for path in ("page", "page", "fragment", "fragment", "visits", "visits"):
            answer = client.get("/" + path)
            print(path, answer.status_code, answer.content.decode(), answer.headers.get("X-Own"))
        cache.clear()
        for path in ("page", "fragment", "visits"):
            print(path, client.get("/" + path).content.decode())
    """,
}


def test_a_project_moves_over_by_one_line_of_its_settings(tmp_path: Path) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    written = (tmp_path / "site_settings.py").read_text()
    outputs = []
    for backend in ("django.core.cache.backends.locmem.LocMemCache", "droppable.adapters.django.DroppableCache"):
        (tmp_path / "site_settings.py").write_text(written.replace("BACKEND OF THE TEST", backend))
        ran = subprocess.run(
            [sys.executable, "-B", "visit.py"],
            cwd=tmp_path,
            env={"DJANGO_SETTINGS_MODULE": "site_settings"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        outputs.append(ran.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[1].splitlines() == [
        "page 200 page 1 kept",
        "page 200 page 1 kept",
        "fragment 200 <b>part 1</b> None",
        "fragment 200 <b>part 1</b> None",
        "visits 200 1 None",
        "visits 200 2 None",
        "page page 2",
        "fragment <b>part 2</b>",
        "visits 3",
    ]
