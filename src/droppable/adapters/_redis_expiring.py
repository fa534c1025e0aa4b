"""What a near cache keeps of a value with an expiry: a server may tell late that it expired, or not at all.

asked -----------------> answered, with what is left then --> kept -----> over
'-- what is left counts from here: no later than at the server --'
"""

from __future__ import annotations

import time
from typing import Any, Final

OVER: Final = object()
"""In the place of a value that has expired."""
_CLOCK_STEP_MS: Final = 11
"""PTTL says whole milliseconds, and the clock of `droppable serve` is a coarse one: with 100 ticks a second it stands
still for 10 of them."""


class Expiring:
    """A value, and when it ends by this machine's clock."""

    __slots__ = ("ends", "value")

    def __init__(self, value: Any, ends: float) -> None:
        self.value = value
        self.ends = ends

    @classmethod
    def of(cls, value: Any, left_ms: int, asked_at: float) -> Expiring:
        """left_ms: what PTTL said; less than 0: it is over. asked_at: when that was asked."""
        return cls(value, asked_at + max(0, left_ms - _CLOCK_STEP_MS) / 1000)

    def __reduce__(self) -> Any:
        return Expiring, (self.value, self.ends)


def value_of(kept: Any) -> Any:
    """The value of what is kept, or OVER."""
    if type(kept) is not Expiring:
        return kept
    return kept.value if kept.ends > time.monotonic() else OVER
