"""Caches of the process by name."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final, TypedDict, Unpack

from droppable._arguments import NEVER, Backing, Fork, Seconds, Write, read_seconds, read_size, refuse_unknown
from droppable._cache import Cache, Serializer
from droppable._live import find_or_name
from droppable.lowlevel import Layout


class CacheOptions(TypedDict, total=False):
    """What `Cache()` takes."""

    max_bytes: int | float | str | None
    ttl: Seconds | None
    backing: Backing
    serializer: Serializer | None
    fork: Fork
    wait_seconds: Seconds
    linger_seconds: Seconds
    below: MutableMapping[Any, Any] | None
    write: Write
    layout: Layout | None


_DEFAULTS: Final[CacheOptions] = {
    "max_bytes": None,
    "ttl": None,
    "backing": "auto",
    "serializer": None,
    "fork": "wipe",
    "wait_seconds": 30.0,
    "linger_seconds": 1.0,
    "below": None,
    "write": "through",
    "layout": None,
}
_TIMES: Final = frozenset({"ttl", "wait_seconds", "linger_seconds"})


def named(name: str, **options: Unpack[CacheOptions]) -> Cache[Any, Any]:
    """The cache of this name in this process; made at the first call, the same one for all who ask until it is closed.

        tiles = droppable.named("tiles", max_bytes="256M")

    Any module, thread or task may ask. A forked child has its own: empty, or with fork="share" as it was. The cache
    stays also while nobody holds it. After `close()` the name is free again.

    Args:
        name: any text.
        options: as for `Cache`. Who gives none takes the cache as it is.

    Raises:
        TypeError: name is no str, or an option is none of `Cache`'s.
        ValueError: the cache exists, and one of the options given is not what it was made with.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str; you gave {name!r}")
    if unknown := {option: value for option, value in options.items() if option not in _DEFAULTS}:
        refuse_unknown("named()", unknown)

    def make() -> Cache[Any, Any]:
        cache: Cache[Any, Any] = Cache(**options)
        cache._name = name
        cache._options = {option: _plain(option, value) for option, value in {**_DEFAULTS, **options}.items()}
        return cache

    cache = find_or_name(name, make)
    for option, value in options.items():
        has = cache._options[option]
        if _plain(option, value) != has:
            raise ValueError(
                f"the cache named {name!r} exists with {option}={has!r}; you gave {value!r}: "
                f"ask for it without {option}, or close it first"
            )
    return cache


def _plain(option: str, value: Any) -> Any:
    """The value in one form, whether it was written as text, as a timedelta or as a number."""
    if option == "max_bytes":
        return read_size(option, value)
    if option == "layout":
        return value or Layout()
    if option == "ttl" and value is None:
        return NEVER
    return read_seconds(option, value) if option in _TIMES else value
