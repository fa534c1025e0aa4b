"""What happens in a function with a cache besides a hit: misses, refreshes, counts, and errors that say what to do.

A hit is binding/memo.c's. It calls a Keeper, which holds no reference to it: a function that is gone frees its cache at
once. Threads and forks: nothing here changes after it was made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, fields
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from droppable._arguments import read_seconds
from droppable._flight import MISSING, Keeping, keep
from droppable._log import tell_once
from droppable._memo_self import INSTANCE, SelfKey
from droppable._memo_signature import named_arguments, signature_of_bound
from droppable._memo_store import StaleStore
from droppable._memo_types import CacheInfo
from droppable.lowlevel import RefusedError, encode_key, new_scope

if TYPE_CHECKING:
    from inspect import Parameter, Signature

    from droppable._arguments import Backing, Fork, Seconds
    from droppable._cache import Cache, Serializer
    from droppable._flight import Store
    from droppable._namespace import Namespace
    from droppable.lowlevel import CoreMemo, EncodedKey, Lease


@dataclass(frozen=True, slots=True)
class Options:
    """What the decorator was given: see `droppable.cache`."""

    ttl: Seconds | Callable[[Any], Seconds | None] | None
    key: Callable[..., Hashable] | None
    self_key: SelfKey | None
    normalize: bool
    keep: Callable[[Any], bool] | None
    stale: Seconds
    jitter: float
    copy: bool
    backing: Backing
    fork: Fork
    serializer: Serializer | None
    wait_seconds: Seconds
    linger_seconds: Seconds
    name: str


class Keeper:
    """Keeps the results of one function in a cache: of its own, or one that others use too."""

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: list[Parameter] | None,
        cache: Cache,
        part: Namespace[Any, Any] | None,
        options: Options,
    ) -> None:
        self._function = function
        self._parameters = parameters
        self._cache = cache
        self._part = part
        self._options = options
        self._keeping = Keeping(options.ttl, options.keep, options.jitter, options.copy, options.name)
        self._stale_seconds = read_seconds("stale", options.stale)

    def _store(self, memo: CoreMemo) -> Store:
        """What the flights look into."""
        return StaleStore(memo, self._cache, self._stale_seconds) if self._stale_seconds > 0 else self._cache

    def miss(self, memo: CoreMemo, key: EncodedKey, /, *args: Any, **kwargs: Any) -> Any:
        """What the call returns whose result was not there. The miss was counted."""
        store = self._cache if self._stale_seconds == 0 else self._store(memo)
        return self._cache._flights.do(store, key, partial(self._function, *args, **kwargs), self._keeping)

    def renew(self, memo: CoreMemo, found: tuple[EncodedKey, Any], /, *args: Any, **kwargs: Any) -> Any:
        """What the call returns that found a stale result: that, or a new one where nobody computes it yet."""
        key, old = found
        factory = partial(self._function, *args, **kwargs)
        return self._cache._flights.do(self._store(memo), key, factory, self._keeping, old)

    def refresh(self, memo: CoreMemo, key: EncodedKey, /, *args: Any, **kwargs: Any) -> Any:
        """Computes, whatever is there or computed already, stores, and returns the result."""
        lease: Lease | None = self._cache._lease(key)
        try:
            start = perf_counter()
            value = self._function(*args, **kwargs)
            return self._kept(memo, lease, key, value, perf_counter() - start)
        finally:
            lease = None  # this frame may live on in a traceback

    def _kept(self, memo: CoreMemo, lease: Lease | None, key: EncodedKey, value: Any, spent_seconds: float) -> Any:
        assert lease is not None
        own, _ = keep(self._store(memo), lease, key, self._function, value, self._keeping, spent_seconds, replaces=True)
        return own

    def signature(self) -> Signature:
        """Of the bound method."""
        return signature_of_bound(self._function)

    def info(self, memo: CoreMemo) -> CacheInfo:
        """For cache_info()."""
        hits, misses = memo._counts()
        stats = self._cache.stats()
        if self._part is not None:
            entries = len(self._part)
        else:
            scope = memo._scope()
            entries = stats.entries if scope is None else self._cache._count(scope)
        return CacheInfo(hits, misses, self._cache.max_bytes, entries, stats.dropped)

    def scope(self) -> bytes:
        """Where the function's keys are in its namespace at this moment: for the binding, at each call."""
        assert self._part is not None
        try:
            return self._part._made_scope()
        except RefusedError:
            return new_scope()  # no memory for it: the result is computed and not found again

    def clear(self, memo: CoreMemo) -> None:
        """For cache_clear(), which sets the counts back."""
        if self._part is not None:
            self._part.clear()
        elif (scope := memo._scope()) is not None:
            memo._set_scope(new_scope())
            self._cache._revoke(scope)
        else:
            self._cache.clear()

    def parameters(self) -> dict[str, Any]:
        """For cache_parameters()."""
        return self._given(self._cache.max_bytes)

    def _given(self, max_bytes: int | None = None) -> dict[str, Any]:
        given = {field.name: getattr(self._options, field.name) for field in fields(self._options)}
        return {"maxsize": max_bytes, "typed": True, **given}

    def explain(self, memo: CoreMemo, error: TypeError, /, *args: Any, **kwargs: Any) -> None:
        """Raises a TypeError that names the argument of which no key can be made, and says what to do."""
        name = self._options.name
        if self._options.key is not None:
            what = f"what key= of {name} gave, of type {type(args[0]).__qualname__},"
            raise TypeError(f"{what} cannot be a key: {_reason(error)}. Return something hashable") from error
        if self._options.self_key is not None and not args:
            return
        for position, (argument, value) in enumerate(named_arguments(self._parameters, args, kwargs)):
            try:
                if position == 0 and self._options.self_key is not None:
                    value = self._identity_of(value)
            except Exception:
                return  # that is what was raised
            try:
                encode_key(value)
            except TypeError as cause:
                what = f"argument {argument} of {name}, of type {type(value).__qualname__},"
                raise TypeError(
                    f"{what} cannot be part of a key: {_reason(cause)}. {self._remedy(argument)}"
                ) from cause

    def note_key_call(self, error: TypeError) -> None:
        """key= could not be called with these arguments: the exception says whose it is, and what it is called with."""
        error.add_note(
            f"key= of {self._options.name} is called with the arguments as the caller wrote them: give it the same "
            "parameters, as in key=lambda numbers, scale=1: (tuple(numbers), scale)"
        )

    def _identity_of(self, instance: Any) -> Any:
        self_key = self._options.self_key
        if self_key is INSTANCE:
            return None
        return getattr(instance, self_key) if isinstance(self_key, str) else self_key(instance)  # type: ignore[misc]

    def _remedy(self, argument: str) -> str:
        if argument != "'self'":
            return "Give a value that can be one (a tuple for a list, say), or say with key= what identifies the result"
        if self._options.self_key is None:
            return "Say with self_key= what of self identifies it: the name of an attribute, or droppable.INSTANCE"
        return "Give self_key= an attribute that can be one"

    def tell_heavy(self, instance: object, size_bytes: int) -> None:
        """Once a function, on the logger: its self is part of each key, and large."""
        tell_once(
            f"self of {self._options.name} {id(self)}",
            "%s: self (of type %s) is part of the key of each call by its value, of %d bytes here, which are read at "
            "each call. Say with self_key= what of it identifies it: the name of an attribute, or droppable.INSTANCE",
            self._options.name,
            type(instance).__qualname__,
            size_bytes,
        )


class AsyncKeeper(Keeper):
    """Of a coroutine function: what it returns is awaited, and looks the key up then."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        from droppable._flight import tasks  # it imports asyncio; at the first call there may be no file descriptors

        self._do = tasks.do

    def miss(self, memo: CoreMemo, key: EncodedKey, /, *args: Any, **kwargs: Any) -> Any:
        """A coroutine. Nothing was counted."""
        return self._find_or_create(memo, key, partial(self._function, *args, **kwargs))

    async def _find_or_create(self, memo: CoreMemo, key: EncodedKey, factory: Callable[[], Awaitable[Any]]) -> Any:
        found = memo._look_up(key)
        old = MISSING
        if found is not None:
            old, is_stale = found
            if not is_stale:
                return old
        return await self._do(self._cache._flights, self._store(memo), key, factory, self._keeping, old)

    async def refresh(self, memo: CoreMemo, key: EncodedKey, /, *args: Any, **kwargs: Any) -> Any:
        """As of a function. Whoever is cancelled cancels his own computation."""
        lease: Lease | None = self._cache._lease(key)
        try:
            start = perf_counter()
            value = await self._function(*args, **kwargs)
            return self._kept(memo, lease, key, value, perf_counter() - start)
        finally:
            lease = None


def _reason(error: BaseException) -> str:
    """Why there is no key, in the words of whoever refused."""
    return str(error.__cause__ or error)
