"""Django's cache framework: a backend over one cache in the process, and one over a cache of all processes.

    CACHES = {"default": {"BACKEND": "droppable.adapters.django.DroppableCache"}}

Django makes a backend object for each thread and each alias. Objects of one LOCATION share one `droppable.Cache`, named
"django:LOCATION":

    thread 1: caches["default"] --+
    thread 2: caches["default"] --+-- droppable.named("django:")
    thread 1: caches["pages"] ----+      (another KEY_PREFIX, the same LOCATION)

`SharedDroppableCache` has a `droppable.SharedCache` in its place, one for each LOCATION.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.exceptions import ImproperlyConfigured

import droppable
from droppable.adapters._shared import cache_of, connected, store, store_many

_IGNORED: Final = frozenset({"MAX_ENTRIES", "CULL_FREQUENCY"})
"""Django's own options, which bound a cache in entries."""
_OPTIONS: Final = frozenset({"max_bytes", "ttl", "backing", "fork", "serializer", "wait_seconds", "linger_seconds"})
"""Options of `droppable.Cache`. Beside OPTIONS Django would pass over them without a word."""
_SHARED_OPTIONS: Final = frozenset(inspect.signature(droppable.connect).parameters) - {"path"}
"""Options of `droppable.connect`."""


class _Backend(BaseCache):
    """The calls of both backends: on `_cache`, whose methods a cache of this process and a shared one have alike."""

    _cache: droppable.Cache[str, Any] | droppable.SharedCache

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float:
        """Seconds until an entry expires; 0 or less: it has expired already."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return droppable.NEVER if timeout is None else timeout

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        key = self.make_and_validate_key(key, version=version)
        ttl = self.get_backend_timeout(timeout)
        if ttl <= 0:
            return key not in self._cache
        try:
            return self._cache.add(key, value, ttl)
        except (droppable.RefusedError, droppable.ValueTooLargeError):
            return False

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return self._cache.get(self.make_and_validate_key(key, version=version), default)

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        key = self.make_and_validate_key(key, version=version)
        ttl = self.get_backend_timeout(timeout)
        if ttl > 0:
            store(self._cache, key, value, ttl)
        else:
            self._cache.discard(key)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        key = self.make_and_validate_key(key, version=version)
        ttl = self.get_backend_timeout(timeout)
        return self._cache.touch(key, ttl) if ttl > 0 else self._cache.discard(key)

    def delete(self, key: Any, version: Any = None) -> bool:
        return self._cache.discard(self.make_and_validate_key(key, version=version))

    def has_key(self, key: Any, version: Any = None) -> bool:
        return self.make_and_validate_key(key, version=version) in self._cache

    def incr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """Adds delta; the entry expires when it would have. Threads lose no count, but the kernel may take it.

        Raises:
            ValueError: there is no such value now, or no memory for the new one.
            TypeError: the value is no int, or delta is none.
        """
        made = self.make_and_validate_key(key, version=version)
        try:
            return self._cache.incr(made, delta)
        except droppable.RefusedError:
            self._cache.discard(made)  # the old count would be wrong
        except KeyError:
            pass
        raise ValueError(f"Key '{key}' not found")

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        asked = {self.make_and_validate_key(key, version=version): key for key in keys}
        return {asked[made]: value for made, value in self._cache.get_many(asked).items()}

    def set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> list[Any]:
        """Stores each value of data: a list of the keys that found no memory. They are absent then."""
        made = {self.make_and_validate_key(key, version=version): key for key in data}
        ttl = self.get_backend_timeout(timeout)
        if ttl <= 0:
            self._cache.delete_many(made)
            return []
        items = {key: data[asked] for key, asked in made.items()}
        return [made[key] for key in store_many(self._cache, items, ttl)]

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        self._cache.delete_many([self.make_and_validate_key(key, version=version) for key in keys])

    def clear(self) -> None:
        self._cache.clear()

    def get_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """The value of key, or default.

        If default is callable, one of the threads that ask for a key at the same time calls it, and the others wait. A
        value that cannot be stored is returned all the same.
        """
        made = self.make_and_validate_key(key, version=version)
        ttl = self.get_backend_timeout(timeout)
        if callable(default) and ttl > 0:
            return self._cache.get_or_create(made, default, ttl)
        value = self._cache.get(made, self._missing_key)
        if value is not self._missing_key:
            return value
        if callable(default):
            return default()
        self.add(key, default, timeout=timeout, version=version)
        return self._cache.get(made, default)

    async def aget_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """As `get_or_set`, for tasks, which wait without blocking their loop. default may be a coroutine function."""
        ttl = self.get_backend_timeout(timeout)
        if not callable(default):
            return self.get_or_set(key, default, timeout, version)
        if ttl > 0:
            made = self.make_and_validate_key(key, version=version)
            return await self._cache.aget_or_create(made, lambda: _call(default), ttl)
        value = self.get(key, self._missing_key, version)
        return await _call(default) if value is self._missing_key else value


class DroppableCache(_Backend):
    """A Django cache in memory that the kernel may take back: it grows into what is free.

    Settings:
        LOCATION: a name, empty by default. Aliases of one LOCATION share their entries, and `clear()`.
        OPTIONS: what `droppable.Cache` takes except ttl, as {"max_bytes": "256M"}. MAX_ENTRIES and CULL_FREQUENCY are
            ignored: nothing here is bounded in entries.
        TIMEOUT, KEY_PREFIX, VERSION, KEY_FUNCTION: as for each backend of Django.

    A value may be gone at any time, as with memcached. A value that finds no memory is not stored, and no error is
    raised; `set_many()` lists it. Values are copies, as with Django's own backends. A bytearray comes back as bytes, a
    NumPy array read-only.

    Threads: any. Async methods never leave their event loop: each is as short as the sync one. Fork: a child begins
    with an empty cache, unless OPTIONS has fork="share". Processes do not see each other's entries.

    Raises:
        ImproperlyConfigured: OPTIONS has something that `droppable.Cache` does not take, or an alias of the same
            LOCATION has other options.
    """

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = _options_of(params)
        if "ttl" in options:
            raise ImproperlyConfigured("OPTIONS of a droppable cache has no ttl; use TIMEOUT")
        if "name" in options:
            raise ImproperlyConfigured("OPTIONS of a droppable cache has no name; LOCATION is the name")
        _refuse_astray(params, _OPTIONS)
        try:
            self._cache: droppable.Cache[str, Any] = cache_of("django", str(name), options)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"OPTIONS of the droppable cache at LOCATION {name!r}: {error}") from error

    @property
    def cache(self) -> droppable.Cache[str, Any]:
        """The cache behind it: for `stats()`, and for tests that drop what is in it."""
        return self._cache

    async def aadd(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        return self.add(key, value, timeout, version)

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return self.get(key, default, version)

    async def aset(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        self.set(key, value, timeout, version)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        return self.touch(key, timeout, version)

    async def adelete(self, key: Any, version: Any = None) -> bool:
        return self.delete(key, version)

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        return self.has_key(key, version)

    async def aincr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        return self.incr(key, delta, version)

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        return self.get_many(keys, version)

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        return self.set_many(data, timeout, version)

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        self.delete_many(keys, version)

    async def aclear(self) -> None:
        self.clear()


class SharedDroppableCache(_Backend):
    """A Django cache that all processes of the host share: `droppable.connect`, of a server that `droppable serve` is.

    Settings:
        LOCATION: the path of the server's unix socket. Aliases and programs of one socket share their entries, unless
            KEY_PREFIX keeps them apart. `clear()` empties all of them.
        OPTIONS: what `droppable.connect` takes, as {"serializer": json}. MAX_ENTRIES and CULL_FREQUENCY are ignored.
        TIMEOUT, KEY_PREFIX, VERSION, KEY_FUNCTION: as for each backend of Django.

    Values are bytes, text, ints of 64 bits and NumPy arrays. Others need OPTIONS["serializer"], and raise TypeError
    without. There is none by default, because whoever can connect to the server can write to the cache, and loads()
    gets what they wrote: with pickle it would run their code.

    A value may be gone at any time. Without a server each look-up is a miss, and nothing is stored.

    Threads: any. Async methods wait for the server in a thread. Fork: a child goes on, on a connection of its own.

    Raises:
        ImproperlyConfigured: OPTIONS has something that `droppable.connect` does not take, or an alias of the same
            LOCATION has other options. PermissionError: the server refuses the password, or its socket is closed to
            this user.
    """

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        _refuse_astray(params, _SHARED_OPTIONS)
        if not name:
            raise ImproperlyConfigured("LOCATION of a shared droppable cache must be the path of the server's socket")
        try:
            self._cache: droppable.SharedCache = connected("django", str(name), _options_of(params))
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"OPTIONS of the droppable cache at LOCATION {name!r}: {error}") from error

    @property
    def cache(self) -> droppable.SharedCache:
        """The cache behind it: for `stats()` and `server_stats()`."""
        return self._cache

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return await self._cache.aget(self.make_and_validate_key(key, version=version), default)


def _options_of(params: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in params.get("OPTIONS", {}).items() if option not in _IGNORED}


def _refuse_astray(params: Mapping[str, Any], options: frozenset[str]) -> None:
    astray = {option: params[option] for option in sorted(options & params.keys())}
    if astray:
        raise ImproperlyConfigured(
            f"options of a droppable cache go into OPTIONS, and Django passes over them elsewhere: give "
            f'"OPTIONS": {astray}'
        )


async def _call(default: Callable[[], Any]) -> Any:
    """What default returns; if that can be awaited, what comes of it."""
    value = default()
    return await value if inspect.isawaitable(value) else value
