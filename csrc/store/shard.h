/*
 * store/shard.h - one shard: entries are found, appended and forgotten. All of it under the shard's lock.
 *
 * Callers: the files of the cache. store/shard.c says how it counts.
 */
#ifndef DRP_CACHE_SHARD_H
#define DRP_CACHE_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log/arena.h"
#include "store/found.h"

struct cache;
struct shard;

int shard_init(struct cache *cache, struct shard *shard);
void shard_destroy(struct shard *shard);
void shard_unlock(struct shard *shard); /* and what is better done without the lock: unmaps, marks, gives pins back */
enum index_fate shard_is_stale(void *shard, uint64_t place, bool scrub); /* for struct index */
/* shard_unlock() at the end of a caller's own call, which holds no other lock: if much is unmapped, as config.waits has it. */
void shard_unlock_last(struct cache *cache, struct shard *shard);

/* Why an entry leaves; the count that it goes to. */
#define PLACE_EVICTED UINT64_C(1) /* in segment 0, which is none */
enum leave { LEAVE_DELETED, LEAVE_REPLACED, LEAVE_EXPIRED, LEAVE_EVICTED, LEAVE_DROPPED };
/* What becomes of the pages that it had of its own, in a segment of many values. */
enum pages_fate {
	PAGES_REUSED,   /* another value is written there (store/reuse.h); until then they stay, or are given back */
	PAGES_RETIRED,  /* given back: address space is short, and their segment is being emptied for it */
	PAGES_LEFT,     /* they stay as they are: their segment is being examined, and goes whole or is written again */
};
/*
 * Forgets the entry that cursor stands on and gives its extent back. found may be NULL when its head is gone. The slot of
 * an evicted entry stays for a while, with a place that leads nowhere: a later miss can tell what it was.
 */
void shard_forget(struct cache *cache, struct shard *shard, struct index_cursor *cursor, struct found *found,
		  enum leave why, enum pages_fate fate);
/* The same for an entry whose extent, if it had one, is given back already. */
void shard_leave(struct cache *cache, struct shard *shard, struct index_cursor *cursor, size_t stored_bytes,
		 enum leave why);
/* An entry makes room in the index for another: forgotten, and counted as evicted. */
void shard_evict_place(struct cache *cache, struct shard *shard, uint64_t place);
/* The entry that cursor stands on is at another place now. False: its page of the index went, and the entry with it. */
bool shard_replace(struct cache *cache, struct shard *shard, struct index_cursor *cursor, size_t stored_bytes,
		   uint64_t place);
/* What lies at a place leaves its segment; nothing names it any more, and it is counted elsewhere. */
void shard_leave_place(struct cache *cache, struct shard *shard, uint64_t place, size_t stored_bytes);
/* An extent is no value's any more. LEAVE_DROPPED: some of its pages are gone, or may be. */
void shard_free_extent(struct cache *cache, struct shard *shard, const struct entry_extent *extent, enum leave why,
		       enum pages_fate fate);
void shard_set_live(struct shard *shard, struct segment *segment, size_t bytes, size_t count);
/* Takes a segment out of use. Entries that are counted in it still were dropped. */
void shard_retire(struct cache *cache, struct shard *shard, struct segment *segment);
/* The same for one whose entries have all expired; only where shard_knows_whose(). */
void shard_retire_expired(struct cache *cache, struct shard *shard, struct segment *segment);
/* Did all entries that left the segment leave one by one? Else its count is what they are at most. */
bool shard_knows_whose(struct shard *shard, const struct segment *segment);
/* Retires sealed segments whose last entry was counted off where none could be retired. Nobody may stand in one. */
void shard_retire_emptied(struct cache *cache, struct shard *shard);
/* Scrubs the next page of the index. After the last one the counts of segments are put right. */
void shard_scrub(struct shard *shard);
/* While few of the slots of the index are taken: a step in making it smaller. It ends all searches. */
void shard_shrink_index(struct shard *shard);
/* Forgets everything. The memory, but for what is held, goes when the lock is given back: with the second of them. */
void shard_empty(struct cache *cache, struct shard *shard);
void shard_unlock_emptied(struct shard *shard);

/*
 * Appends an entry to the log and returns its place. DRP_NO_MEMORY: no address space. DRP_REFUSED: it was dropped while
 * it was written, several times in a row.
 */
int shard_append(struct cache *cache, struct shard *shard, enum arena_part part, const struct entry *entry,
		 const struct drp_part *parts, size_t part_count, uint64_t *place);
/* Pages for a value; the segment has one user more. *resident: they were written before; to be touched after the mark. */
int shard_take_extent(struct cache *cache, struct shard *shard, enum arena_part part, uint64_t hash, size_t bytes,
		      struct segment **segment, struct entry_extent *extent, bool *resident);
/* Marks the logs of which a whole batch was appended: to be called if shard->marks_due. all: also what is less. */
void shard_mark(struct shard *shard, bool all);

#endif
