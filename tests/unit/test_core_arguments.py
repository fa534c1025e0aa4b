"""What the C core's Python types say of wrong arguments, where no Python module stands before them."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import pytest

import droppable
from droppable import Cache, lowlevel, random


@droppable.cache
def function(a: int) -> int:
    return a


class Owner:
    def __init__(self, name: str) -> None:
        self.name = name

    @droppable.cache(self_key="name")
    def method(self) -> str:
        return self.name


CALLS: dict[str, tuple[Callable[[Cache[Any, Any]], object], str]] = {
    "walk": (lambda cache: cache._walk(), "_walk() takes a cursor and a scope"),  # type: ignore[call-arg]
    "scope": (lambda cache: cache._scope(1), "_scope() takes a cell and a mode"),  # type: ignore[arg-type, call-arg]
    "get in": (lambda cache: cache._get_in(1), "_get_in() takes a cell, a key, a default and copy"),  # type: ignore[call-arg]
    "delete prefix": (
        lambda cache: cache._delete_prefix(1, None),  # type: ignore[arg-type]
        "_delete_prefix() takes a str or bytes, and a scope or None",
    ),
    "keep": (lambda cache: cache._keep(1), "_keep() takes a lease, key, value, ttl, cost, and flags"),  # type: ignore[arg-type, call-arg]
    "get many": (lambda cache: cache._get_many(), "_get_many() takes 2 arguments, the last of them a scope"),  # type: ignore[call-arg]
    "set name": (lambda cache: function.__set_name__(1), "__set_name__() takes a class and a name"),  # type: ignore[attr-defined]
    "bound": (
        lambda cache: type(Owner("a").method)(memo=function),
        "BoundMemo() takes a Memo and an instance, by position",
    ),  # type: ignore[arg-type]
    "randbelow": (lambda cache: random.randbelow(), "randbelow() missing 1 required argument: 'exclusive_upper_bound'"),  # type: ignore[call-arg]
    "region's name": (
        lambda cache: lowlevel.RawRegion(mmap.PAGESIZE, name=b"x"),  # type: ignore[arg-type]
        "name must be a string or None, not <class 'bytes'>",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_told(name: str) -> None:
    call, words = CALLS[name]
    with Cache[Any, Any]() as cache, pytest.raises(TypeError) as told:
        call(cache)
    assert words in str(told.value)


def test_bound_functions_compare_and_bind_as_methods_do() -> None:
    owner = Owner("a")
    bound = owner.method
    assert bound == owner.method
    assert bound != Owner("b").method
    assert bound != 1
    assert bound.__get__(Owner("b"), Owner) is bound
    with pytest.raises(TypeError):
        bound < owner.method  # type: ignore[operator]  # noqa: B015


def test_a_region_of_a_name_has_it() -> None:
    region = lowlevel.RawRegion(1 << 16, name="somebody")
    assert (region.name, region.backing in ("lazyfree", "droppable")) == ("somebody", True)
    assert region.address % mmap.PAGESIZE == 0
    region.close()
