/*
 * cache/set.h - one store on its way: what its entry will be, the pages of its value, and the last step that makes it visible.
 *
 *   store_measure()   store_take_extent()   the value is written, marked   store_enter(): condition, append, index
 *   no lock           lock                  no lock                        lock
 *
 * Callers: cache/set.c, cache/fill.c, cache/touch.c.
 */
#ifndef DRP_CACHE_SET_H
#define DRP_CACHE_SET_H

#include "cache/update.h"
#include "store/index_home.h"
#include "store/internal.h"

struct store {
	struct cache *cache;
	struct shard *shard;
	uint64_t hash;
	const void *key;
	size_t key_bytes;
	const struct cache_item *item;
	size_t value_bytes;
	struct entry entry;
	size_t stored_bytes; /* of the entry, at most */
	size_t extent_bytes; /* of the value's pages; 0: it lies in the log */
	size_t witness_bytes;
	struct segment *segment; /* of the value's pages; NULL: none were taken */
	struct entry_extent extent;
	bool is_resident; /* those pages were written before: to be touched after the mark */
	const struct drp_part *parts; /* of the entry: key, meta, and either the value or extent and witnesses */
	size_t part_count;
	struct index_home home; /* what the index said when the lock was taken */
};

/* Under the lock. What an append left to be done: signs of drops, marks, max_bytes, segments that were emptied. */
void shard_settle_append(struct cache *cache, struct shard *shard, uint64_t newest_place);

/* Fills in what follows from item and the length of its value. DRP_TOO_LARGE. */
int store_measure(struct store *store, struct cache *cache, const void *key, size_t key_bytes, const struct cache_item *item,
		  size_t value_bytes, bool keep_expiry);
/* Takes the lock. Pages for the value: nothing names them, and their segment has a user more. */
int store_take_extent(struct store *store);
static inline unsigned char *store_extent_address(const struct store *store)
{
	return store->segment->base + (size_t)store->extent.page * prim_page_size();
}
/* Without the lock: not all of the pages was written and marked, so they are given back. */
void store_give_up_pages(struct store *store);
/*
 * Takes the lock, appends the entry and makes the index lead to it; if status, how it went until here, is not DRP_OK or a
 * condition does not hold, the pages are given back instead.
 */
int store_enter(struct store *store, struct cache_update *update, int status);

#endif
