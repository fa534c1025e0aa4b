"""What caches of this process have and shared ones lack: each call says so, and what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from droppable.lowlevel import UnsupportedError

_NO_KEYS = "the server lists no keys. Keep an index of them in a value, or where the values come from"
_NOT_AT_ONCE = "the server's commands set and delete whole values"


def _lacks(call: str, why: str) -> Callable[..., NoReturn]:
    def refuse(self: object, /, *_: object, **__: object) -> NoReturn:
        raise UnsupportedError(f"a {type(self).__name__} has no {call}: {why}")

    refuse.__name__ = refuse.__qualname__ = call.partition("(")[0]
    refuse.__doc__ = f"Is not there: {why}. Raises UnsupportedError."
    return refuse


class Lacking:
    """The calls of `Cache` and `Namespace` that raise UnsupportedError here."""

    __slots__ = ()

    view = _lacks(
        "view()", "the value lies in the server's memory, so get() copies it once, and what it returns is yours"
    )
    pin = _lacks(
        "pin()",
        "the value lies in the server's memory, and a client may not hold memory there. Keep what get() returns",
    )
    keys = _lacks("keys()", _NO_KEYS)
    items = _lacks("items()", _NO_KEYS)
    values = _lacks("values()", _NO_KEYS)
    popitem = _lacks("popitem()", _NO_KEYS)
    __iter__ = _lacks("iteration", _NO_KEYS)
    __len__ = _lacks(
        "len()", "the server does not count what belongs here. SharedCache.server_stats()['entries'] counts all"
    )
    __reversed__ = None
    delete_prefix = _lacks(
        "delete_prefix()", "the server lists no keys. Put keys that go together in a namespace(), and clear() it"
    )
    pop = _lacks("pop()", f"{_NOT_AT_ONCE}, so that two processes could both get it. Call get(), and then delete()")
    transform = _lacks(
        "transform()", f"{_NOT_AT_ONCE}, so that changes would be lost. Have one process make them, and set()"
    )
    tier_stats = _lacks("tier_stats()", "there is no lower tier. stats() and server_stats() count")
    flush = _lacks("flush()", "each set() reaches the server before it returns. There is nothing to write later")

    def __bool__(self) -> bool:
        return True
