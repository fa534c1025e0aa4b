"""What a cache counts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the cache was made; `entries` and what ends in `_bytes` are of this moment.

    Each entry that was set is in one count: `sets` is the sum of `entries`, `deletes`, `evicted`, `expired`,
    `replaced`, `cleared` and `dropped`.

    A drop is found when somebody looks: until then a dropped entry counts among `entries` and `stored_bytes`. Causes of
    misses are told by a 20-bit tag where the key itself is gone, so about one absent key in a million is counted as
    evicted or dropped; a key whose page of the index was dropped counts as dropped until that page is used again, and
    as absent from then on.

    Attributes:
        hits: look-ups that found a value.
        misses_absent: look-ups of keys that were never stored, or were deleted.
        misses_expired: look-ups of entries whose time to live had passed.
        misses_evicted: look-ups of entries that had been evicted.
        misses_dropped: look-ups of entries that the kernel had dropped.
        misses_unloadable: values that were there, but could not be loaded (their class is gone, say), and were deleted
            for that.
        sets: entries stored.
        deletes: entries deleted by their key.
        refused: inserts refused because they could have called the OOM killer, or for want of memory or address space.
        unstorable_unpicklable: results of functions that were returned and not kept, because they cannot be pickled.
        unstorable_too_large: the same, because they can never fit.
        unstorable_refused: the same, because memory was short. These are among `refused` too.
        evicted: entries that left because of `max_bytes`, unasked for while memory was short, or for want of address
            space.
        expired: entries whose time to live passed, looked up since or not. One that shares a segment with entries that
            live on may be counted some seconds late, and later while there are very many of those.
        replaced: entries whose key was set again.
        cleared: entries that left with `clear` or `close`, or in a forked child that began with an empty cache.
        dropped: entries found dropped by the kernel.
        entries: entries that are kept, and not yet known to be gone.
        stored_bytes: of the entries: keys, values and their heads, as they lie in memory.
        mapped_bytes: address space, resident or not: not memory.
        pinned_bytes: held by arrays and views that are alive: the kernel cannot take these.
        window_bytes: of arrays that nobody holds, but that were used a moment ago: pinned still, and given up when
            memory is short.
        dropped_index_pages: pages of the index that were found dropped.
        yielded_bytes: given back before the kernel asked, while others took memory fast; values in it are found dropped
            later.
    """

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
