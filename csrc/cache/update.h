/*
 * cache/update.h - changes that depend on what is there: conditional stores and deletes, a new time to live.
 *
 *   cache_get() --about.version--> the caller computes --> cache_update(SET_IF_SAME, version)    nobody changed it meanwhile
 *   cache_lease_begin() ---------> the caller computes --> cache_update(lease, is_strict)        the same, for a key that may be absent
 *
 * A version is given to each entry that is stored with item.versioned: 8 bytes of it, from a counter of the cache that never
 * gives a number again. It stays with the entry wherever it is moved to, and with a new time to live. Other entries have none.
 *
 * Threads, forks: as all of cache.h.
 * Callers: the binding, the server; C programs.
 */
#ifndef DRP_CACHE_UPDATE_H
#define DRP_CACHE_UPDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/cache.h"

struct cache_lease;

struct cache_update {
	enum cache_set_mode mode;
	uint64_t place, version;   /* SET_IF_SAME: what cache_get() told of the entry that has to be there; 0: any */
	struct cache_lease *lease; /* or NULL: only while it holds */
	bool is_strict;            /* the lease holds only if nothing was stored under another lease either; and makes others stale */
	bool keep_expiry;          /* it expires when the present entry would; as item.ttl_ns says where there is none */
	uint64_t new_version;      /* out: of what was stored; 0: it has none */
	uint64_t new_place;        /* out, if is_strict: of what was stored, as cache_get() tells it */
};

/*
 * Stores a value, if the conditions hold. Nothing changed: DRP_MISS (SET_IF_PRESENT, SET_IF_SAME), DRP_EXISTS (SET_IF_ABSENT; SET_IF_SAME:
 * it is another one), DRP_STALE (the lease), DRP_TOO_LARGE, DRP_NO_MEMORY, DRP_CLOSED. DRP_REFUSED: as cache_set(), but the
 * key stays as it was where mode is SET_IF_ABSENT or SET_IF_SAME or the lease is strict.
 */
int cache_update(struct cache *cache, const void *key, size_t key_bytes, const struct cache_item *item,
		 struct cache_update *update);

/* Deletes the entry of that version. DRP_MISS: there is none; DRP_EXISTS: it is another one; DRP_CLOSED. */
int cache_delete_version(struct cache *cache, const void *key, size_t key_bytes, uint64_t version);

/* What is known of an entry, without its value. DRP_MISS, DRP_CLOSED. Counts nothing. */
int cache_look_at(struct cache *cache, const void *key, size_t key_bytes, struct cache_about *about);

/* How long it is until an entry expires; 0: it never does. Of what has expired meanwhile: 1. */
uint64_t cache_remaining_ns(struct cache *cache, const struct cache_about *about);

/*
 * The entry expires in ttl_ns from now (0: never), whenever it would have before. It is no store: leases hold, the version stays,
 * nothing but `refused` is counted. DRP_MISS; DRP_REFUSED, DRP_NO_MEMORY: there is no memory to write it to, and it stays as it was; DRP_CLOSED.
 */
int cache_touch(struct cache *cache, const void *key, size_t key_bytes, uint64_t ttl_ns);

#endif
