"""`@droppable.cache`: a function's results in memory that the kernel may take back."""

import functools
import inspect
import sys
from collections.abc import Callable, Hashable
from types import MethodType
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, overload

from droppable._cache import MISSING, Backing, Cache

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


class Memo(Generic[P, R]):
    """A function with a cache in front of it; what `@droppable.cache` makes. Works on methods as on functions.

    Results are looked up by the arguments, by type and value (`1`, `1.0` and `True` are three keys), keyword
    arguments in any order. A method's `self` is one of them: by value, as pickle sees it, so that the cache keeps no
    object alive and sees when it has changed.

    Any thread may call it; one computes, the others wait. Calls from within the function to itself are fine.
    """

    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], cache: Cache, key: Callable[..., Hashable] | None) -> None:
        functools.update_wrapper(self, function)
        self.cache = cache
        """The cache behind it, for what this object does not offer itself."""
        self._get = cache.get
        self._key = key
        self._is_async = inspect.iscoroutinefunction(function)
        if self._is_async and sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)

    def _key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        if self._key is not None:
            return self._key(*args, **kwargs)
        # The number in front keeps f("a", 1) and f(a=1) apart.
        if not kwargs:
            return (len(args), *args)
        return (len(args), *args, *(part for item in sorted(kwargs.items()) for part in item))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        # A hit is what this is for: nothing is made before it is known to be a miss.
        key = (len(args), *args) if self._key is None and not kwargs else self._key_of(args, kwargs)
        if self._is_async:
            return self.cache.aget_or_create(key, lambda: self.__wrapped__(*args, **kwargs))  # type: ignore[arg-type,return-value]
        value = self._get(key, MISSING)
        if value is not MISSING:
            return value  # type: ignore[no-any-return]
        return self.cache.create(key, lambda: self.__wrapped__(*args, **kwargs))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return MethodType(self, instance)

    def __reduce__(self) -> str:
        # By name, as functions are: processes of a pool find it in their own module, with a cache of their own.
        return self.__wrapped__.__qualname__

    def cache_info(self) -> CacheInfo:
        """Hits, misses, bound in bytes, entries and drops."""
        stats = self.cache.stats()
        return CacheInfo(stats.hits, stats.misses, self.cache.max_bytes, stats.entries, stats.dropped)

    def cache_clear(self) -> None:
        """Forgets all results. Counts go on."""
        self.cache.clear()

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> object:
        """The key in `cache` under which the result for these arguments is kept."""
        return self._key_of(args, kwargs)


@overload
def cache(function: Callable[P, R], /) -> Memo[P, R]: ...
@overload
def cache(
    *,
    ttl: float | None = None,
    key: Callable[..., Hashable] | None = None,
    max_bytes: int | None = None,
    backing: Backing = "auto",
) -> Callable[[Callable[P, R]], Memo[P, R]]: ...
def cache(
    function: Callable[P, R] | None = None,
    /,
    *,
    ttl: float | None = None,
    key: Callable[..., Hashable] | None = None,
    max_bytes: int | None = None,
    backing: Backing = "auto",
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

    Returns:
        The function with `cache_info()`, `cache_clear()`, `cache` and `__wrapped__`.

    Raises:
        As `Cache`. Calls raise TypeError for arguments that cannot be hashed or pickled (give `key=`), and for results
        that cannot be pickled.
    """

    def decorate(function: Callable[P, R]) -> Memo[P, R]:
        if not callable(function):
            raise TypeError(f"@droppable.cache decorates functions; you gave {function!r}")
        return Memo(function, Cache(max_bytes=max_bytes, ttl=ttl, backing=backing), key)

    return decorate if function is None else decorate(function)
