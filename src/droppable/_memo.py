"""`@droppable.cache`: a function's results in memory that the kernel may take back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Concatenate, Final, Never, ParamSpec, Protocol, TypeVar, overload

from droppable import _memo_signature as signature
from droppable._arguments import (
    Backing,
    Fork,
    Seconds,
    read_fraction,
    read_function,
    read_instance,
    read_seconds,
    refuse_unknown,
)
from droppable._cache import Cache, Serializer
from droppable._connect import SharedCache, SharedNamespace
from droppable._memo_keeper import AsyncKeeper, Keeper, Options
from droppable._memo_self import SELF_VALUE, SelfKey, read_self_key
from droppable._named import named
from droppable._namespace import Namespace
from droppable.lowlevel import CoreMemo, new_scope

if TYPE_CHECKING:
    from inspect import Parameter

    from droppable._memo_types import ClassMemo, Memo, StaticMethodMemo

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")

_OWN: Final[dict[str, Any]] = {
    "max_bytes": None,
    "backing": "auto",
    "fork": "wipe",
    "serializer": None,
    "wait_seconds": 30.0,
    "linger_seconds": 1.0,
}
"""What is said of a cache where it is made, and what it is where nothing is said."""


Given = Cache | Namespace | SharedCache | SharedNamespace


def _memo(function: Callable[..., Any], given: Given | None, max_bytes: Any, options: Options) -> Any:
    """A Memo, or the staticmethod or classmethod of one."""
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(_memo(function.__func__, given, max_bytes, options))
    signature.check_function(function)
    parameters = signature.parameters_of(function)
    if isinstance(given, (SharedCache, SharedNamespace)):
        return _dressed(_shared_memo(function, parameters, given, options), function)
    self_is, identity = read_self_key(options.self_key)
    key = signature.binding_key(function, parameters) if options.normalize else options.key
    is_async = signature.is_coroutine_function(function)
    # In a namespace a function has one of its own, of a name that nobody else has.
    part = given.namespace(new_scope()) if isinstance(given, Namespace) else None
    if isinstance(given, Namespace):
        cache = given.cache
    elif given is not None:
        cache = given
    else:
        cache = Cache(
            max_bytes=max_bytes,
            ttl=None if callable(options.ttl) else options.ttl,
            backing=options.backing,
            serializer=options.serializer,
            fork=options.fork,
            wait_seconds=options.wait_seconds,
            linger_seconds=options.linger_seconds,
        )
        cache._name = options.name
    memo = CoreMemo(
        cache,
        (AsyncKeeper if is_async else Keeper)(function, parameters, cache, part, options),
        key,
        self_is,
        identity,
        looks_up=not is_async,
        by_name=not signature.takes_any_keyword(parameters),
        binds=options.normalize,
        copies=options.copy,
        stale_seconds=read_seconds("stale", options.stale),
        watches_self=self_is == SELF_VALUE and key is None and signature.is_method(parameters),
        asks_scope=part is not None,
        scope=new_scope() if isinstance(given, Cache) else None,
    )
    return _dressed(memo, function)


def _shared_memo(
    function: Callable[..., Any],
    parameters: list[Parameter] | None,
    given: SharedCache | SharedNamespace,
    options: Options,
) -> CoreMemo:
    from droppable import _memo_shared as shared

    by_name = not signature.takes_any_keyword(parameters)
    made = shared.key_of_self(function, parameters, options, by_name)
    place = shared.place_for(given, options.name)
    keeper = shared.AsyncSharedKeeper if signature.is_coroutine_function(function) else shared.SharedKeeper
    return CoreMemo(
        place.part,
        keeper(function, parameters, place, options),
        options.key if made is None else made,
        SELF_VALUE,
        None,
        looks_up=False,
        by_name=by_name,
        binds=made is not None,
        copies=False,
        stale_seconds=0.0,
        watches_self=made is None and options.key is None and signature.is_method(parameters),
        asks_scope=False,
        scope=None,
    )


def _dressed(memo: CoreMemo, function: Callable[..., Any]) -> CoreMemo:
    """memo, which looks like its function."""
    functools.update_wrapper(memo, function)
    signature.name_like(memo, function)
    if signature.is_coroutine_function(function):
        signature.mark_coroutine_function(memo)
    return memo


def _check(options: Options) -> None:
    if options.key is not None:
        read_function("key", options.key)
    if options.keep is not None:
        read_function("keep", options.keep)
    if options.ttl is not None and not callable(options.ttl):
        read_seconds("ttl", options.ttl)
    read_fraction("jitter", options.jitter)
    if read_seconds("stale", options.stale) > 0 and options.ttl is None:
        raise TypeError("stale= needs ttl=: it says for how long a result is returned beyond its ttl")
    read_self_key(options.self_key)
    if options.key is not None and (options.normalize or options.self_key is not None):
        other = "normalize=True" if options.normalize else "self_key="
        raise TypeError(
            f"give key= or {other}, not both: key= sees all arguments, and says alone what identifies a result"
        )


class Decorator(Protocol):
    """What `cache(...)` gives: it takes the function."""

    @overload
    def __call__(self, function: classmethod[C, P, R], /) -> ClassMemo[C, P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[type[C], P], R], /) -> ClassMemo[C, P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a staticmethod can be called too
        self, function: staticmethod[P, R], /
    ) -> StaticMethodMemo[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Memo[P, R]: ...


@overload
def cache(function: classmethod[C, P, R], /) -> ClassMemo[C, P, R]: ...
@overload
def cache(function: Callable[Concatenate[type[C], P], R], /) -> ClassMemo[C, P, R]: ...
@overload
def cache(  # type: ignore[overload-overlap]  # a staticmethod can be called too
    function: staticmethod[P, R], /
) -> StaticMethodMemo[P, R]: ...
@overload
def cache(function: Callable[P, R], /) -> Memo[P, R]: ...
@overload
def cache(
    *,
    ttl: Seconds | Callable[[Any], Seconds | None] | None = None,
    key: Callable[..., Hashable] | None = None,
    self_key: SelfKey | None = None,
    normalize: bool = False,
    keep: Callable[[Any], bool] | None = None,
    stale: Seconds = 0.0,
    jitter: float = 0.0,
    copy: bool = False,
    cache: Given | str | None = None,
    max_bytes: int | float | str | None = None,
    backing: Backing = "auto",
    fork: Fork = "wipe",
    serializer: Serializer | None = None,
    wait_seconds: Seconds = 30.0,
    linger_seconds: Seconds = 1.0,
    name: str | None = None,
) -> Decorator: ...
def cache(
    function: Any = None,
    /,
    *,
    ttl: Seconds | Callable[[Any], Seconds | None] | None = None,
    key: Callable[..., Hashable] | None = None,
    self_key: SelfKey | None = None,
    normalize: bool = False,
    keep: Callable[[Any], bool] | None = None,
    stale: Seconds = 0.0,
    jitter: float = 0.0,
    copy: bool = False,
    cache: Given | str | None = None,
    max_bytes: int | float | str | None = None,
    backing: Backing = "auto",
    fork: Fork = "wipe",
    serializer: Serializer | None = None,
    wait_seconds: Seconds = 30.0,
    linger_seconds: Seconds = 1.0,
    name: str | None = None,
    **unknown: Never,
) -> Any:
    """Keeps a function's results until something else needs the memory: `@droppable.cache`.

    For functions and methods, sync and async, and for class methods and static methods, above or below the other
    decorator. One call computes, others with the same arguments wait for it; an exception reaches all of them and is
    not kept. A dropped result is computed again.

    Args:
        function: what is decorated; left out where arguments follow: `@droppable.cache(ttl=300)`.
        ttl: seconds or a timedelta that a result is good for, or a function of the result that gives that; None: the
            cache's own, which is for ever where the function has a cache of its own.
        key: from the arguments, self among them, to what identifies the result; None: all arguments, by type and value.
        self_key: what of a method's self identifies it, beside its class: the name of an attribute, a function of self,
            or `droppable.INSTANCE`: the object itself, whatever is in it. None: its value, as pickle sees it, which is
            read at each call.
        normalize: whether `f(1, 2)`, `f(1, b=2)` and `f(1)` with a default of 2 are one call.
        keep: says of a result whether it is kept. One that is not reaches those who wait for it.
        stale: for so long beyond its ttl an old result is returned at once, while one caller computes. If that fails,
            the exception goes to that caller; others get the old result until this time is over too. It needs a ttl.
        jitter: each ttl is shortened by a share that is chosen at random, up to this fraction of it.
        copy: whether arrays are writable, on memory of the caller's own. Else they are read-only, on the cache's.
        cache: one that several functions share: a `Cache`, a `Namespace`, or a name (see `droppable.named`). Each has
            keys of its own in it, and `cache_clear()` forgets those alone, in constant time. The options
            that follow are given to that cache, then, and not here. What `droppable.connect` gives: the function's
            results are those of all processes of the host, one of which computes (see the chapter on `connect`).
        max_bytes: bound on the results' memory; None: memory itself is the bound.
        backing: as for `Cache`.
        fork: as for `Cache`.
        serializer: as for `Cache`.
        wait_seconds: as for `Cache`.
        linger_seconds: as for `Cache`.
        name: of the function, in messages; None: that of its module and its own. In a cache of `droppable.connect` it
            is also what the function is known by in other processes.
        **unknown: nothing: names that other caches have are told from ours by an error.

    Returns:
        A `Memo`: the function with `cache_info()`, `cache_clear()`, `cache_key()`, `cache_parameters()`,
        `invalidate()`, `refresh()`, `cache` and `__wrapped__`.

    Raises:
        TypeError: it is a class, a generator function, or something else that cannot have a cache; options that
            contradict one another. As `Cache`. Calls raise TypeError for arguments of which no key can be made: it
            names the argument.
    """
    if unknown:
        refuse_unknown("@droppable.cache", unknown)
    if isinstance(function, int):
        raise TypeError(
            "@droppable.cache takes no number of entries: write it without arguments, or with max_bytes='64M' for a "
            f"bound in bytes; you gave {function!r}"
        )
    read_instance("name", name, str)
    given = named(cache) if isinstance(cache, str) else cache
    is_shared = isinstance(given, (SharedCache, SharedNamespace))
    if is_shared:
        _check_of_server(max_bytes=max_bytes, backing=backing, fork=fork, serializer=serializer)
    elif given is not None:
        _check_shared(
            given,
            max_bytes=max_bytes,
            backing=backing,
            fork=fork,
            serializer=serializer,
            wait_seconds=wait_seconds,
            linger_seconds=linger_seconds,
        )

    def decorate(function: Callable[..., Any]) -> Any:
        options = Options(
            ttl,
            key,
            self_key,
            normalize,
            keep,
            stale,
            jitter,
            copy,
            backing,
            fork,
            serializer,
            wait_seconds,
            linger_seconds,
            _name_of(function) if name is None else name,
        )
        _check(options)
        if is_shared:
            options = _check_for_all_processes(function, name, options)
        return _memo(function, given, max_bytes, options)

    return decorate if function is None else decorate(function)


def _check_shared(cache: object, **own: Any) -> None:
    if not isinstance(cache, (Cache, Namespace)):
        raise TypeError(
            "cache must be a Cache, a Namespace, the name of a cache, what droppable.connect() gives, or None; "
            f"you gave {cache!r}"
        )
    if isinstance(cache, Cache) and cache._tier is not None:
        raise TypeError(
            "cache must have no lower tier (below=), which would not know the keys of functions: call its "
            f"get_or_create() instead; you gave {cache!r}"
        )
    for name, value in own.items():
        if _is_given(name, value):
            raise TypeError(f"{name}= cannot be given together with cache=: give it to the cache that you pass")


def _is_given(name: str, value: object) -> bool:
    return value is not _OWN[name] and (type(value) is not type(_OWN[name]) or value != _OWN[name])


def _check_of_server(**own: Any) -> None:
    from droppable import _memo_shared as shared

    for name, value in own.items():
        if _is_given(name, value):
            raise TypeError(f"{name}= cannot be given with a shared cache: {shared.INSTEAD[name]}")


def _check_for_all_processes(function: Any, name: str | None, options: Options) -> Options:
    from droppable import _memo_shared as shared

    shared.refuse_options(options)
    return replace(options, name=shared.name_in_all_processes(function, name))


def _name_of(function: object) -> str:
    function = signature.innermost(function)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', None) or 'a module'}.{name}"
