"""What type checkers know of functions and methods with a cache. mypy --strict and pyright read it, nothing runs it.

Each line that must be an error is marked as one, and both checkers say so where a mark is of no use.
"""

from typing import assert_type

import droppable


@droppable.cache
def function(number: int, text: str = "") -> bytes:
    return text.encode() * number


@droppable.cache(normalize=True, keep=lambda result: result is not None, jitter=0.1, copy=True)
def found(number: int) -> str | None:
    return str(number)


class Page:
    path = ""

    @droppable.cache
    def by_value(self, number: int) -> str:
        return str(number)

    @droppable.cache(self_key="path", ttl=lambda text: len(text))
    def by_attribute(self, number: int, *, bold: bool = False) -> str:
        return str(number)

    @droppable.cache(self_key=droppable.INSTANCE)
    async def fetch(self, number: int) -> bytes:
        return bytes(number)

    @classmethod
    @droppable.cache
    def of_class(cls, number: int) -> str:
        return str(number)

    @droppable.cache(ttl=5)
    @classmethod
    def above_of_class(cls, number: int) -> str:
        return str(number)

    @staticmethod
    @droppable.cache
    def static(number: int) -> str:
        return str(number)

    @property
    @droppable.cache(self_key="path")
    def size(self) -> int:
        return 1


def methods_know_their_arguments(page: Page) -> None:
    assert_type(page.by_value(1), str)
    assert_type(page.by_attribute(1, bold=True), str)
    assert_type(Page.by_value(page, 1), str)
    assert_type(page.size, int)
    page.by_value("wrong")  # type: ignore[arg-type]
    page.by_attribute(1, bald=True)  # type: ignore[call-arg]
    Page.by_value(1)  # type: ignore[arg-type, call-arg]


def so_do_class_methods_and_static_methods(page: Page) -> None:
    assert_type(Page.of_class(1), str)
    assert_type(page.of_class(1), str)
    assert_type(Page.above_of_class(1), str)
    assert_type(page.above_of_class(1), str)
    assert_type(Page.static(1), str)
    Page.of_class("wrong")  # type: ignore[arg-type]
    Page.above_of_class("wrong")  # type: ignore[arg-type]
    Page.static("wrong")  # type: ignore[arg-type]


async def so_do_coroutine_methods(page: Page) -> None:
    assert_type(await page.fetch(1), bytes)
    assert_type(await page.fetch.refresh(1), bytes)
    await page.fetch("wrong")  # type: ignore[arg-type]


def what_they_have_beside_the_call(page: Page) -> None:
    assert_type(page.by_value.invalidate(1), bool)
    assert_type(page.by_value.discard(1), bool)
    assert_type(page.by_value.refresh(1), str)
    assert_type(page.by_value.cache_key(1), object)
    assert_type(Page.of_class.invalidate(1), bool)
    assert_type(function.refresh(1, text="x"), bytes)
    assert_type(found.refresh(1), str | None)
    page.by_value.cache_clear()
    hits, misses, maxsize, entries = function.cache_info()
    assert_type((hits, misses, maxsize, entries), tuple[int, int, int | None, int])
    assert_type(function.cache_info().dropped, int)
    page.by_value.invalidate("wrong")  # type: ignore[arg-type]
    page.by_value.refresh("wrong")  # type: ignore[arg-type]
    function.invalidate("wrong")  # type: ignore[arg-type]


def options_are_checked() -> None:
    droppable.cache(self_key=5)  # type: ignore[call-overload]
    droppable.cache(ttl="5m")  # type: ignore[call-overload]
    droppable.cache(nothing=5)  # type: ignore[call-overload]
