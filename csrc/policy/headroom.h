/*
 * policy/headroom.h - may a call allocate, and how much? policy/headroom.c has the reckoning.
 *
 * Callers: the files of the cache.
 */
#ifndef DRP_POLICY_HEADROOM_H
#define DRP_POLICY_HEADROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	LARGE_BYTES = 64 * 1024, /* of a value of pages: looked at before memory is taken for it, and room is asked for */
	WATCH_CALLS = 64, /* of a shard, between two looks at the room; values on pages of their own take longer: each looks */
};

struct cache;
struct prim_headroom;
struct shard;

/*
 * May that many bytes be allocated, or kept from reclaim? The first reads the limits anew where it must, and takes locks of
 * shards; promised: of those bytes, to this caller. The second goes by what was last read, the third by that too, and says no
 * where it is out of date.
 */
bool cache_has_headroom(struct cache *cache, struct shard *shard, size_t bytes, size_t promised_bytes);
bool cache_headroom_is_known(struct cache *cache, struct shard *shard, size_t bytes);
bool cache_headroom_is_fresh(struct cache *cache, struct shard *shard, size_t bytes);
/* Around an allocation that takes long, from before room is asked for: others do not count on the same room. */
void cache_promise_headroom(size_t bytes);
void cache_promise_kept(struct cache *cache, size_t bytes, bool used);
/* The same for a value that was stored and marked. */
void cache_promise_stored(struct cache *cache, size_t bytes);
/* After a fork, in the child: the threads that were promised something are not there. */
void cache_headroom_in_child(void);

/* The limit that a reading tells; if not all of it could be read, the last known one, or the least that is plausible. */
uint64_t cache_limit_bytes(const struct prim_headroom *headroom);

/* For calls that do not insert: keeps deferred unpins (policy/unpin.h) in bounds. */
void cache_watch_headroom(struct cache *cache);

#endif
