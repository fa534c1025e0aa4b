"""How a computed value is kept: for how long, whether at all, and what its callers get."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from droppable._arguments import read_seconds
from droppable._log import tell_once
from droppable.lowlevel import random_random

if TYPE_CHECKING:
    from droppable._arguments import Seconds
    from droppable._flight.table import Store
    from droppable.lowlevel import EncodedKey, Lease

# How a result is kept: the flags of `_keep()`, as in binding/lease.c.
_STORES: Final = 1
_WRITABLE: Final = 2
_SHARED: Final = 4
_REPLACES: Final = 8


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
        ttl = self._asked("ttl", self.ttl, value) if callable(self.ttl) else self.ttl
        if ttl is None or not self.jitter:
            return ttl
        whole = ttl if isinstance(ttl, timedelta) else read_seconds("ttl", ttl)
        return whole * (1 - self.jitter * random_random()) or ttl  # 0: it was too short to be shortened

    def keeps(self, value: Any) -> bool:
        """Whether a value that was just computed is to be stored."""
        return self.keep is None or bool(self._asked("keep", self.keep, value))

    def _asked(self, parameter: str, function: Callable[[Any], Any], value: Any) -> Any:
        try:
            return function(value)
        except TypeError as error:
            trace = error.__traceback__
            if trace is not None and trace.tb_next is None:  # it could not be called so
                error.add_note(f"{parameter}= of {self.name} is called with the result, and with nothing else")
            raise

    def flags_for(self, value: Any, is_awaited: bool) -> int:
        """What `_keep()` is told of a value that was just computed."""
        return (_STORES if self.keeps(value) else 0) | (_WRITABLE if self.copy else 0) | (_SHARED if is_awaited else 0)


DEFAULT: Final = Keeping()
_COPYING: Final = Keeping(copy=True)


def keeping_for(ttl: Seconds | None, copy: bool) -> Keeping:
    """What a call says that gives no more than these two."""
    if ttl is None:
        return _COPYING if copy else DEFAULT
    return Keeping(ttl, copy=copy)


def keep(
    store: Store,
    lease: Lease,
    key: EncodedKey,
    factory: Callable[..., Any],
    value: Any,
    keeping: Keeping,
    spent_seconds: float,
    others: int = 0,
    replaces: bool = False,
) -> tuple[Any, Any]:
    """Stores a value of factory's under lease, if it is to be kept and can be. others: how many wait for it.

    replaces: whether an older value may be there, or be computed still. Unless `keep=` turns the new one down, the
    older is not kept, also where the new one cannot be: else the next caller would get it after this one got the newer.

    Returns the caller's own value, as from a hit, and what makes one for each of the others: see `_keep()`.
    """
    refuse_coroutine(value, factory, keeping)
    if keeping is DEFAULT:  # what most callers say, without calls
        ttl, flags = None, _STORES | _SHARED if others else _STORES
    else:
        ttl, flags = keeping.ttl_of(value), keeping.flags_for(value, others > 0)
    if replaces:
        flags |= _REPLACES
    own, copy, error = store._keep(lease, key, value, ttl, spent_seconds, flags)
    if replaces and error is not None and not lease.stale:
        store.discard(key)
    if error is not None:
        name = name_of(factory, keeping)
        tell_once(
            f"function {name}",
            "a result of %s cannot be kept, so that each call computes it: %s: %s",
            name,
            type(error).__name__,
            error,
        )
        if _is_used_up(value):
            copy = None  # who waits computes for himself: what one of them took from it the others would miss
    return own, copy


def _is_used_up(value: object) -> bool:
    """Whether it can be gone through or entered only once: a generator, an open file, what @contextmanager makes."""
    kind = type(value)
    if hasattr(kind, "__next__") or hasattr(kind, "__anext__"):
        return True
    base = getattr(sys.modules.get("contextlib"), "_GeneratorContextManagerBase", None)
    return base is not None and issubclass(kind, base)


def refuse_coroutine(value: object, factory: Callable[..., Any], keeping: Keeping) -> None:
    """Raises TypeError where factory gave a coroutine."""
    if type(value) is CoroutineType:
        value.close()
        instead = "Decorate a function made by `async def`" if keeping.name else "Use aget_or_create()"
        raise TypeError(
            f"{name_of(factory, keeping)} gave a coroutine, which can be awaited only once: nothing to keep. {instead}"
        )


def name_of(factory: Any, keeping: Keeping) -> str:
    """Of the function, for messages."""
    if keeping.name:
        return keeping.name
    while isinstance(factory, partial):
        factory = factory.func
    name = getattr(factory, "__qualname__", type(factory).__qualname__)
    return f"{getattr(factory, '__module__', None) or 'a module'}.{name}"
