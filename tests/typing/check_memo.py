"""Types a user may rely on, checked by mypy --strict and never run: `@droppable.cache`."""

from typing import assert_type

import droppable


@droppable.cache
def bare(path: str, *, wide: bool = False) -> bytes:
    return path.encode() * (2 if wide else 1)


@droppable.cache(ttl=300, key=lambda path: path.lower(), max_bytes=1 << 20, backing="lazyfree")
def with_arguments(path: str) -> list[str]:
    return path.split("/")


@droppable.cache
async def asynchronous(number: int) -> float:
    return number / 2


def a_function_keeps_its_signature() -> None:
    assert_type(bare("a", wide=True), bytes)
    assert_type(with_arguments("a/b"), list[str])
    assert_type(bare.__wrapped__("a"), bytes)
    bare(1)  # type: ignore[arg-type]
    bare("a", True)  # type: ignore[call-arg]


async def a_coroutine_function_stays_one() -> None:
    assert_type(await asynchronous(3), float)


def it_tells_and_forgets() -> None:
    info = bare.cache_info()
    assert_type(info, droppable.CacheInfo)
    assert_type(info.hits, int)
    assert_type(info.maxsize, int | None)
    assert_type(bare.cache, droppable.Cache)
    bare.cache_clear()


def arguments_are_checked() -> None:
    droppable.cache(ttl="soon")  # type: ignore[call-overload]
    droppable.cache(3)  # type: ignore[call-overload]
