/*
 * store/config.h - how a cache is to be: given when it is made, and the same for its whole life.
 *
 * Callers: the files of store/, policy/ and cache/; users of the core by cache/cache.h.
 */
#ifndef DRP_STORE_CONFIG_H
#define DRP_STORE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "droppable.h"
#include "os/prim.h"

struct cache_config {
	enum prim_backing backing; /* PRIM_LAZYFREE or PRIM_DROPPABLE */
	bool share_on_fork;        /* lazyfree only */
	unsigned shards;           /* a power of two up to 64, or 0: chosen */
	bool one_by_one;           /* calls seldom meet, so that few shards are chosen */
	size_t segment_bytes;      /* a power of two up to 2 MiB, or 0: chosen */
	uint64_t span_bytes;       /* address space for all segments, or 0: from the memory limit, as it changes */
	uint64_t max_bytes;        /* of resident memory: policy/evict.c; 4 segments of each of several shards, or more; 0: no bound */
	const struct drp_waits *waits; /* or NULL: at the end of a set, get or delete that unmaps much; outlives the cache */
};

#endif
