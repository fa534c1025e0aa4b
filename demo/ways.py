"""The three ways to cache one function. The only difference between the three runs."""

from collections.abc import Callable
from typing import Any

import cachetools

import droppable

Render = Callable[[str], bytes]


def unbounded_dict(render: Render, hand_bytes: int) -> Any:
    """Keeps everything, for ever."""
    return cachetools.cached({})(render)


def hand_sized(render: Render, hand_bytes: int) -> Any:
    """Least recently used, bounded in bytes by someone who knew the highest wave (see sizing.py)."""
    return cachetools.cached(cachetools.LRUCache(maxsize=hand_bytes, getsizeof=len))(render)


def no_size(render: Render, hand_bytes: int) -> Any:
    """Keeps what the kernel leaves."""
    return droppable.cache(render)


WAYS: dict[str, Callable[[Render, int], Any]] = {
    "dict": unbounded_dict,
    "cachetools": hand_sized,
    "droppable": no_size,
}
