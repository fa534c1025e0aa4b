/*
 * cache/fresh.h - what each call that asks for a key begins with: is it there, and has it not expired? Under the shard's lock.
 *
 *   shard_find() --found--> expired? --no--> fresh --all of its pages there?--> whole
 *                              '--yes: it leaves       '--no: it leaves, as dropped
 *
 * Callers: cache.c, cache/many.c, cache/set.c, cache/touch.c.
 */
#ifndef DRP_CACHE_FRESH_H
#define DRP_CACHE_FRESH_H

#include "store/clock.h"
#include "store/internal.h"
#include "cache/cache.h"

static inline bool entry_is_expired(struct cache *cache, const struct entry *entry)
{
	return (entry->flags & ENTRY_TTL) && entry->expires_ns <= cache_now_ns(cache);
}

/* What was found leaves if it has expired: MISS_EXPIRED. Else the cause as it was. */
static inline int expire_found(struct cache *cache, struct shard *shard, int cause, struct found *found)
{
	if (cause >= 0 || !entry_is_expired(cache, &found->entry))
		return cause;
	entry_copy(&found->reader, NULL, found->entry.meta_bytes);
	shard_forget(cache, shard, &found->cursor, found, LEAVE_EXPIRED, PAGES_REUSED);
	return MISS_EXPIRED;
}

/* Found and not expired: -1. Else the cause of the miss, and an expired entry is forgotten. */
static inline int find_fresh(struct cache *cache, struct shard *shard, uint64_t hash, const void *key, size_t key_bytes,
			     struct found *found)
{
	return expire_found(cache, shard, shard_find(cache, shard, hash, key, key_bytes, found), found);
}

/* It was asked for, and is found. */
static inline void note_found(struct cache *cache, struct shard *shard, struct found *found)
{
	if (cache->config.max_bytes || found->segment->part == ARENA_SMALL)
		index_set_hot(&shard->index, &found->cursor);
	segment_note_referenced(found->segment, found->offset, found->offset + found->entry.bytes);
}

enum { COPY_AGAIN = 3 /* the thread changed processor meanwhile */ };

/*
 * Copies a value that lies in the log of entries, under the lock. DRP_MISS: dropped; DRP_REFUSED: from reserve(). COPY_AGAIN: one
 * processor may have seen the page that was dropped, and the other one, through a stale translation, the stamp still.
 */
static inline __attribute__((always_inline)) int copy_inline(struct found *found, struct cache_sink *sink)
{
	void *meta = NULL, *value = NULL;
	const struct entry *entry = &found->entry;
	const size_t page = prim_page_size();
	const unsigned cpu = prim_cpu();

	/* The processor reads ahead within a page only. */
	for (size_t at = (found->offset | (page - 1)) + 1; at < found->offset + entry->bytes; at += page) {
		__builtin_prefetch(found->segment->base + at);
		__builtin_prefetch(found->segment->base + at + 64);
		__builtin_prefetch(found->segment->base + at + 128);
	}
	if (sink->reserve(sink, entry->kind, entry->meta_bytes, entry->inline_bytes, &meta, &value) != 0)
		return DRP_REFUSED;
	entry_copy(&found->reader, meta, entry->meta_bytes);
	entry_copy(&found->reader, value, entry->inline_bytes);
	if (found->reader.lost || !entry_intact(found->segment->base, found->offset,
						arena_stamp(found->segment->number), entry->bytes))
		return DRP_MISS;
	return prim_cpu() == cpu ? DRP_OK : COPY_AGAIN;
}

/* cache.c: the same as find_fresh(), and all of its value is there, too; what is not is forgotten. found's reader stands behind the key. */
bool find_whole(struct cache *cache, struct shard *shard, uint64_t hash, const void *key, size_t key_bytes,
		struct found *found);

#endif
