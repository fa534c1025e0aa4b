"""From what caches count to what monitoring reads: families of samples, one sample for each cache's name.

    caches() ----stats()----> one sum for each name ----COUNTS----> families ----> Prometheus, OpenTelemetry, `top`
                                   ^
                    what caches had counted that are gone now

Nothing here runs until somebody reads: a look-up in a cache does nothing for it, and nothing is counted twice.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from droppable._stats import COUNTS
from droppable.lowlevel import ClosedError

if TYPE_CHECKING:
    from droppable._cache import Cache

UNNAMED: Final = "unnamed"
"""The label of all caches without a name together."""

_TEXTS: Final = {
    "misses": "Look-ups that found no value, by cause.",
    "removed": "Entries that left, by cause.",
    "unstorable": "Results of functions that were returned and not kept, by cause.",
}
"""Of metrics that have several counts."""

_OPENTELEMETRY_UNITS: Final = {"": "1", "bytes": "By", "pages": "{page}", "seconds": "s"}


class Family(NamedTuple):
    """One metric: what it is called, and which counts it shows.

    Attributes:
        prometheus: its name there, with "_total" where it is a counter.
        opentelemetry: its name there.
        kind: "counter" or "gauge".
        unit: as OpenTelemetry writes it (UCUM): "1", "By", "{page}" or "s".
        text: what it tells.
        counts: the value of the label `cause` and the field of `CacheStats`; the one label is "" where there is none.
    """

    prometheus: str
    opentelemetry: str
    kind: Literal["counter", "gauge"]
    unit: str
    text: str
    counts: tuple[tuple[str, str], ...]


def _families() -> Iterator[Family]:
    for metric in dict.fromkeys(row.metric for row in COUNTS):
        rows = [row for row in COUNTS if row.metric == metric]
        kind, unit = rows[0].kind, rows[0].unit
        text = _TEXTS[metric] if len(rows) > 1 else rows[0].text[0].upper() + rows[0].text[1:]
        name = "_".join(filter(None, ("droppable_cache", metric, unit, "total" if kind == "counter" else "")))
        counts = tuple((row.label, row.field) for row in rows)
        yield Family(name, f"droppable.cache.{metric}", kind, _OPENTELEMETRY_UNITS[unit], text, counts)


FAMILIES: Final = tuple(_families())
"""All metrics, in the order of `CacheStats`."""


class Reader:
    """Reads caches again and again, so that no counter falls when a cache is closed.

    What a cache had counted when it was last read stays in the sum of its name. Any thread may read; reads take turns.
    A forked child has its own.

    Args:
        caches: lists those that are open: `droppable.caches`.
    """

    def __init__(self, caches: Callable[[], Iterable[Cache[Any, Any]]]) -> None:
        self._caches = caches
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._reads = False
        self._sums: dict[str, dict[str, float]] = {}
        self._seen: dict[weakref.ref[Cache[Any, Any]], tuple[str, dict[str, float]]] = {}
        self._gone: dict[str, dict[str, float]] = {}

    def read(self) -> dict[str, dict[str, float]]:
        """Each name with its counts by field of `CacheStats`; caches that share a name are one sum."""
        if self._pid != os.getpid():  # forked: somebody may have held the lock
            self._begin()
        with self._lock:
            if self._reads:  # this thread, which a signal handler or a finaliser interrupted: what was read last
                return self._sums
            self._reads = True
            try:
                self._sums = self._read()
                return self._sums
            finally:
                self._reads = False

    def _read(self) -> dict[str, dict[str, float]]:
        seen = {}
        for cache in self._caches():
            try:
                stats = cache.stats()
            except ClosedError:  # between the list and here
                continue
            counts = {row.field: getattr(stats, row.field) for row in COUNTS}
            seen[weakref.ref(cache)] = (cache.name or UNNAMED, counts)
        for reference, (name, counts) in self._seen.items():
            if reference not in seen:
                _add(self._gone, name, {row.field: counts[row.field] for row in COUNTS if row.kind == "counter"})
        self._seen = seen
        sums: dict[str, dict[str, float]] = {}
        for name, counts in (*self._gone.items(), *seen.values()):
            _add(sums, name, counts)
        return sums


def _add(sums: dict[str, dict[str, float]], name: str, counts: dict[str, float]) -> None:
    into = sums.setdefault(name, dict.fromkeys((row.field for row in COUNTS), 0))
    for field, count in counts.items():
        into[field] += count
