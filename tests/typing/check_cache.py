"""What a type checker knows of caches and of functions with a cache; `mypy --strict` reads it, nothing runs it."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from pickle import PickleBuffer
from typing import Any, assert_type

import droppable


@droppable.cache
def plain(number: int, text: str = "") -> bytes:
    return text.encode() * number


@droppable.cache(ttl=5, key=lambda number: number, max_bytes=1 << 20)
def fancy(number: int) -> str:
    return str(number)


@droppable.cache
async def fetch(number: int) -> str:
    return str(number)


class Page:
    @droppable.cache
    def render(self, number: int) -> str:
        return str(number)


def a_function_with_a_cache_is_still_that_function(page: Page) -> None:
    assert_type(plain(1, text="x"), bytes)
    assert_type(fancy(1), str)
    plain("x")  # type: ignore[arg-type]
    fancy(1, 2)  # type: ignore[call-arg]
    plain.cache_key("x")  # type: ignore[arg-type]
    page.render(1)


async def a_coroutine_function_still_is_one() -> None:
    assert_type(await fetch(1), str)
    function: Callable[[int], Coroutine[Any, Any, str]] = fetch
    await function(1)


def and_it_has_a_cache(memo: droppable.Memo[[int], str]) -> None:
    assert_type(memo(1), str)
    assert_type(memo.cache_info(), droppable.CacheInfo)
    assert_type(memo.cache_info().maxsize, int | None)
    assert_type(memo.cache, droppable.Cache)
    assert_type(memo.cache_key(1), object)
    assert_type(memo.__wrapped__(1), str)
    memo.cache_clear()
    memo.cache = droppable.Cache()  # type: ignore[misc]


def a_cache_computes_what_is_not_there(cache: droppable.Cache[str, int]) -> None:
    assert_type(cache.get_or_create("key", lambda: 5), int)
    assert_type(droppable.Cache().get_or_create("key", lambda: 5), Any)
    with cache.view("key") as memory:
        assert_type(memory, memoryview)
    assert_type(cache.stats().misses, int)
    cache.get_or_create("key", 5)  # type: ignore[arg-type]


class Grid:
    cells: bytes


def a_reducer_takes_objects_of_its_type_apart() -> None:
    droppable.register_reducer(Grid, lambda grid: (bytes, (PickleBuffer(grid.cells),)))
    droppable.register_reducer(Grid, lambda grid: grid.sells)  # type: ignore[attr-defined]


def modules_that_load_when_asked_for_are_known(cache: droppable.Cache) -> None:
    assert_type(droppable.testing.drop(cache), droppable.testing.DropReport)
    assert_type(droppable.random.token_bytes(5), bytes)
    assert_type(droppable.__version__, str)
    droppable.tseting.drop(cache)  # type: ignore[attr-defined]


def sizes_times_and_copies() -> None:
    cache = droppable.Cache(max_bytes="1G", ttl=timedelta(minutes=5))
    droppable.Cache(max_bytes=1e9, ttl=droppable.NEVER)
    droppable.Cache(max_bytes=[1])  # type: ignore[arg-type]
    droppable.Cache(1000, 600)  # type: ignore[arg-type]
    cache.set("key", 1, ttl="5m")  # type: ignore[arg-type]
    cache.get("key", copy=True)
    cache.get_or_create("key", lambda: 5, timedelta(1), copy=True)


def a_serializer(serializer: droppable.Serializer, backing: droppable.Backing) -> droppable.View:
    return droppable.Cache(serializer=serializer, backing=backing).view("key")
