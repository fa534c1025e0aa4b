"""How a computed value is kept: for how long, whether at all, and what its callers get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from droppable.lowlevel import random_random

if TYPE_CHECKING:
    from droppable._arguments import Seconds


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a caller of `Flights.do()` says about the value that his factory computes. Checked before it is made.

    Attributes:
        ttl: time to live, or a function from the value to that; None: the cache's own.
        keep: says of a value whether it is stored; None: each is. One that is not stored reaches all who wait.
        jitter: each ttl is shortened by a share that is chosen at random, up to this fraction. The cache's own is not.
        copy: callers get values that they may change: arrays are writable, on memory of their own.
        name: of the function, for the log; "": the factory's own.
    """

    ttl: Seconds | Callable[[Any], Seconds | None] | None = None
    keep: Callable[[Any], bool] | None = None
    jitter: float = 0.0
    copy: bool = False
    name: str = ""

    def ttl_of(self, value: Any) -> Seconds | None:
        """The time to live of a value that was just computed."""
        ttl = self.ttl(value) if callable(self.ttl) else self.ttl
        if ttl is None or not self.jitter:
            return ttl
        return ttl * (1 - self.jitter * random_random())

    def keeps(self, value: Any) -> bool:
        """Whether a value that was just computed is to be stored."""
        return self.keep is None or bool(self.keep(value))


DEFAULT: Final = Keeping()


def keeping_for(ttl: Seconds | None) -> Keeping:
    """What a call says that gives no more than a ttl."""
    return DEFAULT if ttl is None else Keeping(ttl)
