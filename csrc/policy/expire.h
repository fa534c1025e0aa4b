/*
 * policy/expire.h - what expired leaves, asked for or not.
 *
 * Callers: the files of the cache. policy/expire.c has the picture.
 */
#ifndef DRP_CACHE_EXPIRE_H
#define DRP_CACHE_EXPIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/internal.h"

/* Under the lock. The cleaner came by an entry that lives. */
void expiry_note_live(struct shard *shard, uint64_t expires_ns);
/* Under the lock. Some of what expired leaves. False: there is nothing to be done now. */
bool expiry_step(struct cache *cache, struct shard *shard, uint64_t now_ns);

/* Without a lock. Some of what expired leaves all shards, for at most about that long; they are left alone that are busy. */
enum { EXPIRY_CALL_NS = 200000, EXPIRY_COUNT_NS = 20000000 };
void expiry_look(struct cache *cache, uint64_t budget_ns);

/* Without a lock: calls that come along let some of what expired leave. One load where nothing ever does. */
static inline void expiry_pass(struct cache *cache, uint64_t budget_ns)
{
	if (atomic_load_explicit(&cache->expiry_look_ns, memory_order_relaxed) != UINT64_MAX)
		expiry_look(cache, budget_ns);
}

#endif
