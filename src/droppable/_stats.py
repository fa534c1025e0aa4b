"""What a cache counts: one table of names, units and texts, and `CacheStats`, which has a field for each row.

The table feeds the documentation of `CacheStats`, the exporters of `droppable.metrics`, the page docs/metrics.md, and
`droppable top`. A count has one row here, and whoever shows it takes its name, its unit and its text from that row.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple


class Count(NamedTuple):
    """One row: one thing that a cache counts.

    Attributes:
        field: its name in `CacheStats`.
        kind: "counter": it only grows while the cache is open; "gauge": it is of this moment.
        unit: "" for plain numbers, or the unit that the metric's name ends in: "bytes", "pages" or "seconds".
        metric: what monitoring calls it, without the prefix and without the unit. Rows with one metric differ by label.
        label: the value of the metric's label `cause`, or "" where the metric has this row alone.
        text: what it counts.
    """

    field: str
    kind: Literal["counter", "gauge"]
    unit: Literal["", "bytes", "pages", "seconds"]
    metric: str
    label: str
    text: str


COUNTS: Final = (
    Count("hits", "counter", "", "hits", "", "look-ups that found a value."),
    Count("misses_absent", "counter", "", "misses", "absent",
          "look-ups of keys that were never stored, or were deleted."),
    Count("misses_expired", "counter", "", "misses", "expired", "look-ups of entries whose time to live had passed."),
    Count("misses_evicted", "counter", "", "misses", "evicted", "look-ups of entries that had been evicted."),
    Count("misses_dropped", "counter", "", "misses", "dropped", "look-ups of entries that the kernel had dropped."),
    Count("misses_unloadable", "counter", "", "misses", "unloadable",
          "values that were there, but could not be loaded (their class is gone, say), and were deleted for that."),
    Count("sets", "counter", "", "sets", "", "entries stored."),
    Count("deletes", "counter", "", "removed", "deleted", "entries deleted by their key."),
    Count("refused", "counter", "", "refused", "",
          "inserts refused because they could have called the OOM killer, or for want of memory or address space."),
    Count("unstorable_unpicklable", "counter", "", "unstorable", "unpicklable",
          "results of functions that were returned and not kept, because they cannot be pickled."),
    Count("unstorable_too_large", "counter", "", "unstorable", "too_large",
          "results of functions that were returned and not kept, because they can never fit."),
    Count("unstorable_refused", "counter", "", "unstorable", "refused",
          "results of functions that were returned and not kept, because memory was short. These are among `refused` "
          "too."),
    Count("evicted", "counter", "", "removed", "evicted",
          "entries that left because of `max_bytes`, unasked for while memory was short, or for want of address "
          "space."),
    Count("expired", "counter", "", "removed", "expired",
          "entries whose time to live passed, looked up since or not. One that shares a segment with entries that "
          "live on may be counted some seconds late, and later while there are very many of those."),
    Count("replaced", "counter", "", "removed", "replaced", "entries whose key was set again."),
    Count("cleared", "counter", "", "removed", "cleared",
          "entries that left with `clear` or `close`, or in a forked child that began with an empty cache."),
    Count("dropped", "counter", "", "removed", "dropped", "entries found dropped by the kernel."),
    Count("entries", "gauge", "", "entries", "", "entries that are kept, and not yet known to be gone."),
    Count("stored_bytes", "gauge", "bytes", "stored", "",
          "bytes of the entries: keys, values and their heads, as they lie in memory."),
    Count("mapped_bytes", "gauge", "bytes", "mapped", "", "bytes of address space, resident or not: not memory."),
    Count("pinned_bytes", "gauge", "bytes", "pinned", "",
          "bytes held by arrays and views that are alive: the kernel cannot take these."),
    Count("window_bytes", "gauge", "bytes", "window", "",
          "bytes of arrays that nobody holds, but that were used a moment ago: pinned still, and given up when memory "
          "is short."),
    Count("dropped_index_pages", "counter", "pages", "dropped_index", "",
          "pages of the index that were found dropped."),
    Count("yielded_bytes", "counter", "bytes", "yielded", "",
          "bytes given back before the kernel asked, while others took memory fast; values in it are found dropped "
          "later."),
    Count("saved_seconds", "counter", "seconds", "saved", "",
          "seconds of computation that hits saved: the sum of what each value that was found had taken to compute. "
          "`get_or_create` and the decorator measure that; `set` takes it as `cost=`."),
    Count("lost_seconds", "counter", "seconds", "lost", "",
          "seconds of computation that was done again: the costs that were stored after a look-up had found the entry "
          "evicted or dropped."),
)  # fmt: skip
"""Each count of a cache, in the order of the fields of `CacheStats`."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    hits: int
    misses_absent: int
    misses_expired: int
    misses_evicted: int
    misses_dropped: int
    misses_unloadable: int
    sets: int
    deletes: int
    refused: int
    unstorable_unpicklable: int
    unstorable_too_large: int
    unstorable_refused: int
    evicted: int
    expired: int
    replaced: int
    cleared: int
    dropped: int
    entries: int
    stored_bytes: int
    mapped_bytes: int
    pinned_bytes: int
    window_bytes: int
    dropped_index_pages: int
    yielded_bytes: int
    saved_seconds: float
    lost_seconds: float

    @property
    def misses(self) -> int:
        """Misses of all causes."""
        return (
            self.misses_absent
            + self.misses_expired
            + self.misses_evicted
            + self.misses_dropped
            + self.misses_unloadable
        )

    @property
    def unstorable(self) -> int:
        """Results of functions that were returned and could not be kept, of all causes."""
        return self.unstorable_unpicklable + self.unstorable_too_large + self.unstorable_refused


CacheStats.__doc__ = """Counts since the cache was made; `entries` and what ends in `_bytes` are of this moment.

    Each entry that was set is in one count: `sets` is the sum of `entries`, `deletes`, `evicted`, `expired`,
    `replaced`, `cleared` and `dropped`.

    A drop is found when somebody looks: until then a dropped entry counts among `entries` and `stored_bytes`. Causes of
    misses are told by a 20-bit tag where the key itself is gone, so about one absent key in a million is counted as
    evicted or dropped; a key whose page of the index was dropped counts as dropped until that page is used again, and
    as absent from then on.

    Attributes:
""" + "".join(f"        {row.field}: {row.text}\n" for row in COUNTS)


@dataclass(frozen=True, slots=True)
class ChunkedArrayStats:
    """Counts since the array was made.

    Attributes:
        chunks: how many the array has.
        computed: calls of `fill` that gave a chunk.
        computed_again: those of them for a chunk that had been computed before: it was lost, or could not be kept.
        fill_seconds: how long `fill` took, in all of these calls.
    """

    chunks: int
    computed: int
    computed_again: int
    fill_seconds: float


@dataclass(frozen=True, slots=True)
class TierStats:
    """Counts since the cache was made; `pending` and `distrusted` are of this moment.

    Attributes:
        fetched: look-ups that missed the cache and found a value in the lower tier.
        absent: look-ups that missed both.
        written: values that the lower tier took.
        deleted: deletes that the lower tier took.
        failures: calls of the lower tier that raised.
        pending: values that wait to be written.
        distrusted: keys of which the lower tier may have an older value, because a call failed. It is not read.
    """

    fetched: int
    absent: int
    written: int
    deleted: int
    failures: int
    pending: int
    distrusted: int
