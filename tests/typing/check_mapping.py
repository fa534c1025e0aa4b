"""What a type checker knows of a cache as a mapping; `mypy --strict` reads it, nothing runs it."""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any, assert_type

import droppable
from droppable import Cache, Namespace


def a_cache_knows_its_keys_and_values(cache: Cache[str, int]) -> None:
    assert_type(cache["a"], int)
    assert_type(cache.get("a"), int | None)
    assert_type(cache.get("a", 0), int)
    assert_type(cache.get("a", "none"), int | str)
    assert_type(cache.pop("a"), int)
    assert_type(cache.pop("a", None), int | None)
    assert_type(cache.setdefault("a", 1), int)
    assert_type(cache.popitem(), tuple[str, int])
    assert_type(cache.get_or_create("a", lambda: 5), int)
    assert_type(dict(cache.items()), dict[str, int])
    assert_type(list(cache), list[str])
    assert_type(cache.delete_prefix("a"), int)
    cache["a"] = 1
    cache.set("a", 1, ttl=5)
    cache.update({"a": 1}, b=2)
    cache.update([("a", 1)])
    keys: KeysView[str] = cache.keys()
    values: ValuesView[int] = cache.values()
    items: ItemsView[str, int] = cache.items()
    iterator: Iterator[str] = iter(cache)
    mapping: Mapping[str, int] = cache
    mutable: MutableMapping[str, int] = cache
    print(keys, values, items, iterator, mapping, mutable)


def and_what_does_not_fit_is_an_error(cache: Cache[str, int]) -> None:
    cache[5] = 1  # type: ignore[index]
    cache["a"] = "text"  # type: ignore[assignment]
    cache.set("a", "text")  # type: ignore[arg-type]
    cache.add(5, 1)  # type: ignore[arg-type]
    cache.get(5)  # type: ignore[call-overload]
    cache.get_or_create("a", lambda: "text")  # type: ignore[arg-type, return-value]
    cache.setdefault("a", "text")  # type: ignore[arg-type]
    cache.update({"a": "text"})  # type: ignore[arg-type]
    cache.delete_prefix(5)  # type: ignore[arg-type]
    wrong: Mapping[str, str] = cache  # type: ignore[assignment]
    print(wrong, reversed(cache))  # type: ignore[arg-type]


def a_namespace_has_those_of_its_cache(cache: Cache[str, int]) -> None:
    part = cache.namespace("part")
    assert_type(part, Namespace[str, int])
    assert_type(part.namespace(("inner", 1)), Namespace[str, int])
    assert_type(part.cache, Cache[str, int])
    assert_type(part["a"], int)
    assert_type(part.get("a", None), int | None)
    assert_type(part.get_or_create("a", lambda: 5), int)
    with part.view("a") as memory:
        assert_type(memory, memoryview)
    part.set("a", "text")  # type: ignore[arg-type]
    part[5]  # type: ignore[index]
    mutable: MutableMapping[str, int] = part
    print(mutable)


async def coroutines_too(cache: Cache[str, int]) -> None:
    async def number() -> int:
        return 5

    async def text() -> str:
        return "text"

    assert_type(await cache.aget_or_create("a", number), int)
    assert_type(await cache.namespace("part").aget_or_create("a", number), int)
    await cache.aget_or_create("a", text)  # type: ignore[arg-type]


def without_types_everything_fits() -> None:
    cache = Cache()
    assert_type(cache["a"], Any)
    cache[5] = "text"
    bare: Cache = cache
    print(bare)


def a_subclass_says_once_what_it_holds() -> None:
    class Tiles(Cache[tuple[int, int], bytes]):
        pass

    assert_type(Tiles()[1, 2], bytes)


def names_give_caches() -> None:
    tiles: Cache[str, bytes] = droppable.named("tiles", max_bytes="64M", ttl=300)
    assert_type(tiles.name, str | None)
    assert_type(droppable.caches(), list[Cache[Any, Any]])
    droppable.named("tiles", max_bites=5)  # type: ignore[call-arg]
    droppable.named("tiles", backing="plain")  # type: ignore[arg-type]
