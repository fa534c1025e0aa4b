/*
 * cache_fresh.h - what each call that asks for a key begins with: is it there, and has it not expired? Under the shard's lock.
 *
 *   shard_find() --found--> expired? --no--> fresh --all of its pages there?--> whole
 *                              '--yes: it leaves       '--no: it leaves, as dropped
 *
 * Callers: cache.c, cache_set.c, cache_touch.c.
 */
#ifndef DRP_CACHE_FRESH_H
#define DRP_CACHE_FRESH_H

#include "cache_internal.h"

static inline bool entry_is_expired(struct cache *cache, const struct entry *entry)
{
	return (entry->flags & ENTRY_TTL) && entry->expires_ns <= cache_now_ns(cache);
}

/* Found and not expired: -1. Else the cause of the miss, and an expired entry is forgotten. */
static inline int find_fresh(struct cache *cache, struct shard *shard, uint64_t hash, const void *key, size_t key_bytes,
			     struct found *found)
{
	int cause = shard_find(cache, shard, hash, key, key_bytes, found);
	if (cause < 0 && entry_is_expired(cache, &found->entry)) {
		entry_copy(&found->reader, NULL, found->entry.meta_bytes);
		shard_forget(cache, shard, &found->cursor, found, LEAVE_EXPIRED);
		return MISS_EXPIRED;
	}
	return cause;
}

/* cache_set.c: the same, and all of its value is there, too; what is not is forgotten. found's reader stands behind the key. */
bool find_whole(struct cache *cache, struct shard *shard, uint64_t hash, const void *key, size_t key_bytes,
		struct found *found);

#endif
