/*
 * cache/many.h - many keys are looked up at once, for callers that want a hundred of them: see cache_get_many().
 *
 *   wanted: key, sink   key, sink   key, sink ...      hash all; for each shard: lock once, look up its keys, unlock
 *
 * Callers: the binding; C programs.
 */
#ifndef DRP_CACHE_MANY_H
#define DRP_CACHE_MANY_H

#include <stddef.h>
#include <stdint.h>

#include "cache/cache.h"

/* WANTED_ALONE: nothing was done or counted, cache_get() is to be called: it lies on pages of its own, or something went. */
enum { MANY_KEYS_MOST = 64, WANTED_ALONE = 1 };

struct cache_wanted {
	const void *key;
	size_t key_bytes;
	struct cache_sink *sink; /* one for each key: what cache_get() says of it */
	int status;              /* out: DRP_OK, DRP_MISS, DRP_CLOSED, DRP_REFUSED as cache_get(), or WANTED_ALONE */
	uint64_t place;          /* out: with DRP_OK, what cache_get() tells in struct cache_about */
	uint64_t hash, *slot;    /* private */
	struct segment *segment; /* private */
};

/*
 * Looks up to MANY_KEYS_MOST keys up, each as cache_get() does, but a shard is locked once for all of its keys. What lies in the
 * log of entries is copied under the lock, so that it is held for some microseconds more; it is given up in between where values
 * are long.
 */
void cache_get_many(struct cache *cache, struct cache_wanted *wanted, size_t count);

#endif
