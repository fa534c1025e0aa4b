"""Caches of the process by name, and the list of all."""

from __future__ import annotations

import gc
import os
import pickle
import threading
import weakref
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

import droppable
from droppable import NEVER, Cache, ClosedError, _live
from droppable.lowlevel import Layout


@pytest.fixture(autouse=True)
def close_named() -> Iterator[None]:
    """Each test finds no named cache; examples of the documentation leave some."""
    for cache in list(_live._named.values()):
        cache.close()
    yield
    for cache in list(_live._named.values()):
        cache.close()


def test_all_who_ask_get_the_same_cache() -> None:
    tiles = droppable.named("tiles")
    assert droppable.named("tiles") is tiles
    assert droppable.named("others") is not tiles
    assert tiles.name == "tiles"
    assert Cache().name is None
    tiles["key"] = 1
    reference = weakref.ref(tiles)
    del tiles
    gc.collect()
    assert reference() is droppable.named("tiles")
    assert droppable.named("tiles")["key"] == 1


def test_a_closed_one_is_another_next_time() -> None:
    tiles = droppable.named("tiles", max_bytes="1M")
    tiles.close()
    tiles.close()
    with pytest.raises(ClosedError):
        tiles.get("key")
    again = droppable.named("tiles", max_bytes="2M")
    assert again is not tiles
    assert again.max_bytes == 2 << 20
    tiles.close()
    assert droppable.named("tiles") is again
    with again:
        again["key"] = 1
    assert droppable.named("tiles") is not again


OPTIONS: dict[str, tuple[list[Any], Any]] = {
    "max_bytes": (["64M", 64 << 20, float(64 << 20)], "65M"),
    "ttl": ([60, 60.0, timedelta(minutes=1)], None),
    "backing": (["lazyfree"], "auto"),
    "serializer": ([pickle], None),
    "fork": (["share"], "wipe"),
    "wait_seconds": ([5, timedelta(seconds=5)], 6),
    "linger_seconds": ([0, 0.0], 1),
    "layout": ([Layout(1), Layout(shards=1)], Layout(2)),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_must_be_those_that_it_was_made_with(option: str) -> None:
    same, other = OPTIONS[option]
    made = droppable.named("tiles", **{option: same[0]})  # type: ignore[arg-type]
    assert droppable.named("tiles") is made
    for value in same:
        assert droppable.named("tiles", **{option: value}) is made
    with pytest.raises(ValueError, match=f"the cache named 'tiles' exists with {option}=") as raised:
        droppable.named("tiles", **{option: other})
    assert f"you gave {other!r}" in str(raised.value)
    assert droppable.named("tiles") is made


def test_no_option_is_the_same_as_its_default() -> None:
    made = droppable.named("tiles")
    assert (
        droppable.named("tiles", max_bytes=None, ttl=None, backing="auto", fork="wipe", wait_seconds=30, layout=None)
        is made
    )
    assert droppable.named("tiles", ttl=NEVER) is made
    with pytest.raises(ValueError, match=r"max_bytes=None; you gave '1G'"):
        droppable.named("tiles", max_bytes="1G")


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="name must be a str; you gave 5"):
        droppable.named(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^named\(\) has no argument size=\. Give max_bytes='64M'"):
        droppable.named("tiles", size=5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="max_bytes must be"):
        droppable.named("tiles", max_bytes="much")
    assert not [cache for cache in droppable.caches() if cache.name == "tiles"]
    droppable.named("tiles")
    with pytest.raises(TypeError, match=r"named\(\) has no argument size=\."):
        droppable.named("tiles", size=5)  # type: ignore[call-arg]


def test_threads_get_one_cache() -> None:
    for number in range(50):
        got: list[Cache] = []
        start = threading.Barrier(4)

        def ask(number: int = number, got: list[Cache] = got, start: Any = start) -> None:
            start.wait()
            got.append(droppable.named(f"tiles {number}"))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 4
        assert len(set(got)) == 1
        assert [cache for cache in droppable.caches() if cache.name == f"tiles {number}"] == [got[0]]


def test_it_may_be_asked_for_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a finaliser or a signal handler does that runs within Cache.__init__."""
    inner: list[Cache] = []
    init = Cache.__init__

    def interrupted(self: Cache, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if not inner:
            inner.append(self)
            inner.append(droppable.named("tiles"))

    monkeypatch.setattr(Cache, "__init__", interrupted)
    outer = droppable.named("tiles")
    assert outer is inner[1]
    outer["key"] = 1
    with pytest.raises(ClosedError):
        inner[0].get("key")


def test_a_child_has_its_own_also_if_it_was_forked_while_another_thread_asked() -> None:
    tiles = droppable.named("tiles")
    tiles["key"] = 1
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with _live._lock:
            held.set()
            go_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert droppable.named("tiles") is tiles
            assert tiles.get("key") is None
            tiles["key"] = 2
            tiles.close()
            assert droppable.named("tiles") is not tiles
            assert tiles not in droppable.caches()
            status = 0
        finally:
            os._exit(status)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert droppable.named("tiles") is tiles
    assert tiles["key"] == 1


def test_the_list_has_all_that_are_open() -> None:
    before = droppable.caches()

    @droppable.cache
    def function() -> None:
        pass

    first, second, third = Cache(), droppable.named("tiles"), Cache()
    new = [cache for cache in droppable.caches() if cache not in before]
    assert new == [function.cache, first, second, third]
    assert [cache.name for cache in new] == [f"{function.__module__}.{function.__qualname__}", None, "tiles", None]
    third.close()
    del new
    reference = weakref.ref(first)
    del first
    gc.collect()
    assert reference() is None
    new = [cache for cache in droppable.caches() if cache not in before]
    assert new == [function.cache, second]


def test_the_list_beside_threads_that_make_and_close() -> None:
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            Cache().close()
            Cache()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            assert all(isinstance(cache, Cache) for cache in droppable.caches())
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_disabled_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPPABLE_DISABLE", "1")
    tiles = droppable.named("tiles")
    assert tiles.set("key", 1)
    assert tiles.get("key") is None
