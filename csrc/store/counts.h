/*
 * store/counts.h - what a shard counts, and a cache for all of them.
 *
 *   sets = entries + dropped + evicted + expired + deletes + replaced + cleared, at any moment
 *
 * Callers: the files of store/, policy/ and cache/; users of the core by cache/stats.h.
 */
#ifndef DRP_STORE_COUNTS_H
#define DRP_STORE_COUNTS_H

#include <stdint.h>

enum cache_miss { MISS_ABSENT, MISS_EXPIRED, MISS_EVICTED, MISS_DROPPED, MISS_REJECTED, MISS_CAUSES };

/* Counted since the start, but for entries, bytes and mapped_bytes, which are of this moment. */
struct cache_stats {
	uint64_t hits;
	uint64_t misses[MISS_CAUSES];
	uint64_t sets, deletes, refused, evicted, expired, replaced, cleared;
	uint64_t dropped;       /* entries found dropped, by whatever looked at them */
	uint64_t entries;       /* kept and not yet known to be gone */
	uint64_t bytes;         /* of those, as stored: with heads and padding */
	uint64_t mapped_bytes;  /* address space, resident or not */
	uint64_t pinned_bytes, window_bytes; /* not droppable: held by somebody; by nobody, but used a moment ago */
	uint64_t saved_ns, lost_ns; /* computations that hits saved; that were made again after a drop or an eviction */
	uint64_t index_lost_pages, yielded_bytes; /* yielded: because others took memory fast; drops, once they are found */
};

#endif
