"""What the computation of a value sees of a cache with a lower tier: a place to look at, and to store its result in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from droppable.lowlevel import CoreCache, EncodedKey

if TYPE_CHECKING:
    from droppable._arguments import Seconds
    from droppable._tiers.pending import Waiting
    from droppable._tiers.tiered import TieredCore
    from droppable.lowlevel import Lease

STORES: Final = 1  # flags of `_keep()`, as in binding/lease.c
WRITABLE: Final = 2


class Computed:
    """What a flight sees of the cache: what it computes is stored in both tiers, what it fetched in the cache alone."""

    __slots__ = ("_cache", "_key", "_ttl", "is_fetched", "late", "left_seconds", "waits")

    def __init__(self, cache: TieredCore, key: Any, ttl: Seconds | None, waits: bool) -> None:
        self._cache = cache
        self._key = key
        self._ttl = ttl
        self.waits = waits  # to be written later, because an event loop must not wait for the lower tier
        self.late: Waiting | None = None  # what has no room to wait: for a thread
        self.is_fetched = False
        self.left_seconds: float | None = None

    def ttl_of(self, value: object) -> Seconds | None:
        return self.left_seconds if self.is_fetched else self._ttl

    def __contains__(self, encoded: Any, /) -> bool:
        return CoreCache.__contains__(self._cache, encoded)

    def get(self, encoded: object, default: Any = None, *, copy: bool = False) -> Any:
        return CoreCache.get(self._cache, encoded, default, copy=copy)

    def discard(self, encoded: object, /) -> bool:
        return self._cache.discard(self._key)

    def _lease(self, encoded: object, /) -> Lease:
        return self._cache._lease(encoded)

    def _keep(
        self, lease: Lease, encoded: EncodedKey, value: Any, ttl: Seconds | None, cost_seconds: float, flags: int, /
    ) -> tuple[Any, Any, Exception | None]:
        cache = self._cache
        if self.is_fetched or not flags & STORES:
            return cache._keep(lease, encoded, value, ttl, cost_seconds, flags)
        if self.waits:
            still = cache._lease(encoded)  # for as long as it waits: the other one ends here
            with cache._tier.changing(encoded, self._key):
                if not lease.stale:
                    self.late = cache._tier.write_later(encoded, self._key, value, cache._expires_at(ttl), still)
                return cache._keep(lease, encoded, value, ttl, cost_seconds, flags)
        with cache._tier.locking(encoded, self._key), cache._tier.changing(encoded, self._key):
            if not lease.stale:
                cache._tier.write(encoded, self._key, value, cache._expires_at(ttl))
            return cache._keep(lease, encoded, value, ttl, cost_seconds, flags)
