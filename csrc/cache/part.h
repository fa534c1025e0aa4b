/*
 * cache/part.h - parts of a cache: keys that begin alike, and the cell that says how they begin.
 *
 *   cell of the part:  its own key -> 8 bytes, a scope (scope.h)      an entry like any other: it may be dropped
 *   its entries:       '@' scope key                                  whose scope no cell holds any more: nobody asks for them
 *
 * A part is emptied by deleting its cell: the next caller makes one with a scope that was never used. The same happens by
 * itself where the cell was dropped or evicted. The entries under the old scope leave like others that nobody asks for.
 *
 * Threads: as cache.h. No lock is held across two shards. Callers: the binding; C programs.
 */
#ifndef DRP_CACHE_PART_H
#define DRP_CACHE_PART_H

#include <stddef.h>
#include <stdint.h>

struct cache;

/* LOOK: a cell that is not there is a miss of what is looked up under it. PEEK: nothing is counted. */
enum part_mode { PART_LOOK, PART_PEEK };

/* The scope in a cell. A hit is not counted: that of the entry will be. DRP_MISS, DRP_CLOSED. */
int cache_part_find(struct cache *cache, const void *cell, size_t cell_bytes, enum part_mode mode, uint64_t *scope);

/*
 * The same, and where there is no cell, one with a new scope. Threads that do so at once agree on one. It never expires.
 * DRP_REFUSED, counted: no memory; DRP_TOO_LARGE, DRP_NO_MEMORY, DRP_CLOSED; what scope_new() returns.
 */
int cache_part_make(struct cache *cache, const void *cell, size_t cell_bytes, uint64_t *scope);

/*
 * Deletes the keys that begin with these bytes and were there at the call, and makes the open leases of such keys stale, as well
 * as leases whose key is not known. *count: how many were deleted. DRP_NO_MEMORY: not all; DRP_CLOSED.
 */
int cache_prefix_delete(struct cache *cache, const void *prefix, size_t prefix_bytes, uint64_t *count);

/* Makes the leases stale, and deletes nothing. DRP_CLOSED. */
int cache_prefix_revoke(struct cache *cache, const void *prefix, size_t prefix_bytes);

#endif
