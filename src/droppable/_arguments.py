"""Arguments as callers give them: sizes, seconds, fractions, choices and functions. Checked here and nowhere else.

Each message names the parameter, says what it must be, and repeats what was given:

    max_bytes must be a size of more than 0 bytes (a number, or text such as '64M' or '1.5G'), or None; you gave '64X'

`_MUST_BE` is the table of all parameters. The binding reads the times that are given with a call by itself,
with the same words: binding/arguments.c.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal, NoReturn, TypeAlias, TypeVar

T = TypeVar("T")

NEVER: Final[float] = math.inf
"""As a time to live: the entry never expires. As a time to wait: there is no bound."""

Seconds: TypeAlias = float | timedelta
"""What is taken for a time: seconds, a timedelta, or `NEVER`."""

Backing: TypeAlias = Literal["auto", "lazyfree", "droppable"]
"""Which of the kernel's ways to be droppable: see `Cache`."""

Fork: TypeAlias = Literal["wipe", "share"]
"""What a forked child finds: see `Cache`."""

Write: TypeAlias = Literal["through", "behind"]
"""When a value reaches the lower tier: see `Cache`."""

_A_TIME: Final = "seconds (a number), a timedelta, or droppable.NEVER"
_A_SIZE: Final = "a size of more than 0 bytes (a number, or text such as '64M' or '1.5G'), or None"
_A_FUNCTION: Final = "a function"

_MUST_BE: Final[Mapping[str, str]] = {
    "max_bytes": _A_SIZE,
    "ttl": "more than 0 seconds",
    "wait_seconds": "more than 0 seconds",
    "linger_seconds": "0 seconds or more",
    "timeout_seconds": "more than 0 seconds",
    "retry_seconds": "more than 0 seconds",
    "stale": "0 seconds or more",
    "cost": "0 seconds or more",
    "jitter": "a fraction from 0 to 1",
    "fraction": "a number from 0 to 1",
    "delta": "an int of 64 bits",
    "initial": "an int of 64 bits, or None",
    "factory": f"{_A_FUNCTION} without arguments",
    "function": _A_FUNCTION,
    "fill": f"{_A_FUNCTION} of a tuple of slices",
    "keep": f"{_A_FUNCTION} of the result",
    "key": f"{_A_FUNCTION} of the arguments",
    "name": "a str, or None",
    "layout": "a droppable.lowlevel.Layout, or None",
    "serializer": "an object with the functions dumps(value) and loads(data), or None",
}
"""What each parameter must be. A time says its range; that it is a time is said where something else was given."""

_A_BOUND: Final = "Give max_bytes='64M' for a bound in bytes, or nothing: the memory that is free is the bound"
_OF_FUNCTIONS: Final = "That is an option of @droppable.cache, which keeps the results of a function"
_OTHER_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("maxsize", "size", "sizelimit", "capacity", "maxentries", "maxmemory"), _A_BOUND),
    **dict.fromkeys(("timeout", "expire", "expires", "expiration", "defaulttimeout"), "Give ttl= in seconds"),
    "name": "A cache that has a name is made by droppable.named(...)",
    "typed": "Arguments are always told apart by type and value",
    "lock": "All calls are safe from several threads already",
    "path": "The cache is in memory. For a lower tier on disk give below=",
    "directory": "The cache is in memory. For a lower tier on disk give below=",
    **dict.fromkeys(("jitter", "stale", "keep", "key", "selfkey", "normalize", "copy"), _OF_FUNCTIONS),
    **dict.fromkeys(("below", "write"), "Call get_or_create() of a Cache(below=...) in the function"),
}
"""What other caches call a thing, without underscores, and what to do here. So with what only one of ours has."""

_POWERS: Final[Mapping[str, int]] = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_MOST_BYTES: Final = 1 << 62
CO_COROUTINE: Final = 0x80
"""`inspect.CO_COROUTINE`, a flag of the code of coroutine functions: importing `inspect` takes long."""
_MOST_SECONDS: Final = 9e9
"""285 years: what 63 bits of nanoseconds hold, as in binding/arguments.c."""


def read_size(name: str, value: int | float | str | None) -> int | None:
    """Bytes of a size, or None where None was given.

    Raises:
        TypeError: it is no number and no text. ValueError: it is 0 or less, not whole, or no size.
    """
    if value is None:
        return None
    size_bytes: int
    if isinstance(value, str):
        try:
            size_bytes = parse_size(value)
        except ValueError:
            _refuse(ValueError, name, value)
    elif isinstance(value, float):
        if not value.is_integer():
            _refuse(ValueError, name, value)
        size_bytes = int(value)
    else:
        try:
            size_bytes = operator.index(value)
        except TypeError:
            _refuse(TypeError, name, value)
    if size_bytes <= 0:
        _refuse(ValueError, name, value)
    return size_bytes


def read_seconds(name: str, value: Seconds) -> float:
    """Seconds of a time; `NEVER` stays what it is.

    Raises:
        TypeError: it is no time. ValueError: it is out of the parameter's range.
    """
    seconds = _number(name, value.total_seconds() if isinstance(value, timedelta) else value, value, _A_TIME)
    least_is_right = _MUST_BE[name].startswith("0 ")
    if seconds > 0 or (least_is_right and seconds == 0):
        return seconds
    _refuse(ValueError, name, value)


def read_wait(name: str, value: Seconds) -> float:
    """As `read_seconds`, for clocks that have no infinity: `NEVER` is 285 years."""
    return min(read_seconds(name, value), _MOST_SECONDS)


def read_fraction(name: str, value: float) -> float:
    """A number from 0 to 1. Raises TypeError for what is no number, ValueError for others."""
    fraction = _number(name, value, value, _MUST_BE[name])
    if not 0 <= fraction <= 1:
        _refuse(ValueError, name, value)
    return fraction


def read_int64(name: str, value: int) -> int:
    """An int of 64 bits. Raises TypeError for what is none (a bool is none), ValueError for one of more bits."""
    if isinstance(value, bool):
        _refuse(TypeError, name, value)
    try:
        number = operator.index(value)
    except TypeError:
        _refuse(TypeError, name, value)
    if not -(1 << 63) <= number < 1 << 63:
        _refuse(ValueError, name, value)
    return number


def read_choice(name: str, value: object, choices: Mapping[str, T]) -> T:
    """What choices has for value. Raises ValueError for everything else, whatever its type."""
    if isinstance(value, str) and value in choices:
        return choices[value]
    *others, last = map(repr, choices)
    raise ValueError(f"{name} must be {', '.join(others)} or {last}; you gave {value!r}")


def read_function(name: str, value: Callable[..., Any]) -> None:
    """Raises TypeError unless value can be called."""
    if not callable(value):
        _refuse(TypeError, name, value)


def read_instance(name: str, value: object, kind: type) -> None:
    """Raises TypeError unless value is None or of this type."""
    if value is not None and not isinstance(value, kind):
        _refuse(TypeError, name, value)


def read_serializer(value: object) -> None:
    """Raises TypeError unless value is None or has what a serializer has."""
    if value is not None and not all(callable(getattr(value, name, None)) for name in ("dumps", "loads")):
        _refuse(TypeError, "serializer", value)


def read_dumped(dumped: object) -> Any:
    """What a serializer's dumps() has returned, as bytes or another buffer: json makes text, which is taken as UTF-8.

    Raises TypeError for everything else.
    """
    if isinstance(dumped, bytes):
        return dumped
    if isinstance(dumped, str):
        return dumped.encode("utf-8", "surrogatepass")
    try:
        memoryview(dumped).release()  # type: ignore[arg-type]
    except TypeError:
        kind = type(dumped).__qualname__
        raise TypeError(f"serializer.dumps() must return bytes or str; yours has returned one of type {kind}") from None
    return dumped


def read_factory(factory: Callable[[], Any]) -> None:
    """Raises TypeError unless factory can be called, and is no coroutine function: its result would be a coroutine."""
    read_function("factory", factory)
    function: Any = factory
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)  # of a bound method
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    if flags & CO_COROUTINE or hasattr(function, "_is_coroutine_mark"):
        raise TypeError(f"factory must be no coroutine function: use aget_or_create(); you gave {factory!r}")


def refuse_unknown(whose: str, given: Mapping[str, object]) -> NoReturn:
    """Raises TypeError for arguments that there are not; what others call so is told by our name."""
    name = next(iter(given))
    ours = _OTHER_NAMES.get(name.replace("_", ""))
    raise TypeError(f"{whose} has no argument {name}=" + (f". {ours}" if ours else ""))


def parse_size(text: str) -> int:
    """Bytes, from a number that K, M, G or T may follow (powers of 1024; "MB" and "MiB" mean M).

    Raises:
        ValueError: it is none; the message says what to write.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?\s*", text, flags=re.IGNORECASE | re.ASCII)
    if match is None:
        raise ValueError(
            f"{text!r} is not a size: write bytes, or a number with K, M, G or T (powers of 1024), as in 256M"
        )
    power = 1024 ** _POWERS[match[2].upper()]
    rounded = float(match[1]) * power  # infinity, if the digits are hundreds
    if rounded < 2 * _MOST_BYTES:
        size_bytes = int(match[1]) * power if match[1].isdecimal() else int(rounded)
        if size_bytes < _MOST_BYTES:
            return size_bytes
    raise ValueError(f"{text!r} is more than any machine has")


def format_size(size_bytes: int) -> str:
    """The other way, rounded to one decimal: "255.9M"."""
    size, unit = float(size_bytes), ""
    for unit in _POWERS:
        if size < 1000 or unit == "T":
            break
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + unit


def _number(name: str, number: object, given: object, must_be: str) -> float:
    try:
        return math.ldexp(number, 0)  # type: ignore[arg-type]  # not float(), which reads text
    except TypeError:
        raise TypeError(f"{name} must be {must_be}; you gave {given!r}") from None
    except OverflowError:
        raise ValueError(f"{name} is a number of too many digits; you gave {given!r}") from None


def _refuse(error: type[Exception], name: str, value: object) -> NoReturn:
    raise error(f"{name} must be {_MUST_BE[name]}; you gave {value!r}") from None
