"""The calls of a cache with a lower tier. Each change of a key is made in both, under the lock of its stripe.

What `transform` computes is stored only if nothing of the stripe was changed since the old value was read.
"""

from __future__ import annotations

import functools
import math
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from droppable._arguments import Seconds, Write, read_choice, read_factory, read_function, read_seconds
from droppable._flight import MISSING, Flights, keeping_for
from droppable._flight.keeping import Keeping
from droppable._tiers.computed import STORES, WRITABLE, Computed
from droppable._tiers.tier import WRITES, Tier
from droppable.lowlevel import (
    ClosedError,
    CoreCache,
    EncodedKey,
    RefusedError,
    UnsupportedError,
    ValueTooLargeError,
)

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from contextlib import AbstractContextManager

    from droppable._stats import TierStats

_TRIES: Final = 100


def _left_seconds(expires_at: float | None) -> float:
    return math.inf if expires_at is None else max(expires_at - time.time(), 1e-9)


class TieredCore(CoreCache):
    """What `Cache(below=...)` has in front of `Cache`."""

    _flights: Flights

    def _begin_tiers(
        self, below: MutableMapping[Any, Any], write: Write, ttl: Seconds | None, is_disabled: bool
    ) -> None:
        self._tier = Tier(below, read_choice("write", write, WRITES), not is_disabled)
        self._ttl_seconds = math.inf if ttl is None else read_seconds("ttl", ttl)
        weakref.finalize(self, self._tier.flush)  # also where nobody closes the cache, and at the interpreter's end

    def _expires_at(self, ttl: Seconds | None) -> float | None:
        seconds = self._ttl_seconds if ttl is None else read_seconds("ttl", ttl)
        return None if math.isinf(seconds) else time.time() + seconds

    def _expires_as_now(self, encoded: EncodedKey, key: Any) -> float | None:
        """When what is there now expires."""
        try:
            left_seconds = CoreCache.expires_in(self, encoded)
        except KeyError:  # dropped already
            value, left = self._tier.fetch(encoded, key)
            if value is MISSING or left is None:
                return self._expires_at(None)
            left_seconds = left
        return None if math.isinf(left_seconds) else time.time() + left_seconds

    def _promote(self, encoded: EncodedKey, key: Any, copy: bool = False) -> Any:
        """A value of the lower tier, which the cache has from now on, as from a hit; MISSING."""
        lease = self._lease(encoded)  # first: what is changed from here on is newer than what is fetched
        began = time.perf_counter()
        value, left_seconds = self._tier.fetch(encoded, key)
        if value is MISSING:
            return MISSING
        flags = STORES | WRITABLE if copy else STORES
        return self._keep(lease, encoded, value, left_seconds, time.perf_counter() - began, flags)[0]

    def _locking(self, encoded: EncodedKey, key: Any) -> AbstractContextManager[object]:
        len(self)  # raises ClosedError: the lower tier of a closed cache is left alone
        return self._tier.locking(encoded, key)

    def _get(self, encoded: EncodedKey, key: Any, copy: bool = False) -> Any:
        value = CoreCache.get(self, encoded, MISSING, copy=copy)
        return self._promote(encoded, key, copy) if value is MISSING else value

    def tier_stats(self) -> TierStats:
        """What the lower tier was asked for, and how often it failed."""
        len(self)  # raises ClosedError
        return self._tier.stats()

    def flush(self) -> None:
        """Writes to the lower tier what waits for that: with write="behind", and what coroutines computed."""
        len(self)
        self._tier.flush()

    def close(self) -> None:
        """Writes what waits, then closes the cache. The lower tier stays as it is."""
        self._tier.flush()
        super().close()

    def _once(self, key: Any) -> Any:
        return key  # the lower tier knows it as it is

    # The calls of a cache

    def _missed(self, key: Any, default: Any, copy: bool, /) -> Any:
        """What `get()` and `[]` give for a key that is not here; they are in C, and a hit comes to no code of ours."""
        value = self._promote(EncodedKey(key), key, copy)
        return default if value is MISSING else value

    def __contains__(self, key: Any, /) -> bool:
        encoded = EncodedKey(key)
        return CoreCache.__contains__(self, encoded) or self._promote(encoded, key) is not MISSING

    def _raw(self, key: Any, /) -> tuple[int, Any] | None:
        raw = CoreCache._raw(self, key)
        if raw is None and self.get(key, MISSING) is not MISSING:
            raw = CoreCache._raw(self, key)
        return raw

    def expires_in(self, key: Any, /) -> float:
        encoded = EncodedKey(key)
        for _ in range(_TRIES):
            try:
                return CoreCache.expires_in(self, encoded)
            except KeyError:
                if self._promote(encoded, key) is MISSING:
                    raise
        raise KeyError(key)

    def get_many(self, keys: Iterable[Any], /) -> dict[Any, Any]:
        wanted = list(keys)
        found = CoreCache.get_many(self, wanted)
        if len(found) < len(wanted):
            for key in wanted:
                if key not in found and (value := self.get(key, MISSING)) is not MISSING:
                    found[key] = value
        return found

    def set(self, key: Any, value: Any, ttl: Seconds | None = None, cost: Seconds | None = None) -> bool:
        encoded = EncodedKey(key)
        if cost is not None:
            read_seconds("cost", cost)  # before anything is changed
        with self._locking(encoded, key), self._tier.changing(encoded, key):
            return self._set(encoded, key, value, self._expires_at(ttl), ttl, cost)

    def _set(
        self, encoded: EncodedKey, key: Any, value: Any, expires_at: float | None, ttl: Seconds | None,
        cost: Seconds | None = None,
    ) -> bool:  # fmt: skip
        """Within `_locking()`. Whether one of the tiers has it."""
        is_below = self._tier.write(encoded, key, value, expires_at)
        try:
            return CoreCache.set(self, encoded, value, ttl, cost) or is_below
        except ValueTooLargeError:
            CoreCache.discard(self, encoded)
            if is_below:
                return True
            raise
        except ClosedError:  # meanwhile
            raise
        except Exception:
            self._tier.delete(encoded, key)
            CoreCache.discard(self, encoded)
            raise

    def __setitem__(self, key: Any, value: Any, /) -> None:
        self.set(key, value)

    def set_many(self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]], ttl: Seconds | None = None) -> list[Any]:
        pairs = items.items() if isinstance(items, Mapping) else items
        return [key for key, value in pairs if not self.set(key, value, ttl)]

    def add(self, key: Any, value: Any, ttl: Seconds | None = None, cost: Seconds | None = None) -> bool:
        encoded = EncodedKey(key)
        with self._locking(encoded, key), self._tier.changing(encoded, key):
            if self._get(encoded, key) is not MISSING:
                return False
            try:
                added = CoreCache.add(self, encoded, value, ttl, cost)
            except (ValueTooLargeError, RefusedError):
                if self._tier.write(encoded, key, value, self._expires_at(ttl)):
                    return True
                raise
            if added:
                self._tier.write(encoded, key, value, self._expires_at(ttl))
            return added

    def touch(self, key: Any, ttl: Seconds | None) -> bool:
        encoded = EncodedKey(key)
        with self._locking(encoded, key), self._tier.changing(encoded, key):
            value = self._get(encoded, key)
            if value is MISSING:
                return False
            self._tier.write(encoded, key, value, self._expires_at(ttl))
            CoreCache.touch(self, encoded, ttl)  # or it was dropped a moment ago: the lower tier has it
            return True

    def incr(self, key: Any, delta: int = 1, initial: int | None = None) -> int:
        encoded = EncodedKey(key)
        self._next_try(self._tier.stripe_number(encoded), 0, 0)
        with self._locking(encoded, key), self._tier.changing(encoded, key):
            present = self._get(encoded, key)
            expires_at = self._expires_at(None) if present is MISSING else self._expires_as_now(encoded, key)
            for _ in range(_TRIES):
                try:
                    total = CoreCache.incr(self, encoded, delta, None if present is not MISSING else initial)
                except KeyError:
                    if present is MISSING:
                        raise
                    CoreCache.set(self, encoded, present, _left_seconds(expires_at))  # it was dropped a moment ago
                else:
                    self._tier.write(encoded, key, total, expires_at)
                    return total
        raise RefusedError(f"incr: there is no memory for the value of {key!r}; it stays as it was")

    def transform(
        self, key: Any, function: Callable[[Any], Any], default: Any = MISSING, ttl: Seconds | None = None
    ) -> Any:
        encoded = EncodedKey(key)
        read_function("function", function)
        stripe = self._tier.stripe_number(encoded)
        turn = 0
        try:
            for overtaken in range(_TRIES):
                turn = self._next_try(stripe, overtaken, turn)
                version = self._tier.version(encoded)
                old = self._get(encoded, key, copy=True)
                if old is MISSING and default is MISSING:
                    raise KeyError(key)
                new = function(default if old is MISSING else old)
                with self._locking(encoded, key):
                    if self._tier.is_of(version, encoded):
                        return self._put(encoded, key, new, ttl, is_new=old is MISSING)
        finally:
            self._end_turn(turn)  # where an interrupt comes before it: it is over by itself
        raise RuntimeError(f"transform: {key!r} was changed by others {_TRIES} times in a row")

    def _put(self, encoded: EncodedKey, key: Any, new: Any, ttl: Seconds | None, is_new: bool) -> Any:
        with self._tier.changing(encoded, key):
            at = self._expires_at(ttl) if ttl is not None or is_new else self._expires_as_now(encoded, key)
            self._set(encoded, key, new, at, _left_seconds(at))
            value = CoreCache.get(self, encoded, MISSING)
            return new if value is MISSING else value

    def pop(self, key: Any, /, default: Any = MISSING) -> Any:
        encoded = EncodedKey(key)
        with self._locking(encoded, key), self._tier.changing(encoded, key):
            value = self._get(encoded, key)
            self._tier.delete(encoded, key)
            CoreCache.discard(self, encoded)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def discard(self, key: Any, /) -> bool:
        encoded = EncodedKey(key)
        with self._locking(encoded, key), self._tier.changing(encoded, key):
            was_below = self._tier.delete(encoded, key)
            return CoreCache.discard(self, encoded) or was_below

    def delete(self, key: Any, /) -> bool:
        return self.discard(key)

    def __delitem__(self, key: Any, /) -> None:
        if not self.discard(key):
            raise KeyError(key)

    def delete_many(self, keys: Iterable[Any], /) -> int:
        return sum(self.discard(key) for key in keys)

    def _delete_prefix(self, prefix: str | bytes, scope: bytes | None, /) -> int:
        len(self)
        size = len(prefix)
        keys = self._tier.all_keys()
        if keys is None:  # some may be there that begin so
            self._tier.distrust_all()
            keys = []
        below = [key for key in keys if type(key) is type(prefix) and key[:size] == prefix]
        return self.delete_many(below) + CoreCache._delete_prefix(self, prefix, scope)

    def clear(self) -> None:
        len(self)
        self._tier.clear(functools.partial(CoreCache.clear, self))

    def namespace(self, name: object) -> NoReturn:
        raise UnsupportedError(
            "namespace: a cache with a lower tier has none, for the lower tier knows keys and no namespaces; "
            "make a cache of its own for each, or put the name into the keys"
        )

    def get_or_create(
        self, key: Any, factory: Callable[[], Any], ttl: Seconds | None = None, *, copy: bool = False
    ) -> Any:
        encoded = EncodedKey(key)
        value = CoreCache.get(self, encoded, MISSING, copy=copy)
        if value is not MISSING:
            return value
        read_factory(factory)
        keeping_for(ttl, copy)
        store = Computed(self, key, ttl, waits=False)

        @functools.wraps(factory)
        def produce() -> Any:
            value, store.left_seconds = self._tier.fetch(encoded, key)
            store.is_fetched = value is not MISSING
            return value if store.is_fetched else factory()

        return self._flights.do(cast("Any", store), encoded, produce, Keeping(store.ttl_of, copy=copy))

    async def aget_or_create(
        self, key: object, factory: Callable[[], Awaitable[Any]], ttl: Seconds | None = None, *, copy: bool = False
    ) -> Any:
        encoded = EncodedKey(key)
        value = CoreCache.get(self, encoded, MISSING, copy=copy)
        if value is not MISSING:
            return value
        read_function("factory", factory)
        import asyncio

        from droppable._flight import tasks

        store = Computed(self, key, ttl, waits=True)

        @functools.wraps(factory)
        async def produce() -> Any:
            value, store.left_seconds = await asyncio.to_thread(self._tier.fetch, encoded, key)
            store.is_fetched = value is not MISSING
            return value if store.is_fetched else await factory()

        result = await tasks.do(self._flights, cast("Any", store), encoded, produce, Keeping(store.ttl_of, copy=copy))
        if store.late is not None:
            await asyncio.to_thread(self._tier.write_late, encoded, store.late)
        elif self._tier.is_late(encoded):
            await asyncio.to_thread(self._tier.write_waiting, encoded)
        return result


_classes: dict[type, type] = {}


def tiered(kind: type) -> type:
    """The class of caches that have a lower tier, derived from kind; one for each kind."""
    made = _classes.get(kind)
    if made is None:
        name = "TieredCache" if kind.__module__ == "droppable._cache" else kind.__name__
        made = type(name, (TieredCore, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
        made = _classes.setdefault(kind, made)
    return made
