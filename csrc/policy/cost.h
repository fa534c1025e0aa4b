/*
 * policy/cost.h - what computations cost that hits save, and that losses make again. Under the shard's lock.
 *
 *   a hit ------------------------------------> saved_ns += the entry's cost
 *   a miss of what was dropped or evicted ----> its hash is kept in a small table
 *   a store with a cost, its hash is there ---> lost_ns += that cost, and the hash goes
 *
 * The cost of what the kernel took is gone with it; so it is counted when it is computed again, if it is. The table has one
 * place for many hashes: if MISSED_PLACES computations of a shard are under way at once, some are not counted.
 *
 * Callers: the files of the cache that count hits, misses and stores.
 */
#ifndef DRP_CACHE_COST_H
#define DRP_CACHE_COST_H

#include "store/internal.h"
#include "os/drp_assert.h"

static inline uint64_t *cost_missed(struct shard *shard, uint64_t hash)
{
	return &shard->missed[(hash >> 20) % MISSED_PLACES]; /* the bits below choose the shard */
}

/* saved_ns is beside hits: a hit writes to no other cache line for it. */
static inline void cost_note_hit(struct shard *shard, uint64_t cost_ns)
{
	shard->saved_ns += cost_ns;
}

/* It was no hit, or shall not count as one. */
static inline void cost_take_back(struct shard *shard, uint64_t cost_ns)
{
	DRP_ASSERT(shard->saved_ns >= cost_ns);
	shard->saved_ns -= cost_ns;
}

static inline void cost_note_miss(struct shard *shard, uint64_t hash, int cause)
{
	shard->counts.misses[cause]++;
	if (cause == MISS_DROPPED || cause == MISS_EVICTED)
		*cost_missed(shard, hash) = hash;
}

static inline void cost_note_store(struct shard *shard, uint64_t hash, uint64_t cost_ns)
{
	uint64_t *missed = cost_missed(shard, hash);

	if (cost_ns == 0 || *missed != hash)
		return;
	shard->counts.lost_ns += cost_ns;
	*missed = 0;
}

#endif
