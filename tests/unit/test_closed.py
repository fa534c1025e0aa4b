"""After close() every method raises ClosedError but a few. They are found by looking at the class: new ones too."""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import droppable
from droppable import Cache, ClosedError
from droppable.testing import advance_clock, drop, settle

ANSWER_STILL = {"close", "__exit__"}
"""With what every object has: repr, hash, ==."""


async def make() -> int:
    return 1


# What to give for a parameter without a default, by its name.
ARGUMENTS: dict[str, Any] = {
    "key": "k",
    "keys": ["k"],
    "value": 1,
    "factory": lambda: 1,
    "function": lambda value: value,
    "default": None,
    "delta": 1,
    "initial": 1,
    "mapping": {"k": 1},
    "mapping_or_pairs": {"k": 1},
    "pairs": [("k", 1)],
    "items": [("k", 1)],
    "name": "part",
    "prefix": "k",
    "ttl": 5,
    "other": {"k": 1},
}


def methods() -> Iterator[str]:
    for name in dir(Cache):
        static = inspect.getattr_static(Cache, name)
        if not callable(getattr(Cache, name)) or isinstance(
            static, (classmethod, staticmethod, types.ClassMethodDescriptorType, type)
        ):
            continue
        is_special = name.startswith("__") and name.endswith("__")
        if name in ANSWER_STILL or (name.startswith("_") and not is_special):
            continue
        if not is_special or not hasattr(object, name):
            yield name


def call(cache: Cache, name: str) -> Any:
    method = getattr(cache, name)
    arguments = []
    for parameter in inspect.signature(method).parameters.values():
        if parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
        ):
            assert parameter.name in ARGUMENTS, f"{name}(): say in ARGUMENTS what to give for {parameter.name}"
            is_async = name.startswith("a") and parameter.name == "factory"
            arguments.append(make if is_async else ARGUMENTS[parameter.name])
    result = method(*arguments)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def test_the_methods_are_found() -> None:
    names = set(methods())
    assert names >= {"get", "set", "add", "pop", "clear", "stats", "view", "get_or_create", "aget_or_create", "discard"}
    assert names >= {"__len__", "__iter__", "__contains__", "__getitem__", "__setitem__", "__delitem__", "__enter__"}
    assert not names & {"close", "__repr__", "__hash__", "__eq__", "__init__"}


@pytest.mark.parametrize("name", sorted(methods()))
def test_it_raises(cache: Cache, name: str) -> None:
    cache["k"] = 1
    cache.close()
    with pytest.raises(ClosedError, match="is closed: your code called close"):
        call(cache, name)


def test_what_answers_still(cache: Cache) -> None:
    before = hash(cache)
    cache.close()
    cache.close()
    assert cache.__exit__(None, None, None) is None  # type: ignore[func-returns-value]
    assert repr(cache) == "<droppable.Cache: closed>"
    assert hash(cache) == before
    assert cache == cache
    assert cache != Cache()
    assert cache.max_bytes is None


@pytest.mark.parametrize(
    "ask",
    [
        lambda cache: drop(cache),
        lambda cache: settle(cache),
        lambda cache: advance_clock(cache, 1),
    ],
)
def test_the_helpers_of_tests_raise(cache: Cache, ask: Callable[[Cache], object]) -> None:
    cache.close()
    with pytest.raises(ClosedError):
        ask(cache)


def test_an_iteration_that_has_begun_raises_at_its_next_step(cache: Cache) -> None:
    for number in range(10_000):
        cache[number] = number
    keys = iter(cache)
    next(keys)
    cache.close()
    with pytest.raises(ClosedError):
        list(keys)


def test_a_function_whose_cache_was_closed() -> None:
    @droppable.cache
    def function() -> int:
        return 1

    function.cache.close()
    for ask in (function, function.cache_info, function.cache_clear):
        with pytest.raises(ClosedError):
            ask()  # type: ignore[operator]


def test_one_that_was_never_made_has_a_repr() -> None:
    cache = Cache.__new__(Cache)
    assert repr(cache) == "<droppable.Cache: closed>"
    with pytest.raises(ClosedError, match="never made"):
        len(cache)
