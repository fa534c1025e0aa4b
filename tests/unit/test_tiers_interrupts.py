"""At every call that the tiers make an exception comes, as from a signal handler, and is kept with its frames.

Python runs signal handlers as a function of its own begins, and after a call of one in C. Afterwards another thread can
change all keys, and a value that somebody has read is followed by no older one.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import droppable._tiers
from droppable import Cache
from droppable.lowlevel import CoreCache

WAIT_SECONDS = 30.0  # only a hang takes that long
FOLDER = str(Path(str(droppable._tiers.__file__)).parent)


class Boom(BaseException):
    """As KeyboardInterrupt."""


class Trap:
    """Raises Boom at the n-th moment, within the tiers, at which a signal handler could run."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith((FOLDER, str(contextlib.__file__))):
            self.left -= 1
            if self.left == 0:
                raise Boom


ROLES: dict[str, Callable[[Any], object]] = {
    "set": lambda cache: cache.set("k", 2),
    "set for a while": lambda cache: cache.set("k", 2, ttl=1000),
    "add": lambda cache: (cache.discard("k"), cache.add("k", 2)),
    "incr": lambda cache: cache.incr("k"),
    "transform": lambda cache: cache.transform("k", lambda value: value + 1),
    "touch": lambda cache: cache.touch("k", 1000),
    "discard": lambda cache: cache.discard("k"),
    "pop": lambda cache: cache.pop("k"),
    "clear": lambda cache: cache.clear(),
    "compute": lambda cache: (cache.discard("k"), cache.get_or_create("k", lambda: 2)),
    "fetch": lambda cache: (CoreCache.clear(cache), cache.get("k")),
}


def springs(role: Callable[[Any], object], write: Any) -> Iterator[Any]:
    """The cache after the role was interrupted at its first call, at its second one, and so on."""
    number = 0
    while True:
        number += 1
        cache: Any = Cache(below={}, write=write)
        cache["k"] = 1
        cache.flush()
        trap = Trap(number)
        kept: BaseException | None = None
        sys.setprofile(trap)
        try:
            role(cache)
        except Boom as error:
            kept = error  # its frames live on, and what their variables hold
        finally:
            sys.setprofile(None)
        if trap.left > 0:
            assert number > 5
            cache.close()
            return
        yield cache
        del kept
        cache.close()


@pytest.mark.parametrize("write", ["through", "behind"])
@pytest.mark.parametrize("role", ROLES)
def test_an_interrupt_leaves_no_lock_and_brings_nothing_old_back(role: str, write: Any) -> None:
    for cache in springs(ROLES[role], write):
        seen = cache.get("k", 0)
        over = threading.Event()

        def change_all(cache: Any = cache, over: threading.Event = over) -> None:
            for number in range(100):
                cache[number] = number
            over.set()

        threading.Thread(target=change_all, daemon=True).start()
        assert over.wait(WAIT_SECONDS), "a lock was left behind"
        CoreCache.clear(cache)
        assert cache.get("k", seen) >= seen
        for number in range(100):  # what this thread changes reaches the lower tier again
            cache[number] = -number
        cache.flush()
        CoreCache.clear(cache)
        assert cache.tier_stats().distrusted <= 1
        assert cache.get(50) == -50
        assert cache.transform("k", lambda value: value + 1, 0) >= 1
