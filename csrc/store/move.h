/*
 * store/move.h - entries found by where they lie, and copied to where they are to lie: what emptying a segment takes.
 *
 *   segment to be emptied  [entry]--its key, hashed--> index --leads here?--> live: copied to a head, or forgotten
 *   directory of extents   [hash, page]-------------> index --entry, its extent is here?--> the same
 *
 * Callers: policy/cleaner.c, policy/census.c, policy/admission.c, policy/compact.c, cache/touch.c. All of it under the shard's lock.
 */
#ifndef DRP_CACHE_MOVE_H
#define DRP_CACHE_MOVE_H

#include "store/internal.h"

/* The entry that begins at start, if the index still leads to it. */
bool shard_find_live(struct cache *cache, struct shard *shard, struct segment *segment, size_t start,
		     struct found *found);
/* The entry whose extent lies at a page of a segment, found by the hash of its key. */
bool shard_find_by_extent(struct shard *shard, uint64_t hash, uint64_t serial, uint32_t page,
			  struct found *found, struct entry_extent *extent);

/*
 * Copies an entry to the head of a log; its extent stays where it is, if none is given. Its cursor
 * tells the new place. False: it stays altogether.
 */
bool shard_move_entry(struct cache *cache, struct shard *shard, enum arena_part to, struct found *found,
		      const struct entry_extent *extent);
/*
 * The same with another head; what is behind the head is copied. What shard_append() said; DRP_MISS: it turns out to be dropped;
 * DRP_STALE: it was moved, but nothing leads to it, for its page of the index is gone.
 */
int shard_move_entry_as(struct cache *cache, struct shard *shard, enum arena_part to, struct found *found,
			const struct entry *as, const struct entry_extent *extent);
/* Copies a value and its entry to the heads of the main log; fate is that of the pages it had. False: it has to go. */
bool shard_move_extent(struct cache *cache, struct shard *shard, struct segment *from, struct found *found,
		       const struct entry_extent *old, uint64_t hash, enum pages_fate fate);
/* Forgets an entry that was found, and gives its extent back. */
void shard_forget_extent(struct cache *cache, struct shard *shard, struct found *found,
			 const struct entry_extent *extent, enum leave why, enum pages_fate fate);
bool range_is_resident(const unsigned char *address, size_t bytes);

#endif
