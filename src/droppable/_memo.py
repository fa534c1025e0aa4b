"""`@droppable.cache`: a function's results in memory that the kernel may take back."""

import asyncio.coroutines
import functools
import inspect
import sys
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, cast, overload

from droppable._arguments import Backing, Seconds
from droppable._cache import Cache
from droppable._flight import Keeping
from droppable.lowlevel import CoreMemo, EncodedKey

P = ParamSpec("P")
R = TypeVar("R")


class CacheInfo(NamedTuple):
    """As functools' cache_info(), and `dropped`: results that the kernel took, as far as anybody has looked."""

    hits: int
    misses: int
    maxsize: int | None
    """The bound in bytes, or None."""
    currsize: int
    """Entries, those included that were dropped and not looked for since."""
    dropped: int


if TYPE_CHECKING:

    class Memo(Generic[P, R]):
        # The face of binding/memo.c, where the docstrings are, with the types that are not known there.
        __wrapped__: Callable[P, R]

        @property
        def cache(self) -> Cache: ...
        def cache_info(self) -> CacheInfo: ...
        def cache_clear(self) -> None: ...
        def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> object: ...
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def __get__(self, instance: object, owner: type | None = None) -> Any: ...
else:
    Memo = CoreMemo


def _info(cache: Cache) -> CacheInfo:
    stats = cache.stats()
    return CacheInfo(stats.hits, stats.misses, cache.max_bytes, stats.entries, stats.dropped)


def _takes_any_keyword(function: Callable[..., Any]) -> bool:
    """Whether the order of keyword arguments reaches the function: in its **kwargs."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell
        return True
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _memo(function: Callable[P, R], cache: Cache, key: Callable[..., Hashable] | None) -> Memo[P, R]:
    is_async = inspect.iscoroutinefunction(function)
    keeping = Keeping(name=getattr(function, "__qualname__", ""))
    if is_async:

        def miss(key: EncodedKey, /, *args: P.args, **kwargs: P.kwargs) -> Any:
            return cache.aget_or_create(key, partial(function, *args, **kwargs))  # type: ignore[arg-type]
    else:

        def miss(key: EncodedKey, /, *args: P.args, **kwargs: P.kwargs) -> Any:
            return cache._flights.do(cache, key, partial(function, *args, **kwargs), keeping)

    memo = CoreMemo(cache, miss, _info, key, looks_up=not is_async, by_name=not _takes_any_keyword(function))
    functools.update_wrapper(memo, function)
    if is_async:
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(memo)
        else:  # the mark that asyncio.iscoroutinefunction() looks for, as frameworks do
            setattr(memo, "_is_coroutine", getattr(asyncio.coroutines, "_is_coroutine"))  # noqa: B009, B010
    return cast("Memo[P, R]", memo)


@overload
def cache(function: Callable[P, R], /) -> Memo[P, R]: ...
@overload
def cache(
    *,
    ttl: Seconds | None = None,
    key: Callable[..., Hashable] | None = None,
    max_bytes: int | float | str | None = None,
    backing: Backing = "auto",
    wait_seconds: Seconds = 30.0,
    linger_seconds: Seconds = 1.0,
) -> Callable[[Callable[P, R]], Memo[P, R]]: ...
def cache(
    function: Callable[P, R] | None = None,
    /,
    *,
    ttl: Seconds | None = None,
    key: Callable[..., Hashable] | None = None,
    max_bytes: int | float | str | None = None,
    backing: Backing = "auto",
    wait_seconds: Seconds = 30.0,
    linger_seconds: Seconds = 1.0,
) -> Memo[P, R] | Callable[[Callable[P, R]], Memo[P, R]]:
    """Keeps a function's results, for as long as nobody needs the memory more: `@droppable.cache`.

    For functions and methods, sync and async. One call computes, others with the same arguments wait for it; an
    exception reaches all of them and is not kept. A dropped result is computed again.

    Args:
        function: what is decorated; left out where arguments follow: `@droppable.cache(ttl=300)`.
        ttl: seconds that a result is good for; None: for ever.
        key: from the arguments to what identifies the result; None: all arguments, by type and value.
        max_bytes: bound on the results' memory; None: memory itself is the bound.
        backing: as for `Cache`.
        wait_seconds: as for `Cache`.
        linger_seconds: as for `Cache`.

    Returns:
        The function with `cache_info()`, `cache_clear()`, `cache` and `__wrapped__`.

    Raises:
        As `Cache`. Calls raise TypeError for arguments that cannot be hashed or pickled (give `key=`), and for results
        that cannot be pickled.
    """

    def made() -> Cache:
        return Cache(max_bytes, ttl, backing, wait_seconds=wait_seconds, linger_seconds=linger_seconds)

    def decorate(function: Callable[P, R]) -> Memo[P, R]:
        if not callable(function):
            raise TypeError(f"@droppable.cache decorates functions; you gave {function!r}")
        return _memo(function, made(), key)

    return decorate if function is None else decorate(function)
