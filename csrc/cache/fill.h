/*
 * cache/fill.h - stores whose value the caller writes where it is to lie: as it comes in from a socket, say.
 *
 *   cache_set_begin() --> fill.value: pages of the cache    the caller writes all of it     cache_set_commit() or cache_set_abort()
 *                         that nothing leads to yet         recv(), read(), ...              witnesses, mark, append, index
 *
 * That saves a copy and a buffer. Where the value cannot lie on pages that the caller writes, it is written to ordinary memory, and
 * the commit copies it: short values, which lie in a log of entries; and PRIM_DROPPABLE, whose pages may go while they are written.
 * Until the commit the memory cannot be dropped, and is reckoned with as such (policy/headroom.c): whoever waits for a slow writer
 * bounds how many fills are open.
 *
 * Threads: a fill is used by one at a time. It holds the cache's memory, also after cache_close().
 * Fork: in the child a fill that was open ends with an abort, and a commit says DRP_STALE. In the parent it goes on.
 *
 * Callers: the server; C programs.
 */
#ifndef DRP_CACHE_FILL_H
#define DRP_CACHE_FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/update.h"
#include "log/entry.h"

struct segment;

struct cache_fill {
	void *value;        /* value_bytes are to be written here */
	size_t value_bytes;
	bool in_place;      /* the value's own pages; else ordinary memory */
	/* private */
	struct cache *cache; /* NULL: not open */
	uint64_t hash, fork_count;
	struct segment *segment;
	struct entry_extent extent;
	size_t promised_bytes;
	bool is_resident, own_pages;
};

/*
 * Begins to store value_bytes. Of item, what is said of the value counts (own_pages, cost_ns, meta_bytes), its parts do not.
 * DRP_REFUSED: counted, and the key stays as it was; DRP_TOO_LARGE, DRP_NO_MEMORY, DRP_CLOSED. Then *fill is not open.
 */
int cache_set_begin(struct cache *cache, const void *key, size_t key_bytes, const struct cache_item *item, size_t value_bytes,
		    struct cache_fill *fill);

/*
 * Stores what was written, as cache_update() does, under the key that the fill was begun for; item's parts and own_pages do not
 * count. Ends the fill, however it goes. DRP_STALE: also in a forked child; DRP_INVALID: it is not open. A cache_clear() meanwhile
 * forgets it, as if it had been stored before.
 */
int cache_set_commit(struct cache_fill *fill, const void *key, size_t key_bytes, const struct cache_item *item,
		     struct cache_update *update);

/* Gives the memory back. Of a fill that is not open, nothing is done. */
void cache_set_abort(struct cache_fill *fill);

#endif
