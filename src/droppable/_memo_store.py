"""What the flights of a function with `stale=` see of its cache: a stale result is not there.

stored        ttl passed        ttl + stale passed
  |---- fresh ----|---- stale ------|---- gone
                   given at once to all but one, who computes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from droppable._arguments import read_seconds

if TYPE_CHECKING:
    from droppable._arguments import Seconds
    from droppable._cache import Cache
    from droppable.lowlevel import CoreMemo, Lease


class StaleStore:
    """The cache for one call of memo, whose results live `stale_seconds` longer than they are fresh."""

    __slots__ = ("_cache", "_memo", "_stale_seconds")

    def __init__(self, memo: CoreMemo, cache: Cache, stale_seconds: float) -> None:
        self._memo = memo
        self._cache = cache
        self._stale_seconds = stale_seconds

    def __contains__(self, key: Any, /) -> bool:
        return self._memo._has_fresh(key)

    def get(self, key: object, default: Any = None, *, copy: bool = False) -> Any:
        """As of the cache."""
        return self._cache.get(key, default, copy=copy)

    def discard(self, key: Any, /) -> bool:
        """As of the cache."""
        return self._cache.discard(key)

    def _lease(self, key: object, /) -> Lease:
        return self._cache._lease(key)

    def _keep(
        self, lease: Lease, key: object, value: Any, ttl: Seconds | None, cost_seconds: float, flags: int, /
    ) -> tuple[Any, Any, Exception | None]:
        if ttl is not None:  # None: the cache's own, of which the last part is the stale one
            ttl = read_seconds("ttl", ttl) + self._stale_seconds
        return self._cache._keep(lease, key, value, ttl, cost_seconds, flags)
