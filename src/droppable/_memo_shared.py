"""`@droppable.cache(cache=droppable.connect(...))`: a function's results in the cache that all processes share.

The results of a function are in a namespace of the shared cache, of the name of the function. So the same function in
another process finds them, and so does the next version of the program: what changes a result, changes the name.

Numbers of instances and classes are those of one process. So what stands for `self` here has its class by name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from inspect import isroutine
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from droppable._arguments import read_wait
from droppable._connect import SharedCache, SharedNamespace
from droppable._flight import MISSING, Keeping
from droppable._memo_keeper import AsyncKeeper, Keeper, Options
from droppable._memo_self import INSTANCE, read_self_key
from droppable._memo_signature import binding_key, innermost
from droppable._memo_types import CacheInfo
from droppable.lowlevel import EncodedKey, UnsupportedError, shared_key

if TYPE_CHECKING:
    from inspect import Parameter

    from droppable.lowlevel import CoreMemo

_MAIN: Final = ("__main__", "__mp_main__")
_OF_THE_SERVER: Final = "the memory is the server's: start it with `droppable serve --memory 256M`, say, for a bound"
INSTEAD: Final = {
    "max_bytes": _OF_THE_SERVER,
    "backing": _OF_THE_SERVER,
    "fork": "the server holds the values, so a forked child finds them anyway. Leave it out",
    "serializer": "give it to connect(serializer=...)",
}
"""Options that say how a cache is made, which the server was already."""


def refuse_options(options: Options) -> None:
    """Raises TypeError for what a function with a shared cache cannot have."""
    if options.stale:
        raise TypeError(
            "stale= needs a cache of this process: leave out cache=, or leave out stale=. With a shared cache call the "
            "function's invalidate() where the result changes"
        )
    if options.self_key is INSTANCE:
        raise TypeError(
            "self_key=droppable.INSTANCE needs a cache of this process, for no other process has this instance. Give "
            "self_key= the name of an attribute that identifies it everywhere"
        )


def name_in_all_processes(function: Any, name: str | None) -> str:
    """What the function is called in each process that has it.

    Raises:
        ValueError: nothing says so: it was made within another function, or in a program that has no file; or it is a
            call with more to it than a function: a partial's arguments, a method's object, an object that is called.
    """
    if name is not None:
        return name
    inner = innermost(function)
    qualname: str = getattr(inner, "__qualname__", type(inner).__qualname__)
    module: str | None = getattr(inner, "__module__", None)
    if module in _MAIN:
        module = _name_of_main(getattr(inner, "__globals__", None) or vars(sys.modules[module]))
    if module is None or "<" in qualname or not _is_bare(function):
        raise ValueError(
            f"a function with a shared cache needs a name that is the same in every process, and {qualname} of module "
            f"{getattr(inner, '__module__', None)} may be several functions: give "
            "@droppable.cache(cache=..., name='what it computes')"
        )
    return f"{module}.{qualname}"


def _is_bare(function: Any) -> bool:
    """Whether it is a function alone, so that its name tells all that it computes."""
    if isinstance(function, (staticmethod, classmethod)):
        return _is_bare(function.__func__)
    own = getattr(function, "__self__", None)
    return isroutine(function) and hasattr(function, "__qualname__") and (own is None or isinstance(own, ModuleType))


def _name_of_main(module: dict[str, Any]) -> str | None:
    """The same for a program and for processes that multiprocessing starts for it; None where there is no file."""
    spec = module.get("__spec__")
    if spec is not None and spec.name != "__main__":  # as of each folder and each archive that is started by its path
        return str(spec.name)
    path = module.get("__file__")
    return None if path is None else os.path.realpath(path)


def key_of_self(
    function: Callable[..., Any], parameters: list[Parameter] | None, options: Options, by_name: bool
) -> Callable[..., Any] | None:
    """A function that makes the key where `self_key=` or `normalize=` is given; None: all arguments are."""
    bound = binding_key(function, parameters) if options.normalize else None
    if options.self_key is None:
        return bound
    _, identity = read_self_key(options.self_key)

    def key(*args: Any, **kwargs: Any) -> Any:
        if not args:
            raise TypeError("a method with self_key= takes self by position, as its first argument")
        own = getattr(args[0], identity) if isinstance(identity, str) else identity(args[0])
        if bound is not None:
            return type(args[0]), bound(own, *args[1:], **kwargs)
        named = sorted(kwargs.items()) if by_name else kwargs.items()
        return type(args[0]), len(args), own, *args[1:], *(part for pair in named for part in pair)

    return key


class Place(NamedTuple):
    """Where the results of a function are."""

    part: SharedNamespace
    cache: SharedCache


def place_for(given: SharedCache | SharedNamespace, name: str) -> Place:
    """The namespace of the function of that name."""
    cache = given.cache if isinstance(given, SharedNamespace) else given
    return Place(given.namespace(("@droppable.cache", name)), cache)


class _Factory:
    """A call of the function, which tells whether it was made: then it was no hit."""

    __slots__ = ("_call", "was_called")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.was_called = False

    def __call__(self) -> Any:
        self.was_called = True
        return self._call()


class SharedKeeper(Keeper):
    """Keeps the results of one function in a shared cache. Every call comes here: the binding makes its key only."""

    def __init__(
        self, function: Callable[..., Any], parameters: list[Parameter] | None, place: Place, options: Options
    ) -> None:
        from droppable._connect.computing import Patience

        self._function = function
        self._parameters = parameters
        self._place = place
        self._options = options
        self._keeping = Keeping(options.ttl, options.keep, options.jitter, options.copy, options.name)
        self._patience = Patience(
            read_wait("wait_seconds", options.wait_seconds), read_wait("linger_seconds", options.linger_seconds)
        )

    def miss(self, memo: CoreMemo, key: EncodedKey, /, *args: Any, **kwargs: Any) -> Any:
        """What the call returns: looked up, or computed."""
        part, cache = self._place
        try:
            scoped = part._made_anyway(key)
        except ValueError as error:
            self._tell_long(error)
        value = cache._look(scoped, self._options.copy)
        if value is not MISSING:
            memo._count(True)
            return value
        factory = _Factory(partial(self._function, *args, **kwargs))
        try:
            return cache._computing.do(scoped, factory, self._keeping, self._patience)
        finally:
            memo._count(not factory.was_called)

    def _tell_long(self, error: ValueError) -> NoReturn:
        raise ValueError(
            f"the arguments of {self._options.name} make a key of more than 4096 bytes, which processes cannot share. "
            "Say with key= what identifies the result, a digest say"
        ) from error

    def refresh(self, memo: CoreMemo, key: EncodedKey, /, *args: Any, **kwargs: Any) -> Any:
        """Is not there."""
        raise UnsupportedError(
            f"refresh() of {self._options.name} needs a cache of this process: the server could not tell whether the "
            "result was invalidated meanwhile. Call invalidate(), and then the function"
        )

    def info(self, memo: CoreMemo) -> CacheInfo:
        """For cache_info(): the hits and misses of this process, and the entries of all clients of the server."""
        hits, misses = memo._counts()
        stats = self._place.cache.server_stats()
        return CacheInfo(hits, misses, None, stats.get("entries", 0), stats.get("dropped", 0))

    def clear(self, memo: CoreMemo) -> None:
        """For cache_clear(): in all processes."""
        self._place.part.clear()

    def parameters(self) -> dict[str, Any]:
        """For cache_parameters()."""
        return self._given()


class AsyncSharedKeeper(SharedKeeper, AsyncKeeper):
    """Of a coroutine function."""

    def miss(self, memo: CoreMemo, key: EncodedKey, /, *args: Any, **kwargs: Any) -> Any:
        """A coroutine."""
        try:
            shared_key(key)
        except ValueError as error:
            self._tell_long(error)
        return self._find_or_await(memo, key, _Factory(partial(self._function, *args, **kwargs)))

    async def _find_or_await(self, memo: CoreMemo, key: EncodedKey, factory: _Factory) -> Any:
        part, cache = self._place
        scoped = await part._amade_anyway(key)
        value = cache._look(scoped, self._options.copy)
        if value is not MISSING:
            memo._count(True)
            return value
        try:
            return await cache._computing.ado(scoped, factory, self._keeping, self._patience)
        finally:
            memo._count(not factory.was_called)
